"""What every command begins with, and how it tells a user's mistake."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from absl import logging

from data_pipelines.schema import DataError, cache_folder
from scoliojax.errors import RunError
from scoliojax.training.loop import Stopped

STOPPED = 75  # exit status after SIGTERM: BSD's EX_TEMPFAIL, "try again"


def settle() -> None:
    """Libraries are quiet, and a restart finds the programs of the run before."""
    logging.set_verbosity(logging.FATAL)  # Orbax describes every file it touches, and prints what it raises as well
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextmanager
def told(interrupted: str = "the same command goes on from the newest checkpoint") -> Iterator[None]:
    """Around a whole command: a user's mistake, a full disk or a wish to stop ends it with one line, and a status not 0.

    Args:
      interrupted: what Ctrl-C leaves behind, for that line.
    """
    for stream in (sys.stdout, sys.stderr):  # where the terminal or the file name is not UTF-8, a sign may become its code
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except (RunError, DataError) as error:
        _leave(f"error: {error}", 2)
    except OSError as error:
        _leave(f"error: {error}; mend or free the disk, then run the same command again", 2)
    except Stopped as stopped:
        print(f"stopped after step {stopped.args[0]}, as asked; the same command goes on from there", file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)


def _leave(line: str, status: int) -> None:
    """End with a line for the user; in a run of several processes at once, for they would wait for each other's exit."""
    print(line, file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
