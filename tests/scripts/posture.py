"""How far measures of posture are from the truth of synthetic walkers: `python -m tests.scripts.posture [--walkers 60]`.

The shoulders of every walker are tilted by 3, 6 and 10 degrees. Errors are those of the medians over 150 frames, of the true
joints and of what the simulated detector makes of them; then those of the camera's tilt, by a camera that is turned by -8 to 8
degrees, looks down by 10, and stands on the way or half a metre beside it. With `--models FOLDER`, what the pose backend makes
of `--clips` rendered walkers of each tilt, who come towards the camera.
"""

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np

from data_pipelines.poses.camera import camera_tilt, levelled
from data_pipelines.poses.posture import posture
from data_pipelines.poses.quality import EXCHANGED
from data_pipelines.poses.synthetic import detect, true_joints
from data_pipelines.schema import DataError
from data_pipelines.synthetic import draw_walker
from data_pipelines.video.pose import Pose
from data_pipelines.video.synthetic_clip import walk_towards, write_clip
from data_pipelines.video.walk import read_walk
from scoliojax.runs.posture import posture_of
from tests.posture.cameras import seen_by

FRAMES, RATE = 150, 25.0
TIMES = np.arange(FRAMES) / RATE
TILTS = (3, 6, 10)  # degrees
NAMES = ("shoulder line", "pelvis line", "lateral shift", "cadence")
CAMERAS = {"on the way": 0.0, "half a metre beside it": 0.5}
PICTURE = (854, 480)  # height and width
WAYS = ("true joints", "simulated detector")


def tilted(rng: np.random.Generator, label: int, degrees: float) -> SimpleNamespace:
    """A walker whose shoulders are tilted by so much, to the side that was drawn."""
    body = draw_walker(rng, label)
    body.shoulder_tilt = np.copysign(np.radians(degrees), body.shoulder_tilt)
    return body


def joints_of(walker: int, tilt: float) -> tuple[SimpleNamespace, tuple[np.ndarray, np.ndarray]]:
    """A walker, and poses `[s, 17, 3]` by each of `WAYS`."""
    rng = np.random.default_rng((9, walker))
    body = tilted(rng, walker % 3, tilt)
    joints = true_joints(body, FRAMES)  # s 17 2
    return body, (np.insert(joints, 2, 1.0, axis=2), detect(joints, rng))


def errors(walkers: int) -> dict[str, np.ndarray]:
    """Absolute errors of `NAMES`, `[walk, 4]`, by the joints that were measured."""
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for walker in range(walkers):
        for tilt in TILTS:
            body, ways = joints_of(walker, tilt)
            truth = (
                np.degrees(body.shoulder_tilt),
                np.degrees(body.pelvic_tilt),
                100 * body.trunk_shift,
                120 * RATE / body.period,
            )
            for rows, poses in zip(found.values(), ways, strict=True):
                measures = {measure.name: measure.median for measure in posture(poses, TIMES)}
                rows.append([abs(measures[name] - true) for name, true in zip(NAMES, truth, strict=True)])
    return {name: np.array(rows) for name, rows in found.items()}


def of_cameras(walkers: int) -> None:
    """Print the errors of the camera's tilt, and of the shoulder line in the picture and levelled."""
    for name, offset in CAMERAS.items():
        for way in range(len(WAYS)):
            rows, known = [], 0
            for walker in range(walkers):
                body, ways = joints_of(walker, 6)
                roll = float(np.random.default_rng((10, walker)).uniform(-8, 8))
                poses = seen_by(ways[way], roll, 10, offset, PICTURE)
                tilt = camera_tilt(poses, TIMES, PICTURE)
                lines = (posture(one, TIMES)[0].median for one in (poses, levelled(poses, tilt.degrees)))
                rows.append([abs(tilt.degrees - roll), *(abs(line - np.degrees(body.shoulder_tilt)) for line in lines)])
                known += tilt.known
            mean, most = np.mean(rows, axis=0), np.max(rows, axis=0)
            print(
                f"camera {name}, {WAYS[way]}: tilt {mean[0]:.2f} (largest {most[0]:.2f}), known in {known} of {walkers}; "
                f"shoulder line in the picture {mean[1]:.2f}, levelled {mean[2]:.2f} (largest {most[2]:.2f})"
            )


def of_clips(models: Path, clips: int) -> None:
    """Print what the pose backend finds in rendered walkers who come towards the camera."""
    backend = Pose(models)
    with tempfile.TemporaryDirectory() as folder:
        for tilt in TILTS:
            for seed in range(clips):
                true = []

                def draw(rng: np.random.Generator, label: int, tilt: int = tilt, true: list = true) -> SimpleNamespace:
                    true.append(tilted(rng, label, tilt))
                    return true[-1]

                with mock.patch("data_pipelines.video.synthetic_clip.draw_walker", draw):
                    images, _ = walk_towards(seed, seed % 3, 90)
                path = write_clip(Path(folder) / f"{tilt}-{seed}.mp4", images)
                try:
                    found = posture_of(read_walk(path, backend))
                except DataError as error:
                    print(f"clip {seed}, {tilt} degrees: refused: {str(error).partition(': ')[2]}")
                    continue
                exchanged = int(found.quality.bad[EXCHANGED].sum())
                seen = f"{len(found.walk.frames)} of {len(images)} frames, {exchanged} with left and right exchanged"
                said = f"no measures ({found.quality.grave[0].name})" if found.quality.grave else ""
                if not said:
                    error = abs(found.measures[0].median - np.degrees(true[0].shoulder_tilt))
                    said = f"error of the shoulder line {error:.1f} degrees"
                print(f"clip {seed}, {tilt} degrees: {seen}: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walkers", type=int, default=60)
    parser.add_argument("--models", type=Path, help="folder of the pose models")
    parser.add_argument("--clips", type=int, default=6)
    args = parser.parse_args()
    for name, rows in errors(args.walkers).items():
        for what, values in (("mean", rows.mean(axis=0)), ("largest", rows.max(axis=0))):
            print(f"{name}, {what} error: " + ", ".join(f"{of} {value:.2f}" for of, value in zip(NAMES, values, strict=True)))
    of_cameras(args.walkers)
    if args.models:
        of_clips(args.models, args.clips)


if __name__ == "__main__":
    main()
