"""The commands of this package: `python -m scoliojax`."""

import sys

from data_pipelines.command import report_errors
from data_pipelines.schema import DataError

COMMANDS = {
    "scoliojax.main": "train a network, go on with a run, or evaluate one",
    "scoliojax.report": "one page with everything that is known of a run, and comparisons of runs",
    "scoliojax.study": "the paper's class-ratio study: ratios x networks x seeds",
    "scoliojax.screen": "screen a video, a folder of masks, or many of them",
    "scoliojax.posture": "shoulder and pelvis line, shift, arm swing and steps of a walk, without a network",
    "scoliojax.app": "screen a video on a page in the browser, on this computer alone",
    "scoliojax.export": "a trained network for other runtimes",
    "scoliojax.interop.opengait": "import, export and verify OpenGait checkpoints",
    "scoliojax.interop.parity": "measure the distance from PyTorch",
    "scoliojax.benchmark": "measure the speed of loading, steps and evaluation",
    "scoliojax.benchmark.collectives": "bytes that a training step sends between devices",
    "scoliojax.benchmark.program": "a step compiled for TPUs and GPUs that are not there",
    "data_pipelines.prepare": "prepare Scoliosis1K for training and evaluation",
    "data_pipelines.synthetic": "write synthetic walkers in the released layout",
    "data_pipelines.video.fetch": "fetch the two models of the pose backend",
    "data_pipelines.video.synthetic_clip": "write a video of a synthetic walker",
}


def main() -> None:
    with report_errors():
        for argument in sys.argv[1:]:
            if argument not in ("-h", "--help"):
                raise DataError(f"unknown command {argument!r}; python -m scoliojax lists the commands")
        print("Commands; each has a --help:\n")
        for name, about in COMMANDS.items():
            print(f"  python -m {name:<36} {about}")


if __name__ == "__main__":
    main()
