"""The 17 joints of COCO: names, sides, limbs, and their order in the landmarks of BlazePose.

In this package `j` is the axis of joints. A pose sequence is float32 `[s, 17, 3]`: x to the right and y down in pixels of the
picture, and the confidence 0..1. A joint that was not found is 0, 0, 0. Left and right are the walker's own.
"""

import numpy as np

JOINTS = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow", "right elbow",
    "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle",
)  # fmt: skip
FACE = 5  # joints of the face, which are the first
LEFT, RIGHT = slice(1, None, 2), slice(2, None, 2)  # joints of a side, in the order of `PAIRS`
PAIRS = tuple(name.removeprefix("left ") for name in JOINTS[LEFT])
SHOULDERS, HIPS, KNEES, ANKLES, WRISTS = (5, 6), (11, 12), (13, 14), (15, 16), (9, 10)  # left, right
LIMBS = (
    (0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (5, 7), (7, 9), (0, 6), (6, 8), (8, 10), (5, 11), (11, 13), (13, 15), (6, 12),
    (12, 14), (14, 16), (11, 12),
)  # fmt: skip
LEAST_SURE = 1e-3  # smallest confidence that is drawn
BLAZEPOSE = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)  # landmark of BlazePose for each joint
MIRRORED = (0, *(joint + 1 if joint % 2 else joint - 1 for joint in range(1, len(JOINTS))))  # joint of the other side


def from_blazepose(landmarks: np.ndarray) -> np.ndarray:
    """COCO's joints `[..., 17, d]` of BlazePose's landmarks `[..., n, d]`, where `n` is 33, or 39 with the auxiliary ones."""
    if landmarks.ndim < 2 or landmarks.shape[-2] not in (33, 39):
        raise ValueError(f"landmarks of shape {landmarks.shape}; BlazePose gives 33, or 39 with the auxiliary ones")
    return landmarks[..., BLAZEPOSE, :]  # ... 17 d


def mirrored(poses: np.ndarray, width: float) -> np.ndarray:
    """A pose sequence `[s, 17, 3]` as a mirror at the middle of a picture of `width` pixels shows it: left becomes right."""
    turned = poses[:, MIRRORED].copy()  # s 17 3
    found = (turned != 0).any(axis=2)  # s 17
    turned[..., 0] = np.where(found, width - turned[..., 0], 0)
    return turned
