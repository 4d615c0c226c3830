"""The distance from PyTorch: `python -m scoliojax.interop.parity recording | spread | live | bfloat16`."""

from collections.abc import Sequence

from data_pipelines.command import Parser, expanded_path, make_parser, whole_number
from scoliojax.runs.command import add_run, configure_runtime, report_errors

NETWORKS = {"sconet_mt": {}, "sconet_mt_ske": {"inputs": 2}, "drf": {"inputs": 2, "gates": True}}  # what sets them apart


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.interop.parity",
        "Measure how close scoliojax is to PyTorch, as tables. Each command has a --help of its own.",
        "recording DIR | spread DIR | live [--network NAME] [--seed N] | bfloat16 --workdir DIR",
        "scoliojax.interop.parity live --seed 1",
    )
    commands = parser.add_subparsers(dest="command", required=True, prog="python -m scoliojax.interop.parity")
    for name, about in (("recording", "against a recorded run of the original"), ("spread", "PyTorch against itself on one")):
        sub = commands.add_parser(name, help=about, allow_abbrev=False)
        sub.add_argument("folder", type=expanded_path, metavar="DIR", help="folder of a recorded run")
    sub = commands.add_parser("live", help="against our PyTorch reference, computed now", allow_abbrev=False)
    sub.add_argument(
        "--network",
        choices=list(NETWORKS),
        default="sconet_mt",
        help="whose steps: on silhouettes (the default), on skeleton maps, or on skeleton maps and asymmetry vectors",
    )
    sub.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="seed of network and clips; default 0")
    sub = commands.add_parser("bfloat16", help="decisions in bfloat16 against float32", allow_abbrev=False)
    add_run(sub)
    sub.add_argument(
        "--sequences", type=whole_number(3), default=500, metavar="N", help="synthetic walkers to decide on; default 500"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    with report_errors("the rows so far are on the terminal"):
        configure_runtime()
        from scoliojax.errors import RunError
        from scoliojax.interop.opengait.names import Sizes
        from scoliojax.interop.parity import compare

        if args.command == "spread":
            for name, steps in compare.spread(args.folder):
                print(f"| {name} | {' | '.join(f'{step:.0e}' for step in steps)} |", flush=True)
            return
        if args.command == "recording":
            rows = compare.compare_recording(args.folder)
        elif args.command == "live":
            sizes = Sizes((8, 16, 24, 32), 16, (16,), 3, **NETWORKS[args.network])
            rows = compare.compare_live(sizes, [0, 0, 1, 1, 2, 2], frames=4, seed=args.seed, steps=5)
        else:
            rows = compare.compare_bfloat16(args.directory, args.sequences)
        if not compare.table(rows):
            raise RunError("there are differences beyond rounding (marked: beyond)")


if __name__ == "__main__":
    main()
