"""A place that one process at a time may write to, and who is there."""

import contextlib
import datetime
import errno
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from data_pipelines.interrupts import let_imports_end
from data_pipelines.schema import DataError


def wait_for_holder(place: str) -> Callable[[str], None]:
    """For `alone`: say on standard error who is at `place`, then wait."""
    return lambda holder: print(f"{holder} is at work in {place}; waiting for it", file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(
    path: Path, busy: Callable[[str], None], report: Callable[[str], None] | None = None, clear: bool = False
) -> Iterator[bool]:
    """Hold the lock file `path`, and remove it at the end, with those of its folders that were made for it and are empty.

    The system ends a lock with its process, however that ends; a file that is left over stops nobody. Yields False, after a
    line to `report` (None: standard error), on a file system without locks.

    Args:
      path: the lock file; it names its holder while it is held.
      busy: called with a text about the holder where another process, or thread, has the lock; the call may raise. If it
        returns, the lock is waited for.
      report: receives a line for the user.
      clear: remove the folder of the lock file if it is empty, whoever made it.

    Raises `DataError` where `path` is there and no regular file, and OSError where it cannot be written.
    """
    locked, said = False, False
    made = [path.parent] * clear

    def tell(holder: str) -> None:
        nonlocal said
        if not said:  # and not again where the place changes hands while this process waits
            said = True
            busy(holder)

    let_imports_end()
    with contextlib.ExitStack() as held:
        while True:
            made += [parent for parent in path.parents if not parent.exists() and parent not in made]
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the previous holder has removed the folder or the file: try again
                file = held.enter_context(_open(path))
                locked = _lock(file, tell)
                if not locked or os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                    break
            held.close()
        if locked:
            _sign(file)
        else:
            words = f"the file system of {path.parent} has no locks; see to it that no other process writes there"
            (report or (lambda line: print(line, file=sys.stderr, flush=True)))(words)
        try:
            yield locked
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder is not empty
                for parent in made:
                    parent.rmdir()


def holder(path: Path) -> str | None:
    """A text about the process that holds the lock file `path`, None where nobody does; nothing is made or changed.

    Raises `DataError` and OSError as `alone`.
    """
    try:
        file = _open(path, make=False)
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # others may ask at the same time
        except BlockingIOError:
            return _holder(file)
        except OSError as error:
            _without_locks(error)
    return None


def _open(path: Path, make: bool = True) -> TextIO:
    """A lock file to read and to append to, made where it is missing; a link is not followed, and a pipe not waited for.

    Without `make` it is only read, and raises `FileNotFoundError` where it is missing.
    """
    how = os.O_RDWR | os.O_CREAT | os.O_APPEND if make else os.O_RDONLY
    try:
        number = os.open(path, how | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_lock_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _no_lock_file(path)
    return open(number, "r+" if make else "r", encoding="utf-8", errors="replace")


def _no_lock_file(path: Path) -> DataError:
    return DataError(f"{path} is no lock file, but a link, a folder or a device, which no command of ours made; move it away")


def _lock(file: TextIO, busy: Callable[[str], None]) -> bool:
    """Lock a file, waiting for the process that holds it; False on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    except OSError as error:
        return _without_locks(error)
    busy(_holder(file))
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        return True
    except OSError as error:
        return _without_locks(error)


def _without_locks(error: OSError) -> bool:
    if error.errno in (errno.EINTR, errno.EIO):  # a fault, and no lack
        raise error
    return False


def _sign(file: TextIO) -> None:
    """Write host, process and time into a lock file that is held."""
    file.truncate(0)
    since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    file.write(f"process {os.getpid()} on host {socket.gethostname()}, since {since}\n")
    file.flush()


def _holder(file: TextIO) -> str:
    """The holder of a lock as it signed; it may be about to."""
    for _ in range(20):
        file.seek(0)
        if text := file.read():
            return " ".join(text.split())
        time.sleep(0.01)
    return "another process"
