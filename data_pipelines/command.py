"""The beginning and the end of every command: its options, and one line for whatever ends it early."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from data_pipelines.schema import DataError

MISTAKE, INTERRUPTED, CLOSED_PIPE = 2, 130, 141  # exit statuses; the last two as a shell has them for SIGINT and SIGPIPE


class Parser(argparse.ArgumentParser):
    """Options of a command; a mistake in them ends the command with one line and status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"error: {message}; {self.prog} --help lists the options\n")


def make_parser(module: str, about: str, usage: str, *examples: str) -> Parser:
    """A command `python -m MODULE` with its help: `usage` has the options to give, `examples` are whole commands."""
    lines = "".join(f"\n  python -m {example}" for example in examples)
    return Parser(
        prog=f"python -m {module}",
        usage=f"python -m {module} {usage}",
        description=about,
        epilog=f"example{'s' * (len(examples) > 1)}:{lines}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28),
        allow_abbrev=False,
    )


def expanded_path(text: str) -> Path:
    """A path from the command line, absolute, with `~` for the user's home."""
    return Path(text).expanduser().absolute()


@contextmanager
def report_errors(
    state: str | Callable[[], str] = "nothing was written",
    mistakes: tuple[type[Exception], ...] = (DataError,),
    leave: Callable[[int], NoReturn] = sys.exit,
) -> Iterator[None]:
    """Run the body of a command; a mistake, a full disk, a closed pipe or Ctrl-C ends it with at most one line.

    `state` is that in which Ctrl-C and an error of the file system leave things, or a function that finds it out; the messages
    of `mistakes` are for the user; `leave` ends the process, with status 2 also after an error of the file system.
    """
    for stream in (sys.stdout, sys.stderr):  # where the terminal or the file name is not UTF-8, a sign may become its code
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    line, status = "", MISTAKE
    try:
        yield
        sys.stdout.flush()  # here a closed pipe can still be told
        return
    except mistakes as error:
        line = f"error: {error}"
    except BrokenPipeError:  # whoever read the output wants no more of it
        status = CLOSED_PIPE
        with suppress(io.UnsupportedOperation):  # no file; else: so that the end of the process does not try again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        line = f"error: {error}; fix or free the disk; {state if isinstance(state, str) else state()}"
    except KeyboardInterrupt:
        line, status = f"interrupted; {state if isinstance(state, str) else state()}", INTERRUPTED
    if line:
        print(line, file=sys.stderr, flush=True)
    leave(status)
