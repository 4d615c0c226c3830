"""What pyproject.toml promises about versions, and what was tested, are the same."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = ROOT / "tests/constraints/oldest-3.11.txt"
OURS = {"scoliojax", "data_pipelines", "configs"}
# Nothing here calls these: tools of who works on the project, and what another library forgot to declare.
NOT_CALLED = {"importlib-resources", "pyright", "ruff"}


def declared() -> list[Requirement]:
    """Every library that is asked for with a range; `scoliojax[app]` and `jax[cuda13]` only repeat what is."""
    texts = [*PROJECT["dependencies"], *(text for texts in PROJECT["optional-dependencies"].values() for text in texts)]
    return [one for one in map(Requirement, texts) if one.name != "scoliojax" and not (one.name == "jax" and one.extras)]


def ends(requirement: Requirement) -> tuple[list[str], list[str]]:
    lower = [one.version for one in requirement.specifier if one.operator == ">="]
    return lower, [one.version for one in requirement.specifier if one.operator == "<"]


def pins() -> dict[str, Version]:
    lines = [line for line in OLDEST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found = {canonicalize_name(name): Version(pin) for name, pin in (line.split("==") for line in lines)}
    assert len(found) == len(lines) > 100
    return found


def test_the_lower_ends_are_the_versions_that_were_tested():
    oldest = pins()
    for requirement in declared():
        lower, _ = ends(requirement)
        assert [Version(one) for one in lower] == [oldest.get(canonicalize_name(requirement.name))], (
            f"{requirement}: {OLDEST.name} has another; make it again as its top says, and test with it"
        )


def test_what_is_called_has_an_upper_end_that_no_tested_version_reaches():
    for requirement in declared():
        lower, upper = ends(requirement)
        if canonicalize_name(requirement.name) in NOT_CALLED:
            continue
        assert len(upper) == 1, f"{requirement}: give it an upper end, the first version that was not tried"
        assert Version(lower[0]) < Version(upper[0]), requirement


def test_every_library_that_is_imported_is_declared():
    imported = set()
    for file in (path for package in OURS for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    known = {canonicalize_name(one.name) for one in declared()} - NOT_CALLED
    installed = packages_distributions()
    strangers = {
        name
        for name in imported - OURS - sys.stdlib_module_names
        if not known & {canonicalize_name(one) for one in installed.get(name, [name])}
    }
    assert len(imported) > 20
    assert not strangers, f"add {sorted(strangers)} to pyproject.toml"


def test_the_pythons_that_are_listed_are_those_that_are_admitted():
    listed = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one]
    admitted = SpecifierSet(PROJECT["requires-python"])
    assert listed == [f"3.{minor}" for minor in range(30) if admitted.contains(f"3.{minor}.99")]
    assert listed[0] == OLDEST.stem.rpartition("-")[2]
    here = "{}.{}".format(*sys.version_info)
    assert here in listed, f"Python {here} was not tried; the versions that were: {listed}"
