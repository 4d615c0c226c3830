"""Kinds of masks made after the rule of `data_pipelines.quality` was fixed: its test set.

Each maker takes masks uint8 `[s, h, w]` of a walker, drawn or real, or draws something of its own, as in `held_out`.
"""

import cv2
import numpy as np

from tests.data_pipelines.held_out import CUT_OFF, MOVING, NO_BODY, Masks, drawn, overlapping
from tests.data_pipelines.non_walks import figure


def person_on_a_scooter(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Somebody who glides by, feet together, on a board."""

    def draw(mask: np.ndarray, number: int) -> None:
        body = figure((2, 3), (25, 25), turn=4 * np.sin(number / 9))[20:, 40:200]  # h' 160
        mask[: len(body)] = body[:200]
        cv2.rectangle(mask, (60, 172), (100, 180), 255, -1)

    return drawn(len(walks[0]), draw)


def penguin(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """An egg with a head that waddles."""

    def draw(mask: np.ndarray, number: int) -> None:
        turn = 8 * np.sin(number / 4)
        cv2.ellipse(mask, (80, 110), (36, 62), turn, 0, 360, 255, -1)
        cv2.circle(mask, (round(80 + 0.5 * turn), 40), 22, 255, -1)
        for side in (-1, 1):
            cv2.ellipse(mask, (80 + 18 * side, round(172 - 4 * max(0, side * np.sin(number / 4)))), (14, 6), 0, 0, 360, 255, -1)

    return drawn(len(walks[0]), draw)


def umbrella(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A walker under an open umbrella."""
    masks = np.pad(walks[0], ((0, 0), (10, 0), (60, 60)))  # s h w
    for mask in masks:
        rows, columns = np.nonzero(mask > 127)
        height = int(np.ptp(rows))
        centre = (round(columns.mean()), int(rows.min() + 0.12 * height))
        cv2.ellipse(mask, centre, (round(0.3 * height), round(0.16 * height)), 0, 180, 360, 255, -1)
    return masks


def pushing_a_pram(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A pram hides the legs."""
    masks = np.pad(walks[0], ((0, 0), (0, 0), (40, 40)))  # s h w
    for mask in masks:
        rows, columns = np.nonzero(mask > 127)
        top, height = int(rows.min()), int(np.ptp(rows))
        x, half = round(columns.mean()), round(0.16 * height)
        cv2.rectangle(mask, (x - half, round(top + 0.5 * height)), (x + half, top + height), 255, -1)
    return masks


def long_robe(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A robe to the ground: a bell in which no leg is seen."""
    masks = walks[0].copy()  # s h w
    for mask in masks:
        rows, columns = np.nonzero(mask > 127)
        top, height, x = int(rows.min()), int(np.ptp(rows)), round(columns.mean())
        corners = [(x - 0.1 * height, top + 0.3 * height), (x + 0.1 * height, top + 0.3 * height)]
        corners += [(x + 0.19 * height, top + height), (x - 0.19 * height, top + height)]
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    return masks


def legs_frozen(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """The upper half walks, the lower half is that of the first frame."""
    masks = walks[0].copy()  # s h w
    rows = np.flatnonzero(masks[0].any(axis=1))
    masks[:, (rows[0] + rows[-1]) // 2 :] = masks[0, (rows[0] + rows[-1]) // 2 :]
    return masks


def upper_half_doubled(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Arms, trunk and head, and below them their mirror image, as over water."""
    rows = np.flatnonzero(walks[0][0].any(axis=1))
    top = walks[0][:, rows[0] : (rows[0] + rows[-1]) // 2]  # s h' w
    return np.concatenate([top, top[:, ::-1]], axis=1)  # s h'' w


def inverted(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Background for person."""
    return 255 - walks[0]  # s h w


def stretched(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Half as wide again and twice: a picture of the wrong shape."""
    return np.stack([cv2.resize(mask, (2 * mask.shape[1], mask.shape[0])) for mask in walks[0]])  # s h w


def salt_and_pepper(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A tenth of the pixels flipped."""
    return np.where(rng.random(walks[0].shape) < 0.1, 255 - walks[0], walks[0]).astype(np.uint8)  # s h w


def missing_stripes(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Every sixth band of rows is lost, as in a broken transmission."""
    masks = walks[0].copy()  # s h w
    masks[:, (np.arange(masks.shape[1]) // 4) % 6 == 0] = 0
    return masks


def marching_band(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Three people side by side in one mask."""
    pair = overlapping(0.4)(walks, rng)  # s h w
    return overlapping(0.2)([pair, np.pad(walks[0], ((0, 0), (0, 0), ((pair.shape[2] - walks[0].shape[2]) // 2,) * 2))], rng)


def robot(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Boxes one on the other, of which the lowest slide to and fro together."""

    def draw(mask: np.ndarray, number: int) -> None:
        slide = round(5 * np.sin(number / 3))
        cv2.rectangle(mask, (65, 10), (95, 40), 255, -1)
        cv2.rectangle(mask, (50, 40), (110, 120), 255, -1)
        for left in (52, 88):
            cv2.rectangle(mask, (left + slide, 120), (left + 20 + slide, 195), 255, -1)

    return drawn(len(walks[0]), draw)


def stretching(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Side bends with the arms down."""
    lean = 28 * np.sin(np.arange(len(walks[0])) / rng.uniform(4, 9))  # s
    return np.stack([figure((8, 8), (10, 10), turn=float(turn)) for turn in lean])  # s h w


def weight_shifting(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Legs apart, the body goes from one to the other."""
    share = np.sin(np.arange(len(walks[0])) / rng.uniform(4, 9))  # s
    return np.stack([figure((12 + 8 * s, 12 - 8 * s), (14, 14), turn=6 * s) for s in share])  # s h w


UNSEEN = {  # maker, findings that are right
    "scooter": (person_on_a_scooter, {"still", "no steps", "half a body", "wrong proportions", "no alternating steps"}),
    "penguin": (penguin, NO_BODY | {"still", "no steps"}),
    "robot": (robot, NO_BODY | {"still", "no steps", "no alternating steps"}),
    "side bends": (stretching, MOVING | {"still", "leaning"}),
    "weight shifting": (weight_shifting, MOVING | {"still", "no steps"}),
    "umbrella": (umbrella, NO_BODY | {"limbs spread"}),
    "pushing a pram": (pushing_a_pram, CUT_OFF | {"a block", "still", "no steps"}),
    "long robe": (long_robe, CUT_OFF | {"a block", "still", "no steps"}),
    "legs frozen": (legs_frozen, {"still", "no steps"}),
    "upper half doubled": (upper_half_doubled, NO_BODY),
    "inverted": (inverted, NO_BODY),
    "stretched": (stretched, NO_BODY | {"limbs spread"}),
    "salt and pepper": (salt_and_pepper, {"bad silhouettes", "ragged outline", "wider than tall"}),
    "missing stripes": (missing_stripes, {"bad silhouettes", "ragged outline"}),
    "three people": (marching_band, {"two people", *NO_BODY, "limbs spread"}),
}
