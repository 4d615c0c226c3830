"""Prepare Scoliosis1K once: `python -m data_pipelines.prepare --input TREE --output DIR`, then train with `data.root=DIR`.

Raw masks are normalised. Poses (`--poses TREE`) are kept beside the silhouettes of the same walks, or alone. An interrupted run
leaves no folder that could be mistaken for a complete data set.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.command import Parser, expanded_path, expanded_text, make_parser, report_errors
from data_pipelines.schema import POSES, DataError, printable

FAULTY = 1  # exit status of --check where something cannot be used


def arguments() -> Parser:
    parser = make_parser(
        "data_pipelines.prepare",
        "Prepare Scoliosis1K once, for training and evaluation; or say what a tree or a prepared set holds.",
        "[--input TREE] [--poses TREE] (--output DIR | --check) [options]",
        "data_pipelines.prepare --input SCOLIOSIS1K --output prepared",
        "data_pipelines.prepare --input SCOLIOSIS1K --poses SCOLIOSIS1K-POSE --output prepared",
        "data_pipelines.prepare --input SCOLIOSIS1K --check --partition Scoliosis1K_118.json",
    )
    add = parser.add_argument
    add("--input", type=expanded_text, metavar="TREE", help="released tree of silhouettes, <id>/<Class>/<view>/*.pkl or *.png")
    add("--poses", type=expanded_text, metavar="TREE", help="released tree of poses, <id>/<Class>/<view>/*.pkl or *.json")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=expanded_path, metavar="DIR", help="folder for the prepared data set")
    target.add_argument("--check", action="store_true", help="write nothing; list all that would be used, and what not and why")
    help_text = "CSV file sequence,subject: who walked, if you know; further columns are kept"
    add("--subjects", type=expanded_text, metavar="FILE", help=help_text)
    add("--skip-bad", action="store_true", help="leave out and list what cannot be used")
    add("--partition", metavar="FILE", help="with --check: also count people by part; a JSON file, or a ratio such as 1:1:8")
    add("--json", type=expanded_path, metavar="FILE", help="with --check: also write everything found to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args = parser.parse_args(argv)
    if not args.input and not args.poses:
        parser.error("give --input TREE (silhouettes), --poses TREE, or both")
    if args.check and args.skip_bad:
        parser.error("--skip-bad is of --output; --check always goes on")
    if not args.check and (args.partition is not None or args.json is not None):
        parser.error("--partition and --json are of --check")
    if args.check:
        faulty = False
        with report_errors():
            faulty = _check(args)
        if faulty:
            sys.exit(FAULTY)
        return
    from data_pipelines.prepared import is_prepared, open_each
    from data_pipelines.sources import prepare

    left = ("nothing was written, start the same command again", "the data set is whole")
    with report_errors(lambda: left[is_prepared(args.output)]):
        if is_prepared(args.output):
            raise DataError(f"--output={str(args.output)!r} is already prepared; delete it or pick another folder")
        skipped = prepare(args.input, args.output, args.subjects, args.skip_bad, poses=args.poses)
        for line in skipped:
            print(f"skipped: {printable(line)}")
        for data in open_each(args.output):
            counts = ", ".join(f"{count} {name}" for name, count in data.class_counts().items())
            what = f"{len(data)} sequences{' of poses' * (data.modality == POSES)}, {int(data.n_frames.sum())} frames"
            print(f"{what} ({counts}) in {args.output}")


def _refuse_input(args: argparse.Namespace) -> None:
    """Raise `DataError` where --json would replace what another option names."""
    target = args.json.resolve()
    for name in ("subjects", "partition"):
        given = getattr(args, name) and Path(getattr(args, name)).expanduser()
        if given and (given.resolve() == target or (given.exists() and target.exists() and given.samefile(target))):
            raise DataError(f"--json={str(args.json)!r} is the file of --{name}; give another one")
    for name in ("input", "poses"):
        tree = getattr(args, name)
        if tree and Path(tree).resolve() in target.parents:
            raise DataError(f"--json={str(args.json)!r} lies within --{name}={tree!r}; give a file elsewhere")


def _check(args: argparse.Namespace) -> bool:
    """Print what is there; True if `prepare` would refuse something."""
    if args.json and (args.json.is_dir() or not args.json.parent.is_dir()):
        raise DataError(f"--json={str(args.json)!r} cannot be written; give a file in a folder that exists")
    if args.json:
        _refuse_input(args)
    from data_pipelines.check import check

    found = check(args.input, args.subjects, args.partition, args.poses)
    print("\n".join(map(printable, found.lines())))
    if args.json:
        fresh = args.json.with_name(f".{args.json.name}.{os.getpid()}.unfinished")
        try:
            fresh.write_text(found.as_json(), encoding="utf-8")
            fresh.replace(args.json)
        finally:
            fresh.unlink(missing_ok=True)
    return bool(found.problems)


if __name__ == "__main__":
    main()
