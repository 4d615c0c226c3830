"""Screen walks: `python -m scoliojax.screen WALK.mp4 --checkpoint runs/sconet_mt`.

An input is a video, a folder of mask PNGs or of poses, a prepared pickle, or a folder of videos. Of each, `result.json`,
`report.html` and what the network read are written; for several, `screening.csv` has a row each. Nothing is sent anywhere, no
frame of a video is kept.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from data_pipelines.command import MISTAKE, Parser, make_parser, whole_number
from data_pipelines.locks import alone
from data_pipelines.schema import DataError, printable
from scoliojax.errors import RunError
from scoliojax.files import refuse_foreign, write_csv
from scoliojax.runs.command import add_coverage, add_prevalence, add_run, add_step, configure_runtime, report_errors
from scoliojax.runs.inputs import folder_names, refuse_within, walk_path, walks_of

WINDOW = 30  # frames: about one stride at 30 frames a second
LEAST_WINDOW = 15


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.screen",
        "Answer for walks with a trained network; nothing is sent anywhere, and no frame of a video is kept.",
        "INPUT [INPUT ...] --checkpoint DIR [options]",
        "scoliojax.screen walk.mp4 --checkpoint runs/quickstart",
    )
    add = parser.add_argument
    help_text = "video, folder of mask PNGs or poses, pickle, or folder of videos"
    add("inputs", nargs="+", type=walk_path, metavar="INPUT", help=help_text)
    add_run(parser, "--checkpoint", "--workdir")
    add_step(parser)
    help_text = "run of another network that reads the same walk, e.g. of silhouettes beside one of skeletons; its newest state"
    add("--beside", type=walk_path, metavar="DIR", help=help_text)
    add("--output", type=walk_path, metavar="DIR", help="folder to make; default screening/<input>")
    add("--backend", default="auto", choices=("auto", "pose", "background", "onnx"), help="way to find people; default auto")
    add("--models", type=walk_path, metavar="DIR", help="folder of the pose models, if not where fetch puts them")
    add("--onnx-model", type=walk_path, metavar="FILE", help="model of --backend onnx; a .json beside it describes it")
    add("--person", type=whole_number(1), nargs="+", metavar="N", help="person, where several walk; several numbers are joined")
    add(
        "--window",
        type=whole_number(LEAST_WINDOW),
        default=WINDOW,
        metavar="FRAMES",
        help="length of a window; default %(default)s",
    )
    add_coverage(parser, None)
    add_prevalence(parser)
    add("--keep-frames", action="store_true", help="also write the frames that were used (faces!)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    without = 0
    with report_errors("the answers so far are whole"):
        without = screen(args)
    if without:
        sys.exit(MISTAKE)


def screen(args: argparse.Namespace) -> int:
    """Answer for every input; returns the number of inputs without an answer."""
    from data_pipelines.video.walk import needs_segmenter

    inputs = walks_of(args.inputs)
    several = inputs != args.inputs or len(inputs) > 1
    if several and args.person:
        raise RunError(f"--person belongs to one input, and there are {len(inputs)}; screen that one by itself")
    names = folder_names(inputs)
    folder = args.output or Path("screening" if several else f"screening/{names[0]}").resolve()
    targets = [folder / name for name in names] if several else [folder]
    segmenter = None
    if any(needs_segmenter(path) for path in inputs):
        from data_pipelines.video.backends import make_segmenter

        remark = partial(print, file=sys.stderr)
        segmenter = make_segmenter(args.backend, args.models, args.onnx_model, lambda line: remark(printable(f"note: {line}")))
    elif args.onnx_model or args.models or args.backend != "auto" or args.keep_frames:
        raise RunError("--backend, --models, --onnx-model and --keep-frames are of videos, and no input is one")
    configure_runtime()
    from scoliojax.runs.run import open_run
    from scoliojax.screen.answer import Screener
    from scoliojax.screen.reader import check_target, write_result
    from scoliojax.screen.result import Wanted

    wanted = Wanted(args.coverage, args.prevalence)
    refuse_within(folder, args.inputs)

    def refuse(holder: str) -> NoReturn:
        raise RunError(f"{folder} is being written by another screening ({holder}); wait for its end, or give another --output")

    with alone(folder.with_name(f".{folder.name}.screening.lock"), refuse):
        if several:
            refuse_foreign(folder, {*names, "screening.csv"}, "a screening")
        for target in targets:
            check_target(target, inputs, anew=args.output is None and not several)
        screener = Screener(open_run(args.directory, "--checkpoint").network(args.step), args.window)
        beside = args.beside and Screener(open_run(args.beside, "--beside").network("newest"), args.window)
        choices = {"person": args.person, "keep_frames": args.keep_frames, "wanted": wanted, "beside": beside}
        write = partial(write_result, screener, segmenter, **choices)
        if several:
            return _screen_all(write, inputs, targets, folder)
        result = write(inputs[0], folder)
        print_result(result, folder)
        return int(result["answer"] is None)


def _screen_all(write: Callable[..., dict[str, Any]], inputs: list[Path], targets: list[Path], folder: Path) -> int:
    """Write a folder and a row for each input; an input that cannot be read does not stop the others."""
    from scoliojax.screen.result import COLUMNS, as_row

    folder.mkdir(parents=True, exist_ok=True)
    rows, without = [], 0
    for path, target in zip(inputs, targets, strict=True):
        result, error = None, ""
        try:
            result = write(path, target)
            print_result(result, target)
            without += result["answer"] is None
        except (DataError, RunError, OSError) as problem:
            without, error = without + 1, str(problem)
            print(printable(f"error: {error}"), file=sys.stderr)
        rows.append(as_row(str(path), result, error))
        write_csv(folder / "screening.csv", COLUMNS, (row.values() for row in rows))
    print(f"{len(rows) - without} of {len(rows)} answered: {folder / 'screening.csv'}")
    return without


def print_result(result: dict[str, Any], folder: Path) -> None:
    from scoliojax.screen.result import DISCLAIMER
    from scoliojax.screen.terminal import lines_of

    for line in (*lines_of(result), f"  report: {folder / 'report.html'}", f"  {DISCLAIMER}"):
        print(printable(line))


if __name__ == "__main__":
    main()
