"""The house rules that a script can check."""

import ast
import importlib
import importlib.util
import pkgutil

import pytest

import configs
import data_pipelines
import scoliojax
from tests.conftest import ROOT

MODULES = sorted(
    info.name
    for package in (scoliojax, data_pipelines, configs)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)

# Room -> what its modules may never import, by prefix. The longest matching room counts.
FORBIDDEN = {
    "data_pipelines": ["jax", "flax", "optax", "orbax", "scoliojax", "ml_collections", "configs"],
    "configs": ["jax", "flax", "scoliojax", "data_pipelines", "absl", "numpy"],
    "scoliojax.models": ["ml_collections", "data_pipelines", "scoliojax.build", "absl", "pathlib", "orbax", "grain"],
    "scoliojax.training.losses": ["ml_collections", "data_pipelines", "scoliojax.build", "pathlib", "orbax", "grain", "absl"],
    "scoliojax.kernels.triplet": ["ml_collections", "data_pipelines", "scoliojax.build", "pathlib", "orbax", "grain", "absl"],
    "scoliojax.training.optim": ["ml_collections", "data_pipelines", "scoliojax", "pathlib", "orbax", "grain", "absl"],
    "scoliojax.scores.metrics": ["jax", "flax", "optax", "scoliojax", "data_pipelines", "ml_collections"],
    "scoliojax.scores.bootstrap": ["jax", "flax", "optax", "data_pipelines", "ml_collections", "scoliojax.scores.results"],
    "scoliojax.scores.figures": ["jax", "flax", "optax", "data_pipelines", "scoliojax.runs.job", "scoliojax.scores.results"],
    "scoliojax.scores.results": ["jax", "flax", "optax", "data_pipelines", "ml_collections", "scoliojax.runs.job"],
    "scoliojax.report": ["ml_collections", "grain", "orbax", "scoliojax.main"],
    "scoliojax.screen": [
        "ml_collections", "grain", "orbax", "optax", "scoliojax.runs.job", "scoliojax.training.step", "scoliojax.main",
    ],
    "scoliojax.app": [
        "ml_collections", "grain", "orbax", "optax", "scoliojax.runs.job", "scoliojax.training.step", "scoliojax.main",
    ],
    "scoliojax.export": [
        "ml_collections", "grain", "orbax", "optax", "scoliojax.runs.job", "scoliojax.training.step", "scoliojax.training.loop",
    ],
    "scoliojax.training.step": [
        "ml_collections", "absl", "logging", "time", "pathlib", "orbax", "grain", "data_pipelines",
        "scoliojax.build", "scoliojax.models", "scoliojax.training.losses", "scoliojax.training.log", "scoliojax.training.loop",
    ],
    "scoliojax.training.evaluate": [
        "scoliojax.training.loop", "scoliojax.training.step", "scoliojax.training.optim", "optax",
    ],
    "scoliojax.devices.cluster": ["scoliojax.build", "data_pipelines", "ml_collections", "grain", "flax", "optax"],
    "scoliojax.training.loop": ["scoliojax.build", "data_pipelines", "ml_collections", "grain"],
    "scoliojax": [],
}  # fmt: skip
NEEDS_TORCH = ("scoliojax.interop", "scoliojax.benchmark.original")
OPEN_PICKLES = {  # the last two those that they wrote themselves
    "data_pipelines.scoliosis1k.safe_pickle", "data_pipelines.synthetic", "scoliojax.benchmark.loading",
}  # fmt: skip
ONLY_THESE_SEE_A_CONFIG = {"scoliojax.build", "scoliojax.runs.job", "scoliojax.runs.network", "scoliojax.main"}


def imports(module: str) -> set[str]:
    """Every module that the source of `module` names in an import, wherever it stands."""
    path = ROOT / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = ROOT / module.replace(".", "/") / "__init__.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_and_keeps_to_its_doors(module):
    if not any(within(module, room) for room in NEEDS_TORCH) or importlib.util.find_spec("torch"):
        importlib.import_module(module)
    room = max((room for room in FORBIDDEN if within(module, room)), key=len)
    used = imports(module)
    for banned in FORBIDDEN[room]:
        offenders = {name for name in used if within(name, banned)}
        offenders -= {name for name in offenders if within(name, "scoliojax.errors")}
        assert not offenders, f"{module} may not import {sorted(offenders)}"
    if module not in ONLY_THESE_SEE_A_CONFIG and not within(module, "configs"):
        assert not any(within(name, "ml_collections") for name in used), module
    if not any(within(module, room) for room in NEEDS_TORCH):
        assert not any(within(name, heavy) for name in used for heavy in ("torch", "tensorflow")), module
        assert not any(within(name, "scoliojax.interop") for name in used), f"{module}: interop is imported by nobody"
    if module not in OPEN_PICKLES:
        assert "pickle" not in used, f"{module}: safe_pickle is the only code that opens a pickle"


def test_models_never_look_at_config_data_or_files_through_each_other():
    for module in MODULES:
        if within(module, "scoliojax.models"):
            ours = {name for name in imports(module) if within(name, "scoliojax")}
            assert all(within(name, "scoliojax.models") or within(name, "scoliojax.kernels") for name in ours), module


def test_the_synthetic_walkers_write_pickles_and_open_none():
    source = (ROOT / "data_pipelines" / "synthetic.py").read_text(encoding="utf-8")
    assert "pickle.load" not in source
    assert "Unpickler" not in source


NO_TEXT = ("av", "Image", "os", "tarfile", "zipfile")  # whose `open` is another


def unencoded(source: str) -> list[int]:
    """Lines that read or write text in whatever encoding the locale has. Of these ruff sees only those on a plain `Path`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        words = {word.arg: word.value for word in node.keywords}
        mode = [*node.args[isinstance(node.func, ast.Name) :][:1], *filter(None, [words.get("mode")])]
        binary = any(isinstance(one, ast.Constant) and "b" in str(one.value) for one in mode)
        foreign = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", None) in NO_TEXT
        opened = name == "open" and not binary and not foreign
        if opened or name in ("read_text", "write_text") or {"text", "universal_newlines"} & set(words):
            found.append(node.lineno)
    return found


def test_no_file_is_read_or_written_as_the_locale_has_it():
    bad = ["p.read_text()", "p.open('a')", "open('name b')", "p.open(newline='')", "subprocess.run(c, text=True)"]
    good = ["p.read_text(encoding='utf-8')", "p.open('rb')", "open('name', 'wb')", "av.open('name')", "p.open(mode='rb')"]
    assert [unencoded(line) for line in bad + good] == [[1]] * len(bad) + [[]] * len(good)
    for folder in ("scoliojax", "data_pipelines", "configs", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            assert not unencoded(path.read_text(encoding="utf-8")), path


def test_every_file_is_small_enough_to_hold_in_the_head():
    for module in MODULES:
        path = ROOT / (module.replace(".", "/") + ".py")
        if path.exists():
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, f"{path}: is it two rooms?"
