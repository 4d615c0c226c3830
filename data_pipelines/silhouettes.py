"""Normalisation of a raw mask to a 64 x 64 silhouette, byte for byte as in the published preprocessing.

The steps are the usual size normalisation of gait recognition (OU-MVLP, GaitSet and later), as used for the Scoliosis1K
release: scale the person to a fixed height, then centre the column that halves the person's area.
"""

from collections.abc import Iterable

import numpy as np

from data_pipelines.schema import FRAME_SIZE, SIDE_CUT, DataError

MIN_PIXEL_SUM = 10_000  # sum of grey values, about 39 white pixels
MOST_SCALED = 2**20  # pixels of width at height 64; a single row of a frame of 8K video becomes 491,520


def normalise_silhouette(mask: np.ndarray) -> np.ndarray | None:
    """Crop, scale and centre one raw mask, uint8 `[h, w]` with 0 for background and 255 for the person: uint8 `[64, 64]`.

    None for a frame to be dropped: the mask is (almost) empty, no column is left at height 64, or no centre column exists.
    `DataError`, without the name of a file, for a mask so wide and a person so low that scaling would take gigabytes.
    """
    import cv2  # imported here so that commands answer --help without it

    if mask.sum(dtype=np.int64) <= MIN_PIXEL_SUM:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    person = mask[rows[0] : rows[-1] + 1]  # h w
    height, width = person.shape
    scaled_width = int(FRAME_SIZE * width / height)
    if scaled_width == 0:
        return None
    if scaled_width > MOST_SCALED:
        raise DataError(f"{width:,} pixels wide, and what it shows is {height:,} high, so it is no mask of a person; remove it")
    person = cv2.resize(person, (scaled_width, FRAME_SIZE), interpolation=cv2.INTER_CUBIC)  # 64 w
    area_to_the_left = np.cumsum(person.sum(axis=0, dtype=np.int64))  # w
    centre = int(np.argmax(area_to_the_left > area_to_the_left[-1] / 2))
    if centre == 0:  # the published code cannot distinguish column 0 from "no centre" and drops the frame; so do we
        return None
    half = FRAME_SIZE // 2
    left, right = centre - half, centre + half
    if left <= 0 or right >= scaled_width:
        person = np.pad(person, ((0, 0), (half, half)))  # 64 w+64
        left, right = left + half, right + half
    return person[:, left:right]  # 64 64


def normalise_sequence(masks: Iterable[np.ndarray]) -> np.ndarray:
    """Normalise every mask and drop the unusable ones: uint8 `[s, 64, 64]`, with `s` = 0 if none is usable."""
    frames = [frame for frame in map(normalise_silhouette, masks) if frame is not None]
    return np.stack(frames) if frames else np.zeros((0, FRAME_SIZE, FRAME_SIZE), np.uint8)  # s 64 64


def cut_sides(silhouettes: np.ndarray) -> np.ndarray:
    """Remove the empty columns on both sides: `[..., 64, 64]` to `[..., 64, 44]`, a view."""
    return silhouettes[..., SIDE_CUT : FRAME_SIZE - SIDE_CUT]
