"""`python -m scoliojax.benchmark [--only SECTION,...] [--rounds N] [--json FILE]`.

Times are medians with quartiles. If PyTorch is installed, the PyTorch reference is timed in turn with our code. The ratio is
ours / PyTorch, of the medians: for times, less than 1 means that ours is faster; for speeds, more than 1.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import jax

from configs import sconet_mt
from data_pipelines.schema import DataError
from scoliojax import build
from scoliojax.benchmark import convolving, loading, running, stepping
from scoliojax.benchmark.timing import Row
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.command import settle

SECTIONS = ("loader", "step", "convolution", "growth", "start", "memory", "scores")
ASKED = ("recipe",)  # only on request: takes minutes on a GPU, months on a CPU


def sections(rounds: int, precision: str, steps: int, options: list[str]) -> dict[str, Callable[[], list[Row]]]:
    """Functions that measure the sections, by name."""
    published: build.Config = sconet_mt.get_config()
    quickstart = sconet_mt.get_config("quickstart")
    published.precision = precision
    # On a CPU the whole batch would take minutes.
    whole = [(1, 8, 30), (4, 1, 30)] if jax.default_backend() == "cpu" else [(8, 8, 30)]
    return {
        "loader": lambda: loading.measure(rounds),
        "step": lambda: [
            *stepping.measure(published, "published sizes", whole, rounds),
            *stepping.measure(quickstart, "quickstart", [(6, 2, 6)], rounds),
        ],
        "convolution": lambda: convolving.measure(published.model.channels, rounds),
        "growth": lambda: stepping.growth(quickstart, "quickstart", rounds),
        "start": lambda: running.first_step(max(1, rounds // 2)),
        "memory": lambda: running.memory(steps),
        "scores": lambda: running.scores(rounds),
        "recipe": lambda: running.recipe(options),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scoliojax.benchmark", description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS + ASKED)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000, help="of the section memory")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="float32 on a CPU, bfloat16 elsewhere")
    parser.add_argument("--json", type=Path, help="write the rows, with every single time, here as well")
    args, options = parser.parse_known_args(argv)
    chosen = args.only.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS + ASKED]:
        parser.error(f"--only={args.only}: {unknown[0]!r} is none of {', '.join(SECTIONS + ASKED)}")
    if options and ("recipe" not in chosen or not all(option.startswith("--config.") for option in options)):
        parser.error(f"unexpected {' '.join(options)}; the section recipe alone takes --config.KEY=VALUE")
    if args.rounds < 1 or args.steps < 10:
        parser.error(f"--rounds={args.rounds} must be at least 1, --steps={args.steps} at least 10")
    if args.json and (args.json.is_dir() or not os.access(args.json.parent, os.W_OK)):
        parser.error(f"--json={args.json} cannot be written; give a file in a folder that exists")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants some of a GPU's memory, too
    try:
        settle()
    except DataError as error:
        parser.error(str(error))
    precision = args.precision or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    measures = sections(args.rounds, precision, args.steps, options)
    environment = run_directory.environment()
    print(f"{', '.join(environment['devices'])}; jax {environment['packages']['jax']}; commit {environment['git_commit']}")
    print("| what | unit | ours (quartiles) | PyTorch (quartiles) | ratio | |\n|---|---|---|---|---|---|")
    rows = []
    for name in chosen:
        try:
            found = measures[name]()
        except (RunError, DataError) as error:
            parser.exit(2, f"error: {error}\n")
        for row in found:
            print(f"| {' | '.join(row.cells())} |", flush=True)
            rows.append(row._asdict() | {"ratio": row.ratio})
    if args.json:
        args.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
