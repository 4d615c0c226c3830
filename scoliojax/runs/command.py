"""Options, settings and error handling that the commands share."""

import argparse
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from data_pipelines import command
from data_pipelines.command import Parser, expanded_path, unwritable, whole_number
from data_pipelines.schema import DataError, cache_folder, local_path
from scoliojax.errors import RunError, Stopped
from scoliojax.scores.conformal import COVERAGE

STOPPED = 75  # exit status after SIGTERM: BSD's EX_TEMPFAIL, "try again"


def add_recipe(parser: Parser, required: bool = False) -> None:
    parser.add_argument(
        "--config",
        required=required,
        type=_recipe_name,
        metavar="FILE",
        help="recipe, FILE or FILE:VARIANT; --config.KEY=VALUE changes a key of it",
    )


def add_allow_missing(parser: Parser) -> None:
    """`--allow-missing`, short for the change of the config that it holds as a list."""
    help_text = "go on without sequences that the partition file names and the data lack"
    change = ["--config.data.allow_missing=True"]
    parser.add_argument("--allow-missing", action="store_const", const=change, default=[], help=help_text)


def _recipe_name(text: str) -> str:
    """FILE or FILE:VARIANT with `~` expanded."""
    try:
        file, colon, variant = local_path(text).partition(":")
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not file.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no recipe (is a variable not set?); give FILE or FILE:VARIANT")
    return os.path.expanduser(file) + colon + variant


def add_run(parser: Parser, *names: str) -> None:
    """The run directory, under the names that the command knows it by; `--workdir` where none are given."""
    names = names or ("--workdir",)
    parser.add_argument(
        *names, dest="directory", required=True, type=expanded_path, metavar="DIR", help="run directory of a trained network"
    )


def add_step(parser: Parser) -> None:
    help_text = "state of the run: a number of steps, newest (default), or best (by validation)"
    parser.add_argument("--step", default="newest", help=help_text)


def add_part(parser: Parser) -> None:
    parts = ["train", "validation", "test"]
    parser.add_argument("--part", default="test", choices=parts, help="part to evaluate; default test")


def add_screening(parser: Parser) -> None:
    """The options that `runs.evaluation.Screening` takes."""
    help_text = "wanted sensitivity of the operating point; default: that of the stored one, or 0.9"
    parser.add_argument("--sensitivity", type=float, metavar="X", help=help_text)
    add_prevalence(parser)
    add_coverage(parser, COVERAGE)


def add_prevalence(parser: Parser) -> None:
    """`--prevalence`, as `metrics.check_prevalence` judges it."""
    help_text = "share of people with signs in your population, for predictive values there"
    parser.add_argument("--prevalence", type=float, metavar="X", help=help_text)


def add_coverage(parser: Parser, default: float | None) -> None:
    """`--coverage`, as `conformal.check_coverage` judges it."""
    help_text = "share of people of each class whose set of classes that cannot be excluded is to have their class"
    said = f"default {default:g}" if default else "default: no such set"
    parser.add_argument("--coverage", type=float, default=default, metavar="X", help=f"{help_text}; {said}")


def add_profile(parser: Parser) -> None:
    help_text = "write a profiler trace of the steps after START, up to STOP, into the run directory, e.g. 10:15"
    parser.add_argument("--profile", type=steps_between, metavar="START:STOP", help=help_text)


def add_dry_run(parser: Parser) -> None:
    help_text = "do all that comes before the first step, print memory and cost of the compiled steps, and leave no trace"
    parser.add_argument("--dry-run", action="store_true", help=help_text)


def steps_between(text: str) -> range:
    """START:STOP, two numbers of finished steps, as the numbers of the steps between, from 0."""
    match = re.fullmatch("([0-9]{1,10}):([0-9]{1,10})", text)
    steps = range(int(match[1]), int(match[2])) if match else range(0)
    if not steps:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no span of steps; give START:STOP, e.g. 10:15 for steps 11 to 15")
    return steps


def add_output(parser: Parser, default: str) -> None:
    parser.add_argument("--output", type=expanded_path, metavar="DIR", help=f"folder to make; default {default}")


def refuse_rest(parser: Parser, rest: list[str]) -> None:
    """End the command with an error where other arguments than `--config.KEY=VALUE` are left over."""
    if stray := [argument for argument in rest if not argument.startswith("--config.")]:
        parser.error(f"unexpected argument {stray[0]!r}; every option begins with --")


def add_hosts(parser: Parser) -> None:
    """The options that `devices.cluster.join` takes."""
    hosts = parser.add_argument_group("several hosts that jax does not recognise by itself")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    hosts.add_argument(
        "--processes", type=whole_number(1), metavar="N", help="number of processes; 1 alone: this is the only one"
    )
    hosts.add_argument("--process", type=whole_number(0), metavar="I", help="number of this process, from 0")


def left_by_training(workdir: Path) -> str:
    """What a training that ends early leaves, for `report_errors`."""
    if any(path.name.isdigit() for path in workdir.glob("checkpoints/*")):
        return "the same command goes on from the newest checkpoint"
    return "there is no checkpoint yet: the same command begins anew"


def configure_runtime() -> None:
    """Silence libraries, and cache compiled programs on disk, unless the user has set another cache."""
    import jax
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax logs every file, and prints the errors that it raises
    for doing in ("reading", "writing"):  # jax warns of every program
        warnings.filterwarnings("ignore", f"Error {doing} persistent compilation cache entry")
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        folder = cache_folder() / "compiled"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            print(f"warning: compiled programs are not kept; {folder} {unwritable(error)}", file=sys.stderr)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextmanager
def report_errors(state: str | Callable[[], str]) -> Iterator[None]:
    """As `data_pipelines.command.report_errors`; a run that SIGTERM stopped ends with status 75."""
    try:
        with command.report_errors(state, (DataError, RunError), _leave):
            yield
    except Stopped as stopped:
        print(f"stopped after step {stopped.args[0]}, as asked; the same command goes on from there", file=sys.stderr)
        sys.exit(STOPPED)


def _leave(status: int) -> NoReturn:
    """End the process; at once where there are several, because each would wait for the exit of the others."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        with suppress(OSError):  # nobody reads it any more, or the disk is full
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
