"""What a camera does to a walk: it is moved, mirrored, thicker, thinner, tilted, or has fewer frames; the person is the same.

All take and give uint8 frames `[s, ..., 64, w]` of any width, silhouettes or skeleton maps, and change a copy. Training,
evaluation and screening look at the middle 44 columns, and these functions are applied after the sides are cut. What a move
brings in from beyond is then empty, as it is of silhouettes on all 64 columns: of 3,600 frames of synthetic walkers and 460
frames of real ones, none has a pixel there.
"""

from collections.abc import Callable

import numpy as np

from data_pipelines.schema import SKELETONS

TILT = 3.0  # degrees of the tilt that an evaluation looks at


def moved(frames: np.ndarray, columns: int) -> np.ndarray:
    """Moved to the right by whole columns, to the left by negative ones; empty columns follow."""
    out = np.zeros_like(frames)
    columns = int(np.clip(columns, -frames.shape[-1], frames.shape[-1]))
    if columns < 0:
        out[..., :columns] = frames[..., -columns:]
    else:
        out[..., columns:] = frames[..., : frames.shape[-1] - columns]
    return out


def mirrored(frames: np.ndarray) -> np.ndarray:
    """Left for right. A walk keeps its class: none of the three names a side of the body."""
    return np.ascontiguousarray(frames[..., ::-1])


def dilated(frames: np.ndarray) -> np.ndarray:
    """One pixel more all round: the largest value of 3 x 3 pixels."""
    return _of_neighbours(frames, np.maximum)


def eroded(frames: np.ndarray) -> np.ndarray:
    """One pixel less all round: the smallest value of 3 x 3 pixels, of those in the picture."""
    return _of_neighbours(frames, np.minimum)


def _of_neighbours(frames: np.ndarray, choose: np.ufunc) -> np.ndarray:
    wide = frames.copy()
    choose(wide[..., 1:], frames[..., :-1], out=wide[..., 1:])
    choose(wide[..., :-1], frames[..., 1:], out=wide[..., :-1])
    out = wide.copy()
    choose(out[..., 1:, :], wide[..., :-1, :], out=out[..., 1:, :])
    choose(out[..., :-1, :], wide[..., 1:, :], out=out[..., :-1, :])
    return out


def tilted(frames: np.ndarray, degrees: float) -> np.ndarray:
    """Turned about the middle of the picture, the head to the right for positive degrees, between pixels bilinear."""
    import cv2  # imported here so that commands answer --help without it

    height, width = frames.shape[-2:]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
    out = np.empty(frames.shape, frames.dtype)  # in the order that `reshape` can view
    for picture, turned in zip(frames.reshape(-1, height, width), out.reshape(-1, height, width), strict=True):
        cv2.warpAffine(picture, turn, (width, height), dst=turned, flags=cv2.INTER_LINEAR)
    return out


PERTURBATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # each uint8 [s, ..., 64, 44] to the same axes
    "shifted left": lambda frames: moved(frames, -1),
    "shifted right": lambda frames: moved(frames, 1),
    "mirrored": mirrored,
    "dilated": dilated,
    "eroded": eroded,
    "tilted left": lambda frames: tilted(frames, -TILT),
    "tilted right": lambda frames: tilted(frames, TILT),
    "every second frame": lambda frames: frames[::2],
}
# A skeleton map is centred on the hips and scaled to the body, and its limbs have one width: no camera shifts it or makes it
# thicker.
OF_SKELETONS = ("mirrored", "tilted left", "tilted right", "every second frame")


def perturbations_of(modality: str) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The entries of `PERTURBATIONS` that a camera may do to frames of a modality."""
    return {name: PERTURBATIONS[name] for name in (OF_SKELETONS if modality == SKELETONS else PERTURBATIONS)}
