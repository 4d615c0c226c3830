"""Bytes that a training step sends between devices: `python -m scoliojax.benchmark.collectives --config FILE`.

Compiles for the devices that are there, without data and without running anything. To look at a machine that is not there:
`XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import app

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax import build
from scoliojax import main as job
from scoliojax.devices.mesh import data_mesh, replicated, sharded
from scoliojax.errors import RunError
from scoliojax.training.state import create_state
from scoliojax.training.step import make_train_step

_CALL = re.compile(r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(")
_ARRAY = re.compile(r"\b[a-z]+(\d+)\[([\d,]*)\]")


class Collective(NamedTuple):
    kind: str  # of XLA, such as all-reduce
    arrays: int
    bytes: int  # of its results on one device


def read_collectives(program: str) -> Iterator[Collective]:
    """The collectives of a compiled program's text (`compiled.as_text()`); those inside a loop count once."""
    for result, kind, start in _CALL.findall(program):
        shapes = [(int(bits) // 8, [int(size) for size in shape.split(",") if size]) for bits, shape in _ARRAY.findall(result)]
        sizes = [width * math.prod(shape) for width, shape in shapes]
        if start and kind != "all-reduce":  # an asynchronous one names its operands before its results
            sizes = sizes[len(sizes) // 2 :]
        yield Collective(kind, len(sizes), sum(sizes))


def compile_step(config: build.Config) -> str:
    """The text of the training step, compiled for all devices."""
    mesh = data_mesh()
    optimizer, schedule = build.build_optimizer(config)
    graph, params, batch_stats = build.build_model(config)
    step = make_train_step(graph, build.build_loss(config, mesh), optimizer, schedule, replicated(mesh))

    def describe(shape, dtype, sharding):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    state = jax.tree.map(
        lambda leaf: describe(leaf.shape, leaf.dtype, replicated(mesh)), create_state(params, batch_stats, optimizer)
    )
    clips = build.clips_per_batch(config)
    batch = {
        "silhouettes": describe((clips, config.data.frames_per_clip, FRAME_SIZE, FRAME_WIDTH), jnp.uint8, sharded(mesh)),
        "labels": describe((clips,), jnp.int32, sharded(mesh)),
        "identities": describe((clips,), jnp.int32, sharded(mesh)),
    }
    return step.lower(state, batch).compile().as_text()


def main(argv: list[str]) -> None:
    if job.CONFIG.value is None or len(argv) > 1:
        print("error: give a recipe and nothing else, e.g. --config configs/sconet_mt.py", file=sys.stderr)
        sys.exit(2)
    try:
        found = list(read_collectives(compile_step(job.CONFIG.value)))
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"devices: {jax.device_count()} {jax.default_backend()}")
    print("collective | calls | arrays | bytes a device")
    for kind in sorted({one.kind for one in found}):
        calls = [one for one in found if one.kind == kind]
        print(f"{kind} | {len(calls)} | {sum(one.arrays for one in calls)} | {sum(one.bytes for one in calls):,}")


if __name__ == "__main__":
    app.run(main, flags_parser=job.parse_flags)
