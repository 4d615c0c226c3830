"""A trained network for other runtimes: `python -m scoliojax.export --workdir runs/sconet_mt`.

The folder `export/` in the run directory receives `network.stablehlo` (one function for CPUs, NVIDIA GPUs and TPUs, serialised
by `jax.export`, that does not need this package), `network.json` (inputs, outputs and their meaning), `MODEL_CARD.md`, and,
where an evaluation has fitted it, `reference.npz` (what the network learnt from, for the distance of a walk from it).
`docs/export.md` explains how to load it, and which properties are guaranteed.
"""

from collections.abc import Sequence

from data_pipelines.command import Parser, make_parser
from scoliojax.export import ARTEFACT, CARD, DESCRIPTION, PLATFORMS, REFERENCE
from scoliojax.files import refuse_foreign
from scoliojax.runs.command import add_output, add_run, add_step, configure_runtime, report_errors


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.export",
        "Write a trained network as one function for CPUs, NVIDIA GPUs and TPUs that needs JAX alone.",
        "--workdir DIR [options]",
        "scoliojax.export --workdir runs/quickstart",
    )
    add_run(parser, "--workdir", "--checkpoint")
    parser.add_argument("--format", default="stablehlo", choices=["stablehlo"], help="there is one; docs/export.md says why")
    add_step(parser)
    add_output(parser, "<workdir>/export")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    with report_errors("nothing was written"):
        folder = (args.output or args.directory / "export").resolve()
        refuse_foreign(folder, {ARTEFACT, DESCRIPTION, CARD, REFERENCE}, "an export")
        configure_runtime()
        from scoliojax.export.artefact import write_export
        from scoliojax.runs.run import open_run

        network = open_run(args.directory).network(args.step)
        description = write_export(folder, network)
        size, mark = description["artefact"]["bytes"] / 1e6, ", synthetic" if network.synthetic else ""
        print(f"step {network.step} of {args.directory} for {', '.join(PLATFORMS)}, {size:.1f} MB{mark}")
        print(f"its logits are within {description['checked']['largest_difference']:.1e} of the package's")
        print(f"export: {folder}")


if __name__ == "__main__":
    main()
