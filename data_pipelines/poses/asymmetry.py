"""The postural asymmetry vector (PAV) of DRF (MICCAI 2025, arXiv 2509.00872): three measures of eight pairs of joints.

In this module `i` is the axis of pairs. The order of all 24 entries is that of `ENTRIES`.

Everything is computed in single precision, as published, because one entry consists of its rounding: the offset of the hips
from the midline, which is the middle of the hips. The normalisation brings also this one to 0..1.
"""

from dataclasses import dataclass

import numpy as np

from data_pipelines.poses.joints import HIPS, LEFT, PAIRS, RIGHT
from data_pipelines.schema import DataError

MEASURES = ("height difference", "offset from the midline", "angle")
ENTRIES = tuple(f"{pair}: {measure}" for pair in PAIRS for measure in MEASURES)
UNITS = ("1/128 of the body's height", "1/128 of the body's height", "rad")  # of the measures, before normalisation
BODY_HEIGHT = 128.0  # in which lengths are given
LEAST_HEIGHT = 1e-6  # pixels; a frame with a lower body does not count
WHISKERS = 1.5  # interquartile ranges beyond the quartiles, outside which a frame does not count
LEAST_RANGE = 1e-6  # by which is divided at least


def asymmetry_vector(poses: np.ndarray) -> np.ndarray:
    """PAV of a pose sequence `[s, 17, 3]`: float32 `[8, 3]`, pairs from eyes to ankles, and `MEASURES` of each.

    Each entry is the mean over the frames in which both joints were found, without outliers; 0 where there is none.
    """
    values = frame_asymmetries(poses).reshape(len(poses), len(ENTRIES))  # s 24
    means = np.zeros(len(ENTRIES), np.float32)  # 24
    for entry, column in enumerate(values.T):
        found = column[np.isfinite(column)]  # s that counts
        if len(found):
            low, high = np.percentile(found, [25, 75])
            reach = WHISKERS * (high - low)
            found = found[(found >= low - reach) & (found <= high + reach)]
            means[entry] = found.mean()
    return means.reshape(len(PAIRS), len(MEASURES))  # i 3


def frame_asymmetries(poses: np.ndarray) -> np.ndarray:
    """`MEASURES` of each frame, float32 `[s, 8, 3]`: NaN where a joint of the pair was not found, or no body is seen."""
    places, found = poses[..., :2].astype(np.float32), poses[..., 2] > 0  # s 17 2, s 17
    count = found.sum(axis=1)  # s
    heights = places[..., 1]  # s 17
    extent = np.where(found, heights, -np.inf).max(axis=1) - np.where(found, heights, np.inf).min(axis=1)  # s
    usable = (count >= 2) & (extent > LEAST_HEIGHT)  # s
    hips = (places[:, HIPS[0]] + places[:, HIPS[1]]) / 2  # s 2
    mean = np.where(found[..., None], places, 0).sum(axis=1) / np.maximum(count, 1).astype(np.float32)[:, None]  # s 2
    centre = np.where(found[:, HIPS].all(axis=1, keepdims=True), hips, mean)  # s 2
    scale = BODY_HEIGHT / np.where(usable, extent, np.float32(1))  # s
    places = (places - centre[:, None]) * scale[:, None, None]  # s 17 2
    left, right = places[:, LEFT], places[:, RIGHT]  # s i 2
    across, down = np.moveaxis(left - right, 2, 0)  # s i, s i
    offset = (left[..., 0] + right[..., 0]) / 2  # s i
    measures = np.abs(np.stack([down, offset, np.arctan2(down, across)], axis=2))  # s i 3
    counts = usable[:, None] & found[:, LEFT] & found[:, RIGHT]  # s i
    return np.where(counts[..., None], measures, np.float32(np.nan))  # s i 3


@dataclass(frozen=True)
class Normalisation:
    """Brings each entry to 0..1, by its range over the sequences of a training part."""

    low: np.ndarray  # float32 [8, 3]
    high: np.ndarray  # float32 [8, 3]

    @classmethod
    def fit(cls, vectors: np.ndarray) -> "Normalisation":
        """The ranges over vectors `[n, 8, 3]`; raises `DataError` where there is none."""
        if not len(vectors):
            raise DataError("no sequence to normalise asymmetry vectors by; give a training part with at least one")
        return cls(vectors.min(axis=0).astype(np.float32), vectors.max(axis=0).astype(np.float32))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `[..., 8, 3]` in 0..1, float32; what lies outside the ranges is clipped."""
        span = np.maximum(self.high - self.low, np.float32(LEAST_RANGE))  # i 3
        return np.clip((vectors - self.low) / span, 0, 1).astype(np.float32)  # ... i 3
