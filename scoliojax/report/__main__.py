"""A report of a run: `python -m scoliojax.report --workdir runs/sconet_mt`.

Writes `report/` in the run directory: `report.html` (one file that needs no internet), the figures as PNG and SVG, `cases.csv`,
`strips.csv` and `MODEL_CARD.md`; of a network that reads the walker's posture also `asymmetry.csv` and `gates.csv`.
`--compare DIR ...` compares other runs on the same sequences, also of networks that read something else of them.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.command import Parser, expanded_path, expanded_root, make_parser
from data_pipelines.schema import is_url, nested
from scoliojax.errors import RunError
from scoliojax.files import refuse_foreign, whole_folder
from scoliojax.runs.command import add_output, add_part, add_run, add_screening, add_step, configure_runtime, report_errors

FILES = {"report.html", "figures", "cases.csv", "strips.csv", "asymmetry.csv", "gates.csv", "MODEL_CARD.md"}


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.report",
        "Write one page with everything that is known of a run: scores, figures, cases to review, comparisons.",
        "--workdir DIR [options]",
        "scoliojax.report --workdir runs/quickstart --prevalence 0.03",
    )
    add_run(parser, "--workdir", "--checkpoint")
    add = parser.add_argument
    add("--compare", nargs="+", type=expanded_path, default=[], metavar="DIR", help="other runs, on the same sequences")
    add_step(parser)
    add_part(parser)
    add_screening(parser)
    add("--data", type=expanded_root, metavar="DIR", help="prepared folder or released tree, where it has moved")
    add_output(parser, "<workdir>/report")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    with report_errors("nothing was written"):
        folder = (args.output or args.directory / "report").resolve()
        refuse_foreign(folder, FILES, "a report")
        configure_runtime()
        from scoliojax.report.evidence import compare_runs, gather
        from scoliojax.report.page import write_page
        from scoliojax.runs.evaluation import Screening, open_network
        from scoliojax.runs.run import open_run

        screening = Screening(args.sensitivity, args.prevalence, args.coverage)
        run, *others = (
            open_run(directory, field, root=args.data)
            for directory, field in [(args.directory, "--workdir"), *((other, "--compare") for other in args.compare)]
        )
        if args.output and (root := run.config.data.root) and not is_url(root) and nested(folder, Path(root)):
            raise RunError(f"--output={folder} and the data in {root} contain one another; give another folder")
        evidence = gather(*open_network(run, args.step), args.part, screening)
        rivals = [compare_runs(evidence, *open_network(other, args.step), args.part, screening) for other in others]
        with whole_folder(folder) as fresh:
            write_page(fresh, evidence, rivals)
        print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
