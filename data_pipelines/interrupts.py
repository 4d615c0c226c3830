"""Ctrl-C and SIGTERM at any moment of a command, also while it is still importing: one line, and status 130 or 143."""

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
_owner = 0  # the process that speaks; those that it forks do not


def end_in_one_line() -> None:
    """In `python -m MODULE`, Ctrl-C ends the process from now on, until `raise_between_imports`; so does SIGTERM, also then.

    Called by both packages as they are imported, which is as early as a command can know of Ctrl-C.
    """
    global _owner
    if sys.argv[:1] != ["-m"]:
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _owner = os.getpid()
        signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
        atexit.register(_keep_status)  # the first to be registered, so the last to be called


def raise_between_imports(left: Callable[[], str]) -> None:
    """From now on Ctrl-C is a KeyboardInterrupt again, but ends the process at once where it meets an import.

    A library that is being imported may swallow a KeyboardInterrupt, print a traceback of its own, or crash. `left` says in
    which state things are, also after SIGTERM, which goes on to end the process at once.
    """
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.signal(signal.SIGTERM, lambda number, frame: _stop(number, frame, left()))
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
    _say(f"interrupted; {left}")
    os._exit(INTERRUPTED)


def _stop(number: int, frame: FrameType | None, left: str = "nothing was written") -> None:
    """End by the signal itself, after a line: whoever sent it sees that it was heeded."""
    if os.getpid() == _owner:
        _say(f"stopped, as asked; {left}")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads it
        os.write(2, f"{' '.join(line.split())}\n".encode(errors="backslashreplace"))


def _keep_status() -> None:
    """End as an interrupted command does; Python ends some by a signal, for an interrupt within code that was made of text."""
    if _interrupted:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(INTERRUPTED)
