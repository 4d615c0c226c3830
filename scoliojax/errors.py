"""The one exception that a user's mistake raises on this side of the data."""


class RunError(Exception):
    """A mistake that a user can mend; the message names the field, the value and the remedy, in one line."""


def one_line(error: BaseException) -> str:
    """What an error of a library says, short enough to stand inside a message of ours."""
    return " ".join(str(error).split())[:200] or type(error).__name__
