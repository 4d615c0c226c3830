"""Prepare Scoliosis1K once: `python -m data_pipelines.prepare --input TREE --output DIR`, then train with `data.root=DIR`.

Raw masks are normalised. An interrupted run leaves no folder that could be mistaken for a complete data set.
"""

from collections.abc import Sequence

from data_pipelines.command import Parser, expanded_path, expanded_text, make_parser, report_errors
from data_pipelines.schema import DataError


def arguments() -> Parser:
    parser = make_parser(
        "data_pipelines.prepare",
        "Prepare Scoliosis1K once, for training and evaluation.",
        "--input TREE --output DIR [options]",
        "data_pipelines.prepare --input SCOLIOSIS1K --output prepared",
    )
    add = parser.add_argument
    add("--input", required=True, type=expanded_text, metavar="TREE", help="released tree, <id>/<Class>/<view>/*.pkl or *.png")
    add("--output", required=True, type=expanded_path, metavar="DIR", help="folder for the prepared data set")
    add(
        "--subjects",
        type=expanded_text,
        metavar="FILE",
        help="CSV file sequence,subject: the person of each sequence, if you know",
    )
    add("--skip-bad", action="store_true", help="leave out and list what cannot be used")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    from data_pipelines.sources import is_prepared, open_prepared, prepare

    left = ("nothing was written, start the same command again", "the data set is whole")
    with report_errors(lambda: left[is_prepared(args.output)]):
        if is_prepared(args.output):
            raise DataError(f"--output={str(args.output)!r} is already prepared; delete it or pick another folder")
        skipped = prepare(args.input, args.output, args.subjects, args.skip_bad)
        data = open_prepared(args.output)
        for line in skipped:
            print(f"skipped: {line}")
        counts = ", ".join(f"{count} {name}" for name, count in data.class_counts().items())
        print(f"{len(data)} sequences, {int(data.n_frames.sum())} frames ({counts}) in {args.output}")


if __name__ == "__main__":
    main()
