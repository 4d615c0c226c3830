"""A run with an untrained network, and a clip, for the tests of the screening."""

import shutil
from pathlib import Path

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
        run_directory.claim(kept_run, tiny_config.to_dict(), "walkers")
        _, params, batch_stats = build.build_model(tiny_config)
        checkpoints = Checkpoints(kept_run / "checkpoints", 1, print)
        checkpoints.save(create_state(params, batch_stats, build.build_optimizer(tiny_config)[0]))
        checkpoints.close()
        fitted = Calibration(open_run(kept_run).network("newest").digest, True, 0.8, 0.5, 0.9, 0.92, 0.85, 60, 50)
        calibration.write(calibration.calibration_file(kept_run, 0), fitted)
    return Path(shutil.copytree(kept_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "walk.mp4", walk_across(0, 2, 64, size=(160, 256), scale=1.3)[0])


@pytest.fixture
def no_figures(monkeypatch):
    """For tests that look at other things: drawing is most of the time that an answer takes."""
    for name in ("draw_windows", "draw_strips"):
        monkeypatch.setattr(page, name, lambda answer: Figure(figsize=(1, 1)))
