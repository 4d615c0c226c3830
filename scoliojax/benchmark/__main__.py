"""`python -m scoliojax.benchmark [--only SECTION,...] [--rounds N] [--json FILE]`.

Times are medians with quartiles. If PyTorch is installed, the PyTorch reference is timed in turn with our code. The ratio is
ours / PyTorch, of the medians: for times, less than 1 means that ours is faster; for speeds, more than 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from data_pipelines.command import Parser, expanded_path, make_parser, whole_number
from scoliojax.runs.command import configure_runtime, report_errors

if TYPE_CHECKING:
    from scoliojax.benchmark.timing import Row

SECTIONS = ("loader", "step", "convolution", "growth", "start", "memory", "scores", "maps")
ASKED = ("recipe",)  # only on request: takes minutes on a GPU, months on a CPU
READ_BY = {  # an option: the sections that read it
    "rounds": tuple(name for name in SECTIONS if name != "memory"),
    "steps": ("memory",),
    "precision": ("step",),
    "subjects": ("loader",),
}


def sections(
    rounds: int, precision: str, steps: int, subjects: int | None, options: list[str]
) -> dict[str, Callable[[], list[Row]]]:
    """The measurements by name."""
    import jax

    from configs import sconet_mt
    from scoliojax.benchmark import convolving, drawing, loading, running, stepping

    configs: list[Any] = [sconet_mt.get_config(variant) for variant in ("", "quickstart")]
    published, quickstart = configs
    published.precision = precision
    few = jax.default_backend() == "cpu"  # where the whole batch would take minutes
    whole = [(1, 8, 30), (4, 1, 30)] if few else [(8, 8, 30)]
    return {
        "loader": lambda: loading.measure(rounds, subjects or loading.SUBJECTS),
        "step": lambda: [
            *stepping.measure(published, "published sizes", whole, rounds),
            *stepping.channels(published, "published sizes", (2, 1, 30) if few else (8, 8, 30), rounds),
            *stepping.measure(quickstart, "quickstart", [(6, 2, 6)], rounds),
        ],
        "convolution": lambda: convolving.measure(published.model.channels, rounds),
        "growth": lambda: stepping.growth(quickstart, "quickstart", rounds),
        "start": lambda: running.first_step(max(1, rounds // 2)),
        "memory": lambda: running.memory(steps),
        "scores": lambda: running.scores(rounds),
        "maps": lambda: drawing.measure(rounds),
        "recipe": lambda: running.recipe(options),
    }


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.benchmark",
        "Measure loading, steps, evaluation, start and memory on this machine, in turn with PyTorch where it is installed.",
        "[options]",
        "scoliojax.benchmark --only step,loader",
    )
    names = ", ".join(SECTIONS + ASKED)
    add = parser.add_argument
    add("--only", default=",".join(SECTIONS), metavar="A,B", help=f"some of {names}; default all but recipe")
    add("--rounds", type=whole_number(1), metavar="N", help="repetitions; default 5")
    add("--steps", type=whole_number(10), metavar="N", help="steps of the section memory; default 2000")
    help_text = "sequences of a batch of the section loader, 8 clips of each; default 8, as published"
    add("--subjects", type=whole_number(1, 40), metavar="N", help=help_text)
    add("--precision", choices=("float32", "bfloat16"), help="default float32 on a CPU, bfloat16 elsewhere")
    add("--json", type=expanded_path, metavar="FILE", help="write the rows, with every single time, here as well")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, options = parser.parse_known_args(argv)
    chosen = args.only.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS + ASKED]:
        parser.error(f"--only={args.only}: {unknown[0]!r} is none of {', '.join(SECTIONS + ASKED)}")
    if options and ("recipe" not in chosen or not all(option.startswith("--config.") for option in options)):
        parser.error(f"unexpected {' '.join(options)}; the section recipe alone takes --config.KEY=VALUE")
    for name, readers in READ_BY.items():
        value = getattr(args, name)
        if value is not None and not set(readers) & set(chosen):
            parser.error(f"--{name}={value} is for the sections {', '.join(readers)}; --only={args.only} has none of them")
    if args.json and (args.json.is_dir() or not os.access(args.json.parent, os.W_OK)):
        parser.error(f"--json={args.json} cannot be written; give a file in a folder that exists")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants some of a GPU's memory, too
    with report_errors("the rows so far are on the terminal"):
        configure_runtime()
        import jax

        from scoliojax.files import write_json
        from scoliojax.runs.environment import environment

        precision = args.precision or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        measures = sections(args.rounds or 5, precision, args.steps or 2000, args.subjects, options)
        here = environment()
        print(f"{', '.join(here['devices'])}; jax {here['packages']['jax']}; commit {here['git_commit']}")
        print("| what | unit | ours (quartiles) | PyTorch (quartiles) | ratio | |\n|---|---|---|---|---|---|")
        rows = []
        for name in chosen:
            for row in measures[name]():
                print(f"| {' | '.join(row.cells())} |", flush=True)
                rows.append(row._asdict() | {"ratio": row.ratio})
        if args.json:
            write_json(args.json, {"environment": here, "rows": rows})


if __name__ == "__main__":
    main()
