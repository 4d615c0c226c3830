"""The one exception that a user's mistake raises on this side of the data."""


class RunError(Exception):
    """A mistake that a user can mend; the message names the field, the value and the remedy, in one line."""
