"""Checkpoints: the state and the data position together, verified when read, newest first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from scoliojax.errors import RunError
from scoliojax.train_state import TrainState


def digest(state: TrainState) -> str:
    """SHA-256 over every array's name, type, shape and bytes: equal digests are equal states, to the bit."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


class Checkpoints:
    """The checkpoints of one run directory, `<workdir>/checkpoints/<step>`.

    Args:
      folder: made when missing.
      keep: how many of the newest to keep.
      report: takes a line for the user.
    """

    def __init__(self, folder: Path, keep: int, report: Callable[[str], None]):
        self.keep = keep
        self._folder = folder.absolute()
        self._report = report
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def steps(self) -> list[int]:
        """Finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Write in the background; a finished checkpoint appears as a whole or not at all."""
        step = int(state.step)
        meta = {"step": step, "digest": digest(state)}
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)))

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The newest whole checkpoint, or the one of `step`.

        A damaged one is set aside as `damaged-<step>` and the one before it is used.

        Args:
          like: a state of the same shapes; the result lives on the same devices.
          step: which checkpoint; None for the newest.

        Returns:
          None where no checkpoint is there (and no `step` was asked for).

        Raises:
          RunError: when the one asked for is missing or damaged, or when every one is damaged.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise RunError(f"--step={step}: no such checkpoint in {self._folder}; there are {steps or 'none'}")
        candidates = steps[::-1] if step is None else [step]
        for candidate in candidates:
            try:
                return self._read(candidate, like)
            except Exception as error:  # damage can make Orbax, TensorStore or JSON raise anything; all of it means the same
                reason = " ".join(str(error).split())[:200]
                if step is not None:
                    raise RunError(f"--step={step}: that checkpoint is damaged ({reason}); pick one of {steps}") from error
                aside = self._set_aside(candidate)
                self._report(f"checkpoint {candidate} is damaged and set aside as {aside} ({reason})")
        if candidates:
            raise RunError(f"every checkpoint in {self._folder} is damaged; start again in a new --workdir")
        return None

    def _read(self, step: int, like: TrainState) -> TrainState:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        )
        if digest(found["state"]) != found["meta"]["digest"]:
            raise ValueError("its contents do not match their checksum")
        return found["state"]

    def _set_aside(self, step: int) -> Path:
        aside = self._folder.parent / f"damaged-checkpoint-{step}"
        count = 1
        while aside.exists():
            count += 1
            aside = aside.with_name(f"damaged-checkpoint-{step}-{count}")
        (self._folder / str(step)).rename(aside)
        self._manager.reload()
        return aside

    def close(self) -> None:
        """Wait for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()
