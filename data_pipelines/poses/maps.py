"""Skeleton maps of SkeletonGait (Fan et al. 2024, arXiv 2311.13444), byte for byte as its published preparation makes them.

A map has two channels: limbs as Gaussian ridges and joints as Gaussian spots, each the brighter the more certain.

The published preparation evaluates each Gaussian in single precision on thousands of pixels. Here of limbs only distances are
drawn, of which the nearest gives the brightness of a pixel, and joints are products of rows and columns. Where the result is so
near a step between two grey levels that rounding decides, the pixel is computed again exactly as published.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipelines.poses.joints import FACE, HIPS, JOINTS, LEAST_SURE, LIMBS
from data_pipelines.schema import FRAME_SIZE, DataError

CANVAS = 128  # rows and columns on which a frame is drawn
BODY_HEIGHT = 85.0  # pixels from the lowest to the highest joint
LEAST_HEIGHT = 1e-3  # the same in pixels of the picture; less cannot be scaled
REACH = 3.0  # standard deviations to which a Gaussian is drawn
NEIGHBOURS = 4  # frames from which a missing joint is taken
ALIGNMENTS = ("each", "shared")
STEPS = 256  # of brightness
GREY = (np.linspace(0, 1, STEPS) * 255).astype(np.uint8)  # grey level of each step; 24 of them lose one
FAINT = -10.0  # logarithm of a brightness, in steps, that is none
# Steps to which both ways to compute agree, six times what was seen: of rounding the brightness, and by sigma of places.
UNSURE, UNSURE_PLACE = 0.0005, 0.006
FAR = 256.0  # pixels from the middle of the canvas, beyond which they need not agree
BATCH = 32  # frames drawn at a time
# Heights of joints as shares of an adult's height (Drillis and Contini 1966), measured on nobody here.
HEIGHTS = {"eyes": 0.936, "shoulders": 0.818, "hips": 0.530, "knees": 0.285, "ankles": 0.039}
PIECE = 2**14  # pixels computed as published at a time


class _Parts(NamedTuple):
    """What is drawn of each frame: limbs, or joints, which are limbs without length; `q` is the axis of parts."""

    start: np.ndarray  # float32 [s, q, 2]; x and y on the canvas
    end: np.ndarray  # float32 [s, q, 2]
    peak: np.ndarray  # float32 [s, q]; 0: not drawn
    low: np.ndarray  # int64 [s, q, 2]; first column and row
    high: np.ndarray  # int64 [s, q, 2]; behind the last column and row


def skeleton_maps(poses: np.ndarray, align: str = "each", body_only: bool = False, sigma: float = 8.0) -> np.ndarray:
    """Skeleton maps uint8 `[s, 2, 64, 64]`, limbs and joints, of a pose sequence `[s, 17, 3]`.

    A frame in which no joint is seen is black. A frame whose joints all have one height cannot be scaled: `DataError` with its
    number.

    Args:
      poses: x, y and confidence of COCO's joints, 0, 0, 0 for one that was not found; finite.
      align: "each": limbs and joints are cropped by themselves, as published, so that they do not lie upon each other;
        "shared": both by one box.
      body_only: without the joints of the face, which then change nothing.
      sigma: standard deviation in pixels of the canvas, on which a body is 85 pixels high.
    """
    check_drawing(align, body_only, sigma)
    if poses.ndim != 3 or poses.shape[1:] != (len(JOINTS), 3):
        raise ValueError(f"poses of shape {poses.shape}; give [frames, {len(JOINTS)}, 3]")
    first = FACE if body_only else 0
    places = _placed(poses[:, first:].astype(np.float32), first)  # s j 2
    confidence = poses[:, first:, 2].astype(np.float32)  # s j
    ends = np.array([limb for limb in LIMBS if min(limb) >= first]) - first  # q 2
    joints = np.arange(places.shape[1])  # j
    maps = np.empty((len(poses), 2, FRAME_SIZE, FRAME_SIZE), np.uint8)  # s 2 64 64
    for begin in range(0, len(poses), BATCH):
        batch = slice(begin, begin + BATCH)
        here, sure = places[batch], confidence[batch]  # s j 2, s j
        limbs = _grey(_parts(here, sure, ends[:, 0], ends[:, 1], sigma), sigma, _ridges)  # s 128 128
        spots = _grey(_parts(here, sure, joints, joints, sigma), sigma, _spots)  # s 128 128
        maps[batch] = _cropped(np.stack([limbs, spots], axis=1), align)  # s 2 64 64
    return maps


def check_drawing(align: str, body_only: bool, sigma: float) -> None:
    """Raise `DataError` for arguments of `skeleton_maps` that cannot be."""
    del body_only  # either will do
    if align not in ALIGNMENTS:
        raise DataError(f"align={align!r} is unknown; give {' or '.join(map(repr, ALIGNMENTS))}")
    if not 0 < sigma <= CANVAS / 2:
        raise DataError(f"sigma={sigma} pixels is no width of a limb; give one over 0, up to {CANVAS // 2}")


def never_placed(poses: np.ndarray, body_only: bool = False) -> list[str]:
    """Names of the joints without a place in any frame of `[s, 17, 3]`, of those that are drawn.

    As published nothing is taken for them from elsewhere: they stand at 0, 0, so that the body is drawn too small.
    """
    first = FACE if body_only else 0
    missing = (poses[:, first:, :2] == 0).all(axis=0).any(axis=1)  # j
    return [name for name, lost in zip(JOINTS[first:], missing, strict=True) if lost]


def flat_frames(poses: np.ndarray) -> np.ndarray:
    """Numbers of the frames of a pose sequence `[s, 17, 3]` of which no map can be drawn: all joints have one height."""
    heights = poses[..., 1].astype(np.float32)  # s 17
    found = heights != 0  # s 17
    extent = np.where(found, heights, -np.inf).max(axis=1) - np.where(found, heights, np.inf).min(axis=1)  # s
    if (extent >= LEAST_HEIGHT).all():  # what is missing and taken from other frames makes none lower
        return np.zeros(0, np.int64)
    return _flat(_imputed(poses[..., :2].astype(np.float32)), poses[..., 2].astype(np.float32))


def _flat(places: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Numbers of the frames in which somebody is seen whose places `[s, j, 2]` all have one height; confidences `[s, j]`."""
    heights = places[..., 1].max(axis=1) - places[..., 1].min(axis=1)  # s
    return np.flatnonzero((confidence.max(axis=1) >= LEAST_SURE) & ~(heights >= LEAST_HEIGHT))


def _placed(poses: np.ndarray, first: int) -> np.ndarray:
    """Places of joints on the canvas, float32 `[s, j, 2]`, of poses float32 `[s, j, 3]` that begin with joint `first`."""
    places = _imputed(poses[..., :2])  # s j 2
    middle = (places[:, HIPS[0] - first] + places[:, HIPS[1] - first]) / 2  # s 2
    if len(flat := _flat(places, poses[..., 2])):
        raise DataError(f"frame {flat[0]}: all its joints have one height, so no body can be scaled; remove it")
    heights = places[..., 1].max(axis=1) - places[..., 1].min(axis=1)  # s
    scale = BODY_HEIGHT / np.where(heights >= LEAST_HEIGHT, heights, np.float32(BODY_HEIGHT))  # s
    return (places - middle[:, None]) * scale[:, None, None] + CANVAS // 2  # s j 2


def _imputed(places: np.ndarray) -> np.ndarray:
    """Places `[s, j, 2]` with a value for each 0, from the frames most alike; without where some joint is never seen."""
    rows = places.reshape(len(places), 2 * places.shape[1])  # s 2j
    missing = rows == 0  # s 2j
    if not missing.any() or missing.all(axis=0).any():
        return places
    from sklearn.impute import KNNImputer  # imported here because it takes a second

    imputer = KNNImputer(missing_values=0.0, n_neighbors=NEIGHBOURS, weights="distance")
    return imputer.fit_transform(rows).reshape(places.shape).astype(places.dtype)  # s j 2


def _parts(places: np.ndarray, confidence: np.ndarray, starts: np.ndarray, ends: np.ndarray, sigma: float) -> _Parts:
    """Limbs or joints of places `[s, j, 2]` with confidences `[s, j]`, by the numbers of the joints at both ends `[q]`."""
    start, end = places[:, starts], places[:, ends]  # s q 2
    peak = np.minimum(confidence[:, starts], confidence[:, ends])  # s q
    seen = peak >= LEAST_SURE  # s q
    short = (start[..., 0] - end[..., 0]) ** 2 + (start[..., 1] - end[..., 1]) ** 2 < 1  # s q; a joint instead
    end = np.where(short[..., None], start, end)  # s q 2
    peak = np.where(seen, np.where(short, confidence[:, starts], peak), np.float32(0))  # s q
    reach = np.float32(REACH * sigma)
    far = np.float32(2 * CANVAS)  # beyond it nothing is drawn anyway
    low = np.trunc(np.clip(np.minimum(start, end) - reach, -far, far)).astype(np.int64)  # s q 2
    high = np.trunc(np.clip(np.maximum(start, end) + reach, -far, far)).astype(np.int64) + 1  # s q 2
    return _Parts(start, end, peak, np.clip(low, 0, CANVAS), np.clip(high, 0, CANVAS))


def _grey(parts: _Parts, sigma: float, drawn: Callable[[_Parts, float], np.ndarray]) -> np.ndarray:
    """Grey levels uint8 `[s, 128, 128]` of the brightest part at each pixel, from `drawn`: `_ridges` or `_spots`."""
    import cv2  # imported here so that commands answer --help without it

    steps = drawn(parts, sigma)  # s 128 128
    np.minimum(steps, STEPS - 0.5, out=steps)
    index = steps.astype(np.uint8)  # s 128 128
    nearest = np.rint(steps)  # s 128 128
    np.subtract(nearest, steps, out=steps)
    np.abs(steps, out=steps)
    unsure = steps < UNSURE + UNSURE_PLACE / sigma  # s 128 128
    unsure &= nearest > 0
    ends = np.concatenate([parts.start, parts.end], axis=1)  # s 2q 2
    unsure[np.abs(ends - CANVAS // 2).max(axis=(1, 2)) > FAR] = True
    pixels, flat = np.flatnonzero(unsure), index.reshape(-1)  # pixel, s*128*128
    for begin in range(0, len(pixels), PIECE):
        piece = pixels[begin : begin + PIECE]  # pixel
        flat[piece] = np.minimum(_as_published(parts, piece, sigma) * STEPS, STEPS - 1).astype(np.uint8)
    return cv2.LUT(index.reshape(-1, CANVAS), GREY).reshape(index.shape)  # s 128 128


def _spots(parts: _Parts, sigma: float) -> np.ndarray:
    """Brightness of joints in steps of 1/256, float32 `[s, 128, 128]`: products of one factor for columns and one for rows."""
    pixels = np.arange(CANVAS)  # 128
    apart = (pixels.astype(np.float32) - parts.start[..., None]) / np.float32(np.sqrt(2) * sigma)  # s q 2 128
    factors = np.exp(-apart * apart)  # s q 2 128
    factors[(pixels < parts.low[..., None]) | (pixels >= parts.high[..., None])] = 0
    factors[:, :, 0] *= (parts.peak * STEPS)[..., None]
    first, last = parts.low.min(axis=0).tolist(), parts.high.max(axis=0).tolist()  # q 2, q 2
    steps = np.zeros((len(parts.peak), CANVAS, CANVAS), np.float32)  # s 128 128
    for part, ((left, top), (right, bottom)) in enumerate(zip(first, last, strict=True)):
        box = steps[:, top:bottom, left:right]  # s h w
        across, down = factors[:, part, 0, None, left:right], factors[:, part, 1, top:bottom, None]  # s 1 w, s h 1
        np.maximum(box, across * down, out=box)
    return steps


def _ridges(parts: _Parts, sigma: float) -> np.ndarray:
    """Brightness of limbs in steps of 1/256, float32 `[s, 128, 128]`, from the squared distance to the nearest one.

    Of a faint limb the distance counts as larger.
    """
    frames = len(parts.peak)
    shortened = np.float32(1 / (np.sqrt(2) * sigma))  # so that the exponent is a sum of squares
    delta = parts.end - parts.start  # s q 2
    length = np.hypot(delta[..., 0], delta[..., 1])  # s q
    along = np.where(length[..., None] > 0, delta / np.maximum(length, 1e-6)[..., None], np.array([1, 0], np.float32))  # s q 2
    along *= shortened
    half = length / 2 * shortened  # s q
    with np.errstate(divide="ignore"):
        peak = np.log(parts.peak * STEPS)  # s q
    sizes = (parts.high - parts.low).max(axis=0).clip(0).tolist()  # q 2
    pixels = np.arange(CANVAS, dtype=np.float32)  # 128
    corner = (parts.low - (parts.start + parts.end) / 2).astype(np.float32)  # s q 2; from the middle of the limb
    boxes = np.concatenate([parts.low, parts.high], axis=2).tolist()  # s q 4
    drawn = (parts.peak > 0).tolist()  # s q
    most = np.full((frames, CANVAS, CANVAS), FAINT, np.float32)  # s 128 128; logarithms
    for part, (width, height) in enumerate(sizes):
        dx = corner[:, part, 0, None] + pixels[:width]  # s w
        dy = corner[:, part, 1, None] + pixels[:height]  # s h
        x, y = along[:, part, 0, None], along[:, part, 1, None]  # s 1
        found = (dx * x)[:, None, :] + (dy * y)[:, :, None]  # s h w; from the middle, along the limb
        end = half[:, part, None, None]  # s 1 1
        found -= np.clip(found, -end, end)
        np.square(found, out=found)
        across = (dx * y)[:, None, :] - (dy * x)[:, :, None]  # s h w
        np.square(across, out=across)
        found += across
        np.subtract(peak[:, part, None, None], found, out=found)
        for frame in range(frames):
            if drawn[frame][part]:
                left, top, right, bottom = boxes[frame][part]
                if left < right and top < bottom:
                    box = most[frame, top:bottom, left:right]  # h w
                    np.maximum(box, found[frame, : bottom - top, : right - left], out=box)
    return np.exp(most, out=most)


def _as_published(parts: _Parts, pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Brightness 0..1 of single pixels, float32, by their places in `[s, 128, 128]`, with the published order of operations."""
    frame, row, column = np.unravel_index(pixels, (len(parts.peak), CANVAS, CANVAS))  # pixel
    part = _Parts(*(each[frame] for each in parts))  # of pixel q
    drawn = part.peak > 0  # pixel q
    for axis, at in enumerate((column[:, None], row[:, None])):  # pixel 1
        drawn &= (at >= part.low[..., axis]) & (at < part.high[..., axis])
    point, piece = np.nonzero(drawn)  # drawn
    x, y = column[point].astype(np.float32), row[point].astype(np.float32)  # drawn
    (start_x, start_y), (end_x, end_y) = part.start[point, piece].T, part.end[point, piece].T  # drawn
    peak = part.peak[point, piece]  # drawn
    square = (start_x - end_x) ** 2 + (start_y - end_y) ** 2  # drawn
    from_start = (x - start_x) ** 2 + (y - start_y) ** 2  # drawn
    from_end = (x - end_x) ** 2 + (y - end_y) ** 2  # drawn
    share = (from_start - from_end + square) / 2 / np.where(square > 0, square, np.float32(1))  # drawn; 0 at the start
    foot_x, foot_y = start_x + share * (end_x - start_x), start_y + share * (end_y - start_y)  # drawn
    between = (x - foot_x) ** 2 + (y - foot_y) ** 2  # drawn
    distance = np.where(share <= 0, from_start, np.where(share >= 1, from_end, between))  # drawn
    # Of a limb the exponential is taken in double precision, of a joint in single precision.
    spot = np.exp(-from_start / 2 / np.float32(sigma**2)) * peak  # drawn
    ridge = np.exp(-distance.astype(np.float64) / 2 / sigma**2) * peak  # drawn
    found = np.zeros(len(pixels), np.float32)  # pixel
    np.maximum.at(found, point, np.where(square > 0, ridge.astype(np.float32), spot))
    return found


def _cropped(grey: np.ndarray, align: str) -> np.ndarray:
    """Crop drawn frames uint8 `[s, 2, 128, 128]` to the body, and resize them: uint8 `[s, 2, 64, 64]`.

    A box of all 128 rows would be 129 columns wide. As published it has the first 128, so it is half a column off the hips.
    """
    import cv2  # imported here so that commands answer --help without it

    maps = np.zeros((*grey.shape[:2], FRAME_SIZE, FRAME_SIZE), np.uint8)  # s 2 64 64
    reached = np.asarray(grey.any(axis=3))  # s 2 128
    if align == "shared":
        reached = np.broadcast_to(reached.max(axis=1, keepdims=True), reached.shape)  # s 2 128
    middle = CANVAS // 2
    for frame, kind in np.argwhere(np.asarray(reached.any(axis=2))):
        rows = np.flatnonzero(reached[frame, kind])
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        half = (bottom - top) // 2
        crop = grey[frame, kind, top:bottom, middle - half : middle + half + 1] / 255.0  # h w
        maps[frame, kind] = cv2.resize(crop, (FRAME_SIZE, FRAME_SIZE), interpolation=cv2.INTER_AREA) * 255.0  # 64 64
    return maps


def map_marks(body_only: bool = False, sigma: float = 8.0) -> dict[str, float]:
    """Names of pixel rows of a skeleton map that is drawn with these arguments, at an adult's usual heights."""
    shown = dict(list(HEIGHTS.items())[body_only:])
    scale = BODY_HEIGHT / (max(shown.values()) - min(shown.values()))
    rows = {name: CANVAS / 2 - (height - shown["hips"]) * scale for name, height in shown.items()}  # of the canvas
    top = max(0, int(min(rows.values()) - REACH * sigma))  # of what is drawn
    bottom = min(CANVAS - 1, int(max(rows.values()) + REACH * sigma))
    return {name: (row - top) * FRAME_SIZE / (bottom - top) for name, row in rows.items()}
