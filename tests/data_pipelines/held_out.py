"""More masks that show no clean walk from the front or the back: the test set of `data_pipelines.quality`.

Made after the rule was fixed, to report on it; no bound was chosen on these. Each maker takes `walks`, masks uint8 `[s, h, w]`
of two walkers, drawn or real, or draws something of its own.
"""

from collections.abc import Callable

import cv2
import numpy as np

from tests.data_pipelines.non_walks import figure

SIZE = (200, 160)  # rows and columns of a drawn mask
Masks = np.ndarray


def drawn(frames: int, draw: Callable[[np.ndarray, int], None]) -> Masks:
    masks = np.zeros((frames, *SIZE), np.uint8)  # s h w
    for number, mask in enumerate(masks):
        draw(mask, number)
    return masks


def bicycle_from_the_front(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A narrow wheel, handlebars, and a rider whose knees go up and down in turn."""
    period = rng.uniform(12, 25)

    def draw(mask: np.ndarray, number: int) -> None:
        lift = 14 * np.sin(2 * np.pi * number / period)
        cv2.ellipse(mask, (80, 150), (5, 44), 0, 0, 360, 255, -1)
        cv2.line(mask, (50, 100), (110, 100), 255, 5)
        cv2.ellipse(mask, (80, 20), (9, 12), 0, 0, 360, 255, -1)
        cv2.fillPoly(mask, [np.array([(60, 40), (100, 40), (92, 110), (68, 110)])], 255)
        for side, up in ((-1, lift), (1, -lift)):
            cv2.line(mask, (80 + side * 18, 45), (80 + side * 28, 98), 255, 8)
            leg = [(80 + 8 * side, 105), (80 + 20 * side, round(130 - up)), (80 + 14 * side, round(165 - up))]
            cv2.polylines(mask, [np.array(leg)], False, 255, 11)

    return drawn(len(walks[0]), draw)


def rolling_ball(walks: list[Masks], rng: np.random.Generator) -> Masks:
    radius = int(rng.integers(15, 40))
    height = 150 - 30 * np.abs(np.sin(np.arange(len(walks[0])) / 4))  # s
    return drawn(len(walks[0]), lambda mask, k: cv2.circle(mask, (40 + k, int(height[k])), radius, 255, -1))


def chair(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A chair that somebody pushes to and fro."""

    def draw(mask: np.ndarray, number: int) -> None:
        x = int(6 * np.sin(number / 3))
        cv2.rectangle(mask, (50 + x, 20), (110 + x, 100), 255, -1)
        cv2.rectangle(mask, (45 + x, 100), (115 + x, 115), 255, -1)
        for leg in (50, 104):
            cv2.rectangle(mask, (leg + x, 115), (leg + 7 + x, 190), 255, -1)

    return drawn(len(walks[0]), draw)


def car(walks: list[Masks], rng: np.random.Generator) -> Masks:
    def draw(mask: np.ndarray, number: int) -> None:
        cv2.rectangle(mask, (number % 20, 100), (120 + number % 20, 150), 255, -1)
        cv2.rectangle(mask, (30 + number % 20, 70), (90 + number % 20, 100), 255, -1)
        for wheel in (30, 95):
            cv2.circle(mask, (wheel + number % 20, 150), 16, 255, -1)

    return drawn(len(walks[0]), draw)


def tree_in_the_wind(walks: list[Masks], rng: np.random.Generator) -> Masks:
    leaves = rng.normal(0, 1, (60, 2)) * (16, 30) + (80, 70)

    def draw(mask: np.ndarray, number: int) -> None:
        cv2.line(mask, (80, 195), (80, 80), 255, 12)
        for x, y in leaves:
            sway = (195 - y) / 14 * np.sin(number / 5)
            cv2.circle(mask, (int(x + sway), int(y)), 7, 255, -1)

    return drawn(len(walks[0]), draw)


def hand(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """An open hand that waves."""

    def draw(mask: np.ndarray, number: int) -> None:
        turn = 0.3 * np.sin(number / 3)
        cv2.ellipse(mask, (80, 130), (28, 34), 0, 0, 360, 255, -1)
        cv2.rectangle(mask, (62, 150), (98, 198), 255, -1)
        for angle in (-0.9, -0.35, -0.1, 0.15, 0.4):
            tip = (80 + 90 * np.sin(angle + turn), 130 - 90 * np.cos(angle + turn))
            cv2.line(mask, (80, 130), (round(tip[0]), round(tip[1])), 255, 13)

    return drawn(len(walks[0]), draw)


def crawling(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A child on hands and knees, seen from the front."""

    def draw(mask: np.ndarray, number: int) -> None:
        step = 8 * np.sin(number / 4)
        cv2.ellipse(mask, (80, 110), (34, 30), 0, 0, 360, 255, -1)
        cv2.circle(mask, (80, 78), 20, 255, -1)
        for side, lift in ((-1, step), (1, -step)):
            cv2.line(mask, (80 + 24 * side, 115), (80 + 30 * side, round(175 - max(lift, 0))), 255, 14)

    return drawn(len(walks[0]), draw)


def text(walks: list[Masks], rng: np.random.Generator) -> Masks:
    words = ["WALK", "stop", "Hello", "42", "scan me"]

    def draw(mask: np.ndarray, number: int) -> None:
        for row in range(4):
            cv2.putText(mask, words[(row + number // 10) % 5], (20, 45 + 45 * row), cv2.FONT_HERSHEY_DUPLEX, 1.2, 255, 4)

    return drawn(len(walks[0]), draw)


def square_code(walks: list[Masks], rng: np.random.Generator) -> Masks:
    code = (rng.random((21, 21)) < 0.5).astype(np.uint8) * 255  # 21 21
    big = cv2.resize(code, (126, 126), interpolation=cv2.INTER_NEAREST)  # 126 126
    return np.stack([np.pad(np.roll(big, number % 3, 1), 10) for number in range(len(walks[0]))])  # s h w


def dancing(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Side steps with the arms up and down."""
    beat = rng.uniform(14, 24)
    phase = 2 * np.pi * np.arange(len(walks[0])) / beat  # s
    step, arms = np.sin(phase), 50 * np.sin(phase / 2)  # s, s
    poses = [((6 + 18 * max(a, 0), 6 + 18 * max(-a, 0)), (60 + b, 60 - b), 10 * a) for a, b in zip(step, arms, strict=True)]
    return np.stack([figure(legs, both, turn=turn) for legs, both, turn in poses])  # s h w


def arms_akimbo(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Somebody who stands with the hands on the hips."""
    mask = figure((7, 7), (30, 30))
    for side in (-1, 1):
        cv2.line(mask, (120 + side * 45, 105), (120 + side * 12, 115), 255, 9)
    return np.stack([np.roll(mask, int(rng.integers(-1, 2)), 1) for _ in range(len(walks[0]))])  # s h w


def star_jump(walks: list[Masks], rng: np.random.Generator) -> Masks:
    share = np.abs(np.sin(np.arange(len(walks[0])) / rng.uniform(3, 6)))  # s
    return np.stack([figure((5 + 25 * s, 5 + 25 * s), (12 + 60 * s, 12 + 60 * s)) for s in share])  # s h w


def knee_bends(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Shallow squats with the arms down."""
    share = np.sin(np.arange(len(walks[0])) / rng.uniform(5, 9)) ** 2  # s
    return np.stack([figure((6, 6), (10, 10), bend=0.25 * s) for s in share])  # s h w


def kicking(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """One leg swings out again and again, the other stands."""
    share = np.sin(np.arange(len(walks[0])) / rng.uniform(4, 8)) ** 2  # s
    return np.stack([figure((4 + 45 * s, 5), (12, 12 + 30 * s)) for s in share])  # s h w


def cut(share: float) -> Callable[[list[Masks], np.random.Generator], Masks]:
    def make(walks: list[Masks], rng: np.random.Generator) -> Masks:
        rows = np.flatnonzero(walks[0].any(axis=(0, 2)))
        return walks[0][:, : round(rows[0] + share * len(rows))]  # s h' w

    return make


def headless(walks: list[Masks], rng: np.random.Generator) -> Masks:
    rows = np.flatnonzero(walks[0].any(axis=(0, 2)))
    return walks[0][:, round(rows[0] + 0.17 * len(rows)) :]  # s h' w


def mirrored_halves(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """The left half beside its own mirror image."""
    columns = np.arange(walks[0].shape[2])
    masks = []
    for mask in walks[0]:
        middle = round((mask.sum(axis=0) @ columns) / max(mask.sum(), 1))
        half = mask[:, max(middle - 40, 0) : middle]
        masks.append(np.pad(np.concatenate([half, half[:, ::-1]], axis=1), ((0, 0), (40 - half.shape[1],) * 2)))  # h w
    return np.stack(masks)  # s h w


def overlapping(apart: float) -> Callable[[list[Masks], np.random.Generator], Masks]:
    """Two walkers, by a share of the height apart."""

    def make(walks: list[Masks], rng: np.random.Generator) -> Masks:
        first, second = walks
        frames = min(len(first), len(second))
        shift = round(apart * len(np.flatnonzero(first.any(axis=(0, 2)))) / 2)
        wide = [np.pad(one[:frames], ((0, 0), (0, 0), (shift + 1,) * 2)) for one in (first, second)]
        return np.maximum(np.roll(wide[0], -shift, 2), np.roll(wide[1], shift, 2))  # s h w

    return make


def smaller_beside(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A walker with a child at the hand."""
    first, second = (np.pad(one, ((0, 0), (0, 0), (60, 60))) for one in walks)
    masks = []
    for big, other in zip(first, second, strict=False):
        height, width = other.shape
        small = cv2.resize(other, (round(0.65 * width), round(0.65 * height)))  # h' w'
        child = np.zeros_like(big)  # h w
        bottom = np.flatnonzero(big.any(axis=1))[-1]
        low = np.flatnonzero(small.any(axis=1))[-1]
        top, left = bottom - low, (width - small.shape[1]) // 2
        child[max(top, 0) : top + low + 1, left : left + small.shape[1]] = small[max(-top, 0) : low + 1]
        masks.append(np.maximum(big, np.roll(child, round(0.27 * height), 1)))  # h w
    return np.stack(masks)  # s h w


def flicker(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Every other frame thick, the others thin."""
    kernel = np.ones((5, 5), np.uint8)
    return np.stack([(cv2.dilate, cv2.erode)[k % 2](mask, kernel) for k, mask in enumerate(walks[0])])  # s h w


def alternating_people(walks: list[Masks], rng: np.random.Generator) -> Masks:
    frames = min(map(len, walks))
    return np.stack([walks[k % 2][k] for k in range(frames)])  # s h w


def slow(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A tenth of the speed: each frame ten times, so that the walk is a standing person."""
    return np.repeat(walks[0], 10, axis=0)[: len(walks[0])]  # s h w


def blocks_erased(walks: list[Masks], rng: np.random.Generator) -> Masks:
    masks = walks[0].copy()  # s h w
    for mask in masks:
        rows, columns = np.nonzero(mask > 127)
        size = len(np.flatnonzero(mask.any(axis=1))) // 8
        for place in rng.integers(len(rows), size=4):
            mask[rows[place] - size // 2 :][:size, max(columns[place] - size // 2, 0) :][:, :size] = 0
    return masks


def shadow(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """A shadow on the floor that hangs at the feet, to one side."""
    masks = np.pad(walks[0], ((0, 0), (0, 0), (80, 80)))  # s h w
    for mask in masks:
        rows, columns = np.nonzero(mask > 127)
        height = int(np.ptp(rows))
        centre = (int(columns.mean() + 0.3 * height), int(rows.max() - 0.03 * height))
        cv2.ellipse(mask, centre, (round(0.33 * height), round(0.035 * height)), 0, 0, 360, 255, -1)
    return masks


def trailing_ghost(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """The body where it was some frames ago, beside where it is."""
    masks = np.pad(walks[0], ((0, 0), (0, 0), (40, 40)))  # s h w
    shift = round(0.2 * walks[0].shape[1])
    return np.maximum(masks[8:], np.roll(masks[:-8], shift, 2))  # s h w


def scene_in_pieces(walks: list[Masks], rng: np.random.Generator) -> Masks:
    """Only where the walker moved, as a difference of frames has it."""
    return np.where(np.abs(walks[0][2:].astype(int) - walks[0][:-2]) > 127, 255, 0).astype(np.uint8)  # s h w


def turned(degrees: float) -> Callable[[list[Masks], np.random.Generator], Masks]:
    def make(walks: list[Masks], rng: np.random.Generator) -> Masks:
        masks = np.pad(walks[0], ((0, 0), (60, 60), (60, 60)))  # s h w
        height, width = masks.shape[1:]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        return np.stack([cv2.warpAffine(mask, matrix, (width, height)) for mask in masks])  # s h w

    return make


DAMAGED = {"bad silhouettes", "ragged outline"}
NO_BODY = {"a block", "no head and shoulders", "wrong proportions", "half a body", "wider than tall", *DAMAGED}
STANDING = {"still", "no alternating steps", "no periodic gait"}
MOVING = {"changing posture", "limbs spread", "no alternating steps", "no periodic gait", "wrong proportions"}
CUT_OFF = {"half a body", "no head and shoulders", "wrong proportions"}
DRAWN: dict[str, tuple[Callable[[list[Masks], np.random.Generator], Masks], set[str]]] = {  # maker, findings that are right
    "bicycle from the front": (bicycle_from_the_front, NO_BODY | MOVING | {"no steps"}),
    "rolling ball": (rolling_ball, NO_BODY),
    "chair": (chair, NO_BODY),
    "car": (car, NO_BODY),
    "tree in the wind": (tree_in_the_wind, NO_BODY),
    "hand": (hand, NO_BODY | MOVING),
    "crawling child": (crawling, NO_BODY),
    "text": (text, NO_BODY),
    "square code": (square_code, NO_BODY),
    "dancing": (dancing, MOVING),
    "arms akimbo": (arms_akimbo, STANDING | {"wrong proportions", "limbs spread"}),
    "star jump": (star_jump, MOVING),
    "knee bends": (knee_bends, STANDING | MOVING),
    "kicking": (kicking, MOVING),
}
OF_WALKS: dict[str, tuple[Callable[[list[Masks], np.random.Generator], Masks], set[str]]] = {
    "cut at the knees": (cut(0.75), CUT_OFF),
    "cut at the hips": (cut(0.5), CUT_OFF),
    "cut at the chest": (cut(0.35), CUT_OFF),
    "head missing": (headless, CUT_OFF),
    "mirrored halves": (mirrored_halves, {"no alternating steps", "still"}),
    "two people, heads apart": (overlapping(0.3), {"two people"}),
    "two people, overlapping": (overlapping(0.14), {"two people", *NO_BODY}),
    "a child at the hand": (smaller_beside, {"two people", *NO_BODY, "limbs spread"}),
    "flicker": (flicker, {*DAMAGED, "no periodic gait", "frames in turn"}),
    "two people in turn": (alternating_people, {*DAMAGED, "no periodic gait", "frames in turn"}),
    "one frame ten times": (slow, {"still", "no periodic gait", "repeated frames"}),
    "blocks erased": (blocks_erased, DAMAGED),
    "shadow at the feet": (shadow, {*NO_BODY, "limbs spread"}),
    "trailing ghost": (trailing_ghost, {*NO_BODY, "two people", "limbs spread"}),
    "difference of frames": (scene_in_pieces, DAMAGED),
    "turned by 45 degrees": (turned(45), {"leaning", "wider than tall"}),
    "turned by 90 degrees": (turned(90), {"wider than tall"}),
    "turned by 180 degrees": (turned(180), {"upside down"}),
}
