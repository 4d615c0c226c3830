"""The loop around the step: pull, step, log, save, validate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax

from scoliojax.checkpoint import Checkpoints
from scoliojax.errors import RunError
from scoliojax.run_log import RunLog
from scoliojax.train_state import TrainState
from scoliojax.train_step import Step


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
    log: RunLog,
    validate: Callable[[TrainState], dict[str, float]] | None = None,
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
    """
    step = int(state.step)
    clock, since = time.perf_counter(), step
    for batch in batches:
        state, metrics = train_step(state, batch)
        step += 1
        log.step()
        if step % schedule.log_every == 0 or step == schedule.steps:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            now = time.perf_counter()
            values["clips_per_second"] = len(batch["labels"]) * (step - since) / (now - clock)
            clock, since = now, step
            log.scalars(step, values)
        if step % schedule.checkpoint_every == 0 or step == schedule.steps:
            checkpoints.save(state)  # save first, then pull the next batch
        if validate and schedule.eval_every and (step % schedule.eval_every == 0 or step == schedule.steps):
            log.scalars(step, validate(state))
    return state
