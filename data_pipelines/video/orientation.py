"""Orientation of a frame: what the display matrix of a file does to the stored picture."""

from typing import NamedTuple

import numpy as np


class Orientation(NamedTuple):
    """How to make a stored picture upright: first the mirror, then the turn."""

    mirrored: bool  # left and right change places
    quarters: int  # quarter turns anticlockwise, -1 to 2

    @property
    def degrees(self) -> int:
        """The turn as FFmpeg counts it, anticlockwise."""
        return 90 * self.quarters

    def upright(self, image: np.ndarray) -> np.ndarray:
        """The picture `[h, w, 3]` as it is to be shown, contiguous."""
        return np.ascontiguousarray(np.rot90(image[:, ::-1] if self.mirrored else image, self.quarters))  # h w 3


AS_STORED = Orientation(False, 0)


def read_orientation(matrix: bytes | None) -> Orientation:
    """The nearest of the four turns and their mirrors to a display matrix: nine int32, row by row, as FFmpeg gives them.

    A matrix without any turn, such as one of zeros, or none at all, leaves the picture as it is stored.
    """
    if matrix is None or len(matrix) != 36:
        return AS_STORED
    across, down = np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2].astype(np.float64)  # 2, 2; images of the two axes
    if not (across.any() and down.any()):
        return AS_STORED
    mirrored = bool(across[0] * down[1] < across[1] * down[0])
    if np.abs([across[0], down[1]]).sum() >= np.abs([across[1], down[0]]).sum():
        return Orientation(mirrored, 2 if down[1] < 0 else 0)
    return Orientation(mirrored, -1 if down[0] < 0 else 1)
