"""Ctrl-C and SIGTERM at any moment of a command, also while it is still importing: one line, and status 130 or 143."""

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED, STOPPED = 130, 143  # exit statuses, as a shell has them for SIGINT and SIGTERM
ASK_AGAIN = 0.05  # seconds until a Ctrl-C that came at a bad moment is heeded

Handler = Callable[[int, FrameType | None], None]
OURS = ("data_pipelines", "scoliojax")

_interrupted = _stopped = _at_work = False
_owner = 0  # the process that speaks; those that it forks do not


def end_in_one_line() -> None:
    """In a command of ours Ctrl-C ends the process from now on, until `raise_between_imports`; so does SIGTERM, also then.

    Called by both packages as they are imported, which is as early as a command can know of Ctrl-C. A program of somebody
    else's that imports them keeps its own signals.
    """
    global _owner
    if sys.argv[:1] != ["-m"] or _module().partition(".")[0] not in OURS:
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _owner = os.getpid()
        signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
        atexit.register(_keep_status)  # the first to be registered, so the last to be called


def _module() -> str:
    """The MODULE of `python -m MODULE`; empty where there is none."""
    words = iter(sys.orig_argv[1:])
    option = next((word for word in words if word.startswith("-m")), "")
    return option.removeprefix("-m") or next(words, "")


def raise_between_imports(left: Callable[[], str]) -> None:
    """From now on Ctrl-C is a KeyboardInterrupt again, but not within an import.

    A library that is being imported may swallow a KeyboardInterrupt, print a traceback of its own, or crash. There Ctrl-C ends
    the process at once, and `left` says in which state things are; after `let_imports_end` it waits for the end of the import.
    SIGTERM goes on to end the process at once, and says the same; after `let_imports_end` it is a KeyboardInterrupt, too.
    """

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

    heeded = signal.getsignal(signal.SIGINT) is _end, signal.getsignal(signal.SIGTERM) is _stop
    if not any(heeded):
        return
    if heeded[0]:  # else it is ignored, as in the background of a script
        signal.signal(signal.SIGINT, handle)
    if heeded[1]:
        signal.signal(signal.SIGTERM, lambda number, frame: _stop(number, frame, left(), handle))
    signal.signal(signal.SIGALRM, handle)
    sys.unraisablehook = ask_again  # within a finaliser or a garbage collector's callback, Python drops what is raised


def let_imports_end() -> None:
    """From now on the process holds a lock or writes, and must not end without cleaning up."""
    global _at_work
    _at_work = True


def interrupted() -> tuple[str, int]:
    """What a KeyboardInterrupt came of, for a message, and the exit status; the command ends for it."""
    global _interrupted
    _interrupted = not _stopped
    return ("stopped, as asked", STOPPED) if _stopped else ("interrupted", INTERRUPTED)


def end_by_sigterm() -> NoReturn:
    """End as SIGTERM ends a process, after it was cleaned up for it: whoever sent it sees that it was heeded."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("SIGTERM did not end the process")


def _end(number: int, frame: FrameType | None, left: str = "nothing was written") -> None:
    _say(f"interrupted; {left}")
    os._exit(INTERRUPTED)


def _stop(number: int, frame: FrameType | None, left: str = "nothing was written", handle: Handler | None = None) -> None:
    """End by the signal itself, after a line; a process that holds a lock or writes first cleans up, as for Ctrl-C."""
    global _stopped
    if handle and _at_work and os.getpid() == _owner:
        _stopped = True
        handle(signal.SIGINT, frame)
        return  # within an import: it asks again
    if os.getpid() == _owner:
        _say(f"stopped, as asked; {left}")
    end_by_sigterm()


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads it
        os.write(2, f"{' '.join(line.split())}\n".encode(errors="backslashreplace"))


def _keep_status() -> None:
    """End as an interrupted command does; Python ends some by a signal, for an interrupt within code that was made of text."""
    if _interrupted:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(INTERRUPTED)
