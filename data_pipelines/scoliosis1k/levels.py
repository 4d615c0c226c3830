"""Grey levels of the numbers of a pickle, whatever type they have."""

import functools
from pathlib import Path

import numpy as np

from data_pipelines.masks import REMEDY
from data_pipelines.schema import DataError

BLOCK = 256  # frames whose numbers are looked at together
WHOLE = 1e-3  # grey levels; the most by which fractions of 255 may differ from whole grey levels


def as_levels(array: np.ndarray, path: Path) -> np.ndarray:
    """Grey levels uint8 of any numbers that are such levels, or a mask's two values, or fractions of 255.

    Frames are taken block by block, so that the result is all that is held beside the array.
    """
    if array.dtype in (np.uint8, np.bool_):
        return array.astype(np.uint8, copy=False)
    blocks = [array[start : start + BLOCK] for start in range(0, len(array), BLOCK)]
    low, high = blocks[0].min(), blocks[0].max()
    for block in blocks:
        low, high = np.minimum(low, block.min()), np.maximum(high, block.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            what = f"dtype {array.dtype} with values that are no numbers (NaN or infinite)"
            raise DataError(f"{path}: {what}; write uint8, 0..255")
    ways = [lambda block: (block > low) * np.uint8(255) if ((block == low) | (block == high)).all() else None]
    if array.dtype.kind != "f" and low >= 0 and high <= 255:
        ways.append(lambda block: block.astype(np.uint8))
    if array.dtype.kind == "f" and low >= 0:
        ways += [functools.partial(_whole, scale=scale) for scale in (1, 255) if high <= 255 / scale]
    if low == high != 0:
        raise DataError(f"{path}: every value is {low}, so it shows nobody; {REMEDY}")
    levels = np.empty(array.shape, np.uint8)  # s h w
    for way in ways:
        for start, block in enumerate(blocks):
            if (found := way(block)) is None:
                break
            levels[start * BLOCK : (start + 1) * BLOCK] = found  # s h w
        else:
            return levels
    raise DataError(
        f"{path}: dtype {array.dtype} with values {low:g} to {high:g}; expected uint8 with values 0..255, "
        "or whole values or fractions of 255 in another type; scale them"
    )


def _whole(block: np.ndarray, scale: int) -> np.ndarray | None:
    """Numbers times `scale`, rounded, if all of them are nearly whole then."""
    scaled = block * np.float64(scale)  # s h w
    rounded = np.rint(scaled)  # s h w
    return rounded.astype(np.uint8) if np.abs(scaled - rounded).max() <= WHOLE else None
