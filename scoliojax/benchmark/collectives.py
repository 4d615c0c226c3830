"""Bytes that a training step sends between devices: `python -m scoliojax.benchmark.collectives --config FILE`.

The step is compiled for the devices of this machine, without data, and not run. To simulate eight devices:
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
    kind: str  # name in XLA, such as all-reduce
    arrays: int
    bytes: int  # size of its results on one device


def read_collectives(program: str) -> Iterator[Collective]:
    """Collectives in the text of a compiled program (`compiled.as_text()`); one inside a loop counts once."""
    for result, kind, start in _CALL.findall(program):
        shapes = [(int(bits) // 8, [int(size) for size in shape.split(",") if size]) for bits, shape in _ARRAY.findall(result)]
        sizes = [width * math.prod(shape) for width, shape in shapes]
        if start and kind != "all-reduce":  # an asynchronous collective lists its operands before its results
            sizes = sizes[len(sizes) // 2 :]
        yield Collective(kind, len(sizes), sum(sizes))


def compile_step(config: build.Config) -> str:
    """Text of the training step compiled for all devices."""
    mesh = data_mesh()
    optimizer, schedule = build.build_optimizer(config)
    graph, params, batch_stats = build.build_model(config)
    step = make_train_step(graph, build.build_loss(config, mesh), optimizer, schedule, replicated(mesh))

    def placed(sharding, shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    state = create_state(params, batch_stats, optimizer)
    state = jax.tree.map(lambda leaf: placed(replicated(mesh), leaf.shape, leaf.dtype), state)
    clips = build.clips_per_batch(config)
    batch = {
        "silhouettes": placed(sharded(mesh), (clips, config.data.frames_per_clip, FRAME_SIZE, FRAME_WIDTH), jnp.uint8),
        "labels": placed(sharded(mesh), (clips,), jnp.int32),
        "identities": placed(sharded(mesh), (clips,), jnp.int32),
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
