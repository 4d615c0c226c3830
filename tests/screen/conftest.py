"""A run with an untrained network, and a clip, for the tests of the screening."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from data_pipelines.video.synthetic_clip import walk_across, write_clip
from scoliojax import build
from scoliojax.runs import directory as run_directory
from scoliojax.runs.run import open_run
from scoliojax.scores import calibration
from scoliojax.scores.calibration import Calibration
from scoliojax.screen import page
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.state import create_state


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory):
    """Where the run directory is built once; `run` fills it."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def run(kept_run, tiny_config, tmp_path):
    """A run directory with an untrained network and a calibration."""
    if not kept_run.exists():
        untrained(kept_run, tiny_config)
    return Path(shutil.copytree(kept_run, tmp_path / "run"))


def untrained(folder: Path, config) -> Path:
    """A run directory with an untrained network and a calibration."""
    run_directory.claim(folder, config.to_dict(), "walkers")
    _, params, batch_stats = build.build_model(config)
    if "gates" in batch_stats:
        batch_stats["gates"]["high"] = np.full((8, 3), 10.0, np.float32)
    checkpoints = Checkpoints(folder / "checkpoints", 1, print)
    checkpoints.save(create_state(params, batch_stats, build.build_optimizer(config)[0]))
    checkpoints.close()
    fitted = Calibration(open_run(folder).network("newest").digest, True, 0.8, 0.5, 0.9, 0.92, 0.85, 60, 50)
    calibration.write(calibration.calibration_file(folder, 0), fitted)
    return folder


@pytest.fixture(scope="module")
def kept_skeleton_run(tmp_path_factory):
    """Where the run directory of a skeleton network is built once."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def skeleton_run(kept_skeleton_run, tiny_config, tmp_path):
    """As `run`, of DRF, which reads skeletons and asymmetry vectors."""
    if not kept_skeleton_run.exists():
        tiny_config.data.modality, tiny_config.model.name = "skeletons", "drf"
        untrained(kept_skeleton_run, tiny_config)
    return Path(shutil.copytree(kept_skeleton_run, tmp_path / "skeleton_run"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "walk.mp4", walk_across(0, 2, 64, size=(160, 256), scale=1.3)[0])


@pytest.fixture
def no_figures(monkeypatch):
    """For tests that look at other things: drawing is most of the time that an answer takes."""
    for name in ("draw_windows", "draw_strips"):
        monkeypatch.setattr(page, name, lambda answer: Figure(figsize=(1, 1)))
