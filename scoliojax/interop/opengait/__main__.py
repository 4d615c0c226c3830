"""OpenGait checkpoints in and out: `python -m scoliojax.interop.opengait import | export | verify`."""

import argparse
from collections.abc import Sequence
from typing import Any

from data_pipelines.command import Parser, expanded_path, expanded_root, make_parser, whole_number
from scoliojax.interop.opengait.classes import OLD_CLASSES, OLD_FILES, parse_order
from scoliojax.runs.command import add_recipe, add_run, add_step, configure_runtime, refuse_rest, report_errors


class _Once(argparse.Action):
    """An option whose second value would hide the first."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} is given twice")
        setattr(namespace, self.dest, tuple(values))


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.interop.opengait",
        "Import, export or verify a checkpoint of the PyTorch original. Each command has a --help of its own.",
        "import CKPT.pt --workdir DIR | export --workdir DIR --output CKPT.pt | verify CKPT.pt",
        "scoliojax.interop.opengait verify ScoNet-20000.pt",
        "scoliojax.interop.opengait import ScoNet-20000.pt --workdir runs/imported",
    )
    commands = parser.add_subparsers(dest="command", required=True, prog="python -m scoliojax.interop.opengait")
    importing = commands.add_parser("import", help="make a run directory of a checkpoint", allow_abbrev=False)
    exporting = commands.add_parser("export", help="write a checkpoint of a run directory", allow_abbrev=False)
    verifying = commands.add_parser("verify", help="compare every layer with PyTorch", allow_abbrev=False)
    for sub in (importing, verifying):
        sub.add_argument("checkpoint", type=expanded_path, metavar="CKPT.pt")
        sub.add_argument(
            "--strips",
            action=_Once,
            type=whole_number(1, 64),
            nargs="+",
            metavar="N",
            help="strips of each level of the pyramid, e.g. 16 8; default: from the sizes",
        )
        sub.add_argument("--weights-only", action="store_true", help="leave out the file's optimiser and step")
    for sub in (importing, exporting, verifying):
        sub.add_argument(
            "--classes",
            action=_Once,
            type=parse_order,
            metavar="A,B,C",
            help="order of the classes in the file, which it does not state; default OpenGait's present one "
            f"({OLD_FILES} have {','.join(OLD_CLASSES)})",
        )
    for sub in (importing, exporting):
        add_run(sub)
    add_recipe(importing)
    exporting.add_argument("--output", required=True, type=expanded_path, metavar="CKPT.pt", help="file to write")
    add_step(exporting)
    verifying.add_argument(
        "--data",
        type=expanded_root,
        metavar="DIR",
        help="prepared folder or released tree, to compare on, and to judge the order of the classes by; default synthetic "
        "walkers",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, args.changes = parser.parse_known_args(argv)
    if args.command == "import":
        refuse_rest(parser, args.changes)
    elif args.changes:
        parser.error(f"unexpected argument {args.changes[0]!r}")
    with report_errors("nothing was written"):
        configure_runtime()
        from scoliojax.interop.opengait import commands

        work = {"import": commands.import_checkpoint, "export": commands.export_checkpoint, "verify": commands.verify}
        work[args.command](args)


if __name__ == "__main__":
    main()
