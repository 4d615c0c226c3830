"""Every module of README's and docs' commands, run: none imports TensorFlow, and PyTorch only those that deal with it."""

import argparse
import errno
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipelines.command import expanded_path, expanded_root
from data_pipelines.command import report_errors as data_errors
from data_pipelines.sources import open_prepared
from scoliojax import build
from scoliojax.__main__ import COMMANDS
from scoliojax.runs import directory as run_directory
from scoliojax.runs.command import report_errors
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.state import create_state
from tests.conftest import ROOT, assert_one_clear_error, command_module, quick_flags, run_here, run_module, write_tree

# Each process leaves a list of what it imported: the one that runs the commands, and those that a command starts.
LISTING = """
import atexit, json, os, sys

def leave():
    with open(os.path.join(os.environ["SCOLIOJAX_LISTINGS"], f"{os.getpid()}.json"), "w", encoding="utf-8") as file:
        json.dump(sorted(sys.modules), file)

atexit.register(leave)
"""
# One process runs commands one after the other, each as `python -m` does, with Python's own way of doing that.
RUNNER = """
import json, runpy, sys

for module, *arguments in json.load(sys.stdin):
    sys.argv = [module, *arguments]
    status = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code or 0
    print(f"== {module} {' '.join(arguments)}: {status}", flush=True)
"""
RECIPE = "--config=configs/sconet_mt.py:quickstart"
SMALL = (
    "--config.data.partition=1:1:1",
    "--config.data.subjects_per_batch=2",
    "--config.data.frames_per_clip=3",
    "--config.data.sequences_per_eval_batch=3",
    "--config.data.validation_fraction=0.0",
    "--config.model.channels=(2,3,4,5)",
    "--config.model.embedding_dim=4",
    "--config.train.steps=1",
    "--config.train.log_every=1",
    "--config.train.eval_every=0",
)
PREPARED = ("--config.data.name=scoliosis1k", "--config.data.root={folder}/prepared")
# In this order: most need what one before them made. Without PyTorch:
OURS = [
    ("data_pipelines.synthetic", "--output={folder}/tree", "--subjects=18", "--frames=4"),
    ("data_pipelines.prepare", "--input={folder}/tree", "--output={folder}/prepared", "--subjects={folder}/subjects.csv"),
    ("scoliojax.main", RECIPE, *SMALL, *PREPARED, "--workdir={run}"),
    ("scoliojax.main", "--mode=eval", "--workdir={run}"),
    ("scoliojax.report", "--workdir={run}"),
    ("scoliojax.export", "--workdir={run}"),
    ("scoliojax.study", RECIPE, *SMALL[1:], *PREPARED, "--ratios=1:1:1", "--models=sconet_mt", "--seeds=1",
     "--workdir={folder}/study"),  # which finds its only cell finished
    ("scoliojax.benchmark.collectives", RECIPE, *SMALL),
    ("data_pipelines.synthetic", "--output={folder}/walks", "--poses={folder}/poses", "--subjects=3", "--frames=30"),
    ("scoliojax.posture", "{folder}/poses/00000/Negative/000_180/000_180.pkl", "--output={folder}/posture"),
]  # fmt: skip
SCREENING = [
    ("data_pipelines.video.synthetic_clip", "--output={folder}/walk.mp4", "--frames=40"),
    ("scoliojax.screen", "{folder}/walk.mp4", "--checkpoint={run}", "--output={folder}/out", "--backend=background"),
]
# With it, as they compare with it or read its files; TensorFlow neither.
THEIRS = [
    ("scoliojax.interop.opengait", "export", "--workdir={run}", "--output={folder}/back.pt"),
    ("scoliojax.interop.opengait", "verify", "{folder}/back.pt"),
    ("scoliojax.interop.opengait", "import", "{folder}/back.pt", "--workdir={folder}/imported"),
    ("scoliojax.benchmark", "--only=scores", "--rounds=1"),
]
# And these in ways of their own:
PARITY = ("scoliojax.interop.parity", "bfloat16", "--workdir={run}", "--sequences=3")
FETCH = ("data_pipelines.video.fetch", "--archive={folder}/other.tgz", "--output={folder}/models")
APP = ("scoliojax.app", "--checkpoint={run}")
PROGRAM = ("scoliojax.benchmark.program", "--target=v5e:2x2", RECIPE, *SMALL)


class Listed:
    """Starts commands, and knows what their processes imported.

    Args:
      folder: for what they write.
    """

    def __init__(self, folder: Path):
        self.folder, self.run = folder, folder / "study" / "1-1-1" / "sconet_mt" / "seed-0"  # where a study has it, too
        self._listings, hook = folder / "listings", folder / "hook"
        self._listings.mkdir()
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(LISTING, encoding="utf-8")
        for name in ("tensorflow", "torch"):
            if importlib.util.find_spec(name) is None:  # an empty one instead, so that an import is seen wherever the tests run
                (hook / name).mkdir()
                (hook / name / "__init__.py").write_text("", encoding="utf-8")
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(hook), os.environ["PYTHONPATH"]]),
            "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",  # the poorest locale, in which text is ASCII
            "SCOLIOJAX_LISTINGS": str(self._listings),
            "XLA_FLAGS": quick_flags(),
        }  # fmt: skip

    def _words(self, command: tuple[str, ...]) -> list[str]:
        return [word.format(folder=self.folder, run=self.run) for word in command]

    def start(self, *command: str) -> subprocess.Popen:
        """One command in a process of its own, as a user would start it."""
        return self._open([sys.executable, "-m", *self._words(command)])

    def _open(self, words: list[str], **streams) -> subprocess.Popen:
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            **streams,
        )

    def run_all(self, commands: list[tuple[str, ...]], *other: int) -> set[str]:
        """Run commands in one process; the packages that it, and processes of its own, imported.

        Args:
          commands: module and arguments of each.
          other: exit statuses beside 0 that the last one may end with.
        """
        process = self._open([sys.executable, "-c", RUNNER], stdin=subprocess.PIPE)
        given = json.dumps([self._words(command) for command in commands])
        found, printed = self.imported(process, given)
        ended = re.findall(r"^== (.*): (\d+)$", printed, re.M)
        assert len(ended) == len(commands), printed
        for number, (command, status) in enumerate(ended, 1):
            assert int(status) in ((0, *other) if number == len(ended) else (0,)), f"{command} ended with {status}: {printed}"
        return found

    def imported(self, process: subprocess.Popen, given: str | None = None) -> tuple[set[str], str]:
        """Wait for a process; the packages that it and processes of its own imported, and what it printed."""
        try:
            printed, _ = process.communicate(given, timeout=300)
        finally:
            process.kill()  # which does nothing to one that has ended
        found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in self._listings.iterdir()}
        assert str(process.pid) in found, f"{process.args} left no listing: {printed}"
        for path in self._listings.iterdir():
            path.unlink()
        return {name.partition(".")[0] for modules in found.values() for name in modules}, printed


@pytest.fixture
def listed(tmp_path):
    return Listed(tmp_path)


@pytest.mark.long
def test_no_command_of_ours_imports_tensorflow_or_torch(listed):
    banned = {"tensorflow", "torch"}
    subjects = "".join(f"{row:05d},Zoë {row}\n" for row in range(18))
    (listed.folder / "subjects.csv").write_text(f"sequence,subject\n{subjects}", encoding="utf-8")
    (listed.folder / "other.tgz").write_bytes(b"")
    screening = SCREENING if importlib.util.find_spec("av") is not None else []  # of the extra `screen`
    assert not listed.run_all([*OURS, *screening, FETCH], 2) & banned  # the last is refused: the true archive is not at hand
    assert not listed.run_all([PROGRAM], 2) & banned  # refused where the extra `tpu` is not installed
    (predictions,) = (listed.run / "evaluation").glob("*/predictions.csv")
    assert ",Zoë " in predictions.read_text(encoding="utf-8"), "files are UTF-8 in every locale"
    if importlib.util.find_spec("gradio") is not None:  # of the extra `app`
        assert not imported_by_the_page(listed) & banned


def imported_by_the_page(listed: Listed) -> set[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = listed.start(*APP, f"--port={port}")
    said = page.stdout.readline()
    while "Ctrl-C ends it" not in said and page.poll() is None:
        said = page.stdout.readline()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        assert "not a medical device" in answer.read().decode()
    page.send_signal(signal.SIGINT)
    found, printed = listed.imported(page)
    assert page.returncode == 0, printed
    return found


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed; install the extra `torch`")
def test_no_command_beside_torch_imports_tensorflow(listed, tiny_config):
    run_directory.claim(listed.run, tiny_config.to_dict(), "walkers")
    _, params, batch_stats = build.build_model(tiny_config)
    checkpoints = Checkpoints(listed.run / "checkpoints", 1, print)
    checkpoints.save(create_state(params, batch_stats, build.build_optimizer(tiny_config)[0]))
    checkpoints.close()
    found = listed.run_all([*THEIRS, PARITY], 2)  # 2: of an untrained network's decisions one changed
    assert "tensorflow" not in found
    assert "torch" in found, "what is imported is not seen"


HELP = """
import io, json, runpy, sys
from contextlib import redirect_stdout

lines = {}
for module in json.load(sys.stdin):
    sys.argv, text = [module, "--help"], io.StringIO()
    try:
        with redirect_stdout(text):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert not ended.code, (module, ended.code)
    lines[module] = text.getvalue()
print(json.dumps([lines, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_help_fits_a_screen_shows_an_example_and_loads_nothing_that_computes():
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        input=json.dumps(list(COMMANDS)),
        env=os.environ | {"COLUMNS": "80"},
        cwd=ROOT,
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    texts, imported = json.loads(done.stdout)
    assert not {"jax", "flax", "optax", "orbax", "tensorflow_datasets", "cv2", "torch", "grain", "matplotlib"} & set(imported)
    for module, text in texts.items():
        assert f"usage: python -m {module}" in text
        assert "example" in text, module
        assert len(text.splitlines()) <= 40, f"{module}: {len(text.splitlines())} lines"


def test_the_package_lists_its_commands():
    printed = run_module("scoliojax").stdout
    assert all(f"python -m {module} " in printed for module in COMMANDS)
    assert run_module("scoliojax", "--help").stdout == printed
    unknown = run_module("scoliojax", "nonsense")
    assert_one_clear_error(unknown, "unknown command 'nonsense'")
    assert unknown.returncode == 2


def test_a_reader_that_has_seen_enough_is_no_error():
    process = subprocess.Popen([sys.executable, "-m", "scoliojax"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # long before the command writes
    assert (process.stderr.read(), process.wait()) == (b"", 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_named_and_what_is_left_there(tmp_path):
    command = [sys.executable, "-m", "data_pipelines.synthetic", "--subjects=3", "--frames=4", f"--output={tmp_path / 'tree'}"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: .*No space left on device.*; make room on the disk; the tree is not complete; delete it\n", done.stderr
    )


NOWHERE = {  # standard output, standard error: closed, without room, or a pipe without a reader
    "all closed": "{} <&- >&- 2>&-",
    "error without room": "{} 2>/dev/full",
    "error without a reader": "{{ sleep 0.5; exec {}; }} 2> >(exec true)",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", NOWHERE)
@pytest.mark.skipif(not (Path("/dev/full").exists() and shutil.which("bash")), reason="no /dev/full, or no bash")
def test_work_and_status_do_not_depend_on_who_listens(how, tmp_path):
    tree, output = write_tree(tmp_path / "tree"), tmp_path / "prepared"
    for arguments, status in (
        (f"data_pipelines.prepare --input={tree} --output={output}", 0),
        ("data_pipelines.synthetic --output=x --seed=-1", 2),
    ):
        command = NOWHERE[how].format(shlex.join([sys.executable, "-m", *arguments.split()]))
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, check=False, encoding="utf-8")
        assert done.returncode == status, (arguments, done)
        assert "Traceback" not in done.stderr
    assert len(open_prepared(output)) == 6


NUMBERS = [  # a command, its option, and values beside -1, nan and the like that are out of its range
    ("data_pipelines.synthetic --output=x", "--subjects", "2"),
    ("data_pipelines.synthetic --output=x", "--frames", "0"),
    ("data_pipelines.synthetic --output=x", "--seed"),
    ("data_pipelines.video.synthetic_clip --output=x.mp4", "--frames", "1", "3001"),
    ("data_pipelines.video.synthetic_clip --output=x.mp4", "--seed"),
    (f"scoliojax.study {RECIPE} --workdir=x", "--seeds", "0"),
    (f"scoliojax.study {RECIPE} --workdir=x", "--processes", "0"),
    (f"scoliojax.study {RECIPE} --workdir=x", "--process"),
    ("scoliojax.main --mode=eval --workdir=x", "--processes", "0"),
    ("scoliojax.main --mode=eval --workdir=x", "--process"),
    ("scoliojax.screen x --checkpoint=x", "--window", "0"),
    ("scoliojax.screen x --checkpoint=x", "--person", "0"),
    ("scoliojax.posture x", "--person", "0"),
    ("scoliojax.posture x", "--rate", "0", "1001"),
    ("scoliojax.app --checkpoint=x", "--port", "65536"),
    ("scoliojax.app --checkpoint=x", "--megabytes", "0"),
    ("scoliojax.benchmark", "--rounds", "0"),
    ("scoliojax.benchmark", "--steps", "9"),
    ("scoliojax.benchmark", "--subjects", "41"),
    (f"scoliojax.benchmark.program --target=h100 {RECIPE}", "--shared-frames", "1"),
    ("scoliojax.interop.parity live", "--seed"),
    ("scoliojax.interop.parity bfloat16 --workdir=x", "--sequences", "0"),
    ("scoliojax.interop.opengait verify x.pt", "--strips", "0"),
    ("scoliojax.interop.opengait import x.pt --workdir=x", "--strips", "0"),
]


@pytest.mark.parametrize(("command", "option", "beyond"), [(command, option, beyond) for command, option, *beyond in NUMBERS])
def test_a_number_out_of_its_range_is_named_with_the_range(command, option, beyond, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, *arguments = command.split()
    for text in ("-1", "1.5", "nan", "inf", "", "9" * 20, "9" * 5000, *beyond):
        result = run_here(module, *arguments, f"{option}={text}")
        assert_one_clear_error(result, f"argument {option}: ", "is no whole number from ")
        assert result.returncode == 2
        assert len(result.stderr) < 250
    assert not list(tmp_path.iterdir())


INTERRUPT = """
import os, signal, sys
import importlib.abc

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["SCOLIOJAX_INTERRUPTED_AT"] and "data_pipelines.interrupts" in sys.modules:
            os.kill(os.getpid(), int(os.environ["SCOLIOJAX_SIGNAL"]))

sys.meta_path.insert(0, Interrupting())
"""


STOPS = pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, -signal.SIGTERM, "stopped, as asked")],
    ids=["Ctrl-C", "SIGTERM"],
)


@STOPS
@pytest.mark.parametrize(
    ("module", "at", "left"),
    [
        ("data_pipelines.prepare", "argparse", "nothing was written"),
        ("data_pipelines.prepare", "tensorflow_datasets", "nothing was written, start the same command again"),
        ("scoliojax.main", "data_pipelines.schema", "nothing was written"),
        ("scoliojax.main", "jax", "there is no checkpoint yet: the same command begins anew"),
        ("scoliojax.screen", "data_pipelines.video.walk", "the answers so far are whole"),
    ],
)
def test_a_stop_during_an_import_is_one_line(module, at, left, number, status, said, tmp_path):
    """Libraries that are interrupted while they are imported swallow it, print tracebacks, or crash."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT, encoding="utf-8")
    (tmp_path / "walk.mp4").write_bytes(b"")
    arguments = {
        "data_pipelines.prepare": [f"--input={tmp_path}", f"--output={tmp_path.parent / 'out'}"],
        "scoliojax.main": [RECIPE, f"--workdir={tmp_path / 'run'}"],
        "scoliojax.screen": [str(tmp_path / "walk.mp4"), f"--checkpoint={tmp_path}"],
    }[module]
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = run_module(
        module, *arguments, env={"PYTHONPATH": path, "SCOLIOJAX_INTERRUPTED_AT": at, "SCOLIOJAX_SIGNAL": str(int(number))}
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"{said}; {left}\n")
    assert not (tmp_path / "run").exists()


PLACES = {  # how a process writes, and what else it needs for that
    "alone": "from data_pipelines.locks import alone, wait_for_holder\nplace = alone(there / '.lock', wait_for_holder('x'))",
    "whole_file": "from scoliojax.files import whole_file\nplace = whole_file(there / 'file')",
    "whole_folder": "from scoliojax.files import whole_folder\nplace = whole_folder(there / 'folder')",
}


@STOPS
@pytest.mark.parametrize("place", PLACES)
def test_a_stop_during_an_import_of_a_process_that_writes_cleans_up(place, number, status, said, tmp_path):
    """The import goes on to its end, whatever it swallows; only then is there a KeyboardInterrupt, and only one."""
    (tmp_path / "late.py").write_text(
        f"""
import signal, time
try:
    for _ in range(3):
        signal.raise_signal({int(number)})
        time.sleep(0.1)
except BaseException:
    print("swallowed")
print("imported")
""",
        encoding="utf-8",
    )
    (tmp_path / "there").mkdir()
    code = f"""
import sys, time
from pathlib import Path
sys.argv, sys.orig_argv = ["-m"], ["python", "-m", "scoliojax.main"]
there = Path({str(tmp_path / "there")!r})
from data_pipelines.command import report_errors
{PLACES[place]}
with report_errors("nothing was written"), place as fresh:
    (fresh if isinstance(fresh, Path) and "file" in fresh.name else there / "x").touch()
    try:
        import late
        time.sleep(20)
    finally:
        (there / "x").unlink(missing_ok=True)
        time.sleep(0.3)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    # Behind a `&` Ctrl-C is ignored.
    ignored = ["bash", "-c", 'trap "" INT; exec "$@"', "-"] if number == signal.SIGTERM else []
    done = subprocess.run(
        [*ignored, sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "imported\n", f"{said}; nothing was written\n")
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_said_once(tmp_path):
    (tmp_path / "file").touch()
    code = """
from scoliojax.runs.command import configure_runtime
configure_runtime()
import jax
print([float(jax.jit(lambda x, n=n: x + n)(1.0)) for n in range(3)])
"""
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    env["SCOLIOJAX_CACHE"] = str(tmp_path / "file")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "[1.0, 2.0, 3.0]\n"
    assert re.fullmatch(r"warning: compiled programs are not kept; .*/file/compiled cannot be written .*\n", done.stderr)


@pytest.mark.parametrize("package", ["scoliojax", "data_pipelines"])
def test_a_program_that_imports_us_keeps_its_signals(package, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text(f"import {package}", encoding="utf-8")
    (tmp_path / "theirs" / "work.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\n"
        "finally:\n    print(int(signal.getsignal(signal.SIGTERM)))\n",
        encoding="utf-8",
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-m", "theirs.work", "-m", "scoliojax.main"]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", check=False)
    assert done.stdout == f"{int(signal.SIG_DFL)}\n"
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_an_interrupt_that_python_drops_is_asked_for_again():
    """In a garbage collector's callback, as jax has one, or in a finaliser: there an exception is printed and ignored."""
    code = """
import gc, signal, sys, time
sys.argv, sys.orig_argv = ["-m"], ["python", "-m", "scoliojax.main"]
from data_pipelines.command import report_errors
dropped = []

def interrupted(phase, info):
    if not dropped:
        dropped.append(True)
        signal.raise_signal(signal.SIGINT)
        sum(range(1000))

with report_errors("all is whole"):
    gc.callbacks.append(interrupted)
    gc.collect()
    time.sleep(20)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted; all is whole\n")


PATHS = [  # commands with an option that is a path, and what else they need
    ("scoliojax.main", "--workdir={}", RECIPE),
    ("scoliojax.main", "--config={}", "--workdir=x"),
    ("scoliojax.study", "--workdir={}", RECIPE),
    ("scoliojax.study", "--config={}", "--workdir=x"),
    ("scoliojax.report", "--workdir={}"),
    ("scoliojax.report", "--output={}", "--workdir=x"),
    ("scoliojax.report", "--compare={}", "--workdir=x"),
    ("scoliojax.report", "--data={}", "--workdir=x"),
    ("scoliojax.export", "--workdir={}"),
    ("scoliojax.export", "--output={}", "--workdir=x"),
    ("scoliojax.screen", "--checkpoint={}", "x.mp4"),
    ("scoliojax.screen", "--beside={}", "x.mp4", "--checkpoint=x"),
    ("scoliojax.screen", "--output={}", "x.mp4", "--checkpoint=x"),
    ("scoliojax.screen", "--models={}", "x.mp4", "--checkpoint=x"),
    ("scoliojax.screen", "--onnx-model={}", "x.mp4", "--checkpoint=x"),
    ("scoliojax.screen", "{}", "--checkpoint=x"),
    ("scoliojax.posture", "{}"),
    ("scoliojax.posture", "--output={}", "x.mp4"),
    ("scoliojax.posture", "--models={}", "x.mp4"),
    ("scoliojax.app", "--checkpoint={}"),
    ("scoliojax.app", "--models={}", "--checkpoint=x"),
    ("scoliojax.interop.opengait", "import {}", "--workdir=x"),
    ("scoliojax.interop.opengait", "import x.pt", "--workdir={}"),
    ("scoliojax.interop.opengait", "import x.pt", "--workdir=x", "--config={}"),
    ("scoliojax.interop.opengait", "export", "--workdir={}", "--output=x"),
    ("scoliojax.interop.opengait", "export", "--workdir=x", "--output={}"),
    ("scoliojax.interop.opengait", "verify {}"),
    ("scoliojax.interop.opengait", "verify x.pt", "--data={}"),
    ("scoliojax.interop.parity", "recording {}"),
    ("scoliojax.interop.parity", "spread {}"),
    ("scoliojax.interop.parity", "bfloat16", "--workdir={}"),
    ("scoliojax.benchmark", "--json={}"),
    ("scoliojax.benchmark.collectives", "--config={}"),
    ("scoliojax.benchmark.program", "--target=h100", "--config={}"),
    ("scoliojax.benchmark.program", "--target=h100", RECIPE, "--json={}"),
    ("scoliojax.benchmark.program", "--target=h100", RECIPE, "--save={}"),
    ("scoliojax.benchmark.program", "--target=h100", RECIPE, "--against={}"),
    ("data_pipelines.prepare", "--input={}", "--output=x"),
    ("data_pipelines.prepare", "--input=x", "--output={}"),
    ("data_pipelines.prepare", "--input=x", "--poses={}", "--output=x"),
    ("data_pipelines.prepare", "--input=x", "--output=x", "--subjects={}"),
    ("data_pipelines.prepare", "--input=x", "--check", "--json={}"),
    ("data_pipelines.synthetic", "--output={}"),
    ("data_pipelines.synthetic", "--output=x", "--poses={}"),
    ("data_pipelines.synthetic", "--sheet={}"),
    ("data_pipelines.synthetic", "--output=x", "--poses={}"),
    ("data_pipelines.video.fetch", "--output={}"),
    ("data_pipelines.video.fetch", "--archive={}"),
    ("data_pipelines.video.synthetic_clip", "--output={}"),
]


KINDS = {  # the functions that judge the text of an option, and the table above that holds them to it
    **dict.fromkeys(["expanded_path", "expanded_text", "expanded_root", "walk_path", "_recipe_name"], "path"),
    "whole_number.<locals>.number": "number", "float": "", "parse_order": "", "steps_between": "",
}  # fmt: skip


def options(parser: argparse.ArgumentParser, sub: str = "") -> Iterator[tuple[str, str, list[str]]]:
    """Kind, subcommand and names of each option with a type; the name of one without dashes is "{}"."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from options(inner, name)
        elif action.type is not None and (kind := KINDS[action.type.__qualname__]):
            yield kind, sub, action.option_strings or ["{}"]


def in_tables() -> Iterator[tuple[str, str, str, str]]:
    """Kind, command, subcommand and option of each row of the tables; also without the subcommand."""
    for command, option, *_ in NUMBERS:
        module, *words = command.split()
        yield from (("number", module, sub, option) for sub in ("", *words[:1]))
    for module, *words in PATHS:
        parts = " ".join(words).split(" ")
        (option,) = (part.removesuffix("={}") for part in parts if "{}" in part)
        yield from (("path", module, sub, option) for sub in ("", parts[0]))


def test_every_option_that_is_a_path_or_a_number_is_in_a_table():
    rows = set(in_tables())
    missing = [
        f"{module} {sub} {names}"
        for module in COMMANDS
        for kind, sub, names in options(command_module(module).arguments())
        if not rows & {(kind, module, sub, name) for name in names}
    ]
    assert missing == []


NO_PATHS = {  # and what is said of them
    "": "is a variable not set?",
    " ": "is a variable not set?",
    "~nobody-of-this-name/x": "names no place",
    "gs://bucket/x": "'gs://bucket/x' is a URL where a path of this machine is needed; mount the bucket",
    "file://host/x": "names no path of this machine; write file:///FOLDER",
}


@pytest.mark.parametrize("text", NO_PATHS)
@pytest.mark.parametrize("command", PATHS, ids=lambda command: " ".join(command))
def test_a_path_that_is_empty_or_of_nobody_or_elsewhere_is_refused(command, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, *words = command
    if text.startswith("~") and "--config={}" in words:
        pytest.skip("a recipe that is not there has an error of its own")
    if "://" in text and any("--data=" in word for word in words):
        pytest.skip("data may lie behind a URL")
    arguments = [part.format(text) for word in words for part in word.split(" ")]
    refused = run_here(module, *arguments)
    assert_one_clear_error(refused, NO_PATHS[text])
    assert refused.returncode == 2
    assert not list(tmp_path.iterdir())


def test_a_file_url_is_its_path(tmp_path):
    assert expanded_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert expanded_root("gs://bucket/x") == "gs://bucket/x"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "change its permissions"),
        (errno.EROFS, "read-only"),
        (errno.ENAMETOOLONG, "give a shorter name"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EISDIR, "it is a folder"),
        (errno.ENOENT, "check the path"),
        (errno.EMFILE, "ulimit"),
        (errno.EBADMSG, "check the file and the disk"),
    ],
)
def test_the_remedy_follows_the_error(number, remedy, capsys):
    with pytest.raises(SystemExit) as ended, report_errors("nothing was written"):
        raise OSError(number, os.strerror(number), "/the/file")
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: [Errno {number}] {os.strerror(number)}: '/the/file'; ")
    assert remedy in line
    assert line.endswith("; nothing was written\n")


@pytest.mark.parametrize(
    ("package", "extra"), [("av", "screen"), ("onnxruntime", "screen"), ("gradio", "app"), ("torch", "torch")]
)
def test_a_missing_package_of_an_extra_is_named_with_what_installs_it(package, extra, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended, report_errors("nothing was written"):
        importlib.import_module(package)
    assert ended.value.code == 2
    said = f'error: {package} is not installed, which this needs: pip install "scoliojax[{extra}]"; nothing was written\n'
    assert capsys.readouterr().err == said


def test_a_package_of_ours_that_is_missing_is_a_fault_of_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy.nothing", None)
    with pytest.raises(ModuleNotFoundError), report_errors("nothing was written"):
        importlib.import_module("numpy.nothing")


def test_a_state_that_cannot_be_found_out_is_no_traceback(capsys):
    def state() -> str:
        raise PermissionError("no")

    with pytest.raises(SystemExit), data_errors(state):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted; what is there cannot be found out (no)\n"


def test_a_name_that_is_no_text_is_one_line(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended, report_errors("nothing was written"):
        (tmp_path / "page").write_text("walk\udce9", encoding="utf-8")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the name 'walk\\udce9' is not UTF-8; rename it; nothing was written\n"


def test_ctrl_c_says_in_what_state_things_are(capsys):
    with pytest.raises(SystemExit) as ended, report_errors("the answers so far are whole"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; the answers so far are whole\n"


def test_what_the_terminal_cannot_show_is_shown_as_its_code(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    with report_errors("nothing was written"):
        print("0.9 ± 0.1", flush=True)
    assert terminal.buffer.getvalue() == b"0.9 \\xb1 0.1\n"


def test_every_command_that_is_written_down_is_among_these():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    named = {module for text in texts for module in re.findall(r"python -m ((?:scoliojax|data_pipelines)[a-z0-9_.]*)", text)}
    assert (
        named - {"scoliojax"}
        == {command[0] for command in (*OURS, *SCREENING, *THEIRS, PARITY, FETCH, APP, PROGRAM)}
        == set(COMMANDS)
    )
