import asyncio
import functools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from scoliojax.errors import RunError
from scoliojax.training.checkpoint import BestCheckpoint, Checkpoints, _patient_loops, digest
from scoliojax.training.optim import sgd
from scoliojax.training.state import TrainState, create_state
from tests.conftest import ROOT, THOROUGH, damage


def make_state() -> TrainState:
    rng = np.random.default_rng(0)
    params = {"fc": {"kernel": rng.normal(size=(4, 60, 50)).astype(np.float32)}, "scale": np.ones(20, np.float32)}
    rule, _ = sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.0, milestones=(), decay=0.1)
    return create_state(params, {"mean": np.zeros(20, np.float32)}, rule)


@pytest.fixture
def state() -> TrainState:
    return make_state()


def at_step(state: TrainState, step: int) -> TrainState:
    return jax.tree.map(lambda leaf: leaf + step if leaf.dtype == np.float32 else leaf, state).replace(step=np.int32(step))


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    folder, state = tmp_path_factory.mktemp("saved") / "checkpoints", make_state()
    store = Checkpoints(folder, 3, print)
    for step in (1, 2, 3):
        store.save(at_step(state, step))
    store.close()
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    """Checkpoints of steps 1, 2 and 3 in a folder, closed."""
    return Path(shutil.copytree(saved_once, tmp_path / "checkpoints"))


def reopen(folder):
    lines: list[str] = []
    return Checkpoints(folder, 3, lines.append), lines


def test_the_newest_comes_back_to_the_bit(saved, state):
    store, lines = reopen(saved)
    assert digest(store.restore(state)) == digest(at_step(state, 3))
    assert digest(store.restore(state, 2)) == digest(at_step(state, 2))
    assert not lines


def test_only_the_newest_are_kept(saved, state):
    store, _ = reopen(saved)
    store.save(at_step(state, 4))
    store.close()
    assert reopen(saved)[0].steps() == [2, 3, 4]


def damage_cut(folder):
    largest = max((path for path in (folder / "3").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def damage_flip(folder, step=3):
    largest = max((path for path in (folder / str(step)).rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)


def damage_digest(folder):
    meta = folder / "3" / "meta" / "metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text(encoding="utf-8")) | {"digest": "0" * 64}), encoding="utf-8")


def damage_missing(folder):
    for path in (folder / "3").rglob("*"):
        if path.is_file() and "state" in str(path):
            path.unlink()


def test_a_state_that_is_not_finite_is_set_aside_like_a_damaged_one(saved, state):
    """As older versions saved them."""
    store, _ = reopen(saved)
    store.save(at_step(state, 4).replace(batch_stats={"mean": np.full(20, np.nan, np.float32)}))
    store.close()
    store, lines = reopen(saved)
    assert digest(store.restore(state)) == digest(at_step(state, 3))
    (line,) = lines
    assert line.endswith("damaged-checkpoint-4 (its batch statistics are not finite)")


def test_whether_a_state_is_finite_is_judged_without_the_devices(saved, state, monkeypatch):
    """A process that cannot read a checkpoint would be missing where the others reduce on all devices."""
    monkeypatch.setattr("scoliojax.training.state._all_finite", None)
    store, _ = reopen(saved)
    assert digest(store.restore(state)) == digest(at_step(state, 3))


def test_where_no_state_is_finite_neither_rights_nor_disk_are_blamed(tmp_path, state):
    store, _ = reopen(tmp_path / "checkpoints")
    for step in (1, 2):
        store.save(at_step(state, step).replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params)))
    store.close()
    with pytest.raises(RunError) as caught:
        reopen(tmp_path / "checkpoints")[0].restore(state)
    assert str(caught.value).endswith(
        "(2: its parameters are not finite; 1: its parameters are not finite); nothing was changed. Start again in a new "
        "--workdir, with a lower --config.optimizer.learning_rate"
    )
    assert reopen(tmp_path / "checkpoints")[0].steps() == [1, 2]


def test_two_threads_that_read_leave_asyncio_as_it_was():
    before, first_is_in, first_may_end = asyncio.new_event_loop, threading.Event(), threading.Event()

    def first() -> None:
        with _patient_loops():
            first_is_in.set()
            first_may_end.wait(10)

    def second() -> None:
        first_is_in.wait(10)
        with _patient_loops():
            time.sleep(0.3)  # the first ends within

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    first_may_end.set()
    for thread in threads:
        thread.join(10)
    assert asyncio.new_event_loop is before


def test_reads_that_fail_while_a_checkpoint_is_written_harm_neither(saved, state):
    damage_cut(saved)
    kernel = np.random.default_rng(0).normal(size=(4, 1000, 1000))
    large = jax.tree.map(jax.numpy.asarray, at_step(state, 4).replace(params={"fc": {"kernel": kernel}}))
    before, (store, _) = asyncio.new_event_loop, reopen(saved)
    reader = Checkpoints(saved, 3, print, read_only=True)
    store.save(large)
    for _ in range(5):
        with pytest.raises(RunError, match="--step=3: that checkpoint is damaged"):
            reader.restore(state, 3)
    store.close()
    assert digest(reopen(saved)[0].restore(large, 4)) == digest(large)
    assert asyncio.new_event_loop is before


def test_a_reader_goes_on_to_what_a_run_has_saved_meanwhile(saved, state, monkeypatch):
    """The run keeps one checkpoint, and deletes the older ones while a reader has just listed them."""
    lines: list[str] = []
    store, read = Checkpoints(saved, 3, lines.append, read_only=True), Checkpoints._try_read

    def try_read(self, step, like):
        if (saved / "1").exists():
            run = Checkpoints(saved, None, print)
            run.save(at_step(state, 4))
            run.keep_only(4)
            run.close()
        return read(self, step, like)

    monkeypatch.setattr(Checkpoints, "_try_read", try_read)
    assert digest(store.restore(state)) == digest(at_step(state, 4))
    assert not lines


def test_a_checkpoint_that_is_deleted_while_it_is_read_is_not_called_damaged(saved, state, monkeypatch):
    lines: list[str] = []
    store, read = Checkpoints(saved, 3, lines.append, read_only=True), Checkpoints._try_read

    def try_read(self, step, like):
        if step == 3:
            shutil.rmtree(saved / "3")
        return read(self, step, like)

    monkeypatch.setattr(Checkpoints, "_try_read", try_read)
    assert digest(store.restore(state)) == digest(at_step(state, 2))
    assert not lines


def make_wide_state() -> TrainState:
    """A state of as many arrays as that of a network has: reads and writes are still under way when the first one fails."""
    rng = np.random.default_rng(0)
    rule, _ = sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.0, milestones=(), decay=0.1)
    params = {f"kernel{number}": rng.normal(size=20_000).astype(np.float32) for number in range(60)}
    return create_state(params, {"mean": np.zeros(20, np.float32)}, rule)


@pytest.mark.parametrize("name", ["manifest.ocdbt", "d"])
def test_a_truncated_checkpoint_makes_no_noise(name, tmp_path, capfd):
    """TensorStore prints a traceback for every read whose loop was closed: 600 lines for a network."""
    state, folder = make_wide_state(), tmp_path / "checkpoints"
    store = Checkpoints(folder, 3, print)
    for step in (1, 2):
        store.save(at_step(state, step))
    store.close()
    place = folder / "2" / "state" / name
    for path in [place] if place.is_file() else place.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    store, lines = reopen(folder)
    assert digest(store.restore(state)) == digest(at_step(state, 1))
    store.close()
    assert len(lines) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("spoil", [damage_cut, damage_flip, damage_digest, damage_missing])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(saved, state, spoil):
    spoil(saved)
    with pytest.raises(RunError, match="--step=3"):
        reopen(saved)[0].restore(state, 3)
    store, lines = reopen(saved)
    assert digest(store.restore(state)) == digest(at_step(state, 2))
    assert len(lines) == 1
    assert "checkpoint 3 is damaged" in lines[0]
    assert (saved.parent / "damaged-checkpoint-3").is_dir()
    assert reopen(saved)[0].steps() == [1, 2]


def test_nothing_there_and_nothing_whole(tmp_path, state):
    store, _ = reopen(tmp_path / "checkpoints")
    assert store.restore(state) is None
    with pytest.raises(RunError, match="no such checkpoint"):
        store.restore(state, 7)
    store.save(at_step(state, 3))
    store.close()
    damage_digest(tmp_path / "checkpoints")
    with pytest.raises(RunError, match=r"no checkpoint .* can be read"):
        reopen(tmp_path / "checkpoints")[0].restore(state)


def test_a_fault_of_the_reader_moves_nothing(saved, state):
    other = state.replace(params={"another": state.params["fc"]})
    store, lines = reopen(saved)
    with pytest.raises(RunError, match="nothing was changed"):
        store.restore(other)
    assert not lines
    assert reopen(saved)[0].steps() == [1, 2, 3]


def test_the_best_is_kept_wherever_it_comes(state, tmp_path):
    def validated(scores: dict[int, float]) -> BestCheckpoint:
        def score(state: TrainState) -> dict[str, float]:
            return {"f1": scores[int(state.step)], "other": 1.0}

        best = BestCheckpoint(score, Checkpoints(tmp_path / "best", None, print), "f1", state)
        for step in scores:
            assert best(at_step(state, step))["f1"] == scores[step]
        return best

    first = validated({10: 0.3, 20: 0.7, 30: 0.7, 40: 0.2})
    assert (first.step, first.score) == (20, 0.7)
    again = validated({15: 0.6})  # a run that goes on from before its best
    assert (again.step, again.score) == (20, 0.7)
    assert validated({16: 0.8}).step == 16
    assert validated({16: 0.9}).score == 0.8  # the same step, rounded otherwise on other devices
    store, _ = reopen(tmp_path / "best")
    assert store.steps() == [16]
    assert digest(store.restore(state)) == digest(at_step(state, 16))
    damage_flip(tmp_path / "best", 16)  # the score can still be read, the state cannot
    assert validated({50: 0.1}).step == 50
    assert (tmp_path / "damaged-checkpoint-16").is_dir()


def test_who_only_looks_moves_and_deletes_nothing(saved, state):
    unfinished = saved / "4.orbax-checkpoint-tmp"
    unfinished.mkdir()  # a run may be writing it
    damage_flip(saved)
    lines: list[str] = []
    store = Checkpoints(saved, 3, lines.append, read_only=True)
    assert digest(store.restore(state)) == digest(at_step(state, 2))
    store.close()
    assert len(lines) == 1
    assert "checkpoint 3 is damaged and left out" in lines[0]
    assert unfinished.is_dir()
    assert (saved / "3").is_dir()
    absent = Checkpoints(saved.parent / "nowhere", 3, lines.append, read_only=True)
    assert absent.restore(state) is None
    assert not (saved.parent / "nowhere").exists()


def every_damage(files: list[Path], largest: Path):
    """Removed, cut and flipped in the middle: every file; the largest at several places, and overwritten there too."""
    for file in files:
        content = file.read_bytes()
        yield file, file.unlink
        for place in (0.0, 0.25, 0.5, 0.75, 1.0) if file == largest else (0.5,):
            at = int(place * (len(content) - 1))
            yield file, functools.partial(file.write_bytes, content[:at])
            yield (
                file,
                functools.partial(file.write_bytes, content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]),
            )
            if file == largest:
                other = bytes(byte ^ 0x55 for byte in content[at : at + 16])
                yield file, functools.partial(file.write_bytes, content[:at] + other + content[at + 16 :])


def random_damages(files: list[Path], largest: Path):
    """A hundred, every second one of the largest."""
    rng = np.random.default_rng(0)
    for turn in range(100):
        file = files[rng.integers(len(files))] if turn % 2 else largest
        yield file, functools.partial(damage, rng, file)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax leaves readers behind
def test_every_damage_of_a_file_is_found_or_harmless(saved, state):
    """Of the newest checkpoint's; SCOLIOJAX_TESTS=thorough makes a hundred random ones instead."""
    truth = {digest(at_step(state, step)): step for step in (1, 2, 3)}
    whole = saved.parent / "whole"
    shutil.copytree(saved, whole)
    files = sorted(path for path in (saved / "3").rglob("*") if path.is_file())
    largest = max(files, key=lambda path: path.stat().st_size)
    used = {(of, step): 0 for of in ("largest", "others") for step in (2, 3)}
    for file, spoil in (random_damages if THOROUGH else every_damage)(files, largest):
        spoil()
        store, lines = reopen(saved)
        step = truth[digest(store.restore(state))]
        store.close()
        used["largest" if file == largest else "others", step] += 1
        assert len(lines) == (step == 2)
        shutil.rmtree(saved)
        shutil.rmtree(saved.parent / "damaged-checkpoint-3", ignore_errors=True)
        shutil.copytree(whole, saved)
    assert used["largest", 2] >= 2 * used["largest", 3], used  # all but the places that nobody reads
    assert used["others", 2] >= used["others", 3] / 5, used  # most of these only describe the checkpoint


def test_the_digest_sees_every_bit(state):
    changed = state.replace(params=jax.tree.map(lambda leaf: leaf, state.params))
    assert digest(changed) == digest(state)
    kernel = np.array(changed.params["fc"]["kernel"])
    kernel.view(np.uint32).flat[0] ^= 1
    changed.params["fc"]["kernel"] = kernel
    assert digest(changed) != digest(state)


REFUSED = """
import resource, sys
from pathlib import Path
from scoliojax.errors import RunError
from scoliojax.runs.command import configure_runtime
from scoliojax.training.checkpoint import Checkpoints
from tests.training.test_checkpoint import at_step, make_wide_state

configure_runtime()
state, store = make_wide_state(), Checkpoints(Path(sys.argv[1]), 3, print)
store.save(at_step(state, 1))
store.wait()
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes; Python ignores the signal
try:
    store.save(at_step(state, 2))
    store.wait()
except RunError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
print(store.steps())
"""


@pytest.mark.slow
def test_a_write_that_the_disk_refuses_is_one_error(tmp_path):
    """In a process of its own: what TensorStore's threads print comes at its end."""
    command = [sys.executable, "-c", REFUSED, str(tmp_path / "checkpoints")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=120)
    error, steps = done.stdout.splitlines()
    assert re.fullmatch(r"a checkpoint cannot be written to .*; those of steps \[1\] are whole\..*", error)
    assert (done.returncode, steps, done.stderr) == (0, "[1]", "")
