"""Training and evaluation steps lowered from shapes alone, for devices that may not be there; no data, nothing is run."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_pipelines.pipelines import TrainSampler
from data_pipelines.schema import CHANNELS, CLASSES, FRAME_SIZE, SequenceSet, frame_shape
from scoliojax import build
from scoliojax.devices.mesh import replicated, sharded
from scoliojax.errors import RunError
from scoliojax.models.cost import forward_flops_per_frame
from scoliojax.models.drf import MEASURES, PAIRS
from scoliojax.training.evaluate import make_eval_step
from scoliojax.training.state import create_state
from scoliojax.training.step import make_train_step

SEQUENCE_FRAMES = 300  # of a sequence of Scoliosis1K: so many of them, drawn, differ among the clips of one


def _flops_per_frame(config: build.Config) -> int:
    return forward_flops_per_frame(config.model.channels, CHANNELS[config.data.modality])


class Program(NamedTuple):
    what: str  # in words
    lowered: jax.stages.Lowered
    flops: int  # of the backbone's convolutions on all devices, by `models.cost`


def frames_shared(config: build.Config, devices: int) -> tuple[int, int]:
    """How many clips share frames, and the number of frames that they share; (1, 0) where none do.

    As `build.build_sampler` and `TrainSampler` have it for sequences of `SEQUENCE_FRAMES` frames.
    """
    data = config.data
    clips = build.clips_per_batch(config, devices)
    together = math.gcd(data.clips_per_subject, clips // devices) if data.share_frames else 1
    if together == 1:
        return 1, 0
    rows = data.subjects_per_batch
    names, lengths = tuple(map(str, range(rows))), np.full(rows, SEQUENCE_FRAMES, np.int32)
    blank = np.zeros((SEQUENCE_FRAMES, FRAME_SIZE, FRAME_SIZE), np.uint8)  # s 64 64
    labels = np.arange(rows, dtype=np.int32) % len(CLASSES)
    walks = SequenceSet("blank", True, names, names, labels, lengths, lambda row: blank)
    sizes = rows, data.clips_per_subject, data.frames_per_clip
    changes = build.build_augmentation(data)  # of clips, which then share no frames
    sampler = TrainSampler(walks, np.arange(rows), config.seed, *sizes, clips_together=together, augmentation=changes)
    shared = sampler.shared_length
    return (together, shared) if shared else (1, 0)


def training_program(config: build.Config, mesh: Mesh, platform: str, share: bool | int = True) -> Program:
    """The training step of a run; `share`: shared frames as `frames_shared` has them, another number of them, or False."""
    clips, length = build.clips_per_batch(config, mesh.size), config.data.frames_per_clip
    batch = {name: jax.ShapeDtypeStruct((clips,), jnp.int32, sharding=sharded(mesh)) for name in ("labels", "identities")}
    together, frames = frames_shared(config, mesh.size) if share else (1, 0)
    if share not in (True, False) and not 0 < share <= together * length * (together > 1):
        raise RunError(
            f"--shared-frames={share}: {together} clips share frames on {mesh.size} devices, of {length} frames each"
        )
    if frames and share is not True:
        frames = share
    groups, drawn = (clips // together, frames) if frames else (clips, length)
    batch["frames"] = _frames(config, groups, drawn, mesh)
    if build.reads_asymmetry(config):
        batch["asymmetry"] = _vectors(clips, mesh)
    if frames:
        batch["clip_frames"] = jax.ShapeDtypeStruct((groups, together, length), jnp.int32, sharding=sharded(mesh))
    return program_of_batch(config, mesh, batch, platform)


def program_of_batch(config: build.Config, mesh: Mesh, batch: Mapping[str, Any], platform: str | None = None) -> Program:
    """The training step of a batch with these shapes, for the platform of the mesh or another."""
    optimizer, schedule = build.build_optimizer(config)
    graph, params, batch_stats = build.build_model(config)
    step: Any = make_train_step(graph, build.build_loss(config, mesh), optimizer, schedule, replicated(mesh))
    state = _placed(create_state(params, batch_stats, optimizer), mesh)
    (clips,), (groups, drawn) = batch["labels"].shape, batch["frames"].shape[:2]
    if "clip_frames" in batch:
        _, together, length = batch["clip_frames"].shape
        shared = f", every {together} share {drawn} of {together * length}"
    else:
        length, shared = drawn, ""
    what = f"training step, {config.precision}, {clips} clips x {length} frames{shared}"
    lowered = step.trace(state, batch).lower(**_platforms(platform))
    return Program(what, lowered, 3 * groups * drawn * _flops_per_frame(config))


def shapes_of(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of the global batch of which this is a process's share."""
    shares = jax.process_count()
    return {
        name: jax.ShapeDtypeStruct((shares * len(part), *part.shape[1:]), part.dtype, sharding=sharded(mesh))
        for name, part in batch.items()
    }


def unshared(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """The shapes of a batch without shared frames, as one of some thousand is in a run that shares them (`TrainSampler`)."""
    groups, together, length = batch["clip_frames"].shape
    shape = (groups * together, length, *batch["frames"].shape[2:])
    same = {name: array for name, array in batch.items() if name != "clip_frames"}
    return same | {"frames": jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=sharded(mesh))}


def _platforms(platform: str | None) -> dict[str, Any]:
    return {"lowering_platforms": (platform,)} if platform else {}


def evaluation_program(config: build.Config, mesh: Mesh, platform: str | None = None, longest: int | None = None) -> Program:
    """The evaluation of the longest sequences that a run reads at a time: of `longest` frames, None for as many as it may."""
    graph, params, batch_stats = build.build_model(config)
    step: Any = make_eval_step(graph, replicated(mesh))
    sequences, length = config.data.sequences_per_eval_batch * mesh.size, longest or config.data.max_eval_frames
    mask = jax.ShapeDtypeStruct((sequences, length), bool, sharding=sharded(mesh))
    vectors = (_vectors(sequences, mesh),) if build.reads_asymmetry(config) else ()
    frames = _frames(config, sequences, length, mesh)
    arguments = _placed(params, mesh), _placed(batch_stats, mesh), frames, mask, *vectors
    what = f"evaluation, {config.precision}, {sequences} sequences x {length} frames"
    lowered = step.trace(*arguments).lower(**_platforms(platform))
    return Program(what, lowered, sequences * length * _flops_per_frame(config))


def _placed(tree: Any, mesh: Mesh) -> Any:
    """Shapes and types of a state that every device has a copy of."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), tree)


def _frames(config: build.Config, clips: int, length: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((clips, length, *frame_shape(config.data.modality)), jnp.uint8, sharding=sharded(mesh))


def _vectors(clips: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((clips, PAIRS, MEASURES), jnp.float32, sharding=sharded(mesh))
