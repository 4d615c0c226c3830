"""Flags of a video: problems of its file, its pictures and its person that still allow an answer."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data_pipelines.schema import abbreviate
from data_pipelines.video.decoding import Video
from data_pipelines.video.people import FAULTS, Person

BRIGHTNESS_JUMP = 10.0  # grey levels; smallest change between two frames that is flagged
LEAST_RATE = 12.0  # frames per second; a step takes about half a second
FEW_COMBED = 0.05  # fraction of the frames; fewer may be a pattern that looks combed


class Flag(NamedTuple):
    """A remark about the quality of a walk, for the reader of the answer."""

    name: str
    frames: int | None  # number of affected frames; None if it does not apply
    message: str  # meaning and remedy


def video_flags(video: Video, person: Person, others: int, brightness: np.ndarray, repeated: int) -> Iterator[Flag]:
    """Flags of a video that was read to its end.

    `others` is the number of candidates that were not taken, `brightness` the mean grey level of each frame that is not black,
    and `repeated` the number of the person's frames that repeat the one before.
    """
    yield from _file_flags(video)
    for fault, count in person.faults().items():
        if fault != "damaged":
            yield Flag(fault, count, f"left out: {FAULTS[fault]}")
    if repeated:
        message = "nothing moves in them, as if they repeat the one before; give the video as the camera recorded it"
        yield Flag("repeated", repeated, message)
    if others:
        yield Flag("other people", None, f"{others} more walked here and did not count")
    if len(brightness) > 1 and np.abs(np.diff(brightness)).max() > BRIGHTNESS_JUMP:
        off = max(1, int(np.sum(np.abs(brightness - np.median(brightness)) > BRIGHTNESS_JUMP / 2)))
        yield Flag("exposure jump", off, "the picture's brightness jumps; lock the camera's exposure")


def _file_flags(video: Video) -> Iterator[Flag]:
    decoded = video.decoded
    if decoded.missing:
        message = "the file promises more frames than it holds: it is cut off, or its header is wrong"
        yield Flag("truncated", decoded.missing, message)
    if decoded.undecodable:
        yield Flag("undecodable", decoded.undecodable, "parts of the file cannot be decoded; copy or record it again")
    if decoded.corrupt:  # of all frames, also those in which nobody was found
        yield Flag("damaged", decoded.corrupt, f"left out: {FAULTS['damaged']}")
    if video.other_tracks:
        message = f"the largest video track was read; not read: {abbreviate(video.other_tracks, 3)}"
        yield Flag("other tracks", None, message)
    if decoded.combed > FEW_COMBED * decoded.taken:
        message = "rows of two moments in one picture (interlaced); record progressive video, or deinterlace it first"
        yield Flag("combed", decoded.combed, message)
    if decoded.black:
        yield Flag("black", decoded.black, "nothing is to be seen in them; cut them off, or record with more light")
    if decoded.seconds and (rate := (decoded.taken - 1) / decoded.seconds) < LEAST_RATE:
        message = f"{rate:.1f} frames a second, {LEAST_RATE:g} or more are needed to see a step; record at 25 or more"
        yield Flag("low frame rate", decoded.taken, message)
