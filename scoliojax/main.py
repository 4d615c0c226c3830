"""Train and evaluate: `python -m scoliojax.main --config configs/sconet_mt.py --workdir runs/sconet_mt`.

`--mode train` (default) trains from scratch or goes on where the run in `--workdir` stopped, then evaluates on the test part.
`--mode eval` evaluates a checkpoint of `--workdir`. Without `--config` both use the config recorded there.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from data_pipelines.pipelines import eval_batches, train_batches
from data_pipelines.schema import CLASSES, DataError, SilhouetteSet
from data_pipelines.sources import cache_folder
from data_pipelines.splits import Partition
from scoliojax import build, cluster, cost, run_directory
from scoliojax.checkpoint import BestCheckpoint, Checkpoints
from scoliojax.cluster import Preemption
from scoliojax.errors import RunError
from scoliojax.evaluate import EvalStep, Predictions, evaluate, make_eval_step
from scoliojax.mesh import data_mesh, replicated, to_devices
from scoliojax.run_log import Log, RunLog
from scoliojax.train_loop import Schedule, Stopped, train
from scoliojax.train_state import TrainState, create_state
from scoliojax.train_step import make_train_step

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, e.g. configs/sconet_mt.py or ...:quickstart.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run directory: checkpoints, logs and results.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train (and evaluate at the end), or evaluate a checkpoint.")
STEP = flags.DEFINE_string("step", "newest", "With --mode eval: which checkpoint, its step or newest or best (by validation).")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Several hosts that jax does not recognise: host:port of process 0.")
PROCESSES = flags.DEFINE_integer("processes", None, "... how many processes there are.")
PROCESS = flags.DEFINE_integer("process", None, "... which one this is, from 0.")
PART = flags.DEFINE_enum("part", "test", ["train", "validation", "test"], "With --mode eval: which part to evaluate.")

STOPPED = 75  # exit status after SIGTERM: BSD's EX_TEMPFAIL, "try again"
BEST_BY = "validation/macro_f1"
LONG_RUN = 3600.0  # seconds on a CPU beyond which a run begins with a warning
SLOW_CPU = 5e10  # FLOP/s


class Job:
    """What training and evaluation share: data, partition, mesh, network, and the state before the first step."""

    def __init__(self, config: build.Config, workdir: Path):
        self.config, self.workdir = config, workdir
        self.mesh: Mesh = data_mesh()
        self.loss = build.build_loss(config, self.mesh)
        optimizer, schedule = build.build_optimizer(config)
        graph, params, batch_stats = build.build_model(config)
        with cluster.first_alone("data"):  # the first may have to prepare them
            self.data: SilhouetteSet = build.build_data(config, report=cluster.say)
        self.cache = build.build_cache(config, self.data)
        self.partition: Partition = build.build_partition(config, self.data)
        self.initial: TrainState = jax.device_put(create_state(params, batch_stats, optimizer), replicated(self.mesh))
        self.train_step = cluster.together(make_train_step(graph, self.loss, optimizer, schedule, replicated(self.mesh)))
        self.eval_step: EvalStep = cluster.together(make_eval_step(graph, replicated(self.mesh)))

    def checkpoints(self, looking: bool = False) -> Checkpoints:
        return Checkpoints(self.workdir / "checkpoints", self.config.train.checkpoints_to_keep, cluster.say, looking)

    def best_checkpoint(self, looking: bool = False) -> Checkpoints:
        return Checkpoints(self.workdir / "best", None, cluster.say, looking)

    def train_batches(self, start: int) -> Iterator[dict[str, jax.Array]]:
        sampler = build.build_sampler(self.config, self.data, self.partition, self.cache)
        batches = train_batches(sampler, start, self.config.train.steps, self.config.data.loader_threads)
        return (to_devices(batch, self.mesh) for batch in batches)

    def predict(self, state: TrainState, rows: np.ndarray) -> Predictions:
        batcher = build.build_eval_batcher(self.config, self.data, rows, self.cache)
        batches = (
            {"rows": batch.pop("rows"), **to_devices(batch, self.mesh)}
            for batch in eval_batches(batcher, self.config.data.loader_threads)
        )
        return evaluate(self.eval_step, state.params, state.batch_stats, batches)

    def validate(self, state: TrainState) -> dict[str, float]:
        """Scores on the validation subjects, for the log."""
        from scoliojax.metrics import classification_metrics  # here: scikit-learn is a third of the time to start

        found = self.predict(state, self.partition.validation)
        scores = classification_metrics(self.data.labels[found.rows], np.argmax(found.logits, axis=1), CLASSES)
        return {f"validation/{name}": scores[name] for name in ("accuracy", "macro_recall", "macro_f1")}

    @property
    def stamp(self) -> str:
        return " (synthetic)" if self.data.synthetic else ""

    def examine(self, step: int) -> str:
        """Write down which sequences and frames the batch of a finished step was made of."""
        rows, frames = build.build_sampler(self.config, self.data, self.partition).draw(step - 1)
        path = self.workdir / f"not-finite-step-{step:06d}.json"
        if cluster.is_first():
            ids = [self.data.sequences[row] for row in rows]
            path.write_text(json.dumps({"step": step, "sequences": ids, "frames": frames.tolist()}) + "\n")
        return f"its sequences and frames are in {path}"

    def report(self, state: TrainState, part: str) -> None:
        """Evaluate one part and leave the results in the run directory."""
        from scoliojax.results import EvaluatedSequences, results_table, write_results  # here: as in `validate`

        rows = getattr(self.partition, part)
        if not len(rows):
            raise RunError(f"--part={part} is empty; data.validation_fraction={self.config.data.validation_fraction}")
        found = self.predict(state, rows)
        if not cluster.is_first():
            return
        step = int(state.step)
        folder = self.workdir / "evaluation" / f"{part}-step-{step:06d}"
        evaluated = EvaluatedSequences(
            data=self.data.name,
            synthetic=self.data.synthetic,
            part=part,
            classes=CLASSES,
            sequences=[self.data.sequences[row] for row in found.rows],
            subjects=[self.data.subjects[row] for row in found.rows],
            labels=self.data.labels[found.rows],
            logits=found.logits,
            scale=self.config.loss.scale,
        )
        metrics = write_results(folder, evaluated, {"step": step, "partition": self.config.data.partition})
        print(results_table(metrics))
        print(f"results: {folder}")


def training_schedule(config: build.Config) -> Schedule:
    return Schedule(**{name: config.train[name] for name in Schedule.__dataclass_fields__})


def run_training(config: build.Config, workdir: Path) -> None:
    """Train, from the start or from the newest checkpoint, then evaluate on the test part."""
    schedule = training_schedule(config)
    if (workdir / "config.json").exists():  # refuse before any data is made
        run_directory.check_config(workdir, config.to_dict())
    job = Job(config, workdir)
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


def run_evaluation(config: build.Config, workdir: Path, which: str, part: str) -> None:
    """Evaluate a checkpoint of an existing run: of a step, the newest, or the best by validation."""
    if which not in ("newest", "best") and not re.fullmatch("[0-9]+", which):
        raise RunError(f"--step={which} is neither newest nor best nor a number of steps")
    run_directory.check_config(workdir, config.to_dict())
    job = Job(config, workdir)
    run_directory.check_data(workdir, job.data.digest())
    if which == "best" and not (workdir / "best").exists():
        raise RunError(f"--step=best: {workdir} was not validated during training; set train.eval_every and train there")
    checkpoints = job.best_checkpoint(looking=True) if which == "best" else job.checkpoints(looking=True)
    state = checkpoints.restore(job.initial, int(which) if which.isdigit() else None)
    checkpoints.close()
    if state is None:
        raise RunError(f"--workdir={workdir} has no {which} checkpoint yet; train there first")
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


def _leave(line: str, status: int) -> None:
    """End with a line for the user; in a run of several processes at once, for they would wait for each other's exit."""
    print(line, file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.FATAL)  # Orbax describes every file it touches, and prints what it raises as well
    try:
        if len(argv) > 1:
            raise RunError(f"unexpected argument {argv[1]!r}; every option begins with --")
        if WORKDIR.value is None:
            raise RunError("--workdir is missing; give a folder for checkpoints, logs and results")
        workdir = Path(WORKDIR.value).expanduser().absolute()
        if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
            # a restart then begins with the programs of the run before
            jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        cluster.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
        if MODE.value == "train":
            run_training(_config(workdir), workdir)
        else:
            run_evaluation(_config(workdir), workdir, STEP.value, PART.value)
    except (RunError, DataError) as error:
        _leave(f"error: {error}", 2)
    except OSError as error:
        _leave(f"error: {error}; mend or free the disk, then run the same command again", 2)
    except Stopped as stopped:
        print(f"stopped after step {stopped.args[0]}, as asked; the same command goes on from there", file=sys.stderr)
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        sys.exit(130)


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
