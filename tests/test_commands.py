"""Every module of README's and docs' commands, run: none imports TensorFlow, and PyTorch only those that deal with it."""

import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from scoliojax import build
from scoliojax.runs import directory as run_directory
from scoliojax.runs.command import report_errors
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.state import create_state
from tests.conftest import ROOT

# Python runs this first in every process, also in those that a command starts; at its end the process leaves what it imported.
LISTING = """
import atexit, json, os, sys

def leave():
    with open(os.path.join(os.environ["SCOLIOJAX_LISTINGS"], f"{os.getpid()}.json"), "w", encoding="utf-8") as file:
        json.dump(sorted(sys.modules), file)

atexit.register(leave)
"""
RECIPE = "--config=configs/sconet_mt.py:quickstart"
SMALL = (
    "--config.data.partition=1:1:1",
    "--config.data.subjects_per_batch=2",
    "--config.data.frames_per_clip=3",
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
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        }  # fmt: skip

    def start(self, module: str, *arguments: str) -> subprocess.Popen:
        """As a user would."""
        words = [argument.format(folder=self.folder, run=self.run) for argument in arguments]
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )

    def imported(self, process: subprocess.Popen, *statuses: int) -> set[str]:
        """Wait for a command's end; the packages that it, or a process of its own, had imported by then."""
        try:
            printed, _ = process.communicate(timeout=300)
        finally:
            process.kill()  # which does nothing to one that has ended
        assert process.returncode in (statuses or (0,)), f"{process.args}: {printed}"
        found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in self._listings.iterdir()}
        assert str(process.pid) in found, f"{process.args} left no listing"
        for path in self._listings.iterdir():
            path.unlink()
        return {name.partition(".")[0] for modules in found.values() for name in modules}


@pytest.fixture
def listed(tmp_path):
    return Listed(tmp_path)


def neither(listed: Listed, commands: list[tuple[str, ...]], banned: set[str]) -> None:
    """Run commands to their ends, and assert that no process of theirs imported what is banned."""
    for command in commands:
        found = listed.imported(listed.start(*command)) & banned
        assert not found, f"{' '.join(command)} imported {found}"


@pytest.mark.long
def test_no_command_of_ours_imports_tensorflow_or_torch(listed):
    banned = {"tensorflow", "torch"}
    subjects = "".join(f"{row:05d},Zoë {row}\n" for row in range(18))
    (listed.folder / "subjects.csv").write_text(f"sequence,subject\n{subjects}", encoding="utf-8")
    neither(listed, OURS, banned)
    (predictions,) = (listed.run / "evaluation").glob("*/predictions.csv")
    assert ",Zoë " in predictions.read_text(encoding="utf-8"), "files are UTF-8 in every locale"
    if importlib.util.find_spec("av") is not None:  # of the extra `screen`
        neither(listed, SCREENING, banned)
    (listed.folder / "other.tgz").write_bytes(b"")
    assert not listed.imported(listed.start(*FETCH), 1) & banned  # it is refused: the true one is not at hand
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
    return listed.imported(page)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed; install the extra `torch`")
def test_no_command_beside_torch_imports_tensorflow(listed, tiny_config):
    run_directory.claim(listed.run, tiny_config.to_dict(), "walkers")
    _, params, batch_stats = build.build_model(tiny_config)
    checkpoints = Checkpoints(listed.run / "checkpoints", 1, print)
    checkpoints.save(create_state(params, batch_stats, build.build_optimizer(tiny_config)[0]))
    checkpoints.close()
    neither(listed, THEIRS, {"tensorflow"})
    found = listed.imported(listed.start(*PARITY), 0, 2)  # 2: of an untrained network's decisions one changed
    assert "tensorflow" not in found
    assert "torch" in found, "what is imported is not seen"


def test_what_the_terminal_cannot_show_is_shown_as_its_code(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    with report_errors():
        print("0.9 ± 0.1", flush=True)
    assert terminal.buffer.getvalue() == b"0.9 \\xb1 0.1\n"


def test_every_command_that_is_written_down_is_among_these():
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    named = {module for text in texts for module in re.findall(r"python -m ((?:scoliojax|data_pipelines)[a-z0-9_.]*)", text)}
    assert named == {command[0] for command in (*OURS, *SCREENING, *THEIRS, PARITY, FETCH, APP)}
