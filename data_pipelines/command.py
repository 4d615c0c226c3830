"""The beginning and the end of every command: its options, and one line for whatever ends it early."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from data_pipelines.interrupts import STOPPED, end_by_sigterm, interrupted, raise_between_imports
from data_pipelines.schema import DataError, is_url, local_path, printable, remedy
from data_pipelines.schema import unwritable as unwritable  # of commands as well
from data_pipelines.streams import open_streams

MISTAKE, CLOSED_PIPE = 2, 141  # exit statuses; the second as a shell has it for SIGPIPE
EXTRAS = {  # packages that only some commands need: the extra that installs them
    "av": "screen", "ai_edge_litert": "screen", "onnxruntime": "screen", "gradio": "app", "starlette": "app", "torch": "torch",
    "jax_cuda13_plugin": "cuda", "libtpu": "tpu",
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Options of a command; a mistake in them ends the command with one line and status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"error: {message}; {self.prog} --help lists the options\n")


def make_parser(module: str, about: str, usage: str, *examples: str) -> Parser:
    """A command `python -m MODULE` with its help: `usage` has the options to give, `examples` are whole commands."""
    open_streams()
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
    """A path from the command line, absolute, with `~` for the user's home; a `file://` URL is its path, another URL none."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no path (is a variable not set?); give one")
    try:
        return Path(local_path(text)).expanduser().absolute()
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except (RuntimeError, OSError) as error:  # no home of that name, or the current folder is gone
        raise argparse.ArgumentTypeError(f"{text!r} names no place ({error}); give the whole path") from None


def whole_number(lowest: int, highest: int = 2**31 - 1) -> Callable[[str], int]:
    """The type of an option that takes a whole number in this range."""

    def number(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text) or not lowest <= int(text) <= highest:
            shown = text if len(text) <= 40 else f"{text[:40]}..."
            raise argparse.ArgumentTypeError(f"{shown!r} is no whole number from {lowest} to {highest}")
        return int(text)

    return number


def expanded_text(text: str) -> str:
    """As `expanded_path`, for what is passed on as text."""
    return str(expanded_path(text))


def expanded_root(text: str) -> str:
    """As `expanded_text`, for data, which may also lie behind a URL."""
    return text if is_url(text) else expanded_text(text)


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
    open_streams()
    for stream in (sys.stdout, sys.stderr):  # where the terminal or the file name is not UTF-8, a sign may become its code
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def left() -> str:
        try:
            return state if isinstance(state, str) else state()
        except (OSError, *mistakes) as error:
            return f"what is there cannot be found out ({error})"

    raise_between_imports(left)
    line, status = "", MISTAKE
    try:
        yield
        sys.stdout.flush()  # here a closed pipe can still be told
        return
    except mistakes as error:
        line = f"error: {error}"
    except BrokenPipeError:  # whoever read the output wants no more of it
        status = CLOSED_PIPE
    except OSError as error:
        line = f"error: {error}; {remedy(error)}; {left()}"
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) not in EXTRAS:
            raise
        line = f'error: {package} is not installed, which this needs: pip install "scoliojax[{EXTRAS[package]}]"; {left()}'
    except UnicodeEncodeError as error:  # of a name; the texts of ours are UTF-8
        if error.reason != "surrogates not allowed":
            raise
        line = f"error: the name {error.object[:200]!r} is not UTF-8; rename it; {left()}"
    except KeyboardInterrupt:
        what, status = interrupted()
        line = f"{what}; {left()}"
    if line:
        print(printable(" ".join(line.splitlines())), file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # nor will it be written at the end of the process, where Python tries again and gives a status of its own
        with suppress(io.UnsupportedOperation):  # no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if status == STOPPED:
        end_by_sigterm()
    leave(status)
