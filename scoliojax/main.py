"""Train and evaluate: `python -m scoliojax.main --config configs/sconet_mt.py --workdir runs/sconet_mt`.

`--mode train` (default) trains from scratch or goes on where the run in `--workdir` stopped, then evaluates on the test part.
`--mode eval` evaluates a checkpoint of `--workdir`. Without `--config` both use the config recorded there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from scoliojax import build
from scoliojax.benchmark import cost
from scoliojax.devices import cluster
from scoliojax.devices.cluster import Preemption
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.command import settle, told
from scoliojax.runs.job import Job, open_job
from scoliojax.training.checkpoint import BestCheckpoint
from scoliojax.training.log import Log, RunLog
from scoliojax.training.loop import Schedule, train

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, e.g. configs/sconet_mt.py or ...:quickstart.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory: checkpoints, logs and results.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train (and evaluate at the end), or evaluate a checkpoint.")
STEP = flags.DEFINE_string("step", "newest", "With --mode eval: which checkpoint, its step or newest or best (by validation).")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Several hosts that jax does not recognise: host:port of process 0.")
PROCESSES = flags.DEFINE_integer("processes", None, "... how many processes there are.")
PROCESS = flags.DEFINE_integer("process", None, "... which one this is, from 0.")
SENSITIVITY = flags.DEFINE_float("sensitivity", None, "Wanted of the operating point; the one kept, or 0.9.")
PREVALENCE = flags.DEFINE_float("prevalence", None, "Share of people with a yes, for predictive values elsewhere, e.g. 0.03.")
PART = flags.DEFINE_enum("part", "test", ["train", "validation", "test"], "With --mode eval: which part to evaluate.")

BEST_BY = "validation/macro_f1"
LONG_RUN = 3600.0  # seconds on a CPU beyond which a run begins with a warning
SLOW_CPU = 5e10  # FLOP/s


def training_schedule(config: build.Config) -> Schedule:
    return Schedule(**{name: config.train[name] for name in Schedule.__dataclass_fields__})


def run_training(config: build.Config, workdir: Path, **settings) -> None:
    """Train, from the start or from the newest checkpoint, then evaluate on the test part."""
    schedule = training_schedule(config)
    if (workdir / "config.json").exists():  # refuse before any data is made
        run_directory.check_config(workdir, config.to_dict())
    job = Job(config, workdir, **settings)
    _warn_if_long(config)
    sampler = build.build_sampler(config, job.data, job.partition)
    moved = run_directory.moved(workdir)
    run_directory.claim(workdir, config.to_dict(), job.data.digest())
    cluster.wait("claimed")
    run_directory.check_data(workdir, job.data.digest())  # of every process: all see one folder, and the same data
    cluster.say(f"{job.data.name}\n{job.partition.describe(job.data)}")
    where = f"{jax.device_count()} {jax.default_backend()} device(s)"
    if jax.process_count() > 1:
        where += f" of {jax.process_count()} processes"
    cluster.say(f"{where}, {config.precision}, run directory {workdir}")
    if moved:
        cluster.say(moved)
    if sampler.short_sequences:
        cluster.say(
            f"{sampler.short_sequences} training sequences have fewer than {config.data.frames_per_clip} frames; "
            "theirs are drawn with replacement"
        )
    checkpoints = job.checkpoints()
    state = checkpoints.restore(job.initial) or job.initial
    start = int(state.step)
    if start:
        cluster.say(f"going on from step {start}")
    if start < schedule.steps:
        run_directory.record_environment(workdir)
        validate = None
        if schedule.eval_every:
            validate = BestCheckpoint(job.validate, job.best_checkpoint(), BEST_BY, job.initial)
        batches = job.train_batches(start)
        with RunLog(workdir, start, schedule.steps) if cluster.is_first() else Log() as log, Preemption() as stop:
            try:
                state = train(state, job.train_step, batches, schedule, checkpoints, log, validate, stop, job.examine)
            finally:
                checkpoints.wait()  # whatever ended the loop, what was being saved is whole
        if validate:
            cluster.say(f"best {BEST_BY} {validate.score:.4f}{job.stamp} at step {validate.step}: --mode eval --step=best")
    checkpoints.close()
    job.report(state, "test")


def run_evaluation(config: build.Config, workdir: Path, which: str, part: str, **settings) -> None:
    """Evaluate a checkpoint of an existing run: of a step, the newest, or the best by validation."""
    job, state = open_job(workdir, which, config, **settings)
    job.report(state, part)


def _warn_if_long(config: build.Config) -> None:
    """Where an accelerator's recipe meets a CPU: say how long it would take, and what to run instead."""
    if jax.default_backend() != "cpu" or not cluster.is_first():
        return
    data, model = config.data, config.model
    clips = data.subjects_per_batch * data.clips_per_subject
    flops = config.train.steps * cost.train_flops_per_step(model.channels, clips, data.frames_per_clip)
    if flops < LONG_RUN * SLOW_CPU:  # not worth measuring
        return
    hours = flops / cost.measured_flops_per_second() / 3600.0
    took = f"{hours / 24.0:.0f} days" if hours > 48.0 else f"{max(hours, 1.0):.0f} hours"
    print(
        f"this recipe is meant for an accelerator: on this CPU its {config.train.steps} steps would take about "
        f"{took}; for a first try run --config configs/sconet_mt.py:quickstart"
    )


def _config(workdir: Path) -> build.Config:
    if CONFIG.value is not None:
        return CONFIG.value
    if MODE.value == "train" and not (workdir / "config.json").exists():
        raise RunError("--config is missing; give a recipe, e.g. --config configs/sconet_mt.py")
    return ConfigDict(run_directory.read_config(workdir))


def main(argv: list[str]) -> None:
    with told():
        if len(argv) > 1:
            raise RunError(f"unexpected argument {argv[1]!r}; every option begins with --")
        if WORKDIR.value is None:
            raise RunError("--workdir is missing; give a folder for checkpoints, logs and results")
        workdir = Path(WORKDIR.value).expanduser().absolute()
        settle()
        cluster.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        settings = {"wanted_sensitivity": SENSITIVITY.value, "prevalence": PREVALENCE.value}
        if MODE.value == "train":
            run_training(_config(workdir), workdir, **settings)
        else:
            run_evaluation(_config(workdir), workdir, STEP.value, PART.value, **settings)


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; a mistake in it is one line, and an unknown config key names the keys that exist."""
    try:
        rest = flags.FLAGS(argv)
        _ = CONFIG.value  # a recipe that does not load says so here
        return rest
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        unknown = _unknown_key(argv) if isinstance(error, (AttributeError, KeyError)) else None
        reason = unknown or [line for line in str(error).splitlines() if line.strip()][-1].strip()
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


def read_recipe(file: str, overrides: list[str]) -> build.Config:
    """A recipe and what `--config.KEY=VALUE` changes in it, for other commands."""
    if stray := [argument for argument in overrides if not argument.startswith("--config.")]:
        raise RunError(f"unexpected argument {stray[0]!r}")
    whole, sys.argv = sys.argv, [sys.argv[0], f"--config={file}", *overrides]  # ml_collections looks there
    try:
        parse_flags(sys.argv)
        return CONFIG.value
    finally:
        sys.argv = whole
        for name in {override.removeprefix("--").split("=")[0] for override in overrides} & set(flags.FLAGS):
            delattr(flags.FLAGS, name)  # each is a flag of its own by now, and could not be given again


def _unknown_key(argv: list[str]) -> str | None:
    """The first `--config.a.b=...` whose key the recipe does not have, with the keys beside it; None where there is none."""
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    whole, sys.argv = sys.argv, [argument for argument in argv if argument not in overrides]  # ml_collections looks there
    try:
        flags.FLAGS.unparse_flags()
        flags.FLAGS(sys.argv)
    finally:
        sys.argv = whole
    for override in overrides:
        section = CONFIG.value
        for key in override.removeprefix("--config.").split("=")[0].split("."):
            if not isinstance(section, ConfigDict) or key not in section:
                known = ", ".join(section.keys()) if isinstance(section, ConfigDict) else "nothing below it"
                return f"{override}: the config has no {key!r} here; it has {known}"
            section = section[key]
    return None


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
