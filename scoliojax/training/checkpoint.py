"""Checkpoints: the state with its step, which is also the position in the data; verified by a checksum when read."""

import asyncio
import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from scoliojax.devices import cluster
from scoliojax.errors import RunError, one_line
from scoliojax.training.state import TrainState, named_parts

_CHANGING = threading.Lock()  # one thread at a time changes which loops asyncio makes
_make_loop = asyncio.new_event_loop
_patient = 0  # how many reads and writes go on
SPOILT = "are not finite"
ATTEMPTS = 5  # to read a folder in which a run deletes its older checkpoints meanwhile


def digest(state: Any) -> str:
    """SHA-256 over every array's name, type, shape and bytes: states with equal digests are equal to the bit."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def room_for(state: Any) -> float:
    """Bytes of disk that a checkpoint of a state, or of its shapes, may need, with 1 MiB for the log."""
    return 1.25 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + 2**20


class _PatientLoop(asyncio.SelectorEventLoop):
    """A loop that closes after everything begun in it has ended, and takes no notice of what TensorStore reports later."""

    def close(self) -> None:
        while not self.is_closed() and (tasks := asyncio.all_tasks(self)):  # one may begin another before it ends
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()

    def call_soon_threadsafe(self, callback, *args, context=None) -> asyncio.Handle:
        try:
            return super().call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError:
            if not self.is_closed():
                raise
            return asyncio.Handle(callback, args, self, context)  # of a read or write that was given up: nobody waits for it


@contextmanager
def _patient_loops() -> Iterator[None]:
    """Within, Orbax waits for all reads and writes of a checkpoint, also after one has failed, whose error it raises.

    It would close its loop at once, and TensorStore print a traceback, "Event loop is closed", for every other one. Threads may
    be within at the same time, and one thread several times: the last to leave restores what was before.
    """
    global _patient
    with _CHANGING:
        _patient += 1
        asyncio.new_event_loop = _PatientLoop
    try:
        yield
    finally:
        with _CHANGING:
            _patient -= 1
            if not _patient:
                asyncio.new_event_loop = _make_loop


def check_which(which: str) -> None:
    """Raise `RunError` for a `--step` that is neither newest nor best nor a number."""
    if which not in ("newest", "best") and not re.fullmatch("[0-9]{1,18}", which):
        raise RunError(f"--step={which[:40]} is neither newest nor best nor a number of steps")


class Checkpoints:
    """The checkpoints of a folder, `<folder>/<step>`; the folder is created when missing.

    `keep`: number of the newest to keep, None for all; `report`: receives lines for the user; `read_only`: move or delete
    nothing, because a run may be writing to the folder; `origin`: text that marks the run, and tells another run's checkpoints,
    None where it is not known.
    """

    def __init__(
        self,
        folder: Path,
        keep: int | None,
        report: Callable[[str], None],
        read_only: bool = False,
        origin: str | None = None,
    ):
        self.keep, self._folder, self._report, self._read_only = keep, folder.absolute(), report, read_only
        self._origin = origin
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=not read_only, read_only=read_only, create=not read_only
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._writing = ExitStack()  # entered while a checkpoint is written in the background, and after a write that failed

    def steps(self) -> list[int]:
        """Finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, **notes: float) -> None:
        """Write in the background, with `notes` for `newest_note`; a checkpoint appears complete or not at all."""
        needed = room_for(state)
        free = shutil.disk_usage(self._folder).free
        if not cluster.all_agree(free >= needed):
            raise RunError(
                f"no room for a checkpoint in {self._folder} ({free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB needed); those "
                f"of steps {self.steps()} are whole. Make room, then run the same command again"
            )
        step = int(state.step)
        meta = {"step": step, "digest": digest(state), **notes} | ({"origin": self._origin} if self._origin else {})
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self.wait()  # Orbax would, too
        with self._explained():
            self._writing.enter_context(_patient_loops())
            self._manager.save(step, args=items, force=True)  # even where a later step exists

    def newest_note(self, like: TrainState, name: str) -> tuple[int, float] | None:
        """Step of the newest complete checkpoint and a number saved with it; those that cannot be read are set aside."""
        for step in self.steps()[::-1]:
            items, reason = self._try_read(step, like)
            if items is not None and name in items["meta"]:
                return step, items["meta"][name]
            self._set_aside(step, reason or f"it has no {name}")
        return None

    def keep_only(self, step: int) -> None:
        """Wait for the checkpoint of `step`, then delete the others."""
        self.wait()
        for other in self.steps():
            if other != step:
                self._manager.delete(other)

    def restore(self, like: TrainState, step: int | None = None) -> TrainState | None:
        """The state of the newest complete checkpoint, or of `step`; None where there are no checkpoints.

        Those that cannot be read are set aside as `damaged-checkpoint-<step>`, and the one before them is used. Where none can
        be read, the cause may be elsewhere (rights, memory, another version), and nothing is moved. `like` is a state of the
        same shapes, on the devices of the result. Raises `RunError` when the checkpoint of `step` is missing or damaged, or
        when none can be read.
        """
        for _ in range(ATTEMPTS):
            steps = self.steps()
            if step is not None and step not in steps:
                raise RunError(f"--step={step}: no such checkpoint in {self._folder}; there are {steps or 'none'}")
            reasons: dict[int, str] = {}
            for candidate in steps[::-1] if step is None else [step]:
                items, reasons[candidate] = self._try_read(candidate, like)
                if items is not None:
                    del reasons[candidate]
                    for damaged, reason in reasons.items():
                        self._set_aside(damaged, reason)
                    return items["state"]
            if not self._read_only or all((self._folder / str(gone)).is_dir() for gone in reasons):
                break
            self._manager.reload()  # the run that writes here has deleted what was being read
        if step is not None:
            raise RunError(f"--step={step}: that checkpoint is damaged ({reasons[step]}); pick one of {steps}")
        if steps:
            remedy = "Fix the folder's rights or disk, or start again in a new --workdir"
            if all(reason.endswith(SPOILT) for reason in reasons.values()):
                remedy = "Start again in a new --workdir, with a lower --config.optimizer.learning_rate"
            raise RunError(
                f"no checkpoint in {self._folder} can be read ("
                + "; ".join(f"{damaged}: {reason}" for damaged, reason in reasons.items())
                + f"); nothing was changed. {remedy}"
            )
        return None

    def _try_read(self, step: int, like: TrainState) -> tuple[Mapping[str, Any] | None, str]:
        """The items `state` and `meta` of a checkpoint, None where a process cannot read them; and the reason."""
        items, reason = None, "another process cannot read it"
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        try:
            with _patient_loops():
                restored = self._manager.restore(step, args=wanted)
            numbers = jax.tree.map(np.asarray, restored["state"])
            if digest(numbers) != restored["meta"]["digest"]:
                raise ValueError("its contents do not match their checksum")
            if int(numbers.step) != step:
                raise ValueError(f"it holds step {int(numbers.step)} under another name")
            if self._origin and (origin := restored["meta"].get("origin", self._origin)) != self._origin:
                raise ValueError(f"it is of another run, with {origin}; this one has {self._origin}")
            # Saved before states were judged. Not on the devices: a process that cannot read would be missing there.
            parts = {name: jax.tree.leaves(part) for name, part in named_parts(numbers).items()}
            if spoilt := [name for name, part in parts.items() if not all(np.isfinite(leaf).all() for leaf in part)]:
                raise ValueError(f"its {' and '.join(spoilt)} {SPOILT}")
            items = restored
        except Exception as error:  # damage can make Orbax, TensorStore or JSON raise anything
            reason = one_line(error)
        return (items, "") if cluster.all_agree(items is not None) else (None, reason)

    def _set_aside(self, step: int, reason: str) -> None:
        if self._read_only:
            if (self._folder / str(step)).is_dir():  # else the run that writes here has deleted it meanwhile
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
        """Wait until the checkpoint in progress is written."""
        with self._explained():
            self._manager.wait_until_finished()
            self._writing.close()  # not after an error: what was begun goes on in threads, and makes loops

    def close(self) -> None:
        """Wait until the checkpoint in progress is written, and release the folder."""
        self.wait()
        self._manager.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk reaches us as an error of Orbax, of TensorStore or of the system
            raise RunError(
                f"a checkpoint cannot be written to {self._folder} ({one_line(error)}); those of steps {self.steps()} are "
                "whole. Make room or fix the folder, then run the same command again"
            ) from error


class BestCheckpoint:
    """Validation (`validate`: scores of a state by name) that keeps the state with the best score; of equal scores the first.

    `store`: a folder for this state alone, which must keep all that is saved; `score`: name of the score to compare, larger is
    better; `like` as in `Checkpoints.restore`.
    """

    def __init__(self, validate: Callable[[TrainState], dict[str, float]], store: Checkpoints, score: str, like: TrainState):
        self._validate, self._store, self._score = validate, store, score
        self.step, self.score = store.newest_note(like, "score") or (None, float("-inf"))

    def __call__(self, state: TrainState) -> dict[str, float]:
        scores = self._validate(state)
        if scores[self._score] > self.score and int(state.step) != self.step:  # the score of a step may differ on other devices
            self.step, self.score = int(state.step), scores[self._score]
            self._store.save(state, score=self.score)
            self._store.keep_only(self.step)
        return scores
