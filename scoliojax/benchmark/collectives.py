"""Bytes that a training step sends between devices: `python -m scoliojax.benchmark.collectives --config FILE`.

The step is compiled for the devices of this machine, without data, and not run. To simulate eight devices:
`XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu`.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from data_pipelines.command import Parser, make_parser
from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax.runs.command import add_recipe, configure_runtime, refuse_rest, report_errors

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


def compile_step(config) -> str:
    """The text of the training step of a config, compiled for all devices."""
    import jax
    import jax.numpy as jnp

    from scoliojax import build
    from scoliojax.devices.mesh import data_mesh, replicated, sharded
    from scoliojax.training.state import create_state
    from scoliojax.training.step import make_train_step

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


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.benchmark.collectives",
        "Compile the training step for the devices that are there, without data, and list what it sends between them.",
        "--config FILE",
        "scoliojax.benchmark.collectives --config configs/sconet_mt.py",
    )
    add_recipe(parser, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, changes = parser.parse_known_args(argv)
    refuse_rest(parser, changes)
    with report_errors("nothing was written"):
        configure_runtime()
        import jax

        from scoliojax.runs.recipe import read_recipe

        found = list(read_collectives(compile_step(read_recipe(args.config, changes))))
        print(f"devices: {jax.device_count()} {jax.default_backend()}")
        print("collective | calls | arrays | bytes a device")
        for kind in sorted({one.kind for one in found}):
            calls = [one for one in found if one.kind == kind]
            print(f"{kind} | {len(calls)} | {sum(one.arrays for one in calls)} | {sum(one.bytes for one in calls):,}")


if __name__ == "__main__":
    main()
