"""Train and evaluate: `python -m scoliojax.main --config configs/sconet_mt.py --workdir runs/sconet_mt`."""

from collections.abc import Sequence
from functools import partial

from data_pipelines.command import Parser, expanded_path, make_parser
from scoliojax.runs import command


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.main",
        "Train a network, or go on with the run in --workdir, then evaluate the test part; or evaluate a checkpoint.",
        "[--config FILE] --workdir DIR [options]",
        "scoliojax.main --config configs/sconet_mt.py:quickstart --workdir runs/quickstart",
        "scoliojax.main --mode eval --workdir runs/quickstart --step best",
    )
    command.add_recipe(parser)
    command.add_allow_missing(parser)
    parser.add_argument("--workdir", type=expanded_path, metavar="DIR", help="run directory: checkpoints, logs and results")
    parser.add_argument(
        "--mode",
        default="train",
        choices=["train", "eval"],
        help="train (default), then evaluate; or only evaluate a checkpoint",
    )
    command.add_step(parser)
    command.add_part(parser)
    command.add_screening(parser)
    command.add_profile(parser)
    command.add_dry_run(parser)
    command.add_hosts(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, changes = parser.parse_known_args(argv)
    command.refuse_rest(parser, changes)
    changes += args.allow_missing
    if args.workdir is None:
        parser.error("--workdir is missing; give a folder for checkpoints, logs and results")
    if args.mode == "train" and (args.step, args.part) != ("newest", "test"):
        parser.error("--step and --part belong to --mode eval; training evaluates its last step on the test part")
    if args.mode == "eval" and (args.profile or args.dry_run):
        parser.error("--profile and --dry-run belong to --mode train; an evaluation has no training steps")
    unchanged = args.mode == "eval" or args.dry_run
    with command.report_errors("nothing was written" if unchanged else partial(command.left_by_training, args.workdir)):
        from scoliojax.devices import cluster
        from scoliojax.errors import RunError
        from scoliojax.runs.dry_run import dry_run
        from scoliojax.runs.evaluation import Screening, open_network, write_evaluation
        from scoliojax.runs.recipe import read_recipe
        from scoliojax.runs.run import open_run, recorded_config
        from scoliojax.runs.training import run_training

        command.configure_runtime()
        cluster.join(args.coordinator, args.processes, args.process)
        if args.config:
            config = read_recipe(args.config, changes)
        elif args.mode == "train" and not (args.workdir / "config.json").exists():
            raise RunError("--config is missing; give a recipe, e.g. --config configs/sconet_mt.py")
        else:
            config = recorded_config(args.workdir, changes=changes)
        screening = Screening(args.sensitivity, args.prevalence, args.coverage)
        if args.dry_run:
            dry_run(config, args.workdir, args.profile)
        elif args.mode == "train":
            run_training(config, args.workdir, screening, args.profile)
        else:
            network, cohort = open_network(open_run(args.workdir, config=config), args.step)
            write_evaluation(network, cohort, args.part, screening)


if __name__ == "__main__":
    main()
