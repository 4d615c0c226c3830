"""Construction of models, losses, optimisers and data from the sections of a config."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from data_pipelines.augment import Augmentation
from data_pipelines.pipelines import EvalBatcher, SequenceCache, TrainSampler
from data_pipelines.poses.drawing import drawn
from data_pipelines.poses.maps import check_drawing
from data_pipelines.poses.synthetic import synthetic_poses
from data_pipelines.schema import CHANNELS, CLASSES, SILHOUETTES, SKELETONS, SequenceSet
from data_pipelines.sources import open_root
from data_pipelines.splits import Partition, make_partition, refuse_single_class
from data_pipelines.synthetic import synthetic_walkers
from scoliojax.errors import RunError
from scoliojax.models.drf import DRF
from scoliojax.models.sconet import ScoNet
from scoliojax.training.losses import ScoNetLoss
from scoliojax.training.optim import sgd
from scoliojax.training.state import Tree, split_model

Config = Any  # a ConfigDict; ml_collections types its leaves as a union of everything
MODELS: dict[str, type[ScoNet]] = {"sconet": ScoNet, "drf": DRF}
OPTIMIZERS = {"sgd": sgd}
DATA = ("scoliosis1k", "synthetic")


@contextmanager
def section(name: str) -> Iterator[None]:
    """Turn a constructor's error about its arguments into a `RunError` that names the config section."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise RunError(f"config section {name!r}: {error}") from error


def _pick(table: dict, config: Config, field: str) -> tuple[Callable, dict]:
    """The object that a section names, and the section's other keys as its arguments."""
    arguments = config.to_dict()
    name = arguments.pop("name")
    if name not in table:
        raise RunError(f"{field}.name={name!r} is unknown; known are {', '.join(sorted(table))}")
    return table[name], arguments


def build_model(config: Config) -> tuple[nnx.GraphDef, Tree, Tree]:
    """The network's graph, initial parameters and initial batch statistics; they depend on `seed` alone."""
    cls, arguments = _pick(MODELS, config.model, "model")
    if config.seed < 0:
        raise RunError(f"seed={config.seed} must not be negative")
    check_modality(config)
    arguments |= {"classes": len(CLASSES), "inputs": CHANNELS[config.data.modality], "precision": config.precision}
    with section("model"):
        return split_model(cls(**arguments, rng=np.random.default_rng(config.seed)))


def reads_asymmetry(config: Config) -> bool:
    """Whether the network of a config reads the asymmetry vectors of the sequences."""
    return getattr(MODELS.get(config.model.name), "reads_asymmetry", False)


def check_modality(config: Config) -> None:
    """Raise `RunError` for a modality that there is not, for one that the network cannot read, and for maps that cannot be."""
    modality = config.data.modality
    if modality not in CHANNELS:
        raise RunError(f"data.modality={modality!r} is unknown; known are {', '.join(CHANNELS)}")
    if modality == SILHOUETTES and reads_asymmetry(config):
        raise RunError(
            f"model.name={config.model.name!r} reads poses, and data.modality={modality!r} has none; give "
            f"--config.data.modality={SKELETONS}"
        )
    with section("data.maps"):
        check_drawing(**config.data.maps)


def build_loss(config: Config, mesh: Mesh | None = None) -> ScoNetLoss:
    """The loss; `mesh` is the mesh over which clips are sharded, None on a single device."""
    if len(weights := config.loss.weights_by_class) != len(CLASSES):
        raise RunError(f"loss.weights_by_class={tuple(weights)} must have a number for each of {', '.join(CLASSES)}")
    with section("loss"):
        return ScoNetLoss(**config.loss.to_dict(), mesh=mesh)


def build_optimizer(config: Config) -> tuple[optax.GradientTransformation, optax.Schedule]:
    function, arguments = _pick(OPTIMIZERS, config.optimizer, "optimizer")
    with section("optimizer"):
        return function(**arguments)


def build_data(config: Config, report: Callable[[str], None]) -> SequenceSet:
    """Open the real data, or make synthetic walkers and report that."""
    data = config.data
    if data.name not in DATA:
        raise RunError(f"data.name={data.name!r} is unknown; known are {', '.join(DATA)}")
    if data.name == "synthetic" and data.root:
        raise RunError(f"data.root={data.root!r} is given but data.name='synthetic'; add --config.data.name=scoliosis1k")
    if data.name == "scoliosis1k" and not data.root:
        report("no data.root: using SYNTHETIC walkers, not people; give --config.data.root=FOLDER for real data")
    if data.modality == SILHOUETTES:
        return open_root(data.root, report) if data.root else synthetic_walkers(**data.synthetic)
    poses = open_root(data.root, report, SKELETONS) if data.root else synthetic_poses(**data.synthetic)
    maps = drawn(poses, **data.maps)
    return maps if reads_asymmetry(config) else replace(maps, asymmetry=None)


def build_partition(config: Config, data: SequenceSet, report: Callable[[str], None] | None = None) -> Partition:
    """The parts of the data; `report` receives warnings about them."""
    section = config.data
    partition = make_partition(
        data, section.partition, section.validation_fraction, allow_missing=section.allow_missing, report=report
    )
    if config.train.eval_every and not len(partition.validation):
        raise RunError(
            f"train.eval_every={config.train.eval_every} needs validation subjects, and "
            f"data.validation_fraction={config.data.validation_fraction} sets none aside; raise it or set eval_every to 0"
        )
    return partition


def clips_per_batch(config: Config, devices: int | None = None) -> int:
    """Number of clips in the global batch; raises `RunError` where it does not divide by `devices` (None: all here)."""
    subjects, each = config.data.subjects_per_batch, config.data.clips_per_subject
    devices = devices or jax.device_count()
    if subjects * each % devices:
        raise RunError(
            f"data.subjects_per_batch={subjects} x data.clips_per_subject={each} = {subjects * each} clips do not divide "
            f"evenly over {devices} devices; change either"
        )
    return subjects * each


def build_cache(config: Config, data: SequenceSet) -> SequenceCache:
    """Decoded sequences in this process's memory, for training and evaluation alike."""
    return SequenceCache(data, int(1e9 * config.data.cache_gigabytes))


def build_sampler(config: Config, data: SequenceSet, partition: Partition, cache: SequenceCache | None = None) -> TrainSampler:
    """The training batches of this process; raises `DataError` where the training part has one class only."""
    refuse_single_class(data, partition, config.data.partition)
    data_config, clips = config.data, clips_per_batch(config)
    together = math.gcd(data_config.clips_per_subject, clips // jax.device_count()) if data_config.share_frames else 1
    sizes = data_config.subjects_per_batch, data_config.clips_per_subject, data_config.frames_per_clip
    share = jax.process_index(), jax.process_count()
    changes = build_augmentation(data_config)
    return TrainSampler(
        data,
        partition.train,
        config.seed,
        *sizes,
        *share,
        cache=cache,
        clips_together=together,
        balanced=data_config.balanced,
        augmentation=changes,
    )


def build_augmentation(data: Config) -> Augmentation:
    """What happens to the training clips; `data`: the section of that name."""
    with section("data.augment"):
        return Augmentation(**data.augment)


def build_eval_batcher(config: Config, data: SequenceSet, rows, read: Callable[[int], np.ndarray] | None = None) -> EvalBatcher:
    """Padded batches of whole sequences; `read` as in `EvalBatcher`."""
    if config.data.sequences_per_eval_batch < 1:
        raise RunError(f"data.sequences_per_eval_batch={config.data.sequences_per_eval_batch} must be at least 1")
    batch_size, share = config.data.sequences_per_eval_batch * jax.device_count(), (jax.process_index(), jax.process_count())
    return EvalBatcher(data, rows, batch_size, config.data.max_eval_frames, *share, read=read)
