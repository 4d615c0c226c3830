"""What training, evaluation and reports of one run share: data, partition, mesh, network, and its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.leaks import NearDuplicate, near_duplicates, refuse_shared_subjects
from data_pipelines.pipelines import eval_batches, train_batches
from data_pipelines.schema import CLASSES, SilhouetteSet, abbreviate
from data_pipelines.splits import Partition
from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.devices.mesh import data_mesh, replicated, to_devices
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.scores import calibration
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.metrics import published_scores, refuse_not_finite
from scoliojax.training.checkpoint import Checkpoints, check_which, digest
from scoliojax.training.evaluate import EvalStep, Predictions, evaluate, make_eval_step
from scoliojax.training.state import TrainState, create_state
from scoliojax.training.step import make_train_step

if TYPE_CHECKING:  # it draws: a third of the time to start training, which does not draw
    from scoliojax.scores.results import EvaluatedSequences


class Job:
    """A run on this machine's devices.

    Args:
      config: of the run.
      workdir: the run directory.
      wanted_sensitivity: of the operating point, chosen on validation subjects; None for the one that is kept beside the
        checkpoint, or else 0.9.
      prevalence: share of people for whom the answer is yes, for predictive values elsewhere; None leaves them out.

    Raises:
      RunError: for a config that cannot be built, or a share that is none.
      DataError: for data that cannot be opened, or do not fit the config.
    """

    def __init__(
        self,
        config: build.Config,
        workdir: Path,
        wanted_sensitivity: float | None = None,
        prevalence: float | None = None,
    ):
        self.config, self.workdir = config, workdir
        if wanted_sensitivity is not None and not 0.0 < wanted_sensitivity <= 1.0:
            raise RunError(f"--sensitivity={wanted_sensitivity:g} must be above 0 and at most 1, e.g. 0.9")
        if prevalence is not None and not 0.0 < prevalence < 1.0:
            raise RunError(f"--prevalence={prevalence:g} must lie between 0 and 1, e.g. 0.03 for three of a hundred")
        self.wanted_sensitivity, self.prevalence = wanted_sensitivity, prevalence
        self.mesh: Mesh = data_mesh()
        self.loss = build.build_loss(config, self.mesh)
        optimizer, schedule = build.build_optimizer(config)
        self.graph, params, batch_stats = build.build_model(config)
        with cluster.first_alone("data"):  # the first may have to prepare them
            self.data: SilhouetteSet = build.build_data(config, report=cluster.say)
        self.cache = build.build_cache(config, self.data)
        # What is needed once is not kept, so that an evaluation's memory does not grow; but walkers take long to draw.
        self.read_once = self.cache if self.data.synthetic else self.cache.read_once
        self.partition: Partition = build.build_partition(config, self.data)
        self.initial: TrainState = jax.device_put(create_state(params, batch_stats, optimizer), replicated(self.mesh))
        self.train_step = cluster.together(make_train_step(self.graph, self.loss, optimizer, schedule, replicated(self.mesh)))
        self.eval_step: EvalStep = cluster.together(make_eval_step(self.graph, replicated(self.mesh)))

    def checkpoints(self, looking: bool = False) -> Checkpoints:
        return Checkpoints(self.workdir / "checkpoints", self.config.train.checkpoints_to_keep, cluster.say, looking)

    def best_checkpoint(self, looking: bool = False) -> Checkpoints:
        return Checkpoints(self.workdir / "best", None, cluster.say, looking)

    def restore(self, which: str) -> TrainState:
        """The checkpoint of a step, the newest, or the best by validation; only looks.

        Raises:
          RunError: for another word than `newest`, `best` or a number, and where there is no such checkpoint.
        """
        checkpoints = self.best_checkpoint(looking=True) if which == "best" else self.checkpoints(looking=True)
        state = checkpoints.restore(self.initial, int(which) if which.isdigit() else None)
        checkpoints.close()
        if state is None:
            raise RunError(f"--workdir={self.workdir} has no {which} checkpoint yet; train there first")
        return state

    def train_batches(self, start: int) -> Iterator[dict[str, jax.Array]]:
        sampler = build.build_sampler(self.config, self.data, self.partition, self.cache)
        batches = train_batches(sampler, start, self.config.train.steps, self.config.data.loader_threads)
        return (to_devices(batch, self.mesh) for batch in batches)

    def predict(self, state: TrainState, rows: np.ndarray, again: bool = False, embeddings: bool = False) -> Predictions:
        """Predict some sequences.

        Args:
          state: of the network.
          rows: of the sequences.
          again: they will be predicted again in this process, so keep them in memory.
          embeddings: as of `evaluate`.
        """
        read = self.cache if again else self.read_once
        batcher = build.build_eval_batcher(self.config, self.data, rows, read)
        batches = (
            {"rows": batch.pop("rows"), **to_devices(batch, self.mesh)}
            for batch in eval_batches(batcher, self.config.data.loader_threads)
        )
        return evaluate(self.eval_step, state.params, state.batch_stats, batches, embeddings)

    def validate(self, state: TrainState) -> dict[str, float]:
        """Scores on the validation subjects, for the log."""
        found = self.predict(state, self.partition.validation, again=True)
        refuse_not_finite(found.logits, [self.data.sequences[row] for row in found.rows])
        scores = published_scores(self.data.labels[found.rows], np.argmax(found.logits, axis=1), len(CLASSES))
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
            path.write_text(json.dumps({"step": step, "sequences": ids, "frames": frames.tolist()}) + "\n", encoding="utf-8")
        return f"its sequences and frames are in {path}"

    def calibrate(self, state: TrainState, keep: bool = True) -> Calibration | None:
        """Temperature and operating point of this network: those kept beside its checkpoint, or fitted on validation subjects.

        Args:
          state: of the network.
          keep: what is fitted, beside the checkpoint.

        Returns:
          None where nothing is kept and there are no validation subjects.

        Raises:
          RunError: when another sensitivity is wanted and there are no validation subjects to choose the threshold on.
        """
        network = digest({"params": state.params, "batch_stats": state.batch_stats})
        path = calibration.calibration_file(self.workdir, int(state.step))
        kept = calibration.read(path, network)
        if kept and self.wanted_sensitivity in (None, kept.wanted_sensitivity):
            return kept
        if not len(self.partition.validation):
            if self.wanted_sensitivity is not None:
                raise RunError(
                    f"--sensitivity={self.wanted_sensitivity:g} needs validation subjects to choose a threshold on, and "
                    "the run has data.validation_fraction=0. Leave it out, or train with a larger one"
                )
            return None
        found = self.predict(state, self.partition.validation)
        refuse_not_finite(found.logits, [self.data.sequences[row] for row in found.rows])
        fitted = calibration.fit(
            self.data.labels[found.rows],
            found.logits,
            self.config.loss.scale,
            [self.data.subjects[row] for row in found.rows],
            self.wanted_sensitivity or calibration.WANTED_SENSITIVITY,
            network,
            self.data.synthetic,
        )
        if keep and cluster.is_first():
            calibration.write(path, fitted)
        return fitted

    def leaks(self) -> list[NearDuplicate]:
        """Test and validation sequences that are nearly ones trained on; raises `DataError` when a subject is on both sides."""
        refuse_shared_subjects(self.data, self.partition)
        found = near_duplicates(self.data, self.partition, self.read_once) if cluster.is_first() else []
        cluster.wait("leaks")
        return found

    def evaluated(
        self, state: TrainState, part: str, keep: bool = True, embeddings: bool = False
    ) -> tuple[EvaluatedSequences, Predictions]:
        """One part, predicted and calibrated.

        Args:
          state: of the network.
          part: of the partition.
          keep: as of `calibrate`.
          embeddings: as of `evaluate`.

        Raises:
          RunError: when the part is empty, or a logit is not finite.
        """
        from scoliojax.scores.results import EvaluatedSequences

        rows = getattr(self.partition, part)
        if not len(rows):
            raise RunError(f"--part={part} is empty; data.validation_fraction={self.config.data.validation_fraction}")
        found = self.predict(state, rows, embeddings=embeddings)
        return EvaluatedSequences(
            data=self.data.name,
            synthetic=self.data.synthetic,
            part=part,
            classes=CLASSES,
            sequences=[self.data.sequences[row] for row in found.rows],
            subjects=[self.data.subjects[row] for row in found.rows],
            labels=self.data.labels[found.rows],
            logits=found.logits,
            scale=self.config.loss.scale,
            calibration=self.calibrate(state, keep),
        ), found

    def about(self, state: TrainState, duplicates: list[NearDuplicate]) -> dict[str, Any]:
        """What a reader of results has to know beside the scores."""
        parts = {
            part: {"sequences": len(rows), "subjects": len({self.data.subjects[row] for row in rows})}
            | self.data.class_counts(rows)
            for part, rows in vars(self.partition).items()
        }
        return {
            "step": int(state.step),
            "partition": self.config.data.partition,
            "subjects_known": self.data.synthetic or self.data.subjects != self.data.sequences,
            "parts": parts,
            "near_duplicates": [duplicate._asdict() for duplicate in duplicates],
        }

    def report(self, state: TrainState, part: str) -> None:
        """Evaluate one part and leave the results in the run directory."""
        from scoliojax.scores.results import results_table, write_results

        duplicates = self.leaks()
        evaluated, _ = self.evaluated(state, part)
        if not cluster.is_first():
            return
        about = self.about(state, duplicates)
        folder = self.workdir / "evaluation" / f"{part}-step-{about['step']:06d}"
        metrics = write_results(folder, evaluated, about, self.prevalence)
        print(results_table(metrics))
        for line in near_duplicate_warning(duplicates):
            print(f"warning: {line}")
        print(f"results: {folder}")


def near_duplicate_warning(duplicates: list[NearDuplicate]) -> list[str]:
    """What a user has to be told about near-duplicates; nothing where there are none."""
    if not duplicates:
        return []
    pairs = abbreviate([f"{one.sequence} is nearly {one.twin}" for one in duplicates])
    return [f"held-out sequences that are nearly ones trained on: {pairs}; one person under two names makes a score too good"]


def open_job(
    workdir: Path, which: str, config: build.Config | None = None, root: str | None = None, **settings
) -> tuple[Job, TrainState]:
    """An existing run and one of its checkpoints.

    Args:
      workdir: the run directory.
      which: step, `newest` or `best`.
      config: to use; None for the recorded one.
      root: where the data are now; None for the config's.
      settings: further arguments of `Job`.

    Raises:
      RunError: when the run, its data or its checkpoint is not what is asked for.
    """
    check_which(which)
    if config is None:
        config = ConfigDict(run_directory.read_config(workdir))
    if root:
        config.data.root = root
    run_directory.check_config(workdir, config.to_dict())
    if which == "best" and not (workdir / "best").exists():
        raise RunError(f"--step=best: {workdir} was not validated during training; set train.eval_every and train there")
    job = Job(config, workdir, **settings)
    run_directory.check_data(workdir, job.data.digest())
    return job, job.restore(which)
