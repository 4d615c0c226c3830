"""A trained network by itself: what a run directory has learnt, without the data that it learnt from."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.scores import calibration
from scoliojax.scores.calibration import Calibration
from scoliojax.training.checkpoint import Checkpoints, check_which, digest
from scoliojax.training.state import TrainState, create_state


@dataclass(frozen=True)
class TrainedNetwork:
    """One checkpoint of a run, on the first device of this process.

    Attributes:
      workdir: the run directory.
      config: of the run.
      graph: of the network.
      state: its parameters, statistics, momentum and step.
      synthetic: True where all that it learnt here it learnt from walkers that are no people.
      calibration: temperature and operating point that are kept beside it; None where there are none.
    """

    workdir: Path
    config: build.Config
    graph: nnx.GraphDef
    state: TrainState
    synthetic: bool
    calibration: Calibration | None = None

    @property
    def step(self) -> int:
        return int(self.state.step)

    @cached_property
    def digest(self) -> str:
        """Of parameters and statistics: equal for equal networks, to the bit."""
        return digest({"params": self.state.params, "batch_stats": self.state.batch_stats})

    @property
    def scale(self) -> float:
        """Of the cosines in the loss that it was trained with."""
        return self.config.loss.scale

    def merged(self) -> Any:
        """The network as a module of its own."""
        return nnx.merge(self.graph, self.state.params, self.state.batch_stats, copy=True)


def open_network(workdir: Path, which: str = "newest", field: str = "--workdir") -> TrainedNetwork:
    """Open a checkpoint of a run directory; only looks.

    Args:
      workdir: the run directory.
      which: `newest`, `best` (by validation) or a step.
      field: what the caller calls the run directory, for messages.

    Raises:
      RunError: where there is no such run or checkpoint, its network does not read silhouettes, or `which` is another word.
    """
    check_which(which)
    if workdir.is_file():
        raise RunError(
            f"{field}={workdir} is a file; give the folder of a run, and bring a PyTorch checkpoint here with "
            "python -m scoliojax.interop.opengait import"
        )
    if not (workdir / "config.json").exists():
        raise RunError(f"{field}={workdir} holds no run (no config.json); give the --workdir of a training run")
    recorded = run_directory.read_config(workdir)
    name = recorded.get("model", {}).get("name")
    if name not in build.MODELS:
        raise RunError(
            f"{field}={workdir} is a checkpoint of another modality: its network {name!r} does not read silhouettes; give a "
            f"run of {', '.join(sorted(build.MODELS))}"
        )
    config: build.Config = ConfigDict(recorded)
    graph, params, batch_stats = build.build_model(config)
    rule, _ = build.build_optimizer(config)
    here = SingleDeviceSharding(jax.local_devices()[0])  # whatever devices the run was on
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        jax.eval_shape(lambda: create_state(params, batch_stats, rule)),
    )
    folder = workdir / ("best" if which == "best" else "checkpoints")
    if not folder.is_dir():
        raise RunError(f"{field}={workdir} has no {which} checkpoint; give --step newest or a number, or train there first")
    checkpoints = Checkpoints(folder, None, lambda line: print(line, file=sys.stderr), looking=True)
    state = checkpoints.restore(like, int(which) if which.isdigit() else None)
    checkpoints.close()
    if state is None:
        raise RunError(f"{field}={workdir} has no {which} checkpoint yet; train there first")
    seen_here = run_directory.read_data(workdir) is not None  # otherwise it came from elsewhere
    found = TrainedNetwork(workdir, config, graph, state, seen_here and not config.data.root)
    kept = calibration.read(calibration.calibration_file(workdir, found.step), found.digest)
    return replace(found, calibration=kept)
