"""The rules of docs/architecture.md that a script can check."""

import ast
import functools
import importlib
import importlib.util
import pkgutil
import re
import sys

import pytest

import configs
import data_pipelines
import scoliojax
from tests.conftest import ROOT

OURS = ("scoliojax", "data_pipelines", "configs")
MODULES = sorted(
    info.name
    for package in (scoliojax, data_pipelines, configs)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)
STANDARD = {"__future__", *sys.stdlib_module_names}
NEEDS_TORCH = ("scoliojax.interop", "scoliojax.benchmark.original")
OPEN_PICKLES = {  # the last two those that they wrote themselves
    "data_pipelines.scoliosis1k.safe_pickle", "data_pipelines.synthetic", "scoliojax.benchmark.loading",
}  # fmt: skip


def within(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def source(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


def named(text: str) -> set[str]:
    """Every module that a source names in an import, wherever it stands, except for a type checker alone."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("__import__", "importlib.import_module", "import_module"), ast.unparse(node)
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.update({str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(text))
    return found


@functools.cache
def imports(module: str) -> frozenset[str]:
    """What `module` imports itself: modules of ours, and the packages of others."""
    found = {name if within(name, *OURS) else name.partition(".")[0] for name in named(source(module))}
    return frozenset(name for name in found if name in MODULES or not within(name, *OURS))


def closure(module: str, known=imports) -> dict[str, tuple[str, ...]]:
    """Everything that an import of `module` brings in, directly or through others of ours, each with the way to it."""
    ways: dict[str, tuple[str, ...]] = {}
    ends = [(module,)]
    while ends:
        way = ends.pop(0)
        for name in sorted(known(way[-1])):
            if name not in ways:
                ways[name] = (*way, name)
                if name in MODULES:
                    ends.append((*way, name))
    return ways


def table() -> dict[str, tuple[list[str], list[str]]]:
    """The table of docs/architecture.md: by room, what of ours it may reach, and which libraries."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \| ([^|]*) \| ([^|]*) \|$", text, re.M)
    return {room: (re.findall(r"`([^`]+)`", ours), re.findall(r"`([^`]+)`", libraries)) for room, ours, libraries in rows}


TABLE = table()


def open_doors(module: str, known=imports) -> dict[str, tuple[str, ...]]:
    """Everything that an import of `module` brings in and that its room may not reach, each with the way to it."""
    room = max((room for room in TABLE if within(module, room)), key=len)
    ours, libraries = TABLE[room]
    return {
        name: way
        for name, way in closure(module, known).items()
        if not (within(name, room, *ours) if name in MODULES else name in STANDARD or name in libraries)
    }


def test_the_table_has_a_row_for_every_module_and_names_what_exists():
    assert [module for module in MODULES if not any(within(module, room) for room in TABLE)] == []
    assert len(TABLE) >= 20
    for room, (ours, _) in TABLE.items():
        assert {room, *ours} <= set(MODULES) | set(OURS), room


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_and_keeps_to_its_doors(module):
    if not within(module, *NEEDS_TORCH) or importlib.util.find_spec("torch"):
        importlib.import_module(module)
    doors = open_doors(module)
    assert not doors, f"{module} may not reach " + "; ".join(f"{name}: {' -> '.join(way)}" for name, way in doors.items())
    if module not in OPEN_PICKLES:
        assert "pickle" not in imports(module), f"{module}: safe_pickle is the only code that opens a pickle"


@pytest.mark.parametrize(
    ("door", "opened", "noticed"),
    [
        ("scoliojax.errors", "jax", "scoliojax.scores.metrics"),  # through a leaf that everybody imports
        ("data_pipelines.schema", "jax", "data_pipelines.splits"),
        ("scoliojax.training.state", "scoliojax.runs.run", "scoliojax.training.step"),
        ("scoliojax.kernels.numerics", "ml_collections", "scoliojax.models.sconet"),
        ("scoliojax.html", "scoliojax.interop.torch_reference", "scoliojax.screen.page"),
        ("scoliojax.scores.strips", "scoliojax.report.page", "scoliojax.screen.result"),
    ],
)
def test_a_door_that_is_opened_is_noticed_also_by_those_behind_it(door, opened, noticed):
    def known(module: str) -> frozenset[str]:
        return imports(module) | ({opened} if module == door else set())

    assert not open_doors(noticed)
    assert door in open_doors(noticed, known)[opened]


def test_no_import_runs_in_a_circle():
    """Of the imports at the top of modules: one inside a function runs later."""

    def at_the_top(module: str) -> set[str]:
        lines = [node for node in ast.parse(source(module)).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        return named("\n".join(map(ast.unparse, lines))) & set(MODULES) - {module}

    finished: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way, module))}"
        if module not in finished:
            for name in sorted(at_the_top(module)):
                visit(name, (*way, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_package_is_small_enough_to_be_seen_at_once():
    entries = {path.name for path in (ROOT / "scoliojax").iterdir()} - {"__pycache__"}
    assert len(entries) <= 22, sorted(entries)
    assert len(source("scoliojax.main").splitlines()) <= 80


def test_the_synthetic_walkers_write_pickles_and_open_none():
    assert "pickle.load" not in source("data_pipelines.synthetic")
    assert "Unpickler" not in source("data_pipelines.synthetic")


NO_TEXT = ("archive", "av", "Image", "os", "tarfile", "zipfile")  # whose `open` is another


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


@pytest.mark.parametrize("module", [module for module in MODULES if "report_errors(" in source(module)])
def test_a_command_leaves_report_errors_before_it_ends_with_a_status(module):
    """Within it an exit would skip the flush that notices a closed pipe."""
    for block in ast.walk(ast.parse(source(module))):
        if isinstance(block, ast.With) and "report_errors(" in "".join(ast.unparse(item) for item in block.items):
            calls = [ast.unparse(node.func) for part in block.body for node in ast.walk(part) if isinstance(node, ast.Call)]
            assert not {"sys.exit", "exit", "parser.exit"} & {*calls}, module
