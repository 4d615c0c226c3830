"""Exceptions that end a command with one line."""


class RunError(Exception):
    """A mistake that a user can fix; the message names the field, the value and the remedy, in one line."""


class Stopped(Exception):  # noqa: N818, nothing went wrong
    """A run that was asked to stop, and did, after the step in `args[0]`; a checkpoint of that step is being written."""


def one_line(error: BaseException) -> str:
    """The message of a library's error, short enough to stand inside a message of ours."""
    try:
        text = str(error)
    except Exception:  # of a class whose text cannot be made
        text = ""
    return " ".join(text.split())[:200] or type(error).__name__
