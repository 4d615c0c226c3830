"""The paper's class-ratio study, also of other networks: `python -m scoliojax.study --config FILE --workdir runs/study`.

Every ratio x network x seed has its own run directory under `--workdir`. Finished runs are skipped and a stopped run is
continued: after a stop, run the same command again.
"""

from collections.abc import Sequence

from data_pipelines.command import Parser, expanded_path, make_parser, whole_number
from scoliojax.runs.command import add_allow_missing, add_hosts, add_recipe, configure_runtime, refuse_rest, report_errors
from scoliojax.study import DEFAULT, MODELS


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.study",
        "Train every ratio x network x seed, or go on with them, then write one table and one picture.",
        "--config FILE --workdir DIR [options]",
        "scoliojax.study --config configs/sconet_mt.py --seeds 3 --workdir runs/study --config.data.root=prepared",
        f"scoliojax.study --config configs/sconet_mt.py:quickstart --models {','.join(MODELS)} --workdir runs/all",
    )
    add_recipe(parser, required=True)
    add_allow_missing(parser)
    parser.add_argument(
        "--ratios", default="1:1:2,1:1:4,1:1:8,1:1:16", metavar="A,B", help="ratios or partition files; default %(default)s"
    )
    help_text = f"some of {', '.join(MODELS)}, on the same walks; default %(default)s"
    parser.add_argument("--models", default=",".join(DEFAULT), metavar="A,B", help=help_text)
    parser.add_argument(
        "--seeds", type=whole_number(1, 10000), default=3, metavar="N", help="number of seeds, from the recipe's on; default 3"
    )
    parser.add_argument("--workdir", required=True, type=expanded_path, metavar="DIR", help="folder of the study")
    add_hosts(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, changes = parser.parse_known_args(argv)
    refuse_rest(parser, changes)
    changes += args.allow_missing
    with report_errors("finished cells are kept; the same command goes on"):
        configure_runtime()
        from scoliojax.devices import cluster
        from scoliojax.runs.recipe import read_recipe
        from scoliojax.study.networks import variant_of
        from scoliojax.study.ratios import cells, check, finish, write_study

        cluster.join(args.coordinator, args.processes, args.process)  # before anything touches a device
        recipe = read_recipe(args.config, changes)
        names = args.ratios.split(","), args.models.split(",")
        study = cells(recipe, *names, args.seeds, args.workdir, variant_of(args.config), changes)
        check(study)
        metrics = [finish(cell) for cell in study]
        if cluster.is_first():
            print(f"\n{write_study(args.workdir, study, metrics)}\nstudy: {args.workdir / 'study.md'}")


if __name__ == "__main__":
    main()
