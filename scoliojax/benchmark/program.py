"""A run's step, compiled for an accelerator that is not there: `python -m scoliojax.benchmark.program --target v5e:2x2 ...`.

The compilers of the accelerators run on any machine; what they state of the program is printed as a table. Nothing is measured.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.command import Parser, expanded_path, make_parser, whole_number
from scoliojax.errors import RunError
from scoliojax.runs.command import add_recipe, refuse_rest, report_errors

if TYPE_CHECKING:
    from scoliojax.runs.examining import Figures

# Settings of this process, unless jax is there already: no accelerator of this machine is used, nor asked for by libtpu.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # it keeps programs of devices that are there
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run, so several processes may compile at a time
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # without a type and a name libtpu prints warnings; no target depends on them
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.benchmark.program",
        "Compile a run's step for a TPU slice or for GPUs that need not be there, and print what the compiler states of it.",
        "--target TARGET --config FILE [options]",
        "scoliojax.benchmark.program --target v5e:2x2 --config configs/sconet_mt.py",
        "scoliojax.benchmark.program --target h100:8 --config configs/sconet_mt.py --evaluation",
    )
    add = parser.add_argument
    add("--target", required=True, metavar="TARGET", help="v4:2x2x1, v5e:2x2, v5p:2x2x1, v6e:2x2, h100, h200:8, a100:2x8, ...")
    add_recipe(parser, required=True)
    add("--evaluation", action="store_true", help="the evaluation of the longest sequences instead of the training step")
    help_text = "frames that the clips of a sequence share; default as a run draws them from 300 frames"
    add("--shared-frames", type=whole_number(2), metavar="N", help=help_text)
    add("--json", type=expanded_path, metavar="FILE", help="write the figures here as well")
    add("--save", type=expanded_path, metavar="DIR", help="keep the program's text and its figures in this new folder")
    add("--against", type=expanded_path, metavar="FILE", help="print the figures of an earlier --json FILE beside these")
    return parser


def _refuse_mistakes(parser: Parser, args: Any) -> None:
    """End with an error now, not after minutes of compilation."""
    if args.shared_frames and args.evaluation:
        parser.error(f"--shared-frames={args.shared_frames} is for a training step; leave it out with --evaluation")
    if args.json and (args.json.is_dir() or not os.access(args.json.parent, os.W_OK)):
        parser.error(f"--json={args.json} cannot be written; give a file in a folder that exists")
    if args.save and args.save.exists() and (not args.save.is_dir() or any(args.save.iterdir())):
        parser.error(f"--save={args.save} is there already; give a new folder")


def read_figures(file: Path) -> "Figures":
    from scoliojax.files import read_json
    from scoliojax.runs.examining import Figures

    try:
        return read_json(file, Figures, "give a file that --json wrote", f"--against={file}")
    except FileNotFoundError:
        raise RunError(f"--against={file} does not exist; give a file that --json wrote") from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, changes = parser.parse_known_args(argv)
    refuse_rest(parser, changes)
    _refuse_mistakes(parser, args)
    with report_errors("nothing was written"):
        if "jax" not in sys.modules:
            os.environ |= SETTINGS
        import numpy as np
        from jax.sharding import Mesh

        from scoliojax.devices.mesh import AXIS
        from scoliojax.devices.targets import find_target
        from scoliojax.files import whole_folder, write_json
        from scoliojax.runs.compiling import evaluation_program, training_program
        from scoliojax.runs.examining import compile_program, examine, room, table
        from scoliojax.runs.recipe import read_recipe

        config = read_recipe(args.config, changes)
        other = read_figures(args.against) if args.against else None
        target = find_target(args.target)
        mesh = Mesh(np.array(target.devices), (AXIS,))
        if args.evaluation:
            program = evaluation_program(config, mesh, target.platform)
        else:
            program = training_program(config, mesh, target.platform, args.shared_frames or True)
        compiled = compile_program(program, target, config, args.evaluation)
        found = examine(target, program, compiled)
        print("\n".join([*table(found, other), "", room(found, config, args.evaluation)]))
        if args.json:
            write_json(args.json, asdict(found))
        if args.save:
            with whole_folder(args.save, replace=False) as folder:
                (folder / "program.txt").write_text(compiled.as_text(), encoding="utf-8")
                write_json(folder / "figures.json", asdict(found))


if __name__ == "__main__":
    main()
