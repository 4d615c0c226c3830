"""Screen walks: `python -m scoliojax.screen WALK.mp4 --checkpoint runs/sconet_mt`.

An input is a video, a folder of mask PNGs, a prepared pickle, or a folder of videos. Of each, `result.json`, `report.html` and
the silhouettes are written; of several, `screening.csv` has a row each. Nothing is sent anywhere, no frame of a video is kept.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.schema import DataError, few
from data_pipelines.video.backends import BACKENDS, make_segmenter
from data_pipelines.video.walk import inputs_of, needs_segmenter
from scoliojax.command import settle, told
from scoliojax.errors import RunError
from scoliojax.run_directory import refuse_foreign

if TYPE_CHECKING:
    from scoliojax.screen.reader import Reader

LEAST_WINDOW = 15


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scoliojax.screen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=_path, metavar="INPUT", help="video, folder of mask PNGs, pickle, or folder of videos")
    add("--checkpoint", required=True, type=_path, metavar="DIR", help="run directory of a trained network")
    add("--step", default="newest", help="which checkpoint of it: its step, newest or best (by validation)")
    add("--output", type=_path, metavar="DIR", help="folder to make; screening/<input> by default")
    add("--backend", default="auto", choices=BACKENDS, help="what finds people; auto: pose if fetched, else background")
    add("--models", type=_path, metavar="DIR", help="of the pose models, if not where fetch puts them")
    add("--onnx-model", type=_path, metavar="FILE", help="of --backend onnx; its .json beside it describes it")
    add("--person", type=int, nargs="+", metavar="N", help="who, where several walk; several numbers are joined")
    add("--window", type=int, default=30, metavar="FRAMES", help="frames to answer for by themselves (%(default)s)")
    add("--keep-frames", action="store_true", help="also write the video's frames that were used (faces!)")
    args = parser.parse_args(argv)
    with told():
        failed = screen(args)
    if failed:
        sys.exit(2)


def screen(args: argparse.Namespace) -> int:
    """Answer for every input; returns how many have no answer."""
    settle()
    if args.window < LEAST_WINDOW:
        raise RunError(f"--window={args.window} is too short to answer for; give at least {LEAST_WINDOW} frames")
    inputs = [path for given in args.inputs for path in inputs_of(given)]
    several = inputs != args.inputs or len(inputs) > 1
    if several and args.person:
        raise RunError(f"--person belongs to one input, and there are {len(inputs)}; screen that one by itself")
    folder = (args.output or Path("screening" if several else f"screening/{inputs[0].stem}")).absolute()
    names = _names(inputs)
    segmenter = None
    if any(needs_segmenter(path) for path in inputs):
        segmenter = make_segmenter(args.backend, args.models, args.onnx_model)
    elif args.onnx_model or args.models or args.backend != "auto" or args.keep_frames:
        raise RunError("--backend, --models, --onnx-model and --keep-frames are of videos, and no input is one")
    from scoliojax.network import open_network
    from scoliojax.screen.answer import Screener
    from scoliojax.screen.reader import FILES, Reader

    refuse_foreign(folder, {*names, "screening.csv"} if several else FILES, "a screening")
    network = open_network(args.checkpoint.absolute(), args.step, "--checkpoint")
    read = Reader(Screener(network, args.window), segmenter)
    if several:
        return _screen_all(read, inputs, names, folder, args.keep_frames)
    print_result(read(inputs[0], folder, args.person, args.keep_frames), folder)
    return 0


def _screen_all(read: Reader, inputs: list[Path], names: list[str], folder: Path, keep_frames: bool) -> int:
    """A folder and a row for each input; one that cannot be read does not keep the others from an answer."""
    from scoliojax.screen.result import COLUMNS, as_row

    folder.mkdir(parents=True, exist_ok=True)
    rows, failed = [], 0
    for path, name in zip(inputs, names, strict=True):
        result, error = None, ""
        try:
            result = read(path, folder / name, keep_frames=keep_frames)
            print_result(result, folder / name)
        except (DataError, RunError) as problem:
            failed, error = failed + 1, str(problem)
            print(f"error: {error}", file=sys.stderr)
        rows.append(as_row(str(path), result, error))
    fresh = folder / ".screening.csv.unfinished"
    with fresh.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    fresh.replace(folder / "screening.csv")
    print(f"{len(rows) - failed} of {len(rows)} answered: {folder / 'screening.csv'}")
    return failed


def print_result(result: dict[str, Any], folder: Path) -> None:
    from scoliojax.screen.result import DISCLAIMER, lines_of

    print("\n".join(lines_of(result)))
    print(f"  report: {folder / 'report.html'}\n  {DISCLAIMER}")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _names(inputs: list[Path]) -> list[str]:
    """A folder name for each input: its name without the ending, with it where two would be equal."""
    stems = [path.stem for path in inputs]
    names = [path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "-") for path in inputs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(f"several inputs are called {few(twice)}; screen them into folders of their own")
    return names


if __name__ == "__main__":
    main(sys.argv[1:])
