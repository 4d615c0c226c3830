"""The log of a run: progress bar, `metrics.jsonl` and TensorBoard."""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.files import read_regular
from scoliojax.errors import RunError
from scoliojax.files import whole_file

# What a run spends its time on: `seconds/data` and so on in the log.
ACTIVITIES: tuple[str, ...] = ("data", "step", "validation", "saving")
SHOWN = 0.1  # least share of the time spent waiting for data that the progress bar shows


def is_time(name: str) -> bool:
    """True for a number of the log that differs between two equal runs."""
    return name == "clips_per_second" or name.startswith("seconds/")


class Log:
    """A log that records nothing, for every process but the first."""

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception) -> None: ...

    def step(self) -> None: ...

    def scalars(self, step: int, values: dict[str, float]) -> None: ...


class RunLog(Log):
    """The log of a run of `steps` steps, of which `start` are finished: a context manager.

    Lines of `metrics.jsonl` after step `start`, from an interrupted run, are removed.
    """

    def __init__(self, workdir: Path, start: int, steps: int):
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_log(path) if line["step"] <= start]
        with whole_file(path) as fresh:
            fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._workdir = workdir
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._board = _summary_writer()(str(workdir / "tensorboard"), purge_step=start + 1)
        self._bar = tqdm(total=steps, initial=start, unit="step", desc="train", dynamic_ncols=True)

    def __exit__(self, *exception) -> None:
        self._bar.close()
        self._board.close()
        self._file.close()

    def step(self) -> None:
        """Count one finished step."""
        self._bar.update()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers of a step; the bar shows loss, learning rate and clips per second, and a wait for data."""
        free = shutil.disk_usage(self._workdir).free
        if free < 2**20:  # on a full disk TensorBoard's thread ends, and later calls of it never return
            raise RunError(
                f"no room for the log in {self._workdir} ({free / 1e6:.1f} MB free, 1 MB needed); finished checkpoints are "
                "whole. Make room, then run the same command again"
            )
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            if name != "batch_fingerprint":  # it tells batches apart, and its size means nothing
                self._board.add_scalar(name, value, step)
        shown = {name: f"{values[name]:.4g}" for name in ("loss", "learning_rate", "clips_per_second") if name in values}
        seconds = {name: value for name, value in values.items() if name.startswith("seconds/")}
        if seconds and (share := seconds["seconds/data"] / sum(seconds.values())) >= SHOWN:
            shown["waiting_for_data"] = f"{share:.0%}"
        if shown:
            self._bar.set_postfix(shown)


def _summary_writer() -> type:
    """TensorBoard's writer, imported without torch, which its package needs for one type only (2 s)."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] (an import of it now says that there is none)
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


def read_log(path: Path) -> list[dict]:
    """The complete lines of a `metrics.jsonl`, a step and numbers each, without those that a crash left unreadable.

    The result is [] where there is no file. Raises `RunError` where there is something else that cannot be read.
    """
    entries = []
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path} cannot be read ({why}); restore it from a copy, or move it away") from None
    for line in content.decode("utf-8-sig", "replace").splitlines(keepends=True):
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if line.endswith("\n") and isinstance(entry, dict) and type(entry.get("step")) is int and _numbers(entry):
                entries.append(entry)
    return entries


def _numbers(entry: dict[str, Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in entry.values())
