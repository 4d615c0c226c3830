"""Ctrl-C and SIGTERM at any moment of a command, also while it is still importing: one line, and status 130 or 143."""

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130  # exit status, as a shell has it for SIGINT
ASK_AGAIN = 0.05  # seconds until a Ctrl-C that came at a bad moment is heeded

_interrupted = _at_work = False
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
    """From now on Ctrl-C is a KeyboardInterrupt again, but not within an import.

    A library that is being imported may swallow a KeyboardInterrupt, print a traceback of its own, or crash. There Ctrl-C ends
    the process at once, and `left` says in which state things are; after `let_imports_end` it waits for the end of the import.
    SIGTERM goes on to end the process at once, and says the same.
    """
    if signal.getsignal(signal.SIGTERM) is _stop:
        signal.signal(signal.SIGTERM, lambda number, frame: _stop(number, frame, left()))
    if signal.getsignal(signal.SIGINT) is not _end:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        inner = frame
        while inner is not None:
            if inner.f_code.co_filename == "<frozen importlib._bootstrap>":
                if not _at_work:
                    _end(number, frame, left())
                signal.setitimer(signal.ITIMER_REAL, ASK_AGAIN)
                return
            inner = inner.f_back
        signal.setitimer(signal.ITIMER_REAL, 0)  # one KeyboardInterrupt, however often it was asked for
        signal.default_int_handler(number, frame)

    def ask_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
            return
        signal.setitimer(signal.ITIMER_REAL, ASK_AGAIN)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGALRM, handle)
    sys.unraisablehook = ask_again  # within a finaliser or a garbage collector's callback, Python drops what is raised


def let_imports_end() -> None:
    """From now on the process holds a lock or writes, and must not end without cleaning up."""
    global _at_work
    _at_work = True


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
