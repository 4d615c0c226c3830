"""A dry run: all that a training run does before its first step, without a trace of it."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np

from data_pipelines.command import unwritable
from data_pipelines.leaks import refuse_shared_subjects
from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.devices.mesh import replicated
from scoliojax.devices.targets import devices_here
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.compiling import Program, evaluation_program, program_of_batch, shapes_of, unshared
from scoliojax.runs.examining import compile_program, examine, room, table
from scoliojax.runs.lock import refuse_other_training
from scoliojax.runs.run import Run
from scoliojax.runs.training import check_request, introduce, open_training
from scoliojax.training.checkpoint import room_for
from scoliojax.training.loop import Schedule


def dry_run(config: build.Config, directory: Path, profile: range | None = None) -> None:
    """Do all that `run_training` does before its first step, and print what compilers state of the steps, without a trace.

    No run directory is made, and one that is there is not changed. Raises `RunError` or `DataError` where no run could start
    with these arguments, also where a step needs more memory than a device has, and the disk has no room for the checkpoints.
    """
    check_request(config, directory, profile)
    around = _refuse_unwritable(directory)
    refuse_other_training(directory)
    schedule, run, _, cohort, digest, moved = open_training(config, directory)
    refuse_shared_subjects(cohort.data, cohort.partition)
    remedy = "give all the same data.root, data.partition and config"
    cluster.refuse_difference(f"{digest} {run_directory.digest_of(cohort.parts)}", "data set or partition", remedy)
    start, kept = 0, 0
    if (directory / "config.json").exists():
        run_directory.check_data(directory, digest, cohort.parts)
        kept = sum(path.name.isdigit() for path in directory.glob("checkpoints/*"))
        start = run.network("newest").step if kept else 0
    introduce(run, cohort, moved)
    if start:
        cluster.print_once(f"it would go on from step {start}")
    if start < schedule.steps:  # else it only evaluates
        cluster.print_once(_check_disk(run, schedule, around, kept))
        batch = shapes_of(cohort.sampler(start), run.mesh)
        for shapes in [batch, unshared(batch, run.mesh)] if "clip_frames" in batch else [batch]:
            _examine(program_of_batch(config, run.mesh, shapes), config, evaluation=False)
    _examine(evaluation_program(config, run.mesh, longest=_longest(cohort)), config, evaluation=True)
    cluster.print_once("dry run: the run could start; nothing was written")


def _refuse_unwritable(directory: Path) -> Path:
    """The run directory, or the folder that it would be made in; raises `RunError` where that cannot be written."""
    around = next(place for place in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(place))
    number = errno.ENOTDIR if not around.is_dir() else 0 if os.access(around, os.W_OK | os.X_OK) else errno.EACCES
    if number:
        raise RunError(f"--workdir={directory} {unwritable(OSError(number, os.strerror(number)))}")
    return around


def _check_disk(run: Run, schedule: Schedule, around: Path, kept: int) -> str:
    """What the checkpoints need beside the `kept` that are there, and what is free; raises `RunError` where that is less."""
    saves = -(-schedule.steps // schedule.checkpoint_every)
    most = min(schedule.checkpoints_to_keep + 1, saves)  # an old one is deleted after a new one is written
    if schedule.eval_every:
        most += 2  # the best one, and a better one
    each, free = room_for(run.state_shapes(replicated(run.mesh))), shutil.disk_usage(around).free
    needed = max(most - kept, 1) * each
    if free < needed:
        raise RunError(
            f"train.checkpoints_to_keep={schedule.checkpoints_to_keep}: its checkpoints, at most {most} at a time, need "
            f"{needed / 1e6:.1f} MB more in {around}, where {free / 1e6:.1f} MB are free; make room, keep fewer, or give "
            "another --workdir"
        )
    return f"checkpoints: at most {most} at a time, of {each / 1e6:.1f} MB each; {free / 1e6:,.0f} MB are free"


def _longest(cohort: Cohort) -> int:
    """Padded frames of the longest sequences that the run would evaluate; they are read."""
    rows = np.concatenate([cohort.rows("test"), cohort.partition.validation])
    batcher = build.build_eval_batcher(cohort.config, cohort.data, rows, cohort.read_once)
    return batcher(len(batcher) - 1)["frames"].shape[1]  # they are in the order of their length


def _examine(program: Program, config: build.Config, evaluation: bool) -> None:
    """Compile a program and print its table; raises `RunError` where it does not fit."""
    target = devices_here()
    cluster.refuse_other_program(program.lowered)
    found = examine(target, program, compile_program(program, target, config, evaluation))
    cluster.barrier("compiled")
    fits = room(found, config, evaluation)
    cluster.print_once("\n".join(["", *table(found), "", *([fits, ""] if found.fits else [])]))
    if not found.fits:
        raise RunError(f"{program.what}: it {fits}")
