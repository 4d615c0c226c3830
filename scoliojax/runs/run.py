"""A run: its directory, config and network, without data."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, Sharding, SingleDeviceSharding
from ml_collections import ConfigDict

from data_pipelines.poses.maps import map_marks
from data_pipelines.schema import SILHOUETTES
from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.devices.mesh import data_mesh, replicated
from scoliojax.errors import RunError
from scoliojax.models.drf import knows_ranges
from scoliojax.runs import directory as run_directory
from scoliojax.runs import settings
from scoliojax.runs.recipe import change_config
from scoliojax.scores import calibration, reference
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.reference import Reference
from scoliojax.training.checkpoint import Checkpoints, check_which, digest
from scoliojax.training.evaluate import EvalStep, make_eval_step
from scoliojax.training.state import TrainState, create_state


class Run:
    """A run directory, the config of the run, and the network and optimiser that the config describes.

    `field` is the option that named the directory, for messages. Raises `RunError` for a config without a valid network or
    optimiser.
    """

    def __init__(self, directory: Path, config: build.Config, field: str = "--workdir"):
        settings.check(config)
        self.directory, self.config, self.field = directory, config, field
        self.optimizer, self.schedule = build.build_optimizer(config)
        self.graph, self._params, self._batch_stats = build.build_model(config)

    @cached_property
    def mesh(self) -> Mesh:
        """All devices of all processes."""
        return data_mesh()

    @cached_property
    def eval_step(self) -> EvalStep:
        """The compiled evaluation over the mesh."""
        return cluster.compile_in_step(make_eval_step(self.graph, replicated(self.mesh)))

    def initial_state(self) -> TrainState:
        """The state before the first step, on every device of the mesh."""
        return jax.device_put(create_state(self._params, self._batch_stats, self.optimizer), replicated(self.mesh))

    def state_shapes(self, sharding: Sharding) -> TrainState:
        """Shapes and types of a state."""
        state = jax.eval_shape(lambda: create_state(self._params, self._batch_stats, self.optimizer))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)

    def checkpoints(self) -> Checkpoints:
        keep = self.config.train.checkpoints_to_keep
        return Checkpoints(self.directory / "checkpoints", keep, cluster.print_once, origin=self.origin())

    def origin(self) -> str | None:
        """The mark of this run's checkpoints, by what `data.json` says; None where that is not known."""
        data = run_directory.read_data(self.directory, self.field)
        return run_directory.origin_of(self.config.to_dict(), data.digest, data.parts)

    def network(self, which: str, sharding: Sharding | None = None, unfitted: bool = False) -> "TrainedNetwork":
        """The network of a checkpoint, `newest`, `best` (by validation) or a step; the run directory is not changed.

        `sharding` is the placement of its arrays; None for the first device of this process. Raises `RunError` for another
        word, where there is no such checkpoint, and, unless `unfitted`, for a network that cannot be evaluated yet: a DRF that
        was imported without data does not know the ranges of asymmetry vectors.
        """
        check_which(which)
        folder = self.directory / ("best" if which == "best" else "checkpoints")
        if not folder.is_dir():
            if which == "best":
                raise RunError(
                    f"--step=best: {self.directory} was not validated during training; give --step newest or a number, or "
                    "set train.eval_every and train there"
                )
            raise RunError(f"{self.field}={self.directory} has no {which} checkpoint; train there first")
        like = self.state_shapes(sharding or SingleDeviceSharding(jax.local_devices()[0]))
        say = partial(cluster.print_once, stream=sys.stderr)
        checkpoints = Checkpoints(folder, None, say, read_only=True, origin=self.origin())
        state = checkpoints.restore(like, int(which) if which.isdigit() else None)
        checkpoints.close()
        if state is None:
            raise RunError(f"{self.field}={self.directory} has no {which} checkpoint yet; train there first")
        if not unfitted and not knows_ranges(state.batch_stats):
            raise RunError(
                f"{self.field}={self.directory} holds a DRF that was imported without data, so the ranges of its asymmetry "
                "vectors are not known; import it again with --config.data.root=DATA, or train on there"
            )
        return TrainedNetwork(self, state)


@dataclass(frozen=True)
class TrainedNetwork:
    """One state of a run's network."""

    run: Run
    state: TrainState

    @property
    def directory(self) -> Path:
        return self.run.directory

    @property
    def config(self) -> build.Config:
        return self.run.config

    @property
    def graph(self) -> nnx.GraphDef:
        return self.run.graph

    @property
    def step(self) -> int:
        return int(self.state.step)

    @property
    def modality(self) -> str:
        """What the network reads: "silhouettes" or "skeletons"."""
        return self.config.data.modality

    @property
    def reads_asymmetry(self) -> bool:
        """Whether it also reads asymmetry vectors."""
        return build.reads_asymmetry(self.config)

    @property
    def marks(self) -> dict[str, float]:
        """Names of pixel rows of its frames, for figures."""
        from scoliojax.scores.strips import MARKS  # imports matplotlib, a third of the start time

        maps = self.config.data.maps
        return MARKS if self.modality == SILHOUETTES else map_marks(maps.body_only, maps.sigma)

    @property
    def scale(self) -> float:
        """Inverse temperature of the cosine logits in the training loss."""
        return self.config.loss.scale

    @cached_property
    def digest(self) -> str:
        """Digest of parameters and statistics: equal for networks that are equal to the bit."""
        return digest({"params": self.state.params, "batch_stats": self.state.batch_stats})

    @cached_property
    def synthetic(self) -> bool:
        """True where this run trained the network on synthetic walkers alone, also prepared ones, as an evaluation saw."""
        if run_directory.read_data(self.directory, self.run.field).digest is None:  # imported
            return False
        seen = self.calibration, self.reference, find_metrics(self.directory, self.step)
        return not self.config.data.root or any(kept.synthetic for kept in seen if kept)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Temperature and operating point saved beside the checkpoint; None where there are none."""
        return calibration.read(calibration.calibration_file(self.directory, self.step), self.digest)

    @cached_property
    def reference(self) -> Reference | None:
        """What this network learnt from, saved beside the checkpoint; None where no evaluation has fitted it yet."""
        return reference.read(reference.reference_file(self.directory, self.step), self.digest)

    def module(self) -> Any:
        """The network as a module."""
        return nnx.merge(self.graph, self.state.params, self.state.batch_stats, copy=True)


def recorded_config(directory: Path, field: str = "--workdir", changes: Sequence[str] = ()) -> Any:
    """The config of an existing run directory, with `--config.KEY=VALUE` changes; `field`: option that named it, for messages.

    Raises `RunError` where there is no run, its network is unknown, or a value of the config cannot be.
    """
    if directory.is_file():
        raise RunError(
            f"{field}={directory} is a file; give the folder of a run, and bring a PyTorch checkpoint here with "
            "python -m scoliojax.interop.opengait import"
        )
    recorded = run_directory.read_config(directory, field)
    name = recorded["model"].get("name")
    if isinstance(name, str) and name not in build.MODELS:
        raise RunError(
            f"{field}={directory} is a checkpoint of another kind: its network {name!r} is unknown here; give a run of "
            f"{', '.join(sorted(build.MODELS))}"
        )
    try:
        settings.check(ConfigDict(recorded))
    except RunError as error:
        raise RunError(f"{field}={directory}: config.json: {error}; correct it there, or restore it from a copy") from None
    return change_config(ConfigDict(recorded), changes)


def open_run(directory: Path, field: str = "--workdir", config: build.Config | None = None, root: str | None = None) -> Run:
    """Open an existing run directory without changing it; arguments and errors as in `recorded_config` and `Run`.

    `config`: config to use, None for the recorded one; `root`: folder of the data, None for that of the config.
    """
    run = Run(directory, recorded_config(directory, field) if config is None else config, field)
    if root:
        run.config.data.root = root
    return run
