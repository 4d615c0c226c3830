"""Checkpoints: the state and the data position together, verified when read, newest first."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp

from scoliojax.devices import cluster
from scoliojax.errors import RunError, one_line
from scoliojax.training.state import TrainState


def digest(state: Any) -> str:
    """SHA-256 over every array's name, type, shape and bytes: equal digests are equal states, to the bit."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def check_which(which: str) -> None:
    """Raise `RunError` for a `--step` that is neither newest nor best nor a number."""
    if which not in ("newest", "best") and not re.fullmatch("[0-9]+", which):
        raise RunError(f"--step={which} is neither newest nor best nor a number of steps")


class Checkpoints:
    """The checkpoints of one run directory, `<workdir>/checkpoints/<step>`.

    Args:
      folder: made when missing.
      keep: how many of the newest to keep; None keeps all.
      report: takes a line for the user.
      read_only: move or delete nothing: a run may be writing here at this moment.
    """

    def __init__(self, folder: Path, keep: int | None, report: Callable[[str], None], read_only: bool = False):
        self.keep = keep
        self._folder = folder.absolute()
        self._report, self._read_only = report, read_only
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=not read_only, read_only=read_only, create=not read_only
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def steps(self) -> list[int]:
        """Finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, **notes: float) -> None:
        """Write in the background; a finished checkpoint appears as a whole or not at all.

        Args:
          state: to save.
          notes: numbers to keep with it, for `newest_note`.
        """
        self._check_room(state)
        step = int(state.step)
        meta = {"step": step, "digest": digest(state), **notes}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._explained():
            self._manager.save(step, args=items, force=True)  # also where a later step is there

    def _check_room(self, state: TrainState) -> None:
        """Most full disks are met here, before anything is half written."""
        needed = 1.25 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20  # the log wants to go on, too
        free = shutil.disk_usage(self._folder).free
        if not cluster.all_agree(free >= needed):
            raise RunError(
                f"no room for a checkpoint in {self._folder} ({free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB needed); those "
                f"of steps {self.steps()} are whole. Make room, then run the same command again"
            )

    def newest_note(self, like: TrainState, name: str) -> tuple[int, float] | None:
        """The newest whole checkpoint's step, and a number that was saved with it; those that cannot be read are set aside."""
        for step in self.steps()[::-1]:
            value, reason = None, ""
            try:
                value = self._read(step, like)["meta"][name]
            except Exception as error:  # as in `restore`
                reason = one_line(error)
            if cluster.all_agree(value is not None):
                return step, cast(float, value)
            self._set_aside(step, reason)
        return None

    def keep_only(self, step: int) -> None:
        """Delete the others, once that of `step` is whole."""
        self.wait()
        for other in self.steps():
            if other != step:
                self._manager.delete(other)

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The newest whole checkpoint, or the one of `step`.

        Those that cannot be read are set aside as `damaged-checkpoint-<step>` and the one before them is used. Where none can,
        the fault may lie elsewhere (rights, memory, another version), and all stay where they are.

        Args:
          like: a state of the same shapes; the result lives on the same devices.
          step: which checkpoint; None for the newest.

        Returns:
          None where no checkpoint is there (and no `step` was asked for).

        Raises:
          RunError: when the one asked for is missing or damaged, or when none can be read.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise RunError(f"--step={step}: no such checkpoint in {self._folder}; there are {steps or 'none'}")
        reasons: dict[int, str] = {}
        for candidate in steps[::-1] if step is None else [step]:
            state = None
            try:
                state = self._read(candidate, like)["state"]
            except Exception as error:  # damage can make Orbax, TensorStore or JSON raise anything
                reasons[candidate] = one_line(error)
            if cluster.all_agree(state is not None):
                for damaged, reason in reasons.items():
                    self._set_aside(damaged, reason)
                return state
            reasons.setdefault(candidate, "another process cannot read it")
        if step is not None:
            raise RunError(f"--step={step}: that checkpoint is damaged ({reasons[step]}); pick one of {steps}")
        if steps:
            raise RunError(
                f"no checkpoint in {self._folder} can be read ("
                + "; ".join(f"{damaged}: {reason}" for damaged, reason in reasons.items())
                + "); nothing was changed. Mend the folder's rights or disk, or start again in a new --workdir"
            )
        return None

    def _read(self, step: int, like: TrainState) -> Mapping[str, Any]:
        """The items `state` and `meta` of a checkpoint; raises where they do not belong together."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        found = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        )
        if digest(found["state"]) != found["meta"]["digest"]:
            raise ValueError("its contents do not match their checksum")
        return found

    def _set_aside(self, step: int, reason: str) -> None:
        if self._read_only:
            self._report(f"checkpoint {step} is damaged and left out ({reason})")
            return
        aside = self._folder.parent / f"damaged-checkpoint-{step}"
        count = 1
        while aside.exists():
            count += 1
            aside = aside.with_name(f"damaged-checkpoint-{step}-{count}")
        cluster.barrier(f"set aside {step}: name")
        if cluster.is_first():
            (self._folder / str(step)).rename(aside)
        cluster.barrier(f"set aside {step}: done")
        self._manager.reload()
        self._report(f"checkpoint {step} is damaged and set aside as {aside} ({reason})")

    def wait(self) -> None:
        """Wait for what is being written."""
        with self._explained():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for what is being written, and let go of the folder."""
        self.wait()
        self._manager.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk reaches us as an error of Orbax, of TensorStore or of the system
            raise RunError(
                f"a checkpoint cannot be written to {self._folder} ({one_line(error)}); those of steps {self.steps()} are "
                "whole. Make room or mend the folder, then run the same command again"
            ) from error


class BestCheckpoint:
    """Validates, and keeps the state with the best score so far, of equal ones the first, in a folder of its own.

    Args:
      validate: named scores of a state.
      store: keeps all that it is given.
      score: the name of the score that counts; larger is better.
      like: as of `Checkpoints.restore`.
    """

    def __init__(self, validate: Callable[[TrainState], dict[str, float]], store: Checkpoints, score: str, like: TrainState):
        self._validate, self._store, self._score = validate, store, score
        self.step, self.score = store.newest_note(like, "score") or (None, float("-inf"))

    def __call__(self, state: TrainState) -> dict[str, float]:
        scores = self._validate(state)
        if scores[self._score] > self.score and int(state.step) != self.step:  # on other devices a step may score otherwise
            self.step, self.score = int(state.step), scores[self._score]
            self._store.save(state, score=self.score)
            self._store.keep_only(self.step)
        return scores
