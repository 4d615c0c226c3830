"""Judgement of a walk's silhouettes without a network: damaged frames, and walks that are none, or not from the front or back.

Every bound was chosen on a development set: 300 synthetic walkers, and 17 kinds of drawn masks that show no walk
(`tests/data_pipelines/non_walks.py`). docs/screening.md reports the rules on other data. Axis letters as in
`data_pipelines.schema`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.schema import FRAME_SIZE

PERSON = 127  # grey level above which a pixel belongs to the person
# A frame is bad beyond one of these.
LOOSE, HOLES, GAPS = 0.05, 0.05, 0.02  # share of the area off the largest piece, of the area in holes, of empty rows
LEAST_OVERLAP = 0.5  # intersection over union with the frame before it, and with the walk's majority
AREA_CHANGE = 0.3  # relative difference from the median area
MANY_BAD, MOST_BAD = 0.25, 0.5  # share of bad frames that is flagged, and from which there is no answer
# A walk is none beyond one of these; widths are medians over the frames.
LYING = 60  # columns of 64; a mask that is wider than tall fills them
SPREAD = 0.45 * FRAME_SIZE  # columns between the outermost pixels
BLOCK = 0.65  # area by that of the bounding box
HEAD = 0.58  # width of the head by that of the chest
FEET = 0.6  # width of the feet by that of the chest
STILL, FEET_STILL = 0.07, 0.26  # deviation over time of the legs' pixels by the area, and of the feet's; see `_movement`
TWO = 0.5  # share of frames with two heads
HEAD_ROWS, CHEST_ROWS, ANKLE_ROWS = slice(3, 8), slice(14, 28), slice(58, 62)
FEET_ROWS = 14  # the lowest


class Finding(NamedTuple):
    """What is wrong with a walk."""

    name: str
    frames: int | None  # number of frames in which it was found; None where it is true of the walk as a whole
    message: str  # meaning and remedy
    grave: bool  # True: the walk gets no answer


@dataclass(frozen=True)
class Quality:
    """The judgement of one walk."""

    bad: dict[str, np.ndarray]  # by kind of damage: bool [s]
    findings: tuple[Finding, ...]

    @property
    def bad_frames(self) -> int:
        """Number of frames with any damage."""
        return int(np.any(list(self.bad.values()), axis=0).sum())

    @property
    def grave(self) -> list[Finding]:
        """The findings for which the walk gets no answer."""
        return [finding for finding in self.findings if finding.grave]


def judge(silhouettes: np.ndarray) -> Quality:
    """Judge a walk of normalised silhouettes, uint8 `[s, 64, 64]` with at least one frame."""
    person = silhouettes > PERSON  # s 64 64
    bad = _damage(person)
    shape = _shape(person)
    movement = [] if any(finding.grave for finding in shape) else _movement(person)  # of what is no body it says nothing
    return Quality(bad, (*_quality(bad), *shape, *movement))


def _damage(person: np.ndarray) -> dict[str, np.ndarray]:
    """Frames of a walk, bool `[s, 64, 64]`, that are damaged: by kind, bool `[s]`."""
    import cv2  # imported here so that commands answer --help without it

    area = person.sum(axis=(1, 2))  # s
    outside = np.pad(~person, ((0, 0), (1, 1), (1, 1)), constant_values=True)  # s 66 66
    largest, background = np.zeros(len(person)), np.zeros(len(person))  # s, s; pixels
    for number, (frame, around) in enumerate(zip(person.view(np.uint8), outside.view(np.uint8), strict=True)):
        count, _, pieces, _ = cv2.connectedComponentsWithStats(frame, connectivity=8)
        largest[number] = pieces[1:, cv2.CC_STAT_AREA].max() if count > 1 else 0
        _, places, pieces, _ = cv2.connectedComponentsWithStats(around, connectivity=4)
        background[number] = pieces[places[0, 0], cv2.CC_STAT_AREA]
    filled = np.maximum(area, 1)  # s
    holes = outside.sum(axis=(1, 2)) - background  # s
    rows = person.any(axis=2)  # s 64
    first, last = rows.argmax(axis=1), FRAME_SIZE - 1 - rows[:, ::-1].argmax(axis=1)  # s, s
    majority = person.mean(axis=0) > 0.5  # 64 64
    jumps = _overlap(person, majority) < LEAST_OVERLAP  # s
    jumps[1:] |= _overlap(person[1:], person[:-1]) < LEAST_OVERLAP
    return {
        "in pieces": 1.0 - largest / filled > LOOSE,
        "with holes": holes / filled > HOLES,
        "torn": 1.0 - rows.sum(axis=1) / (last - first + 1) > GAPS,
        "unlike their neighbours": jumps,
        "of another size": np.abs(area / max(np.median(area), 1) - 1.0) > AREA_CHANGE,
    }


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of masks, `[s, h, w]` and another of that shape or `[h, w]`: `[s]`."""
    return (first & second).sum(axis=(1, 2)) / np.maximum((first | second).sum(axis=(1, 2)), 1)  # s


def _quality(bad: dict[str, np.ndarray]) -> list[Finding]:
    """The finding of damaged frames, if there are many."""
    damaged = np.any(list(bad.values()), axis=0)  # s
    share = damaged.mean()
    if share <= MANY_BAD:
        return []
    kinds = ", ".join(f"{int(frames.sum())} {kind}" for kind, frames in bad.items() if frames.any())
    message = f"{damaged.sum()} of {len(damaged)} silhouettes are damaged ({kinds}); look at them, and segment the walk anew"
    return [Finding("bad silhouettes", int(damaged.sum()), message, bool(share > MOST_BAD))]


def _shape(person: np.ndarray) -> list[Finding]:
    """Findings about the body's outline: is it one person, upright, from head to foot, seen from the front or the back?"""
    width = float(np.median(_extent(person.any(axis=1))))
    if width >= LYING:
        return [Finding("wider than tall", None, "what the masks show is wider than tall: no upright person", True)]
    findings = []
    fill = float(np.median(person.sum(axis=(1, 2)) / np.maximum(FRAME_SIZE * _extent(person.any(axis=1)), 1)))
    head, head_below = _head(person), _head(person[:, ::-1])
    if head > HEAD and head_below <= HEAD and head_below < 0.8 * head:
        findings.append(Finding("upside down", None, "the head is below: turn the video or the masks", True))
    elif head > HEAD:
        message = (
            "no head above wider shoulders: the body is cut off, seen from the side, or no person (the network has learnt from "
            "people who walk towards the camera or away from it)"
        )
        findings.append(Finding("no head and shoulders", None, message, True))
    elif (two := _two_heads(person)).mean() > TWO:
        findings.append(Finding("two people", int(two.sum()), "two heads in one mask; segment one person", True))
    rows = person.sum(axis=2)  # s 64
    feet = float(np.median(rows[:, ANKLE_ROWS].mean(axis=1) / np.maximum(rows[:, CHEST_ROWS].max(axis=1), 1)))
    if feet > FEET and head <= HEAD:
        message = "nothing narrows to feet: the legs are cut off, or somebody sits"
        findings.append(Finding("no feet", None, message, True))
    if fill > BLOCK:
        findings.append(Finding("a block", None, f"{fill:.0%} of the box around it is filled: no body with limbs", True))
    if width > SPREAD and not findings:
        message = f"the body takes {width / FRAME_SIZE:.0%} of its height in width: limbs are spread, or the view is oblique"
        findings.append(Finding("limbs spread", None, message, False))
    return findings


def _movement(person: np.ndarray) -> list[Finding]:
    """The finding of somebody, or something, that stays as it is."""
    legs = person[:, FRAME_SIZE // 2 :]  # s 32 64
    # Moved so that the legs' middle stays where it is: who shifts the weight from one foot to the other does not walk.
    middle = legs.sum(axis=1) @ np.arange(FRAME_SIZE) / np.maximum(legs.sum(axis=(1, 2)), 1)  # s
    shifts = np.round((FRAME_SIZE - 1) / 2 - middle).astype(int)  # s
    legs = np.stack([np.roll(frame, shift, axis=1) for frame, shift in zip(legs, shifts, strict=True)])  # s 32 64
    feet = legs[:, -FEET_ROWS:]  # s 14 64
    lower = legs.std(axis=0).sum() / max(person.sum(axis=(1, 2)).mean(), 1)
    lowest = feet.std(axis=0).sum() / max(feet.sum(axis=(1, 2)).mean(), 1)
    if lower >= STILL and lowest >= FEET_STILL:
        return []
    return [Finding("still", None, "the legs hardly move: a picture, or somebody who stands; record a walk", True)]


def _extent(columns: np.ndarray) -> np.ndarray:
    """Number of columns from the first to the last True of each row: bool `[s, w]` to `[s]`; 0 where there is none."""
    last = columns.shape[1] - columns[:, ::-1].argmax(axis=1)  # s
    return np.where(columns.any(axis=1), last - columns.argmax(axis=1), 0)


def _head(person: np.ndarray) -> float:
    """Width of the head by that of the chest, median over the frames; a body in profile or without a head has a large one."""
    rows = person.sum(axis=2)  # s 64
    return float(np.median(rows[:, HEAD_ROWS].max(axis=1) / np.maximum(np.median(rows[:, CHEST_ROWS], axis=1), 1)))


def _two_heads(person: np.ndarray) -> np.ndarray:
    """Frames with more than one piece, two pixels wide or more, in a row of the head: bool `[s]`."""
    rows = person[:, HEAD_ROWS]  # s 5 64
    wide = rows[..., 1:] & rows[..., :-1]  # s 5 63
    starts = wide & ~np.pad(wide, ((0, 0), (0, 0), (1, 0)))[..., :-1]  # s 5 63
    return (starts.sum(axis=2) > 1).any(axis=1)  # s
