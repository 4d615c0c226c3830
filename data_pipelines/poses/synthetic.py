"""Poses of the synthetic walkers of `data_pipelines.synthetic`: their true joints, and what a detector makes of them.

They belong to the same walks as the silhouettes, frame by frame. The numbers of the detector are drawn from a generator of
their own, so no silhouette depends on them. The walker comes towards the camera: its left is at the right of the picture.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from data_pipelines.poses.asymmetry import asymmetry_vector
from data_pipelines.poses.joints import FACE, JOINTS, WRISTS
from data_pipelines.schema import CLASSES, POSES, DataError, SequenceSet
from data_pipelines.synthetic import RASTER, STATURE, draw_walker, move_body, synthetic_walkers

DETECTOR = 17  # third number of the seed of a detector; silhouettes are drawn with two
# Of the detector, in body heights and shares of all frames.
MISPLACED = 0.004  # standard deviation of a joint's place that stays through the walk
TREMBLING = 0.005  # the same of what changes from frame to frame
KEPT = 0.7  # correlation of it from one frame to the next
LOST = 0.003  # probability that a joint, which was found, is not found in the next frame
LOST_WRIST = 0.012
FOUND_AGAIN = 0.35  # probability that one that was not found is found in the next frame
SUREST, UNSUREST = 0.97, 0.75  # confidences of a joint where its place is right
DOUBT = 6.0  # what a confidence loses for each body height of error


def true_joints(walker: SimpleNamespace, frames: int) -> np.ndarray:
    """The joints of a walk, float64 `[s, 17, 2]`: x to the right and y down, in pixels of the raw mask."""
    body, head = move_body(walker, frames), walker.head
    x, y = body.head  # s, s
    sides = {"left": (1.0, body.sides[1.0]), "right": (-1.0, body.sides[-1.0])}
    places = {"nose": (x, y - 0.25 * head)}
    for name, (side, ends) in sides.items():
        places |= {
            f"{name} eye": (x + side * 0.35 * head, y + 0.10 * head),
            f"{name} ear": (x + side * 0.65 * head, y - 0.05 * head),
            f"{name} shoulder": ends.shoulder,
            f"{name} elbow": ends.elbow,
            f"{name} wrist": ends.hand,
            f"{name} hip": ends.hip,
            f"{name} knee": ends.knee,
            f"{name} ankle": ends.ankle,
        }
    joints = np.array([places[name] for name in JOINTS])  # 17 2 s
    height, width = RASTER
    return np.stack([joints[:, 0].T * STATURE + (width - 1) / 2, height - 4 - joints[:, 1].T * STATURE], axis=2)  # s 17 2


def detect(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a detector would find of true joints `[s, 17, 2]` in pixels of the raw mask: a pose sequence float32 `[s, 17, 3]`.

    Joints are misplaced and tremble, a far one is less sure, and now and then one is not found for some frames. In every frame
    at least one joint is found.
    """
    frames, count = joints.shape[:2]
    error = rng.normal(0.0, TREMBLING, (frames, count, 2))  # s 17 2
    for frame in range(1, frames):
        error[frame] = KEPT * error[frame - 1] + np.sqrt(1 - KEPT**2) * error[frame]
    error += rng.normal(0.0, MISPLACED, (count, 2))
    usual = rng.uniform(UNSUREST, SUREST, count)  # 17
    confidence = usual - DOUBT * np.hypot(error[..., 0], error[..., 1]) + rng.normal(0.0, 0.02, (frames, count))  # s 17
    chance = rng.random((frames, count))  # s 17
    losing = np.full(count, LOST)  # 17
    losing[[*WRISTS, *range(1, FACE)]] = LOST_WRIST
    lost = np.zeros((frames, count), bool)  # s 17
    for frame in range(frames):
        before = lost[frame - 1] if frame else np.zeros(count, bool)  # 17
        lost[frame] = np.where(before, chance[frame] > FOUND_AGAIN, chance[frame] < losing)
    lost[lost.all(axis=1), 0] = False
    found = np.concatenate([joints + STATURE * error, np.clip(confidence, 0.05, 0.999)[..., None]], axis=2)  # s 17 3
    return np.where(lost[..., None], 0.0, found).astype(np.float32)


def walk_poses(subject: int, frames: int, seed: int) -> np.ndarray:
    """Poses float32 `[s, 17, 3]` of the walk that `data_pipelines.synthetic.walk` draws for the same arguments."""
    if frames < 1:
        raise DataError(f"data.synthetic.frames={frames} leaves nothing to look at; give at least 1")
    walker = draw_walker(np.random.default_rng((seed, subject)), subject % len(CLASSES))
    return detect(true_joints(walker, frames), np.random.default_rng((seed, subject, DETECTOR)))


def synthetic_poses(subjects: int, frames: int, seed: int = 0) -> SequenceSet:
    """The walks of `synthetic_walkers` as poses, with their asymmetry vectors."""
    walkers = synthetic_walkers(subjects, frames, seed)
    vectors = np.stack([asymmetry_vector(walk_poses(row, frames, seed)) for row in range(subjects)])  # n 8 3
    return replace(
        walkers,
        name=f"poses of {walkers.name}",
        read=lambda row: walk_poses(row, frames, seed),
        content=f"poses of {walkers.content}",
        modality=POSES,
        asymmetry=vectors,
    )
