"""Ctrl-C at any moment of a command, also while it is still importing: one line, and status 130."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130  # exit status, as a shell has it for SIGINT

_interrupted = False


def end_in_one_line() -> None:
    """In `python -m MODULE`, Ctrl-C ends the process from now on, until `raise_between_imports`.

    Called by both packages as they are imported, which is as early as a command can know of Ctrl-C.
    """
    if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
        atexit.register(_keep_status)  # the first to be registered, so the last to be called


def raise_between_imports(left: Callable[[], str]) -> None:
    """From now on Ctrl-C is a KeyboardInterrupt again, but ends the process at once where it meets an import.

    A library that is being imported may swallow a KeyboardInterrupt, print a traceback of its own, or crash. `left` says in
    which state things are.
    """
    if signal.getsignal(signal.SIGINT) is not _end:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        inner = frame
        while inner is not None:
            if inner.f_code.co_filename == "<frozen importlib._bootstrap>":
                _end(number, frame, left())
            inner = inner.f_back
        signal.default_int_handler(number, frame)

    def ask_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
            return
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, handle)
    sys.unraisablehook = ask_again  # within a finaliser or a garbage collector's callback, Python drops what is raised


def remember() -> None:
    """A KeyboardInterrupt ends the command, which has said so."""
    global _interrupted
    _interrupted = True


def _end(number: int, frame: FrameType | None, left: str = "nothing was written") -> None:
    os.write(2, f"interrupted; {left}\n".encode(errors="backslashreplace"))
    os._exit(INTERRUPTED)


def _keep_status() -> None:
    """End as an interrupted command does; Python ends some by a signal, for an interrupt within code that was made of text."""
    if _interrupted:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(INTERRUPTED)
