"""Measure the posture of walks without a network: `python -m scoliojax.posture WALK.mp4`.

An input is a video, a pickle of poses, a folder of one JSON a frame, or a folder of videos. Of each, `posture.json`, tables,
curves and a page are written; for several, `posture.csv` has a row each. Nothing is sent anywhere, and no frame is kept.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

from data_pipelines.command import MISTAKE, Parser, make_parser, report_errors, whole_number
from data_pipelines.locks import alone
from data_pipelines.schema import DataError, printable
from scoliojax.errors import RunError
from scoliojax.files import refuse_foreign, whole_folder, write_csv
from scoliojax.runs.inputs import check_target, folder_names, refuse_within, walk_path, walks_of

SUMMARY = "posture.csv"
MOST_RATE = 1000


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.posture",
        "Measure shoulder and pelvis line, lean, shift, arm swing and steps of walks, without a network.",
        "INPUT [INPUT ...] [options]",
        "scoliojax.posture walk.mp4",
        "scoliojax.posture poses.pkl --rate 30 --output out",
    )
    add = parser.add_argument
    about = "video, pickle of poses, folder of poses (one JSON a frame), or folder of videos"
    add("inputs", nargs="+", type=walk_path, metavar="INPUT", help=about)
    add("--output", type=walk_path, metavar="DIR", help="folder to make; default posture/<input>")
    add("--models", type=walk_path, metavar="DIR", help="folder of the pose models, if not where fetch puts them")
    add("--person", type=whole_number(1), nargs="+", metavar="N", help="person, where several walk; several numbers are joined")
    add("--rate", type=whole_number(1, MOST_RATE), metavar="N", help="frames a second of poses, for the cadence")
    add("--synthetic", action="store_true", help="say of poses that they are drawn, not of people")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    without = 0
    with report_errors("the measures so far are whole", (DataError, RunError)):
        without = measure_all(args)
    if without:
        sys.exit(MISTAKE)


def measure_all(args: argparse.Namespace) -> int:
    """Measure every input; returns the number of inputs without measures."""
    from data_pipelines.video.walk import needs_segmenter

    inputs = walks_of(args.inputs)
    several = inputs != args.inputs or len(inputs) > 1
    if several and args.person:
        raise RunError(f"--person belongs to one input, and there are {len(inputs)}; measure that one by itself")
    videos = [path for path in inputs if needs_segmenter(path)]
    if args.models and not videos:
        raise RunError(f"--models={args.models} is of videos, and no input is one; leave it out")
    if len(videos) == len(inputs) and (args.rate or args.synthetic):
        raise RunError("--rate and --synthetic are of poses, and every input is a video, which has times; leave them out")
    names = folder_names(inputs)
    folder = args.output or Path("posture" if several else f"posture/{names[0]}").resolve()
    targets = [folder / name for name in names] if several else [folder]
    refuse_within(folder, args.inputs)

    def refuse(holder: str) -> NoReturn:
        raise RunError(f"{folder} is being written by another command ({holder}); wait for its end, or give another --output")

    from scoliojax.posture.page import FILES

    with alone(folder.with_name(f".{folder.name}.posture.lock"), refuse):
        if several:
            refuse_foreign(folder, {*names, SUMMARY}, "measures of posture")
        for target in targets:
            unnamed = args.output is None and not several
            check_target(target, inputs, FILES, "measures of posture", "posture.json" if unnamed else "")
        measure = partial(_measure, args, cache(partial(_segmenter, args)))
        if several:
            return _measure_each(measure, inputs, targets, folder)
        return int(not measure(inputs[0], folder)["measures"])


def _segmenter(args: argparse.Namespace) -> Any:
    from data_pipelines.video.backends import make_segmenter

    return make_segmenter("pose", args.models)  # the only one that finds joints


def _measure(args: argparse.Namespace, segmenter: Callable[[], Any], path: Path, folder: Path) -> dict[str, Any]:
    """Write the measures of one input into `folder`, as a whole, and print them; the content of `posture.json`."""
    from data_pipelines.video.walk import inputs_of, needs_segmenter, read_walk
    from scoliojax.posture.page import write_posture
    from scoliojax.runs.posture import as_dict, posture_of

    used = None
    if needs_segmenter(path):
        inputs_of(path)  # what is no video is told before the models are loaded
        used = segmenter()
    walk = read_walk(path, used, args.person, rate=args.rate)
    if walk.kind == "poses" and args.synthetic:
        walk.source["synthetic"] = True
    found = posture_of(walk)
    result = as_dict(found, used.name if used else None, used.models if used else {})
    with whole_folder(folder) as fresh:
        write_posture(fresh, found, result)
    print_result(result, folder)
    return result


def _measure_each(measure: partial, inputs: list[Path], targets: list[Path], folder: Path) -> int:
    """A folder and a row for each input; an input that cannot be read does not stop the others."""
    from scoliojax.runs.posture import SUMMARY_COLUMNS, as_row

    folder.mkdir(parents=True, exist_ok=True)
    rows, without = [], 0
    for path, target in zip(inputs, targets, strict=True):
        result, error = None, ""
        try:
            result = measure(path, target)
            without += not result["measures"]
        except (DataError, RunError, OSError) as problem:
            without, error = without + 1, str(problem)
            print(printable(f"error: {error}"), file=sys.stderr)
        rows.append(as_row(str(path), result, error))
        write_csv(folder / SUMMARY, SUMMARY_COLUMNS, (row.values() for row in rows))
    print(f"{len(rows) - without} of {len(rows)} measured: {folder / SUMMARY}")
    return without


def print_result(result: dict[str, Any], folder: Path) -> None:
    from scoliojax.runs.posture_curves import number

    mark, quality = " (synthetic)" if result["synthetic"] else "", result["quality"]
    lines = [f"{result['input']['name']}: {quality['frames']} poses of one person, {quality['bad_frames']} damaged{mark}"]
    lines += [f"  no measures ({reason['name']}): {reason['message']}" for reason in result["no_measures"]]
    for one in result["measures"]:
        spread = "" if one["spread"] is None else f", spread {number(one['spread'])} over {one['strides']} strides"
        level = "" if one["levelled"] is None else f", levelled {number(one['levelled'], True)}"
        sign = "positive" in one["about"]
        unit = "" if one["median"] is None else f" {one['unit']}"
        lines.append(f"  {one['name']}: {number(one['median'], sign)}{unit}{level}{spread}{mark}")
    for flag in result["flags"]:
        count = "" if flag["frames"] is None else f" ({flag['frames']} frame{'s' * (flag['frames'] != 1)})"
        lines.append(f"  note: {flag['name']}{count}: {flag['message']}")
    for line in (*lines, f"  report: {folder / 'report.html'}", f"  {result['disclaimer']}"):
        print(printable(line))


if __name__ == "__main__":
    main()
