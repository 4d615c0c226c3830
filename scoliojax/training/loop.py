"""The loop around the step: pull, step, log, save, validate."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import jax

from scoliojax.errors import RunError, Stopped
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.log import ACTIVITIES, Log
from scoliojax.training.state import TrainState, not_finite
from scoliojax.training.step import Metrics, Step

UNDER_WAY = 2  # steps handed to the devices and not finished: enough that these never wait for the host


@dataclass(frozen=True)
class Schedule:
    """The length of a run and its intervals, in steps; raises `RunError` for a number that is too small."""

    steps: int
    log_every: int
    checkpoint_every: int
    checkpoints_to_keep: int
    eval_every: int  # 0: no validation during training

    def __post_init__(self):
        for name, value in vars(self).items():
            lowest = 0 if name == "eval_every" else 1
            if value < lowest:
                raise RunError(f"train.{name}={value} must be at least {lowest}")


class Stopwatch:
    """The seconds of each of `ACTIVITIES`; every moment belongs to one of them, so they add up to the time that passed."""

    def __init__(self):
        self._since = time.perf_counter()
        self._spent = dict.fromkeys(ACTIVITIES, 0.0)

    def count(self, activity: str) -> None:
        """The time since the last call was spent on this."""
        now = time.perf_counter()
        self._spent[activity] += now - self._since
        self._since = now

    def lap(self) -> dict[str, float]:
        """The seconds since the last lap, up to the last call of `count`."""
        spent, self._spent = self._spent, dict.fromkeys(ACTIVITIES, 0.0)
        return spent


def train(
    state: TrainState,
    train_step: Step,
    batches: Iterable[dict[str, jax.Array]],
    schedule: Schedule,
    checkpoints: Checkpoints,
    log: Log,
    validate: Callable[[TrainState], dict[str, float]] | None = None,
    stop: Callable[[int], bool] = lambda step: False,
    examine: Callable[[int], str] = lambda step: "its batch was not recorded",
) -> TrainState:
    """Train from `state.step` to `schedule.steps` and leave a checkpoint of the last step.

    Args:
      state: the start; donated, and not to be used again.
      train_step: from `make_train_step`.
      batches: the batches from step `state.step` on, on the devices.
      schedule: steps at which to log, save and validate.
      checkpoints: receives the states.
      log: receives the metrics, and the steps as they are finished: at most `UNDER_WAY` are handed out and not finished.
      validate: scores of a state by name, for the log; None for no validation.
      stop: called after every step; True saves a checkpoint and ends the run.
      examine: records the batch of a step whose loss or gradient is not finite; returns where the record is.

    Between the steps no array is copied unasked between host and devices: such a copy is an error of jax, not a stall of every
    step. Where the compiler works for the first step, and while states are validated and saved, copies are allowed.

    Raises `RunError` when a loss, a gradient, or a state to validate or to save is not finite (it is not saved), and `Stopped`
    when `stop` returned True, after a checkpoint of that step.
    """
    step = finished = start = int(state.step)
    unchecked: list[tuple[int, Metrics]] = []  # kept on the devices until they are logged

    def wait_until(number: int) -> None:
        """Wait for the end of a step; the log counts those that ended."""
        nonlocal finished
        while finished < number:
            jax.block_until_ready(unchecked[finished - step][1])
            log.step()
            finished += 1

    def refuse(number: int, what: str) -> NoReturn:
        raise RunError(
            f"step {number}: {what}; {examine(number)}. Whole checkpoints: {checkpoints.steps() or 'none'}. Go on from there "
            "with a lower --config.optimizer.learning_rate, or fix the data"
        )

    def check() -> Metrics:
        """Fetch the metrics since the last check and require finite ones; returns the newest."""
        fetched = jax.device_get(unchecked)
        for number, metrics in fetched:
            for name in ("loss", "gradient_norm"):
                if name in metrics and not math.isfinite(metrics[name]):
                    refuse(number, f"{name} is {float(metrics[name])}")
        unchecked.clear()
        return fetched[-1][1]

    def idle() -> bool:
        """True where the devices have nothing left to do."""
        newest: dict[str, Any] = unchecked[-1][1] if unchecked else {}
        return all(value.is_ready() for value in newest.values())

    watch, since = Stopwatch(), step
    with jax.transfer_guard("disallow"):
        for batch in batches:
            watch.count("data" if idle() else "step")  # a batch that came while they worked was not waited for
            wait_until(step + 1 - UNDER_WAY)
            with jax.transfer_guard("disallow" if step > start else "allow"):
                state, metrics = train_step(state, batch)
            step += 1
            unchecked.append((step, metrics))
            last = step == schedule.steps
            stopping = stop(step) and not last
            save = step % schedule.checkpoint_every == 0 or last or stopping
            write = step % schedule.log_every == 0 or last
            due = validate is not None and schedule.eval_every > 0 and (step % schedule.eval_every == 0 or last)
            newest: Metrics = {}
            if save or write or due:
                wait_until(step)
                newest = check()
            if (save or due) and (spoilt := not_finite(state)):
                refuse(step, f"its {' and '.join(spoilt)} are not finite, though loss and gradient are")
            watch.count("step")
            if write:
                values = {name: float(value) for name, value in newest.items()}
                seconds = watch.lap()
                # Over the time since the last log, compilation, validation and saving included.
                values["clips_per_second"] = len(batch["labels"]) * (step - since) / sum(seconds.values())
                values |= {f"seconds/{activity}": spent for activity, spent in seconds.items()}
                since = step
                log.scalars(step, values)
                watch.count("saving")
            if validate and due:  # before saving: a run that is killed during validation then repeats it
                with jax.transfer_guard("allow"):
                    log.scalars(step, validate(state))
                watch.count("validation")
            if save:
                with jax.transfer_guard("allow"):
                    checkpoints.save(state)  # save first, then pull the next batch
                watch.count("saving")
            if stopping:
                raise Stopped(step)
    return state
