"""Bytes that a training step sends between devices: `python -m scoliojax.benchmark.collectives --config FILE`.

The step is compiled for the devices of this machine, without data, and not run. To simulate eight devices:
`XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu`.
"""

from collections.abc import Sequence

from data_pipelines.command import Parser, make_parser
from scoliojax.runs.command import add_recipe, configure_runtime, refuse_rest, report_errors


def compile_step(config) -> str:
    """The text of the training step of a config without shared frames, compiled for all devices."""
    import jax

    from scoliojax.devices.mesh import data_mesh
    from scoliojax.runs.compiling import training_program

    lowered = training_program(config, data_mesh(), jax.default_backend(), share=False).lowered
    return lowered.compile().as_text() or ""


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

        from scoliojax.devices.program import read_collectives
        from scoliojax.runs.recipe import read_recipe

        found = list(read_collectives(compile_step(read_recipe(args.config, changes))))
        print(f"devices: {jax.device_count()} {jax.default_backend()}")
        print("collective | calls | arrays | bytes a device")
        for kind in sorted({one.kind for one in found}):
            calls = [one for one in found if one.kind == kind]
            print(f"{kind} | {len(calls)} | {sum(one.arrays for one in calls)} | {sum(one.bytes for one in calls):,}")


if __name__ == "__main__":
    main()
