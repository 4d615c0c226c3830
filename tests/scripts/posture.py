"""How far measures of posture are from the truth of synthetic walkers: `python -m tests.scripts.posture [--walkers 60]`.

The shoulders of every walker are tilted by 3, 6 and 10 degrees. Errors are those of the medians over 150 frames, of the true
joints and of what the simulated detector makes of them.
"""

import argparse

import numpy as np

from data_pipelines.poses.posture import posture
from data_pipelines.poses.synthetic import detect, true_joints
from data_pipelines.synthetic import draw_walker

FRAMES, RATE = 150, 25.0
TILTS = (3, 6, 10)  # degrees
NAMES = ("shoulder line", "pelvis line", "lateral shift", "cadence")


def errors(walkers: int) -> dict[str, np.ndarray]:
    """Absolute errors of `NAMES`, `[walk, 4]`, by the joints that were measured."""
    found: dict[str, list[list[float]]] = {"true joints": [], "simulated detector": []}
    for walker in range(walkers):
        for tilt in TILTS:
            rng = np.random.default_rng((9, walker))
            body = draw_walker(rng, walker % 3)
            body.shoulder_tilt = np.copysign(np.radians(tilt), body.shoulder_tilt)
            truth = (
                np.degrees(body.shoulder_tilt),
                np.degrees(body.pelvic_tilt),
                100 * body.trunk_shift,
                120 * RATE / body.period,
            )
            joints = true_joints(body, FRAMES)  # s 17 2
            ways = np.insert(joints, 2, 1.0, axis=2), detect(joints, rng)  # s 17 3, s 17 3
            for rows, poses in zip(found.values(), ways, strict=True):
                measures = {measure.name: measure.median for measure in posture(poses, np.arange(FRAMES) / RATE)}
                rows.append([abs(measures[name] - true) for name, true in zip(NAMES, truth, strict=True)])
    return {name: np.array(rows) for name, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walkers", type=int, default=60)
    for name, rows in errors(parser.parse_args().walkers).items():
        for what, values in (("mean", rows.mean(axis=0)), ("largest", rows.max(axis=0))):
            print(f"{name}, {what} error: " + ", ".join(f"{of} {value:.2f}" for of, value in zip(NAMES, values, strict=True)))


if __name__ == "__main__":
    main()
