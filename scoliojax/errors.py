"""The exception that a user's mistake raises on this side of the data, and how a command tells it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from data_pipelines.schema import DataError


class RunError(Exception):
    """A mistake that a user can mend; the message names the field, the value and the remedy, in one line."""


def one_line(error: BaseException) -> str:
    """What an error of a library says, short enough to stand inside a message of ours."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def user_errors() -> Iterator[None]:
    """Around a whole command: a user's mistake, or a full disk, ends it with one line and status 2."""
    try:
        yield
    except (RunError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error}; mend or free the disk, then run the same command again", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is finished", file=sys.stderr)
        sys.exit(130)
