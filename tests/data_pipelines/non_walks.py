"""Masks that show no walk from the front or the back, drawn at random: what a screening must not answer for.

The development set of `data_pipelines.quality`: its bounds were chosen on these and on synthetic walkers.
"""

from collections.abc import Callable

import cv2
import numpy as np

from data_pipelines.synthetic import draw_walker, render_walk

SIZE = (120, 160)  # rows and columns of a drawn mask


def walker(rng: np.random.Generator, frames: int = 60) -> np.ndarray:
    """Masks of a synthetic walker with empty borders: uint8 `[s, h, w]`."""
    return np.pad(render_walk(draw_walker(rng, int(rng.integers(3))), frames, rng), ((0, 0), (8, 8), (40, 40)))  # s h w


def rectangle(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A block that changes its width, as a curtain or a door does."""
    masks = np.zeros((frames, *SIZE), np.uint8)  # s h w
    middle, amplitude, phase = rng.uniform(10, 25), rng.uniform(0, 9), rng.uniform(0, 6)
    for number, mask in enumerate(masks):
        half = middle + amplitude * np.sin(2 * np.pi * number / 25 + phase)
        mask[20:100, round(80 - half) : round(80 + half)] = 255
    return masks


def ellipse(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A ball or an egg that rolls along and wobbles."""
    masks = np.zeros((frames, *SIZE), np.uint8)  # s h w
    axes, wobble = rng.uniform(12, 40, 2), rng.uniform(0, 0.4)
    for number, mask in enumerate(masks):
        angle = 360 * wobble * np.sin(number / 4)
        cv2.ellipse(mask, (40 + number % 80, 60), (round(axes[0]), round(axes[1])), angle, 0, 360, 255, -1)
    return masks


def noise(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Pixels, or blobs, at random in every frame."""
    coarse = int(rng.integers(1, 12))
    small = rng.random((frames, SIZE[0] // coarse, SIZE[1] // coarse)) < rng.uniform(0.1, 0.6)  # s h/coarse w/coarse
    return np.stack([cv2.resize(frame.astype(np.uint8) * 255, SIZE[::-1], interpolation=0) for frame in small])  # s h w


def curtain(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Vertical folds that wave."""
    x = np.arange(SIZE[1])
    folds = [np.sin(x / rng.uniform(2, 5) + number / rng.uniform(4, 8)) > 0 for number in range(frames)]  # each w
    return np.repeat(np.array(folds)[:, None], SIZE[0], axis=1).astype(np.uint8) * 255  # s h w


def bicycle(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Two wheels and a frame that pass by."""
    masks = np.zeros((frames, *SIZE), np.uint8)  # s h w
    radius, apart = int(rng.integers(14, 22)), int(rng.integers(45, 60))
    for number, mask in enumerate(masks):
        left = 30 + number % 40
        for centre in (left, left + apart):
            cv2.circle(mask, (centre, 80), radius, 255, 3)
            spoke = (round(radius * np.cos(number / 3)), round(radius * np.sin(number / 3)))
            cv2.line(mask, (centre, 80), (centre + spoke[0], 80 + spoke[1]), 255, 2)
        cv2.polylines(mask, [np.array([(left, 80), (left + 20, 50), (left + apart, 80), (left + 25, 80)])], True, 255, 3)
    return masks


def animal(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A body on four legs, from the front or from the side, which trots."""
    masks = np.zeros((frames, *SIZE), np.uint8)  # s h w
    length, height = rng.uniform(10, 40), rng.uniform(12, 18)
    for number, mask in enumerate(masks):
        swing = 6 * np.sin(2 * np.pi * number / rng.uniform(9, 12))
        cv2.ellipse(mask, (80, 60), (round(length), round(height)), 0, 0, 360, 255, -1)
        cv2.circle(mask, (round(80 + length), 48), 10, 255, -1)
        for place, turn in ((-0.7, 1), (-0.5, -1), (0.5, 1), (0.7, -1)):
            foot = (round(80 + place * length + turn * swing), 98)
            cv2.line(mask, (round(80 + place * length), 62), foot, 255, 6)
    return masks


def still(rng: np.random.Generator, frames: int) -> np.ndarray:
    """One frame of a walker again and again, with the noise of a segmentation at its edges."""
    return np.repeat(walker(rng, 1), frames, axis=0)  # s h w


def swaying(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Somebody who stands and moves from one foot to the other without lifting them."""
    frame, reach = walker(rng, 1)[0], rng.uniform(0.01, 0.05)  # h w
    masks = []
    for number in range(frames):
        shear = reach * np.sin(2 * np.pi * number / 40)
        matrix = np.array([[1.0, -shear, shear * 105], [0.0, 1.0, 0.0]])
        masks.append(cv2.warpAffine(frame, matrix, frame.shape[::-1]))  # h w
    return np.stack(masks)  # s h w


def sitting(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Somebody on a chair: the legs are short and apart, the arms move."""
    masks = []
    for frame in walker(rng, frames):
        upper, lower = frame[:66], cv2.resize(frame[66:], (frame.shape[1], 22))  # 66 w, 22 w
        masks.append(np.concatenate([upper, cv2.dilate(lower, np.ones((5, 9), np.uint8))]))  # 88 w
    return np.stack(masks)  # s h w


def lying(rng: np.random.Generator, frames: int) -> np.ndarray:
    return np.rot90(walker(rng, frames), int(rng.choice([1, 3])), (1, 2)).copy()  # s h w


def upside_down(rng: np.random.Generator, frames: int) -> np.ndarray:
    return walker(rng, frames)[:, ::-1].copy()  # s h w


def upper_half(rng: np.random.Generator, frames: int) -> np.ndarray:
    return walker(rng, frames)[:, : int(rng.integers(45, 66))]  # s h w


def lower_half(rng: np.random.Generator, frames: int) -> np.ndarray:
    return walker(rng, frames)[:, int(rng.integers(30, 60)) :]  # s h w


def two_people(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Two walkers whose masks touch."""
    apart = int(rng.integers(14, 26))
    first, second = walker(rng, frames), walker(rng, frames)  # s h w
    return np.maximum(np.roll(first, -apart // 2, axis=2), np.roll(second, apart // 2, axis=2))  # s h w


def holes(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A walker out of whose mask pieces were cut, as a subtracted background does it."""
    masks = walker(rng, frames)  # s h w
    for mask in masks:
        rows, columns = np.nonzero(mask > 127)
        for place in rng.integers(len(rows), size=8):
            cv2.circle(mask, (int(columns[place]), int(rows[place])), int(rng.integers(2, 5)), 0, -1)
    return masks


def pieces(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A walker in two or three pieces, beside ghosts of the scene."""
    masks = walker(rng, frames)  # s h w
    for mask in masks:
        top = int(rng.integers(30, 80))
        mask[top : top + int(rng.integers(3, 9))] = 0
        cv2.circle(mask, (int(rng.integers(20, 130)), int(rng.integers(20, 95))), int(rng.integers(4, 10)), 255, -1)
    return masks


def from_the_side(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A walker in profile: a narrow trunk, legs and arms that swing like scissors."""
    masks = np.zeros((frames, *SIZE), np.uint8)  # s h w
    period, stride, trunk = rng.uniform(22, 34), rng.uniform(16, 24), int(rng.integers(9, 13))
    for number, mask in enumerate(masks):
        swing = np.sin(2 * np.pi * number / period)
        cv2.circle(mask, (82, 22), 7, 255, -1)
        cv2.line(mask, (80, 32), (80, 60), 255, trunk)
        for side in (-1, 1):
            cv2.line(mask, (80, 60), (round(80 + side * stride * swing), 103), 255, 7)
            cv2.line(mask, (80, 34), (round(80 - side * 0.7 * stride * swing), 62), 255, 5)
    return masks


def figure(legs: tuple[float, float], arms: tuple[float, float], bend: float = 0.0, turn: float = 0.0) -> np.ndarray:
    """Somebody in front view: uint8 `[h, w]`. Angles in degrees from straight down, outwards, right side first.

    `bend` is the share by which the legs are folded, `turn` the lean of the trunk to the right in degrees.
    """
    mask = np.zeros((200, 240), np.uint8)  # h w
    hips = np.array([120.0, 110.0])
    lean = np.deg2rad(turn)
    neck = hips + 55 * np.array([np.sin(lean), -np.cos(lean)])
    across = np.array([np.cos(lean), np.sin(lean)])
    corners = [neck + 19 * across, neck - 19 * across, hips - 13 * across, hips + 13 * across]
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 255)
    head = neck + 17 * np.array([np.sin(lean), -np.cos(lean)])
    cv2.ellipse(mask, _at(head), (9, 12), turn, 0, 360, 255, -1)
    cv2.line(mask, _at(neck), _at(head), 255, 9)
    for side, leg, arm in ((1, *_outwards(legs[0], arms[0])), (-1, *_outwards(legs[1], arms[1]))):
        hip, shoulder = hips + side * 7 * across, neck + side * 18 * across + 4
        knee = hip + 40 * (1 - bend) * leg * (side, 1) + (side * 22 * bend, 0)
        foot = hip + 82 * (1 - bend) * leg * (side, 1)
        cv2.polylines(mask, [np.array([_at(hip), _at(knee), _at(foot)])], False, 255, 13)
        cv2.line(mask, _at(shoulder), _at(shoulder + 62 * arm * (side, 1)), 255, 9)
    return mask


def _at(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _outwards(*angles: float) -> list[np.ndarray]:
    return [np.array([np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))]) for angle in angles]


def jumping_jack(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Legs and arms open and close together."""
    open_to, period = rng.uniform(18, 32), rng.uniform(16, 30)
    share = [(1 - np.cos(2 * np.pi * number / period)) / 2 for number in range(frames)]
    return np.stack([figure((4 + open_to * s,) * 2, (15 + 130 * s,) * 2) for s in share])  # s h w


def squatting(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Somebody who bends the knees and rises again."""
    depth, period = rng.uniform(0.3, 0.5), rng.uniform(25, 45)
    share = [(1 - np.cos(2 * np.pi * number / period)) / 2 for number in range(frames)]
    return np.stack([figure((8, 8), (14 + 40 * s,) * 2, bend=depth * s) for s in share])  # s h w


def balancing(rng: np.random.Generator, frames: int) -> np.ndarray:
    """One leg goes up sideways and down again, the trunk leans to the other side, the arms keep the balance."""
    height, period = rng.uniform(35, 60), rng.uniform(70, 120)
    share = [np.sin(2 * np.pi * number / period) ** 2 for number in range(frames)]
    return np.stack([figure((5 + height * s, 5), (20 + 70 * s, 30 + 60 * s), turn=-25 * s) for s in share])  # s h w


def waving(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Somebody who stands and waves."""
    period = rng.uniform(8, 20)
    return np.stack([figure((6, 6), (150 + 25 * np.sin(2 * np.pi * k / period), 12)) for k in range(frames)])  # s h w


def shuffled(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A walk whose frames have lost their order."""
    return walker(rng, frames)[rng.permutation(frames)]  # s h w


DAMAGED, WIDE, STILL = {"bad silhouettes", "ragged outline"}, {"wider than tall"}, {"still"}
NO_BODY = {"a block", "no head and shoulders", "wrong proportions", *DAMAGED, *WIDE}
HALF = {"half a body", "no head and shoulders"}
DANCE = {"no head and shoulders", "changing posture", "limbs spread", "no alternating steps", "no periodic gait"}
NON_WALKS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], set[str]]] = {  # maker, findings that are right
    "rectangle": (rectangle, NO_BODY),
    "ellipse": (ellipse, NO_BODY),
    "noise": (noise, NO_BODY),
    "curtain": (curtain, NO_BODY),
    "bicycle": (bicycle, NO_BODY),
    "animal": (animal, {*NO_BODY, "limbs spread"}),
    "still": (still, STILL),
    "swaying": (swaying, STILL),
    "sitting": (sitting, {"half a body", "wrong proportions"}),
    "lying": (lying, WIDE),
    "upside down": (upside_down, {"upside down"}),
    "upper half": (upper_half, HALF),
    "lower half": (lower_half, {*HALF, *DAMAGED}),
    "two people": (two_people, {"two people"}),
    "holes": (holes, DAMAGED),
    "pieces": (pieces, DAMAGED),
    "from the side": (from_the_side, {"from the side"}),
    "jumping jack": (jumping_jack, DANCE),
    "squatting": (squatting, {*DANCE, *STILL, "wrong proportions"}),
    "balancing": (balancing, DANCE),
    "waving": (waving, {*STILL, *DANCE, "wrong proportions"}),
    "shuffled": (shuffled, {"no periodic gait"}),
}
