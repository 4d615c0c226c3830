"""The loop: when it saves, when it stops, and what it never saves."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scoliojax.errors import RunError
from scoliojax.training.log import ACTIVITIES, Log, RunLog, is_time
from scoliojax.training.loop import Schedule, Stopped, train
from scoliojax.training.state import create_state
from tests.conftest import ROOT, quick_flags
from tests.scripts import chaos

SCHEDULE = Schedule(steps=20, log_every=10, checkpoint_every=4, checkpoints_to_keep=3, eval_every=0)


@jax.jit
def finish(state):
    """The state after one more step."""
    return state.replace(step=state.step + 1)


class Store:
    def __init__(self):
        self.saved: list[int] = []

    def save(self, state):
        self.saved.append(int(state.step))

    def steps(self):
        return self.saved


def run(losses=lambda step: 1.0, gradients=lambda step: 1.0, store=None, schedule=SCHEDULE, **options) -> list[int]:
    state, store = create_state({"w": jnp.ones(2)}, {}, optax.sgd(0.1)), store or Store()

    def step(state, batch):
        number = int(state.step) + 1
        metrics = {"loss": jax.device_put(losses(number)), "gradient_norm": jax.device_put(gradients(number))}
        return finish(state), metrics

    batches = ({"labels": np.zeros(2)} for _ in range(SCHEDULE.steps))
    try:
        train(state, step, batches, schedule, store, Log(), **options)
    except (RunError, Stopped) as error:
        error.saved = store.saved
        raise
    return store.saved


def test_checkpoints_come_in_turn_and_at_the_end():
    assert run() == [4, 8, 12, 16, 20]


def test_a_due_validation_comes_before_the_save():
    """A run that is killed while it validates has to come by there again."""
    store, seen = Store(), []

    def validate(state) -> dict[str, float]:
        seen.append((int(state.step), list(store.saved)))
        return {"score": 1.0}

    run(store=store, schedule=replace(SCHEDULE, eval_every=4), validate=validate)
    assert seen == [(4, []), (8, [4]), (12, [4, 8]), (16, [4, 8, 12]), (20, [4, 8, 12, 16])]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["losses", "gradients"])
def test_a_number_that_is_not_finite_stops_the_run_before_it_is_saved(which, bad):
    looked_at = []

    def examine(step: int) -> str:
        looked_at.append(step)
        return "see there"

    with pytest.raises(RunError) as caught:
        run(**{which: lambda step: bad if step >= 6 else 1.0}, examine=examine)
    assert caught.value.saved == [4]
    assert looked_at == [6]
    for words in ("step 6", "loss" if which == "losses" else "gradient_norm", "see there", "[4]", "learning_rate"):
        assert words in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "named"),
    [("params", "parameters"), ("batch_stats", "batch statistics"), ("opt_state", "sums of the optimiser")],
)
@pytest.mark.parametrize("due", ["save", "validate"])
def test_a_state_that_overflows_is_neither_saved_nor_validated_though_loss_and_gradient_are_finite(part, named, bad, due):
    """At step 8, where a checkpoint is due, or at 6, where a validation is."""
    at = {"save": 8, "validate": 6}[due]
    state, store = create_state({"w": jnp.ones(2)}, {"mean": jnp.zeros(2)}, optax.sgd(0.1, momentum=0.9)), Store()
    validated: list[int] = []

    def step(state, batch):
        state = finish(state)
        if int(state.step) == at:
            with jax.transfer_guard("allow"):
                state = state.replace(**{part: jax.tree.map(lambda leaf: leaf.at[..., 0].set(bad), getattr(state, part))})
        return state, {"loss": jax.device_put(1.0), "gradient_norm": jax.device_put(1.0)}

    def validate(state) -> dict[str, float]:
        validated.append(int(state.step))
        return {"score": 1.0}

    schedule = replace(SCHEDULE, eval_every=3 if due == "validate" else 0)
    with pytest.raises(RunError) as caught:
        train(state, step, ({"labels": np.zeros(2)} for _ in range(20)), schedule, store, Log(), validate)
    assert str(caught.value).startswith(f"step {at}: its {named} are not finite, though loss and gradient are; its batch was")
    assert "Whole checkpoints: [4]" in str(caught.value)
    assert "a lower --config.optimizer.learning_rate" in str(caught.value)
    assert store.saved == [4]
    assert validated == ([3] if due == "validate" else [])


class Slow:
    """A step on a device that takes its time: a scalar that is there when it is let go."""

    def __init__(self, number: int, under_way: list[int]):
        self.number, self.under_way = number, under_way
        under_way.append(number)

    def block_until_ready(self):
        if self.number in self.under_way:
            self.under_way.remove(self.number)
        return self

    def is_ready(self):
        return self.number not in self.under_way

    def __array__(self, dtype=None, copy=None):
        return np.ones((), dtype)


def test_at_most_two_steps_are_under_way_and_the_bar_counts_those_that_ended():
    under_way: list[int] = []
    seen: list[tuple[int, int]] = []  # under way, counted, as each step is handed out
    state, counted = create_state({"w": jnp.ones(2)}, {}, optax.sgd(0.1)), []

    class Counting(Log):
        def step(self):
            counted.append(len(counted) + 1)
            assert counted[-1] not in under_way, "a step is counted before it ended"

    def step(state, batch):
        number = int(state.step) + 1
        metrics = {"loss": Slow(number, under_way), "gradient_norm": jax.device_put(1.0)}
        seen.append((len(under_way), len(counted)))
        return finish(state), metrics

    train(state, step, ({"labels": np.zeros(2)} for _ in range(20)), replace(SCHEDULE, log_every=20), Store(), Counting())
    assert max(running for running, _ in seen) == 2
    assert seen[:4] == [(1, 0), (2, 0), (2, 1), (2, 2)]
    assert counted == list(range(1, 21))


def test_a_stop_saves_where_it_stands():
    with pytest.raises(Stopped) as caught:
        run(stop=lambda step: step == 6)
    assert caught.value.args == (6,)
    assert caught.value.saved == [4, 6]


def test_a_stop_after_the_last_step_is_the_end():
    assert run(stop=lambda step: step == 20) == [4, 8, 12, 16, 20]


class Timed(Log):
    def __init__(self):
        self.lines: list[dict[str, float]] = []

    def scalars(self, step, values):
        self.lines.append(values)


@pytest.fixture
def clock(monkeypatch):
    """A clock for the loop, `[seconds]`, that stands still until somebody sets it forward."""
    now = [100.0]
    monkeypatch.setattr("scoliojax.training.loop.time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_the_log_says_what_the_time_was_spent_on_and_the_parts_are_the_whole(clock):
    def batches():
        for _ in range(20):
            clock[0] += 1
            yield {"labels": np.zeros(2)}

    def step(state, batch):
        clock[0] += 10
        return finish(state), {"loss": jax.device_put(1.0), "gradient_norm": jax.device_put(1.0)}

    class Saving(Store):
        def save(self, state):
            clock[0] += 100

    def validate(state) -> dict[str, float]:
        clock[0] += 1000
        return {"score": 1.0}

    log, schedule = Timed(), replace(SCHEDULE, log_every=5, checkpoint_every=1, eval_every=1)
    train(create_state({"w": jnp.ones(2)}, {}, optax.sgd(0.1)), step, batches(), schedule, Saving(), log, validate)
    lines = [{name: value for name, value in line.items() if is_time(name)} for line in log.lines if "loss" in line]
    first, *others = ([line[f"seconds/{activity}"] for activity in ACTIVITIES] for line in lines)
    assert first == [5, 50, 4_000, 400]  # the line comes before a validation and a checkpoint of its step
    assert others == [[5, 50, 5_000, 500]] * 3
    for line, seconds in zip(lines, [first, *others], strict=True):
        assert line == {
            **{f"seconds/{activity}": spent for activity, spent in zip(ACTIVITIES, seconds, strict=True)},
            "clips_per_second": 10 / sum(seconds),
        }
    assert clock[0] == 100 + sum(first) + sum(map(sum, others)) + 1_100


def test_a_batch_that_comes_while_the_devices_work_was_not_waited_for(clock):
    under_way: list[int] = []
    log = Timed()

    def batches():
        for number in range(20):
            clock[0] += 1
            if number == 6:
                under_way.clear()  # the devices are done before it comes
            yield {"labels": np.zeros(2)}

    def step(state, batch):
        return finish(state), {"loss": Slow(int(state.step), under_way), "gradient_norm": jax.device_put(1.0)}

    train(create_state({"w": jnp.ones(2)}, {}, optax.sgd(0.1)), step, batches(), replace(SCHEDULE, log_every=20), Store(), log)
    (line,) = log.lines
    assert (
        line["seconds/data"] == 1 + 4 + 1
    )  # of the first batch, of those after the checkpoints before the last, and of the seventh
    assert line["seconds/step"] == 20 - 6


@pytest.mark.parametrize(("data", "shown"), [(0.5, None), (1.5, "15%"), (9.0, "90%")])
def test_the_bar_shows_a_wait_for_data(data, shown, tmp_path):
    with RunLog(tmp_path, 0, 20) as log:
        log.scalars(1, {"loss": 1.0, "seconds/data": data, "seconds/step": 10.0 - data})
        shows = f"waiting_for_data={shown}" if shown else "loss=1"
        assert str(log._bar).endswith(f"{shows}]")


@pytest.fixture
def refusing(monkeypatch):
    """A CPU that refuses, as accelerators do, to copy to the host what nobody asks for. jax itself lets that pass there.

    numpy reads a CPU's memory without asking anybody, so `np.asarray` still passes.
    """
    asked = []
    kind, get = type(jnp.ones(())), jax.device_get

    def guard(name: str):
        copy = getattr(kind, name)

        def method(array, *arguments, **options):
            if jax.config.jax_transfer_guard_device_to_host == "disallow" and not asked:
                raise RuntimeError(f"device-to-host copy by {name}")
            return copy(array, *arguments, **options)

        monkeypatch.setattr(kind, name, method)

    def explicit(tree):
        asked.append(True)
        try:
            return get(tree)
        finally:
            asked.pop()

    for name in ("__float__", "__int__", "__bool__", "__index__", "__array__", "__format__", "tolist", "item"):
        guard(name)
    monkeypatch.setattr(jax, "device_get", explicit)


COPIES = {  # what an accident in the loop might look like, and the words of the error
    "none": (lambda state, batch, metrics: None, None),
    "a batch left on the host": (lambda state, batch, metrics: jnp.sum(np.zeros(2)), "host-to-device"),
    "a number of Python's": (lambda state, batch, metrics: metrics["loss"] + 1.0, "host-to-device"),
    "a constant": (lambda state, batch, metrics: jnp.zeros(2), "host-to-device"),
    "a loss looked at": (lambda state, batch, metrics: float(metrics["loss"]), "device-to-host"),
    "a step looked at": (lambda state, batch, metrics: int(state.step), "device-to-host"),
    "a loss printed": (lambda state, batch, metrics: f"{metrics['loss']:.3f}", "device-to-host"),
    "parameters fetched": (lambda state, batch, metrics: state.params["w"].tolist(), "device-to-host"),
}


@pytest.mark.parametrize("accident", COPIES)
def test_a_copy_that_nobody_asked_for_is_an_error_after_the_first_step(accident, refusing):
    copy, words = COPIES[accident]
    finished = []

    @jax.jit
    def compiled(state, batch):
        metrics = {"loss": batch["labels"].sum(), "gradient_norm": batch["labels"].max()}
        return state.replace(step=state.step + 1), metrics

    def step(state, batch):
        finished.append(len(finished) + 1)
        state, metrics = compiled(state, batch)
        copy(state, batch, metrics)
        return state, metrics

    class Looking(Store):
        def save(self, state):
            super().save(state)
            np.asarray(state.step)  # a checkpoint is such a copy, and may be

    batches = ({"labels": jax.device_put(np.ones(2, np.float32))} for _ in range(20))
    state = create_state({"w": jnp.ones(2)}, {"mean": jnp.zeros(2)}, optax.sgd(0.1, momentum=0.9))

    def run() -> None:
        train(state, step, batches, replace(SCHEDULE, log_every=1, eval_every=4), Looking(), Log(), validate)

    def validate(state) -> dict[str, float]:
        return {"score": float(state.params["w"][0])}

    if words is None:
        run()
        assert len(finished) == 20
    else:
        with pytest.raises(RuntimeError, match=words):
            run()
        assert len(finished) == 2


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_spares_what_was_saved(tmp_path):
    """A small file system of its own, in a name space that ends with the shell."""
    disk = tmp_path / "disk"
    disk.mkdir()
    there = shlex.quote(str(disk))
    mount = f"mount -t tmpfs -o size=6m tmpfs {there}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a file system")
    options = ["--config.train.steps=24", "--config.train.checkpoint_every=3", "--config.train.checkpoints_to_keep=60"]
    command = shlex.join([sys.executable, "-m", "scoliojax.main", *chaos.RUN, *options, f"--workdir={disk}/run"])
    run = f"{command}; echo status $?"
    script = f"{mount} && head -c 4600000 /dev/zero > {there}/filler; {run}; rm {there}/filler; {run}"
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": quick_flags()},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        check=False,
    )
    first, _, second = result.stdout.partition("status 2\n")
    assert "accuracy" not in first
    errors = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1, result.stderr
    assert re.search("no room for (a checkpoint|the log)", errors[0])  # whichever meets it first
    assert "are whole" in errors[0]
    assert "Traceback" not in result.stderr
    assert int(re.search(r"going on from step (\d+)", second)[1]) >= 3
    assert second.endswith("status 0\n"), result.stderr
