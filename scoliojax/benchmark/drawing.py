"""Frames per second of skeleton maps on one core."""

import numpy as np

from data_pipelines.poses.maps import skeleton_maps
from data_pipelines.poses.synthetic import detect, true_joints
from data_pipelines.synthetic import draw_walker
from scoliojax.benchmark.loading import FRAMES, one_core
from scoliojax.benchmark.timing import Row, interleave

WALKS = 4


def measure(rounds: int) -> list[Row]:
    """Maps of walks of which all joints are found, and of the same walks where some have to be taken from other frames."""
    walkers = [draw_walker(np.random.default_rng((0, walk)), walk % 3) for walk in range(WALKS)]
    found = [np.insert(true_joints(walker, FRAMES), 2, 0.9, axis=2).astype(np.float32) for walker in walkers]  # each s 17 3
    missing = [detect(poses[..., :2], np.random.default_rng(walk)) for walk, poses in enumerate(found)]  # each s 17 3
    ways = {"all joints found": found, "joints missing": missing}
    with one_core():
        seconds = interleave({name: lambda walks=walks: [*map(skeleton_maps, walks)] for name, walks in ways.items()}, rounds)
    speeds = {name: [WALKS * FRAMES / taken for taken in times] for name, times in seconds.items()}
    return [Row(f"skeleton maps, {name}, one core", "frames/s", each, []) for name, each in speeds.items()]
