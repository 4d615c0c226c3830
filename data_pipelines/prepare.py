"""Prepare Scoliosis1K once: `python -m data_pipelines.prepare --input TREE --output DIR`, then train with `data.root=DIR`.

TREE is the released tree of pickles or a raw tree of PNG masks; raw masks are normalised. All cores are used. An interrupted
run leaves no folder that could be mistaken for a complete data set; run the same command again.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from data_pipelines.schema import DataError
from data_pipelines.sources import is_prepared, open_prepared, prepare


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.prepare", description="Prepare Scoliosis1K once, for training and evaluation."
    )
    parser.add_argument("--input", required=True, help="released tree, <id>/<Class>/<view>/*.pkl or *.png")
    parser.add_argument("--output", required=True, type=Path, help="folder for the prepared data set")
    parser.add_argument("--subjects", help="CSV file sequence,subject: who walked each sequence, where you know it")
    parser.add_argument("--skip-bad", action="store_true", help="leave out and list what cannot be used")
    args = parser.parse_args()
    args.output = args.output.expanduser()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding does not have is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        if is_prepared(args.output):
            raise DataError(f"--output={str(args.output)!r} is already prepared; delete it or pick another folder")
        skipped = prepare(args.input, args.output, args.subjects, args.skip_bad)
        data = open_prepared(args.output)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        left = "the data set is whole" if is_prepared(args.output) else "nothing was written, start the same command again"
        print(f"interrupted; {left}", file=sys.stderr)
        sys.exit(130)
    for line in skipped:
        print(f"skipped: {line}")
    counts = ", ".join(f"{count} {name}" for name, count in data.class_counts().items())
    print(f"{len(data)} sequences, {int(data.n_frames.sum())} frames ({counts}) in {args.output}")


if __name__ == "__main__":
    main()
