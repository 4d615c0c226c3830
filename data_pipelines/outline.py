"""Outline of a body: is it one person, upright, whole, and seen from the front or the back? Axis letters as in `schema`."""

from collections.abc import Iterator

import numpy as np

from data_pipelines.findings import Finding
from data_pipelines.schema import FRAME_SIZE

# Beyond one of these it is no such outline; all but the shares of frames are medians over the frames.
LYING = 60  # columns between the outermost pixels, of 64; a mask that is wider than tall fills them
BLOCK = 0.74  # area by that of the bounding box
RAGGED = 13.5  # length of the edge by the root of the area
HEAD = 0.58  # width of the head by that of the chest
FEET = 0.66  # width of the ankles by that of the chest
TOP, MIDDLE, BOTTOM = 0.19, 0.455, 0.445  # share of the area: head at most, trunk at least, legs at most
NO_LEGS = 0.49  # share of the area in the rows of the legs, if these are cut off or folded
SCISSORS = 0.1  # variance of the legs, as far as left and right do the same; from the side they open and close like scissors
SPREAD, FAR_SPREAD = 0.45, 0.55  # width by height: flagged, and no answer
LEANING, LONG = 18.0, 2.0  # degrees; of what is that much longer than wide
TWO = 0.5  # share of frames with two heads
POSTURE = 0.125  # variance of the upper half by the area
HEAD_ROWS, CHEST_ROWS, ANKLE_ROWS = slice(3, 8), slice(14, 28), slice(58, 62)
SHOULDERS, HIPS = 13, 36  # first rows of trunk and legs

VIEW = "the network has learnt from people who walk towards the camera or away from it"


def extent(columns: np.ndarray) -> np.ndarray:
    """Number of columns from the first to the last True of each row: bool `[s, w]` to `[s]`; 0 where there is none."""
    last = columns.shape[1] - columns[:, ::-1].argmax(axis=1)  # s
    return np.where(columns.any(axis=1), last - columns.argmax(axis=1), 0)


def outline(person: np.ndarray, together: float) -> Iterator[Finding]:
    """What is wrong with the outline of a walk, bool `[s, 64, 64]`; `together` as in `gait.Legs`."""
    area = np.maximum(person.sum(axis=(1, 2)), 1)  # s
    columns = person.max(axis=1)  # s 64
    wide = extent(columns)  # s
    width = float(np.median(wide))
    top, middle, bottom, head, head_below, ankles = _proportions(person, area)
    no_legs = Finding("half a body", None, "nothing narrows to feet: the legs are cut off or folded (somebody sits)", True)
    if width >= LYING and top < TOP / 2 and bottom > NO_LEGS and ankles > FEET:
        yield no_legs
        return
    if width >= LYING:
        yield Finding("wider than tall", None, "the masks show something wider than tall: somebody lies, or no person", True)
        return
    fill = float(np.median(area / np.maximum(FRAME_SIZE * wide, 1)))
    if fill > BLOCK:
        yield Finding("a block", None, f"{fill:.0%} of the box around it is filled: no body with head and limbs", True)
        return
    edge = sum(np.diff(person, axis=axis).sum(axis=(1, 2)) for axis in (1, 2))  # s
    ragged = float(np.median(edge / np.sqrt(area))) > RAGGED
    posture = float(person[:, : FRAME_SIZE // 2].var(axis=0).sum() / area.mean())
    if posture > POSTURE and not ragged:
        message = (
            f"head, arms and trunk change their outline (variance {posture:.2f}, of a walker at most {POSTURE}): dancing, "
            "balancing or bending, no walk"
        )
        yield Finding("changing posture", None, message, True)
        return
    lean = _lean(person)
    if abs(lean) > LEANING:
        side = "right" if lean > 0 else "left"
        message = f"the body leans by {abs(lean):.0f} degrees to the {side}: turn the video, or record an upright walk"
        yield Finding("leaning", None, message, True)
        return
    if head > HEAD and head_below <= HEAD and head_below < 0.8 * head:
        yield Finding("upside down", None, "the head is below: turn the video or the masks", True)
    elif (two := _two_heads(person)).mean() > TWO and head <= HEAD:
        yield Finding("two people", int(two.sum()), "two heads in one mask; segment one person", True)
    elif ragged:
        message = "a long, ragged outline: holes, stripes, spots or branches in place of one body; look at the masks"
        yield Finding("ragged outline", None, message, True)
    elif bottom > NO_LEGS and ankles > FEET:
        yield no_legs
    elif head > HEAD and together > SCISSORS and width <= SPREAD * FRAME_SIZE:
        yield Finding("from the side", None, f"the legs open and close like scissors, as seen from the side; {VIEW}", True)
    elif head > HEAD:
        message = f"no head above wider shoulders: cut off, arms raised, seen from the side, or no person; {VIEW}"
        yield Finding("no head and shoulders", None, message, True)
    elif ankles > FEET:
        yield no_legs
    elif top > TOP or middle < MIDDLE or bottom > BOTTOM:
        shares = f"{top:.0%} of its area above the shoulders, {middle:.0%} in the trunk, {bottom:.0%} in the legs"
        message = (
            f"not the proportions of a walker with the arms down: {shares}; bent, sitting, arms raised, cut off, or no person"
        )
        yield Finding("wrong proportions", None, message, True)
    elif width > SPREAD * FRAME_SIZE:
        far = width > FAR_SPREAD * FRAME_SIZE
        message = f"the body is {width / FRAME_SIZE:.0%} as wide as tall: limbs are spread, or it is no walk"
        yield Finding("limbs spread", int((wide > SPREAD * FRAME_SIZE).sum()), message, far)


def _proportions(person: np.ndarray, area: np.ndarray) -> tuple[float, ...]:
    """Medians over the frames: shares of the area in head, trunk and legs, widths of both ends and the ankles by the chest."""
    rows = person.sum(axis=2)  # s 64
    parts = (slice(SHOULDERS), slice(SHOULDERS, HIPS), slice(HIPS, None))
    views = (rows, rows[:, ::-1])  # each s 64
    ends = (view[:, HEAD_ROWS].max(axis=1) / np.maximum(np.median(view[:, CHEST_ROWS], axis=1), 1) for view in views)
    ankles = rows[:, ANKLE_ROWS].mean(axis=1) / np.maximum(rows[:, CHEST_ROWS].max(axis=1), 1)  # s
    shares = (rows[:, part].sum(axis=1) / area for part in parts)
    return tuple(float(np.median(values)) for values in (*shares, *ends, ankles))


def _lean(person: np.ndarray) -> float:
    """Degrees from the upright to the long axis of the body, the head to the right positive, median over the frames.

    0 for what has no long axis.
    """
    places = np.arange(FRAME_SIZE) - (FRAME_SIZE - 1) / 2  # 64
    area = np.maximum(person.sum(axis=(1, 2)), 1)  # s
    by_row, by_column = person.sum(axis=2) / area[:, None], person.sum(axis=1) / area[:, None]  # s 64, s 64
    row, column = by_row @ places, by_column @ places  # s, s
    high, wide = by_row @ places**2 - row**2, by_column @ places**2 - column**2  # s, s
    both = ((person @ places) @ places) / area - row * column  # s
    root = np.hypot(high - wide, 2 * both)  # s
    long = (high + wide + root) > LONG**2 * np.maximum(high + wide - root, 1e-9)  # s
    return float(np.median(np.where(long, -np.degrees(np.arctan2(2 * both, high - wide)) / 2, 0.0)))


def _two_heads(person: np.ndarray) -> np.ndarray:
    """Frames with more than one piece, two pixels wide or more, in a row of the head: bool `[s]`."""
    rows = person[:, HEAD_ROWS]  # s 5 64
    wide = rows[..., 1:] & rows[..., :-1]  # s 5 63
    starts = wide & ~np.pad(wide, ((0, 0), (0, 0), (1, 0)))[..., :-1]  # s 5 63
    return (starts.sum(axis=2) > 1).any(axis=1)  # s
