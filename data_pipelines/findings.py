"""What a judgement of a walk can say."""

from typing import NamedTuple


class Finding(NamedTuple):
    """What is wrong with a walk."""

    name: str
    frames: int | None  # number of frames in which it was found; None where it is true of the walk as a whole
    message: str  # meaning and remedy
    grave: bool  # True: the walk gets no answer
