"""The loop around the step: pull, step, log, save, validate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax

from scoliojax.errors import RunError, Stopped
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.log import Log
from scoliojax.training.state import TrainState
from scoliojax.training.step import Metrics, Step


@dataclass(frozen=True)
class Schedule:
    """When things happen, in steps. `eval_every=0` leaves validation to the end of the run.

    Raises:
      RunError: for a number below 1 (below 0 for `eval_every`).
    """

    steps: int
    log_every: int
    checkpoint_every: int
    checkpoints_to_keep: int
    eval_every: int

    def __post_init__(self):
        for name, lowest in (
            ("steps", 1),
            ("log_every", 1),
            ("checkpoint_every", 1),
            ("checkpoints_to_keep", 1),
            ("eval_every", 0),
        ):
            if getattr(self, name) < lowest:
                raise RunError(f"train.{name}={getattr(self, name)} must be at least {lowest}")


def train(
    state: TrainState,
    train_step: Step,
    batches: Iterable[dict[str, jax.Array]],
    schedule: Schedule,
    checkpoints: Checkpoints,
    log: Log,
    validate: Callable[[TrainState], dict[str, float]] | None = None,
    stop: Callable[[int], bool] = lambda step: False,
    examine: Callable[[int], str] = str,
) -> TrainState:
    """Train from `state.step` to `schedule.steps` and leave a checkpoint of the last step.

    Args:
      state: where to start; given up.
      train_step: from `make_train_step`.
      batches: of steps `state.step` onwards, on the devices.
      schedule: when to log, save and validate.
      checkpoints: where to save.
      log: where to log; the host waits for the device only here and when saving.
      validate: named numbers of a state, for the log; None leaves it out.
      stop: asked after every step whether to save and stop there.
      examine: leaves behind what is needed to look at a step whose loss or gradient is not finite, and says where.

    Raises:
      RunError: when a loss or gradient is not finite; no checkpoint is made of it.
      Stopped: when `stop` said so, with a checkpoint of that step.
    """
    step = int(state.step)
    unseen: list[tuple[int, Metrics]] = []  # on the devices; looking at them would make the host wait

    def look() -> Metrics:
        """Bring the numbers of the last steps here, and see that all are finite; returns the newest."""
        found = jax.device_get(unseen)
        for number, metrics in found:
            for name in ("loss", "gradient_norm"):
                if name in metrics and not math.isfinite(metrics[name]):
                    raise RunError(
                        f"step {number}: {name} is {float(metrics[name])}; {examine(number)}. Whole checkpoints: "
                        f"{checkpoints.steps() or 'none'}. Lower optimizer.learning_rate or mend the data"
                    )
        unseen.clear()
        return found[-1][1]

    clock, since = time.perf_counter(), step
    for batch in batches:
        state, metrics = train_step(state, batch)
        step += 1
        unseen.append((step, metrics))
        log.step()
        last = step == schedule.steps
        stopping = stop(step) and not last
        save = step % schedule.checkpoint_every == 0 or last or stopping
        write = step % schedule.log_every == 0 or last
        due = validate is not None and schedule.eval_every > 0 and (step % schedule.eval_every == 0 or last)
        newest = look() if save or write or due else {}
        if write:
            values = {name: float(value) for name, value in newest.items()}
            now = time.perf_counter()
            values["clips_per_second"] = len(batch["labels"]) * (step - since) / (now - clock)
            clock, since = now, step
            log.scalars(step, values)
        if validate and due:  # before saving: a run killed meanwhile comes by here again
            log.scalars(step, validate(state))
        if save:
            checkpoints.save(state)  # save first, then pull the next batch
        if stopping:
            raise Stopped(step)
    return state
