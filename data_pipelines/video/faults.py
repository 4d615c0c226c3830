"""Faults of a video's pictures that decoding does not notice: combed, black and repeated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

COMB_ROWS = 5  # successive rows whose brightness goes up and down in turn
COMB_CONTRAST = 12  # grey levels between two such rows
COMBED = 0.0015  # fraction of the pixels; measured: at most 0.001 of progressive pictures, 0.006 to 0.03 of combed walkers
BLACK = 24  # grey levels; nearly all pixels of a black picture are below
SAME = 4.0  # grey levels; mean change of the most changed block; measured: 12 or more where people walk, 1 to 5 in repetitions
BLOCK = 5  # pixels of every fourth row and column; edge of such a block


def is_combed(frame: VideoFrame) -> bool:
    """True if the stored rows are those of two moments in turn, as the fields of interlaced video woven into one picture."""
    kind = frame.format
    if not kind.name.startswith(("yuv4", "yuvj4", "nv12", "nv21", "gray")) or kind.is_big_endian:
        return False  # palettes and the like
    plane: Any = frame.planes[0]
    bits = kind.components[0].bits
    bright = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16)  # every row, with its padding
    bright = bright[: frame.height * (len(bright) // plane.height)].reshape(frame.height, -1)[:, : frame.width : 8]  # h w/8
    step = np.diff((bright >> (bits - 8)).astype(np.int16), axis=0)  # h-1 w/8
    if len(step) < COMB_ROWS:
        return False
    step[1::2] *= -1  # a comb now has one sign
    rows = np.ones((COMB_ROWS - 1, 1), np.uint8)
    combs = np.count_nonzero(cv2.erode(step, rows) > COMB_CONTRAST) + np.count_nonzero(cv2.dilate(step, rows) < -COMB_CONTRAST)
    return bool(combs > COMBED * step.size)


def is_black(image: np.ndarray) -> bool:
    """True for a picture `[h, w, 3]` in which there is nothing to see."""
    return bool(np.percentile(image[::8, ::8], 99) < BLACK)


def is_repeated(image: np.ndarray, before: np.ndarray | None) -> bool:
    """True if nothing moved since the picture before: it is the same picture, perhaps encoded anew."""
    if before is None:
        return False
    difference = cv2.absdiff(image[::4, ::4], before[::4, ::4])  # h/4 w/4 3
    return bool(cv2.blur(difference.astype(np.float32), (BLOCK, BLOCK)).mean(axis=2).max() < SAME)
