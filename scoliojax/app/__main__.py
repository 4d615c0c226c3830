"""A page in the browser: `python -m scoliojax.app --checkpoint runs/sconet_mt`. Needs the extra `app`.

It is served to this computer alone and sends no request to any other. A video lies in a temporary folder from its upload to its
answer; afterwards neither is on the disk.
"""

import signal
from collections.abc import Sequence
from contextlib import suppress

from data_pipelines.command import Parser, expanded_path, make_parser, whole_number
from scoliojax.runs.command import add_run, add_step, configure_runtime, report_errors


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.app",
        "Screen videos on a page in the browser, served to this computer alone. No video is kept.",
        "--checkpoint DIR [options]",
        "scoliojax.app --checkpoint runs/quickstart",
    )
    add_run(parser, "--checkpoint", "--workdir")
    add_step(parser)
    add = parser.add_argument
    add("--port", type=whole_number(0, 65535), default=7860, metavar="N", help="port of the page; default %(default)s")
    add("--megabytes", type=whole_number(1), default=200, metavar="N", help="largest video accepted; default %(default)s")
    add("--models", type=expanded_path, metavar="DIR", help="folder of the pose models, if not where fetch puts them")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C, so that the temporary folder is deleted
        signal.signal(ending, signal.default_int_handler)
    with report_errors("nothing is kept"), suppress(KeyboardInterrupt):
        configure_runtime()
        from scoliojax.app.page import serve
        from scoliojax.runs.run import open_run

        serve(lambda: open_run(args.directory, "--checkpoint").network(args.step), args.models, args.port, args.megabytes)


if __name__ == "__main__":
    main()
