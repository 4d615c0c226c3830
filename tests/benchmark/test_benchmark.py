"""The benchmark measures what it says; how fast anything is, no test asserts."""

import importlib.util
import json
import os

import numpy as np
import pytest

from scoliojax.benchmark import __main__ as command
from scoliojax.benchmark import convolving, loading, running, stepping, timing
from scoliojax.benchmark.timing import Row, interleave
from tests.conftest import quick_flags

TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(timing, "TURN", 0.0)


def test_a_row_has_medians_quartiles_and_their_ratio():
    row = Row("step", "ms", [1.0, 2.0, 3.0, 4.0, 5.0], [4.0, 6.0, 8.0], "note")
    assert row.ratio == 0.5
    assert row.cells() == ["step", "ms", "3 (2 to 4)", "6 (5 to 7)", "0.50", "note"]
    assert Row("start", "s", [7.0], []).cells() == ["start", "s", "7", "", "", ""]


def test_ways_take_turns_and_the_first_round_does_not_count(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "TURN", 0.5)

    def work(name: str, lasts: float) -> None:
        calls.append(name)
        clock[0] += lasts

    seconds = interleave({"a": lambda: work("a", 0.25), "b": lambda: work("b", 8.0)}, 3)
    assert "".join(calls) == "aab" * 4  # two calls fill the half second of a turn
    assert seconds == {"a": [0.25] * 3, "b": [8.0] * 3}


def test_the_stand_in_reads_what_the_loader_reads(monkeypatch):
    monkeypatch.setattr(loading, "SEQUENCES", 9)
    monkeypatch.setattr(loading, "FRAMES", 40)
    rows = loading.measure(1, subjects=9)
    ways = ["from files", "from files", "in memory", "in memory", "skeleton maps in memory"]
    assert [row.what.split(", ")[1] for row in rows] == ways
    assert all(row.what.split(", ")[2] == "9 x 8 clips" for row in rows)
    assert [bool(row.theirs) for row in rows] == [True, False, True, False, False]
    assert all(row.unit == "batches/s" and min(row.ours + row.theirs) > 0 for row in rows)


@pytest.mark.slow
def test_a_step_and_an_evaluation_are_timed(tiny_config):
    rows = stepping.measure(tiny_config, "tiny", [(4, 1, 3)], 1)
    assert [row.what.partition(", ")[0] for row in rows] == ["training step", "memory of a training step", "evaluation"]
    assert all(len(row.ours) == 1 for row in rows)
    assert all(len(row.theirs) == TORCH for row in rows if row.unit == "ms")
    assert all("% of a matrix product" in row.note for row in rows if row.unit == "ms")


def test_a_step_is_timed_with_and_without_shared_frames(tiny_config, monkeypatch):
    forms = []

    class Fake(stepping.Ours):
        step_mebibytes = 1.0

        def __init__(self, config): ...

        def step(self, batch):
            forms.append("clip_frames" in batch)
            return lambda: None

        def evaluation(self, silhouettes):
            return lambda: None

    monkeypatch.setattr(stepping, "Ours", Fake)
    monkeypatch.setattr(stepping.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(stepping, "FRAMES", 20)
    rows = stepping.measure(tiny_config, "tiny", [(4, 8, 5)], 1)
    kinds = [row.what.partition(", ")[0] for row in rows]
    assert kinds[:2] == ["training step", "training step without share_frames"]
    assert forms == [False, True]


def test_a_step_of_two_channels_is_timed_in_turn_with_one_of_one(tiny_config, monkeypatch):
    class Fake:
        def __init__(self, config):
            self.modality = config.data.modality

        def step(self, batch):
            frame = (64, 44) if self.modality == "silhouettes" else (2, 64, 44)
            assert batch["frames"].shape[2:] == frame
            return lambda: None

    monkeypatch.setattr(stepping, "Ours", Fake)
    monkeypatch.setattr(
        stepping, "interleave", lambda ways, rounds: {"silhouettes": [0.1, 0.2, 0.3], "skeletons": [0.1, 0.3, 0.4]}
    )
    (row,) = stepping.channels(tiny_config, "tiny", (4, 2, 3), 3)
    assert row.ours == [100.0, 300.0, 400.0]
    assert row.what == "training step of two channels, tiny, 4 x 2 clips x 3 frames, float32"
    assert row.note == "1.500 of the 200 ms of one channel"
    assert tiny_config.data.modality == "silhouettes"


def test_every_convolution_is_timed_once():
    assert len(convolving.shapes((64, 128, 256, 512))) == 7
    rows = convolving.measure((2, 2, 3, 3), 1)
    assert [row.what.rpartition("60 x ")[2] for row in rows][:2] == ["64 x 44 x 2 to 2, stride 1", "64 x 44 x 2 to 2, stride 2"]
    assert all(row.ours and row.note.startswith("XLA's own: ") for row in rows)


def test_a_batch_as_a_run_draws_it():
    batch = stepping.random_batch(2, 8, 30, 8)
    assert batch["frames"].shape[:2] in {(2, 176), (2, 184), (2, 192)}  # about 171 of 240 differ
    assert batch["clip_frames"].shape == (2, 8, 30)
    assert np.bincount(batch["identities"]).tolist() == [8, 8]


def test_the_command(tmp_path, monkeypatch, capsys):
    found = [Row("a", "ms", [1.0, 3.0], [4.0])]
    monkeypatch.setattr(command, "sections", lambda *arguments: {"loader": lambda: found})
    command.main(["--only=loader", f"--json={tmp_path}/rows.json"])
    assert "| a | ms | 2 (1.5 to 2.5) | 4 | 0.50 |  |" in capsys.readouterr().out
    written = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert written["rows"][0]["ours"] == [1.0, 3.0]
    assert written["rows"][0]["ratio"] == 0.5
    assert written["environment"]["devices"]


MISTAKES = [
    ("--only=nonsense", ["nonsense", "loader"]),
    ("--rounds=0", ["--rounds", "'0' is no whole number from 1"]),
    ("--config.seed=1", ["--config.seed=1", "recipe"]),
    ("--json=/nowhere/rows.json", ["--json"]),
    ("--only=scores,step --steps=77", ["--steps=77", "sections memory", "--only=scores,step"]),
    ("--only=scores --precision=float32", ["--precision=float32", "sections step;"]),
    ("--only=step --subjects=16", ["--subjects=16", "sections loader;"]),
    ("--only=memory,recipe --rounds=3", ["--rounds=3", "sections loader, step,"]),
]


@pytest.mark.parametrize(("argument", "words"), MISTAKES)
def test_a_mistake_is_said_before_anything_is_measured(argument, words, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(argument.split())
    assert caught.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert all(word in errors[0] for word in words)


@pytest.mark.slow
def test_a_run_is_watched_and_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", quick_flags())
    options = ["--config.train.log_every=1", "--config.data.synthetic.subjects=30", "--config.data.synthetic.frames=8"]
    options += ["--config.model.channels=(2,2,2,2)", "--config.train.steps=100000"]
    with running._run(tmp_path / "run", options) as watch:
        process, step = next((process, step) for process, step in watch if step)
    assert step < 100000
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
