"""One training at a time in a run directory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from data_pipelines.command import unwritable
from data_pipelines.locks import alone, holder
from data_pipelines.schema import DataError
from scoliojax.devices import cluster
from scoliojax.errors import RunError


def _refuse(directory: Path, who: str) -> NoReturn:
    raise RunError(
        f"--workdir={directory} is being trained in ({who}); wait for its end, or stop it, or give another --workdir"
    )


def refuse_other_training(directory: Path) -> None:
    """Raise `RunError` where a training is at work in a run directory; nothing is made or changed."""
    try:
        if who := holder(directory / ".lock"):
            _refuse(directory, who)
    except OSError as error:
        raise RunError(f"--workdir={directory} {unwritable(error)}") from None


@contextmanager
def only_training(directory: Path) -> Iterator[None]:
    """Hold the lock `.lock` of a run directory, which is made where it is missing, and removed again if it stays empty.

    All processes of the run must call this; the first holds the lock. Raises `RunError` in all of them where another training
    holds it, or the directory cannot be written, and `DataError` where `.lock` is no file. Whoever only reads the run needs no
    lock.
    """
    with ExitStack() as held:
        reason = None
        try:
            if cluster.is_first():
                held.enter_context(alone(directory / ".lock", partial(_refuse, directory)))
        except (RunError, DataError) as error:
            reason = error
        except OSError as error:
            reason = RunError(f"--workdir={directory} {unwritable(error)}")
        if not cluster.all_agree(reason is None):
            raise reason or RunError(f"--workdir={directory} cannot be trained in; the first process says why") from None
        yield
