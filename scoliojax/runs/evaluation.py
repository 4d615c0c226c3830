"""Predictions, calibration and scores of a trained network on a part of its cohort."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_pipelines.leaks import NearDuplicate
from data_pipelines.schema import CLASSES, abbreviate
from scoliojax.devices import cluster
from scoliojax.devices.mesh import replicated
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.run import Run, TrainedNetwork
from scoliojax.scores import calibration
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.evaluation import Evaluation, evaluation_folder
from scoliojax.scores.metrics import published_scores, refuse_not_finite
from scoliojax.training.checkpoint import check_which
from scoliojax.training.evaluate import Predictions, evaluate


@dataclass(frozen=True)
class Screening:
    """The screening question as the user asks it.

    Attributes:
      sensitivity: wanted of the operating point, which is chosen on validation subjects; None for that of the operating point
        kept beside the checkpoint, or else 0.9.
      prevalence: share of people for whom the answer is yes, for predictive values elsewhere; None leaves these out.

    Raises:
      RunError: for a share out of range.
    """

    sensitivity: float | None = None
    prevalence: float | None = None

    def __post_init__(self):
        if self.sensitivity is not None and not 0.0 < self.sensitivity <= 1.0:
            raise RunError(f"--sensitivity={self.sensitivity:g} must be above 0 and at most 1, e.g. 0.9")
        if self.prevalence is not None and not 0.0 < self.prevalence < 1.0:
            raise RunError(f"--prevalence={self.prevalence:g} must lie between 0 and 1, e.g. 0.03 for three of a hundred")


def open_network(run: Run, which: str) -> tuple[TrainedNetwork, Cohort]:
    """A checkpoint of a run on every device, and the data that the run was trained on.

    Args:
      run: with the config to use, which has to fit the recorded one.
      which: `newest`, `best` (by validation) or a step.

    Raises:
      RunError: when the run, its data or its checkpoint is not what is asked for.
    """
    check_which(which)
    run_directory.check_config(run.directory, run.config.to_dict())
    cohort = Cohort(run.config)
    run_directory.check_data(run.directory, cohort.data.digest())
    return run.network(which, replicated(run.mesh)), cohort


def predict(
    network: TrainedNetwork, cohort: Cohort, rows: np.ndarray, keep: bool = False, embeddings: bool = False
) -> Predictions:
    """The outputs of a network for some sequences.

    Args:
      network: on every device of its run's mesh.
      cohort: with the sequences.
      rows: int, indices of the sequences.
      keep: as of `Cohort.eval_batches`.
      embeddings: keep the embeddings, too.

    Raises:
      RunError: naming the sequences whose logits are not finite.
    """
    run, state = network.run, network.state
    batches = cohort.eval_batches(rows, run.mesh, keep)
    found = evaluate(run.eval_step, state.params, state.batch_stats, batches, embeddings)
    refuse_not_finite(found.logits, [cohort.data.sequences[row] for row in found.rows])
    return found


def validation_scores(network: TrainedNetwork, cohort: Cohort) -> dict[str, float]:
    """Scores of a network on the validation subjects, by the names that the log uses."""
    found = predict(network, cohort, cohort.partition.validation, keep=True)
    scores = published_scores(cohort.data.labels[found.rows], np.argmax(found.logits, axis=1), len(CLASSES))
    return {f"validation/{name}": scores[name] for name in ("accuracy", "macro_recall", "macro_f1")}


def calibrate(
    network: TrainedNetwork, cohort: Cohort, sensitivity: float | None = None, keep: bool = True
) -> Calibration | None:
    """Temperature and operating point of a network: those kept beside its checkpoint, or fitted on validation subjects.

    Args:
      network: to calibrate.
      cohort: with the validation subjects.
      sensitivity: as of `Screening`.
      keep: keep what is fitted, beside the checkpoint.

    Returns:
      None where nothing is kept and there are no validation subjects.

    Raises:
      RunError: when another sensitivity is wanted and there are no validation subjects to choose the threshold on.
    """
    kept = network.calibration
    if kept and sensitivity in (None, kept.wanted_sensitivity):
        return kept
    if not len(cohort.partition.validation):
        if sensitivity is not None:
            raise RunError(
                f"--sensitivity={sensitivity:g} needs validation subjects to choose a threshold on, and the run has "
                "data.validation_fraction=0. Leave it out, or train with a larger one"
            )
        return None
    found = predict(network, cohort, cohort.partition.validation)
    fitted = calibration.fit(
        cohort.data.labels[found.rows],
        found.logits,
        network.scale,
        [cohort.data.subjects[row] for row in found.rows],
        sensitivity or calibration.WANTED_SENSITIVITY,
        network.digest,
        cohort.data.synthetic,
    )
    if keep and cluster.is_first():
        calibration.write(calibration.calibration_file(network.directory, network.step), fitted)
    return fitted


def evaluate_part(
    network: TrainedNetwork,
    cohort: Cohort,
    part: str,
    duplicates: list[NearDuplicate],
    sensitivity: float | None = None,
    keep: bool = True,
    embeddings: bool = False,
) -> Evaluation:
    """One part of a cohort, predicted and calibrated.

    Args:
      network: as of `predict`.
      cohort: with the sequences.
      part: "train", "validation" or "test".
      duplicates: of `Cohort.near_duplicates`, for the record.
      sensitivity: as of `Screening`.
      keep: as of `calibrate`.
      embeddings: as of `predict`.

    Raises:
      RunError: when the part is empty, or a logit is not finite.
    """
    data = cohort.data
    found = predict(network, cohort, cohort.rows(part), embeddings=embeddings)
    return Evaluation(
        data=data.name,
        synthetic=data.synthetic,
        part=part,
        classes=CLASSES,
        rows=found.rows,
        sequences=[data.sequences[row] for row in found.rows],
        subjects=[data.subjects[row] for row in found.rows],
        labels=data.labels[found.rows],
        strip_logits=found.strip_logits,
        scale=network.scale,
        provenance=cohort.provenance(network.step, duplicates),
        calibration=calibrate(network, cohort, sensitivity, keep),
        embeddings=found.embeddings,
    )


def report_part(network: TrainedNetwork, cohort: Cohort, part: str, screening: Screening) -> None:
    """Evaluate one part, write the results into the run directory, and print their table."""
    from scoliojax.scores.results import results_table, write_results  # matplotlib: a third of the time to start training

    duplicates = cohort.near_duplicates()
    evaluation = evaluate_part(network, cohort, part, duplicates, screening.sensitivity)
    if not cluster.is_first():
        return
    folder = evaluation_folder(network.directory, part, network.step)
    print(results_table(write_results(folder, evaluation, screening.prevalence)))
    for line in near_duplicate_warning(duplicates):
        print(f"warning: {line}")
    print(f"results: {folder}")


def near_duplicate_warning(duplicates: list[NearDuplicate]) -> list[str]:
    """A warning about near-duplicates for the user; empty where there are none."""
    if not duplicates:
        return []
    pairs = abbreviate([f"{one.sequence} is nearly {one.twin}" for one in duplicates])
    return [f"held-out sequences that are nearly ones trained on: {pairs}; one person under two names makes a score too good"]
