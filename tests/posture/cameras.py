"""What a pinhole camera that is turned, looks down and stands beside the way shows of a synthetic walker who comes nearer."""

import numpy as np

from data_pipelines.synthetic import RASTER, STATURE

TALL = 1.6  # metres of a walker
HEIGHT = 1.2  # metres of the camera above the ground
FAR, NEAR = 6.0, 2.5  # metres from the camera at the start and at the end


def seen_by(
    poses: np.ndarray, roll: float, pitch: float, offset: float = 0.0, size: tuple[int, int] = (854, 480)
) -> np.ndarray:
    """Poses `[s, 17, 3]` in pixels of the raw mask, as poses float32 in pixels of a picture of `size` (h, w).

    Args:
      roll: degrees by which the picture is turned clockwise.
      pitch: degrees by which the camera looks down.
      offset: metres by which the walker goes to the right of the camera.
    """
    rows, columns = RASTER
    x = (poses[..., 0] - (columns - 1) / 2) / STATURE * TALL + offset  # s 17
    y = HEIGHT - (rows - 4 - poses[..., 1]) / STATURE * TALL  # s 17; down from the camera
    z = np.linspace(FAR, NEAR, len(poses))[:, None]  # s 1
    cos, sin = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    depth = z * cos + y * sin  # s 17
    focal = 1.1 * max(size)
    across, down = focal * x / depth, focal * (y * cos - z * sin) / depth  # s 17, s 17
    cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    places = [size[1] / 2 + cos * across - sin * down, size[0] / 2 + sin * across + cos * down]
    found = np.stack([*places, poses[..., 2]], axis=2)  # s 17 3
    return np.where(poses[..., 2:] > 0, found, 0).astype(np.float32)
