"""Train and evaluate: `python -m scoliojax.main --config configs/sconet_mt.py --workdir runs/sconet_mt`."""

from collections.abc import Sequence

from data_pipelines.command import Parser, expanded_path, make_parser
from scoliojax.runs.command import add_allow_missing, add_part, add_recipe, add_screening, add_step, refuse_rest, report_errors


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.main",
        "Train a network, or go on with the run in --workdir, then evaluate the test part; or evaluate a checkpoint.",
        "[--config FILE] --workdir DIR [options]",
        "scoliojax.main --config configs/sconet_mt.py:quickstart --workdir runs/quickstart",
        "scoliojax.main --mode eval --workdir runs/quickstart --step best",
    )
    add_recipe(parser)
    add_allow_missing(parser)
    parser.add_argument("--workdir", type=expanded_path, metavar="DIR", help="run directory: checkpoints, logs and results")
    parser.add_argument(
        "--mode",
        default="train",
        choices=["train", "eval"],
        help="train (default), then evaluate; or only evaluate a checkpoint",
    )
    add_step(parser)
    add_part(parser)
    add_screening(parser)
    parser.add_argument("--profile", type=expanded_path, metavar="DIR", help="write a profiler trace of steps 11 to 15 here")
    hosts = parser.add_argument_group("several hosts that jax does not recognise by itself")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    hosts.add_argument("--processes", type=int, metavar="N", help="number of processes; 1 alone: this is the only one")
    hosts.add_argument("--process", type=int, metavar="I", help="number of this process, from 0")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, changes = parser.parse_known_args(argv)
    refuse_rest(parser, changes)
    changes += args.allow_missing
    if args.workdir is None:
        parser.error("--workdir is missing; give a folder for checkpoints, logs and results")
    if args.mode == "train" and (args.step, args.part) != ("newest", "test"):
        parser.error("--step and --part belong to --mode eval; training evaluates its last step on the test part")
    if args.mode == "eval" and args.profile:
        parser.error("--profile belongs to --mode train; an evaluation has no training steps")
    with report_errors():
        from scoliojax.devices import cluster
        from scoliojax.errors import RunError
        from scoliojax.runs.command import configure_runtime
        from scoliojax.runs.evaluation import Screening, open_network, write_evaluation
        from scoliojax.runs.recipe import read_recipe
        from scoliojax.runs.run import open_run, recorded_config
        from scoliojax.runs.training import run_training

        configure_runtime()
        cluster.join(args.coordinator, args.processes, args.process)
        if args.config:
            config = read_recipe(args.config, changes)
        elif args.mode == "train" and not (args.workdir / "config.json").exists():
            raise RunError("--config is missing; give a recipe, e.g. --config configs/sconet_mt.py")
        else:
            config = recorded_config(args.workdir, changes=changes)
        screening = Screening(args.sensitivity, args.prevalence)
        if args.mode == "train":
            run_training(config, args.workdir, screening, args.profile)
        else:
            network, cohort = open_network(open_run(args.workdir, config=config), args.step)
            write_evaluation(network, cohort, args.part, screening)


if __name__ == "__main__":
    main()
