"""Everything that is known of a run on one page: `python -m scoliojax.report --workdir runs/sconet_mt`.

Writes `report/` in the run directory: `report.html` (one file, no network), the figures as PNG and SVG, `cases.csv`,
`strips.csv` and `MODEL_CARD.md`. With `--compare DIR ...` other runs are compared on the same sequences.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scoliojax.runs.command import settle, told
from scoliojax.runs.directory import refuse_foreign, whole_folder
from scoliojax.runs.job import open_job

FILES = {"report.html", "figures", "cases.csv", "strips.csv", "MODEL_CARD.md"}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scoliojax.report", description=__doc__)
    parser.add_argument("--workdir", required=True, type=Path, help="run directory")
    parser.add_argument("--compare", nargs="+", type=Path, default=[], metavar="DIR", help="other runs, on the same sequences")
    parser.add_argument("--step", default="newest", help="which checkpoint: its step, newest or best (by validation)")
    parser.add_argument("--part", default="test", choices=["train", "validation", "test"])
    parser.add_argument("--sensitivity", type=float, help="wanted of the operating point; the one kept, or 0.9")
    parser.add_argument(
        "--prevalence", type=float, help="share of people with a yes, for predictive values elsewhere, e.g. 0.03"
    )
    parser.add_argument("--data", help="prepared folder or released tree, where it has moved since the training")
    parser.add_argument("--output", type=Path, help="folder to make; <workdir>/report by default")
    args = parser.parse_args(argv)
    with told("nothing was written"):
        workdir = args.workdir.expanduser().absolute()
        folder = (args.output.expanduser() if args.output else workdir / "report").resolve()
        refuse_foreign(folder, FILES, "a report")
        settle()
        write_report(folder, workdir, args)
    print(f"report: {folder / 'report.html'}")


def write_report(folder: Path, workdir: Path, args: argparse.Namespace) -> None:
    """Write the whole folder or nothing, replacing an earlier report."""
    from scoliojax.report.evidence import compare_runs, gather
    from scoliojax.report.page import write_page

    settings = {"wanted_sensitivity": args.sensitivity, "prevalence": args.prevalence}
    evidence = gather(*open_job(workdir, args.step, root=args.data, **settings), args.part)
    rivals = []
    for other in args.compare:
        path = other.expanduser().absolute()
        rivals.append(compare_runs(evidence, *open_job(path, args.step, root=args.data, **settings), args.part))
    with whole_folder(folder) as fresh:
        write_page(fresh, evidence, rivals)


if __name__ == "__main__":
    main(sys.argv[1:])
