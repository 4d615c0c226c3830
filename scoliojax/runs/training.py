"""A training run, from its start or newest checkpoint to the evaluation of the test part."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

from data_pipelines.schema import CHANNELS, SILHOUETTES, SKELETONS, is_url, nested
from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.devices.mesh import replicated
from scoliojax.errors import RunError, one_line
from scoliojax.models.cost import train_flops_per_step
from scoliojax.runs import directory as run_directory
from scoliojax.runs import environment, settings
from scoliojax.runs.cohort import Cohort, examine_batch, fit_ranges
from scoliojax.runs.evaluation import Screening, validation_scores, write_evaluation
from scoliojax.runs.lock import only_training
from scoliojax.runs.memory import host_memory
from scoliojax.runs.run import Run, TrainedNetwork
from scoliojax.training.checkpoint import BestCheckpoint, Checkpoints
from scoliojax.training.log import Log, RunLog, read_log
from scoliojax.training.loop import Schedule, train
from scoliojax.training.state import TrainState
from scoliojax.training.step import Metrics, Step, make_train_step

RECIPES = {  # by network and modality
    ("sconet", SILHOUETTES): "configs/sconet_mt.py",
    ("sconet", SKELETONS): "configs/sconet_mt_ske.py",
    ("drf", SKELETONS): "configs/drf.py",
}
BEST_BY = "validation/macro_f1"
LONG_RUN = 3600.0  # seconds on a CPU; a longer run begins with a warning
CPU_SPEED = 1e11  # floating-point operations per second, assumed in that warning
PERTURBED = 40  # walks that the evaluation at the end also reads under each perturbation; `--mode eval` reads more


def training_schedule(config: build.Config) -> Schedule:
    """The section `train` of a config; raises `RunError` for an unknown or missing key, and for numbers out of range."""
    with build.section("train"):
        return Schedule(**config.train.to_dict())


def run_training(
    config: build.Config, directory: Path, screening: Screening | None = None, profile: range | None = None
) -> None:
    """Train, from the start or from the newest checkpoint, then evaluate the test part.

    `screening`: options of the evaluation; `profile`: steps, numbered from 0, of which a profiler trace is written into the run
    directory, None for no trace.
    Raises `RunError` where config, directory and data do not belong together or another training is at work in the directory,
    `DataError` for data that cannot be used, and `Stopped` after SIGTERM, with a checkpoint.
    """
    check_request(config, directory, profile)
    with only_training(directory):
        _run_training(config, directory, screening or Screening(), profile)


def check_request(config: build.Config, directory: Path, profile: range | None) -> None:
    """Raise `RunError` for what cannot be, before anything is read or made; arguments as in `run_training`."""
    settings.check(config)
    root = config.data.root
    if root and not is_url(root) and not (directory / "config.json").exists() and nested(directory, Path(root).expanduser()):
        raise RunError(f"--workdir={directory} and data.root={root!r} contain one another; give another folder")
    if profile and profile.stop > config.train.steps:
        raise RunError(
            f"--profile={profile.start}:{profile.stop} goes beyond the last step, train.steps={config.train.steps}; give a "
            f"smaller STOP, or more steps"
        )


class Opened(NamedTuple):
    """All that a training run needs and nothing changes."""

    schedule: Schedule
    run: Run
    loss: Callable
    cohort: Cohort
    digest: str  # of the data
    moved: str | None  # a remark on other devices than before


def open_training(config: build.Config, directory: Path) -> Opened:
    """Check that a run with this config can be in this directory, on these devices and with its data, which are opened.

    Nothing is made but a set in the cache, where `data.root` is a released tree or a URL. Errors as in `run_training`.
    """
    schedule = training_schedule(config)
    run_directory.check_layout(directory)
    if (directory / "config.json").exists():  # errors before data are prepared or anything is written
        run_directory.check_config(directory, config.to_dict(), lower=True)
        environment.read_rates(directory)
        read_log(directory / "metrics.jsonl")
    run = Run(directory, config)
    loss = build.build_loss(config, run.mesh)
    warn_if_long(config)
    cohort = Cohort(config)
    _ = cohort.sampler, cohort.ranges  # an error where the devices or the data do not allow the batch
    return Opened(schedule, run, loss, cohort, cohort.data.digest(), environment.describe_move(directory))


def _run_training(config: build.Config, directory: Path, screening: Screening, profile: range | None) -> None:
    schedule, run, loss, cohort, digest, moved = open_training(config, directory)
    run_directory.claim(directory, config.to_dict(), digest, cohort.parts)
    cluster.barrier("claimed")
    cluster.keep_programs(directory.absolute() / "compiled")
    run_directory.check_data(directory, digest, cohort.parts)  # in every process: all must have the same directory and data
    introduce(run, cohort, moved)
    checkpoints, initial = run.checkpoints(), run.initial_state()
    state = fit_ranges(checkpoints.restore(initial) or initial, cohort)
    start = int(state.step)
    if start:
        cluster.print_once(f"going on from step {start}")
    rate = run_directory.rate_of(run_directory.read_config(directory))
    if start >= schedule.steps and rate != run_directory.rate_of(config.to_dict()):
        cluster.print_once(f"no step is left, so {run_directory.RATE} stays {rate:g}")
    if start < schedule.steps:
        environment.record_environment(directory)
        if lowered := run_directory.record_rate(directory, config.to_dict(), start):
            cluster.print_once(lowered)
        validate = None
        if schedule.eval_every:
            store = Checkpoints(directory / "best", None, cluster.print_once, origin=run.origin())
            validate = BestCheckpoint(
                lambda state: validation_scores(TrainedNetwork(run, state), cohort), store, BEST_BY, initial
            )
        step = cluster.compile_in_step(make_train_step(run.graph, loss, run.optimizer, run.schedule, replicated(run.mesh)))
        batches = cohort.train_batches(start, run.mesh)
        log = RunLog(directory, start, schedule.steps) if cluster.is_first() else Log()
        examine = functools.partial(examine_batch, run, cohort)
        with log, cluster.preemption() as stop, profiled(step, start, profile, directory / "profile") as step:
            try:
                state = train(state, step, batches, schedule, checkpoints, log, validate, stop, examine)
            finally:
                checkpoints.wait()  # also after an error, a checkpoint in progress is completed
        if validate:
            best = f"{validate.score:.4f}{' (synthetic)' * cohort.data.synthetic} at step {validate.step}"
            cluster.print_once(f"best {BEST_BY} {best}: --mode eval --step=best")
    checkpoints.close()
    write_evaluation(TrainedNetwork(run, state), cohort, "test", screening, PERTURBED)


def introduce(run: Run, cohort: Cohort, moved: str | None) -> None:
    """Print data, partition, devices, run directory and host memory; `moved`: remark on other devices than before."""
    config, sampler = run.config, cohort.sampler
    cluster.print_once(f"{cohort.data.name}\n{cohort.partition.describe(cohort.data)}")
    where = f"{jax.device_count()} {jax.default_backend()} device(s)"
    if jax.process_count() > 1:
        where += f" of {jax.process_count()} processes"
    cluster.print_once(f"{where}, {config.precision}, run directory {run.directory}")
    cluster.print_once(host_memory(config, cohort, run.state_shapes(replicated(run.mesh))).line())
    if moved:
        cluster.print_once(moved)
    if sampler.short_sequences:
        cluster.print_once(
            f"{sampler.short_sequences} training sequences have fewer than {config.data.frames_per_clip} frames; "
            "theirs are drawn with replacement"
        )


def warn_if_long(config: build.Config) -> None:
    """Print the expected time of a long run on a CPU, and a shorter recipe."""
    if jax.default_backend() != "cpu":
        return
    data, model = config.data, config.model
    clips = data.subjects_per_batch * data.clips_per_subject
    flops = config.train.steps * train_flops_per_step(model.channels, clips, data.frames_per_clip, CHANNELS[data.modality])
    if flops < LONG_RUN * CPU_SPEED:
        return
    recipe = RECIPES.get((model.name, data.modality), RECIPES["sconet", SILHOUETTES])
    hours = flops / CPU_SPEED / 3600.0
    took = f"{hours / 24.0:.0f} days" if hours > 48.0 else f"{hours:.0f} hours"
    cluster.print_once(
        f"this recipe is meant for an accelerator: its {config.train.steps} steps would take about {took} on a CPU of "
        f"{CPU_SPEED / 1e9:.0f} GFLOP/s; for a first try run --config {recipe}:quickstart"
    )


@contextmanager
def profiled(step: Step, start: int, steps: range | None, folder: Path) -> Iterator[Step]:
    """The same step, to be called from `start` on; the profiler writes a trace of `steps` to `folder`, one of each process."""
    if steps is None or start > steps.start:
        if steps:
            cluster.print_once(f"no profile: the run goes on from step {start}, after step {steps.start}")
        yield step
        return
    numbers = itertools.count(start)
    place = folder / f"process-{jax.process_index()}" if jax.process_count() > 1 else folder
    with ExitStack() as recording:

        def call(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
            number = next(numbers)
            if number == steps.start:
                jax.block_until_ready(state)
                recording.enter_context(_recording(place))
            if number not in steps:
                return step(state, batch)
            with jax.profiler.StepTraceAnnotation("train", step_num=number + 1):
                state, metrics = step(state, batch)
            if number == steps[-1]:
                jax.block_until_ready(state)
                recording.close()
            return state, metrics

        yield call


@contextmanager
def _recording(folder: Path) -> Iterator[None]:
    """Within, the profiler records. A trace that cannot be written is worth a line, not the run."""

    def warn(error: Exception) -> None:
        print(f"warning: the profile is not kept in {folder} ({one_line(error)})", file=sys.stderr, flush=True)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        jax.profiler.start_trace(folder, create_perfetto_trace=True)
    except (OSError, RuntimeError) as error:
        warn(error)
        yield
        return
    try:
        yield
    finally:
        try:
            jax.profiler.stop_trace()
        except (OSError, ValueError, RuntimeError) as error:
            warn(error)
        else:
            cluster.print_once(f"profile: {folder}")
