"""Judgement of a walk's silhouettes without a network: damaged frames, and what is no walk towards or away from the camera.

The bounds here, in `outline` and in `gait` were chosen on a development set: synthetic walkers, eight real walks, and masks
that show no walk (`tests/data_pipelines/non_walks.py`). docs/screening.md describes it and reports the rule on other data. Axis
letters as in `data_pipelines.schema`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipelines.findings import Finding
from data_pipelines.gait import STAYS, Gait, gait_of, legs_of, movement
from data_pipelines.outline import outline
from data_pipelines.schema import FEWEST_FRAMES, FRAME_SIZE

PERSON = 127  # grey level above which a pixel belongs to the person
# A frame is bad beyond one of these.
LOOSE = 0.05  # share of the area off the largest piece
GAPS, ALL_GAPS = 0.02, 0.1  # share of empty rows, without and with gaps of up to two rows, as thin ankles have
HOLES, ALL_HOLES = 0.04, 0.15  # holes by the area, where most frames have the body, and anywhere: an arm makes one, too
LEAST_OVERLAP = 0.5  # intersection over union with the frame before it, and with the walk's majority
AREA_CHANGE = 0.3  # relative difference from the median area
MANY_BAD, MOST_BAD = 0.25, 0.5  # share of bad frames that is flagged, and from which there is no answer
IN_TURN, SLIGHT = 0.72, 0.02  # change from a frame to the next but one, by that to the next; added to both, so noise is none
PIECES = "in pieces"
DAMAGED = {"wider than tall"}  # what the outline tells of a mostly damaged walk
IN_PIECES = {*DAMAGED, "two people", "upside down"}  # and of one whose only damage is that it is in pieces


@dataclass(frozen=True)
class Quality:
    """The judgement of one walk."""

    bad: dict[str, np.ndarray]  # by kind of damage: bool [s]
    findings: tuple[Finding, ...]
    gait: Gait

    @property
    def bad_frames(self) -> int:
        """Number of frames with any damage."""
        return int(np.any(list(self.bad.values()), axis=0).sum())

    @property
    def grave(self) -> list[Finding]:
        """The findings for which the walk gets no answer."""
        return [finding for finding in self.findings if finding.grave]


def judge(silhouettes: np.ndarray, times: np.ndarray | None = None) -> Quality:
    """Judge a walk of normalised silhouettes, uint8 `[s, 64, 64]` with at least one frame; `times` in seconds, float `[s]`.

    One cause gives one finding: the movement is judged where damage and outline leave a body to look at, and the outline of
    mostly damaged silhouettes is told as far as it is seen in spite of the damage. What is no walk has no gait.
    """
    person = silhouettes > PERSON  # s 64 64
    bad = _damage(person)
    findings, legs = list(many_bad(bad, "silhouettes", "segment the walk anew")), legs_of(person)
    gait, damaged = gait_of(legs, times), any(finding.grave for finding in findings)
    told = IN_PIECES if damaged and max(bad[kind].mean() for kind in bad if kind != PIECES) <= MANY_BAD else DAMAGED
    findings += [one for one in outline(person, legs.together) if not damaged or one.name in told]
    if not any(finding.grave for finding in findings):
        moves = list(movement(legs, gait, times))
        stays = any(finding.name == STAYS for finding in moves)
        findings += moves if stays else list(_order(person)) or moves
    no_walk = any(finding.grave for finding in findings)
    return Quality(bad, tuple(findings), Gait(None, None, None) if no_walk else gait)


def many_bad(bad: dict[str, np.ndarray], what: str, remedy: str) -> Iterator[Finding]:
    """The finding of damaged frames, if there are many; `what` the frames show, and what to do beside looking at them."""
    damaged = np.any(list(bad.values()), axis=0)  # s
    if (share := damaged.mean()) <= MANY_BAD:
        return
    kinds = ", ".join(f"{int(frames.sum())} {kind}" for kind, frames in bad.items() if frames.any())
    message = f"{damaged.sum()} of {len(damaged)} {what} are damaged ({kinds}); look at them, and {remedy}"
    yield Finding(f"bad {what}", int(damaged.sum()), message, bool(share > MOST_BAD))


def _order(person: np.ndarray) -> Iterator[Finding]:
    """The finding of frames that do not follow each other as those of one walk, bool `[s, 64, 64]`."""
    next_but_one, following = (1.0 - _overlap(person[step:], person[:-step]).mean() for step in (2, 1))
    if next_but_one + SLIGHT < IN_TURN * (following + SLIGHT):
        message = "every other frame shows something else: two people or two segmentations in turn; give the frames of one walk"
        yield Finding("frames in turn", None, message, True)
    different = 1 + int((person[1:] != person[:-1]).any(axis=(1, 2)).sum())
    if different < FEWEST_FRAMES <= len(person):
        message = f"only {different} different silhouettes in {len(person)} frames: frames are repeated; record a longer walk"
        yield Finding("repeated frames", len(person) - different, message, True)


def _damage(person: np.ndarray) -> dict[str, np.ndarray]:
    """Frames of a walk, bool `[s, 64, 64]`, that are damaged: by kind, bool `[s]`."""
    import cv2  # imported here so that commands answer --help without it

    area = person.sum(axis=(1, 2))  # s
    outside = np.pad(~person, ((0, 0), (1, 1), (1, 1)), constant_values=True)  # s 66 66
    largest, joined = (
        np.zeros(len(person)),
        np.empty_like(person),
    )  # s; s 64 64, what is at most two pixels apart hangs together
    holes = np.empty_like(person)  # s 64 64
    for number, (frame, around) in enumerate(zip(person.view(np.uint8), outside.view(np.uint8), strict=True)):
        joined[number] = wide = cv2.dilate(frame, np.ones((3, 3), np.uint8))  # 64 64
        pieces = np.bincount(cv2.connectedComponents(wide, connectivity=8)[1][person[number]])
        largest[number] = pieces.max(initial=0)
        places = cv2.connectedComponents(around, connectivity=4)[1]  # 66 66
        holes[number] = ((places > 0) & (places != places[0, 0]))[1:-1, 1:-1]
    filled = np.maximum(area, 1)  # s
    majority = person.mean(axis=0) > 0.5  # 64 64
    rows = joined.max(axis=2)  # s 64
    first, last = rows.argmax(axis=1), FRAME_SIZE - 1 - rows[:, ::-1].argmax(axis=1)  # s, s
    gaps, all_gaps = (1.0 - filled_rows.sum(axis=1) / (last - first + 1) for filled_rows in (rows, person.max(axis=2)))  # s, s
    jumps = _overlap(person, majority) < LEAST_OVERLAP  # s
    jumps[1:] |= _overlap(person[1:], person[:-1]) < LEAST_OVERLAP
    return {
        PIECES: 1.0 - largest / filled > LOOSE,
        "with holes": ((holes & majority).sum(axis=(1, 2)) / filled > HOLES) | (holes.sum(axis=(1, 2)) / filled > ALL_HOLES),
        "torn": (gaps > GAPS) | (all_gaps > ALL_GAPS),
        "unlike their neighbours": jumps,
        "of another size": np.abs(area / max(np.median(area), 1) - 1.0) > AREA_CHANGE,
    }


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of masks, `[s, h, w]` and another of that shape or `[h, w]`: `[s]`."""
    return (first & second).sum(axis=(1, 2)) / np.maximum((first | second).sum(axis=(1, 2)), 1)  # s
