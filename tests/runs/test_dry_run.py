"""A dry run: it says whether the run could start, and leaves everything as it was."""

import math
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import jax
import pytest

from configs import sconet_mt
from data_pipelines.schema import DataError
from scoliojax.devices.targets import HERE, Machine, Target, devices_here
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs import dry_run as module
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.compiling import Program
from scoliojax.runs.dry_run import dry_run
from scoliojax.runs.run import Run
from scoliojax.runs.training import training_schedule
from scoliojax.training.checkpoint import room_for
from tests.conftest import run_here

SMALL = (
    "--config=configs/sconet_mt.py:quickstart",
    "--config.data.synthetic.subjects=18",
    "--config.data.synthetic.frames=6",
    "--config.model.channels=(2,3,4,5)",
    "--config.model.embedding_dim=4",
)


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


@pytest.mark.slow
def test_what_compilers_state_is_printed_and_nothing_is_left(tmp_path):
    before = contents(tmp_path)
    said = run_here("scoliojax.main", *SMALL, f"--workdir={tmp_path / 'new' / 'run'}", "--dry-run", "--profile=1:2")
    assert (said.returncode, said.stderr) == (0, "")
    for words in (
        "synthetic walkers (18 x 6 frames, seed 0)",
        "host memory of each process: about ",
        "checkpoints: at most 5 at a time, of ",
        "training step, float32, 12 clips x 6 frames; 4 x cpu (this machine), jax",
        "evaluation, float32, 32 sequences x 60 frames; 4 x cpu (this machine), jax",
    ):
        assert words in said.stdout
    for words in ("| memory: total (MB) |", "fits: 0.", "| convolutions of the network (GFLOP) |", "all-gather: calls"):
        assert said.stdout.count(words) == 2, words  # of both steps
    for words in ("estimated", "by the compiler", "most expensive"):  # of a CPU nothing is known
        assert words not in said.stdout
    assert said.stdout.endswith("dry run: the run could start; nothing was written\n")
    assert contents(tmp_path) == before


@pytest.fixture
def examined(monkeypatch) -> list[Any]:
    """In the place of programs, what a dry run would have compiled: the shape of a batch, and the frames of an evaluation."""
    seen: list[Any] = []
    monkeypatch.setattr(module, "program_of_batch", lambda config, mesh, batch: batch["frames"].shape)
    monkeypatch.setattr(module, "evaluation_program", lambda config, mesh, longest: longest)
    monkeypatch.setattr(module, "_examine", lambda program, config, evaluation: seen.append(program))
    return seen


def test_a_run_that_is_there_is_looked_at_and_not_changed(tiny_config, tmp_path, examined, capsys, monkeypatch):
    cohort = Cohort(tiny_config)
    run_directory.claim(tmp_path, tiny_config.to_dict(), cohort.data.digest(), cohort.parts)
    run = Run(tmp_path, tiny_config)
    checkpoints, state = run.checkpoints(), run.initial_state()
    for step in (2, 6):
        checkpoints.save(state.replace(step=state.step + step))
    checkpoints.close()
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda place: Usage(0, 0, 0))  # a run that is finished saves nothing
        dry_run(tiny_config, tmp_path)
    assert "it would go on from step 6\n" in capsys.readouterr().out  # its last
    assert examined == [60]
    assert contents(tmp_path) == before

    (tmp_path / "checkpoints/6/meta/metadata").write_text("{", encoding="utf-8")
    before = contents(tmp_path)
    dry_run(tiny_config, tmp_path)
    printed = capsys.readouterr()
    assert "checkpoint 6 is damaged and left out" in printed.err
    assert "it would go on from step 2\n" in printed.out
    assert examined == [60, (4, 3, 64, 44), 60]
    assert contents(tmp_path) == before

    shutil.rmtree(tmp_path / "checkpoints")
    other = tmp_path / "data.json"
    other.write_text(other.read_text(encoding="utf-8").replace(cohort.data.digest(), "0" * 16), encoding="utf-8")
    with pytest.raises(RunError, match="belongs to other data"):
        dry_run(tiny_config, tmp_path)


def test_of_a_run_that_shares_frames_the_larger_step_without_is_compiled_too(tiny_config, tmp_path, examined):
    data = tiny_config.data
    data.subjects_per_batch, data.clips_per_subject, data.augment = 4, 4, sconet_mt.get_config().data.augment
    dry_run(tiny_config, tmp_path / "run")
    assert examined == [(4, 8, 64, 44), (16, 3, 64, 44), 60]


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("keep", "every", "validated", "kept", "most", "needed"),
    [(3, 2, 0, 0, 3, 3), (3, 1, 0, 0, 4, 4), (3, 1, 0, 3, 4, 1), (3, 1, 0, 9, 4, 1), (9, 1, 1, 0, 8, 8), (1, 6, 1, 0, 3, 3)],
)
def test_room_for_the_checkpoints_kept(keep, every, validated, kept, most, needed, tiny_config, tmp_path, monkeypatch):
    train = tiny_config.train
    train.checkpoints_to_keep, train.checkpoint_every, train.eval_every = keep, every, validated
    run, schedule = Run(tmp_path, tiny_config), training_schedule(tiny_config)
    each = room_for(run.initial_state())
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: Usage(0, 0, int(each * needed) + 1))
    said = module._check_disk(run, schedule, tmp_path, kept)
    assert said == f"checkpoints: at most {most} at a time, of {each / 1e6:.1f} MB each; {each * needed / 1e6:.0f} MB are free"
    monkeypatch.setattr(module.shutil, "disk_usage", lambda place: Usage(0, 0, int(each * needed) - 1))
    said = rf"checkpoints_to_keep={keep}: its checkpoints, at most {most} at a time, need .* MB more in {tmp_path}, where"
    with pytest.raises(RunError, match=said):
        module._check_disk(run, schedule, tmp_path, kept)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("a part without sequences", "--part=test is empty"),
        ("a subject in two parts", "stand in both the train and the test part"),
        ("data that cannot be read", "broken"),
    ],
)
def test_what_a_run_would_meet_at_its_end_is_met_at_once(fault, words, tiny_config, tmp_path, examined, monkeypatch):
    class Faulty(Cohort):
        def __init__(self, config):
            super().__init__(config)
            rows = {"train": self.partition.train, "validation": self.partition.validation, "test": self.partition.test}
            if fault == "a part without sequences":
                rows["test"] = rows["test"][:0]
            if fault == "a subject in two parts":
                rows["test"] = rows["train"]
            self.partition = type(self.partition)(**rows)
            if fault == "data that cannot be read":
                object.__setattr__(self.data, "read", self.fail)

        def fail(self, row):
            raise DataError("broken")

    monkeypatch.setattr("scoliojax.runs.training.Cohort", Faulty)
    with pytest.raises((RunError, DataError), match=words):
        dry_run(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("platform", ["tpu", "cuda", "cpu"])
def test_of_a_device_of_which_nothing_is_known_the_memory_is_stated(platform, tiny_config, monkeypatch, capsys):
    unknown = Target(HERE, platform, jax.devices(), Machine(0.0, 0.0, 0.0), math.inf)
    monkeypatch.setattr(module, "devices_here", lambda: unknown)
    step = Program("a step", jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((100, 100), "float32")), 1)
    module._examine(step, tiny_config, evaluation=False)
    printed = capsys.readouterr().out
    assert "| memory: total (MB) | 0.0" in printed
    assert "\n0.0 GB; how much memory a device has is not known here\n" in printed


def test_a_step_that_does_not_fit_says_what_to_lower(tiny_config, monkeypatch, capsys):
    little = devices_here()._replace(memory=20_000.0)
    monkeypatch.setattr(module, "devices_here", lambda: little)
    step = Program("a step", jax.jit(lambda x: x @ x).lower(jax.ShapeDtypeStruct((100, 100), "float32")), 1)
    said = r"a step: it does not fit: 0\.\d GB, .* \(of the machine's memory an equal part\); lower data.subjects_per_batch=2"
    with pytest.raises(RunError, match=said):
        module._examine(step, tiny_config, evaluation=False)
    assert "a step; 4 x cpu (this machine), jax" in capsys.readouterr().out
