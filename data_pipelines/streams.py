"""Standard streams that a command can always use, also where whoever started it closed them."""

import io
import os
import sys
from contextlib import suppress
from typing import Any


class _Messages(io.FileIO):
    """Standard error. A message that nobody can read ends no work: there is no other place to report that."""

    def write(self, data: Any, /) -> int:
        with suppress(OSError):  # a full disk, a pipe without a reader
            return super().write(data)
        return memoryview(data).nbytes


def open_streams() -> None:
    """Open what is closed of standard input, output and error, as a device that keeps nothing. A second call does nothing.

    Else the next file to be opened would get the number of such a stream, and what libraries print. Standard error accepts
    everything from now on; standard output, which holds results, still raises OSError.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free, so this one
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, for the rest of the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        raw = _Messages(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True
        )
