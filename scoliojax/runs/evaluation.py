"""Predictions, calibration and scores of a trained network on a part of its cohort."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_pipelines.command import unwritable
from data_pipelines.leaks import NearDuplicate
from data_pipelines.perturbations import perturbations_of
from data_pipelines.schema import CLASSES, abbreviate
from scoliojax.devices import cluster
from scoliojax.devices.mesh import replicated
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.reference import refer
from scoliojax.runs.run import Run, TrainedNetwork
from scoliojax.scores import calibration
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.conformal import COVERAGE, check_coverage
from scoliojax.scores.evaluation import Evaluation, Metrics, evaluation_folder, score
from scoliojax.scores.metrics import check_prevalence, published_scores, refuse_not_finite
from scoliojax.scores.robustness import PerturbedLogits, spread
from scoliojax.training.checkpoint import check_which
from scoliojax.training.evaluate import Predictions, evaluate

PERTURBED = 256  # most walks of a part that an evaluation also reads under each perturbation


@dataclass(frozen=True)
class Screening:
    """The user's choices for the screening question; raises `RunError` for a share out of range.

    `sensitivity` is that of the operating point, which is chosen on validation subjects; None for that of the operating point
    saved beside the checkpoint, or else 0.9. `prevalence` is the share of people for whom the answer is yes, for predictive
    values in another population; None for no such values. `coverage` is the share of the people of each class whose prediction
    set must have their class.
    """

    sensitivity: float | None = None
    prevalence: float | None = None
    coverage: float = COVERAGE

    def __post_init__(self):
        if self.sensitivity is not None and not 0.0 < self.sensitivity <= 1.0:
            raise RunError(f"--sensitivity={self.sensitivity:g} must be above 0 and at most 1, e.g. 0.9")
        check_prevalence(self.prevalence)
        check_coverage(self.coverage)


def open_network(run: Run, which: str) -> tuple[TrainedNetwork, Cohort]:
    """A checkpoint (`newest`, `best` by validation, or a step) of a run on every device, and the data of the run.

    Raises `RunError` where config, data or checkpoint do not belong to the run directory.
    """
    check_which(which)
    run_directory.check_config(run.directory, run.config.to_dict(), field=run.field)
    run_directory.check_places(run.directory, run.config.to_dict(), run.field)
    cohort = Cohort(run.config)
    run_directory.check_data(run.directory, cohort.data.digest(), cohort.parts, run.field)
    return run.network(which, replicated(run.mesh)), cohort


def predict(
    network: TrainedNetwork,
    cohort: Cohort,
    rows: np.ndarray,
    keep: bool = False,
    embeddings: bool = False,
    perturb: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Predictions:
    """The outputs of a network, which must be on every device of its run's mesh, for the sequences `rows`.

    `keep` and `perturb` as in `Cohort.eval_batches`; `embeddings`: return these, too. Raises `RunError` with the sequences
    whose logits are not finite.
    """
    run, state = network.run, network.state
    batches = cohort.eval_batches(rows, run.mesh, keep, perturb=perturb)
    predictions = evaluate(run.eval_step, state.params, state.batch_stats, batches, embeddings)
    refuse_not_finite(predictions.logits, [cohort.data.sequences[row] for row in predictions.rows])
    return predictions


def validation_scores(network: TrainedNetwork, cohort: Cohort) -> dict[str, float]:
    """Scores of a network on the validation subjects, by their names in the log."""
    predictions = predict(network, cohort, cohort.partition.validation, keep=True)
    labels = cohort.data.labels[predictions.rows]
    scores = published_scores(labels, np.argmax(predictions.logits, axis=1), len(CLASSES))
    return {f"validation/{name}": scores[name] for name in ("accuracy", "macro_recall", "macro_f1")}


def predict_perturbed(
    network: TrainedNetwork, cohort: Cohort, rows: np.ndarray, most: int = PERTURBED
) -> PerturbedLogits | None:
    """The logits of at most `most` of the sequences `rows`, which `spread` chooses, under each perturbation; None for 0."""
    if not most:
        return None
    places = spread(cohort.data.labels[rows], most)  # m
    logits = {
        name: predict(network, cohort, rows[places], keep=True, perturb=perturb).logits  # m k
        for name, perturb in perturbations_of(cohort.data.modality).items()
    }
    return PerturbedLogits(places, logits)


def calibrate(
    network: TrainedNetwork, cohort: Cohort, sensitivity: float | None = None, keep: bool = True
) -> Calibration | None:
    """Temperature and operating point of a network: those saved beside its checkpoint, or fitted on validation subjects.

    The result is None where nothing is saved and there are no validation subjects; where also a `sensitivity` (see `Screening`)
    is given, this is a `RunError`. `keep`: save the fitted values beside the checkpoint.
    """
    kept = network.calibration
    as_wanted = kept and sensitivity in (None, kept.wanted_sensitivity)
    if kept and as_wanted and (kept.margins is not None or not len(cohort.partition.validation)):
        return kept
    if not len(cohort.partition.validation):
        if sensitivity is not None:
            raise RunError(
                f"--sensitivity={sensitivity:g} needs validation subjects to choose a threshold on, and the run has "
                "data.validation_fraction=0. Leave it out, or train with a larger one"
            )
        return None
    predictions = predict(network, cohort, cohort.partition.validation)
    labels, subjects = cohort.data.labels[predictions.rows], [cohort.data.subjects[row] for row in predictions.rows]
    given = labels, predictions.logits, network.scale, subjects
    if kept and as_wanted:  # by an older version: its temperature and threshold stay
        fitted = calibration.with_margins(kept, *given)
    else:
        wanted = sensitivity or calibration.WANTED_SENSITIVITY
        fitted = calibration.fit(*given, wanted, network.digest, cohort.data.synthetic)
    if keep and cluster.is_first():
        path = calibration.calibration_file(network.directory, network.step)
        try:
            calibration.write(path, fitted)
        except OSError as error:  # the numbers are worth more than their file
            print(f"warning: the operating point is not kept; {path} {unwritable(error)}", file=sys.stderr)
    return fitted


def evaluate_part(
    network: TrainedNetwork,
    cohort: Cohort,
    part: str,
    duplicates: list[NearDuplicate],
    sensitivity: float | None = None,
    keep: bool = True,
    coverage: float | None = None,
    perturbed: int = PERTURBED,
    scores_alone: bool = False,
) -> Evaluation:
    """Predictions, calibration and reference for one part of a cohort ("train", "validation" or "test").

    `duplicates`: from `Cohort.near_duplicates`, for the record; `sensitivity` and `keep` as in `calibrate`; `coverage` of the
    prediction sets, None for no sets; `perturbed`: most sequences to read under each perturbation, too. `scores_alone`: without
    embeddings, reference and perturbations. Raises `RunError` when the part is empty or a logit is not finite.
    """
    data = cohort.data
    predictions = predict(network, cohort, cohort.rows(part), embeddings=not scores_alone)
    rows = predictions.rows
    return Evaluation(
        data=data.name,
        synthetic=data.synthetic,
        part=part,
        classes=CLASSES,
        rows=rows,
        sequences=[data.sequences[row] for row in rows],
        subjects=[data.subjects[row] for row in rows],
        labels=data.labels[rows],
        strip_logits=predictions.strip_logits,
        scale=network.scale,
        provenance=cohort.provenance(network.step, duplicates),
        calibration=calibrate(network, cohort, sensitivity, keep),
        embeddings=predictions.embeddings,
        traits={name: [values[row] for row in rows] for name, values in data.traits.items()},
        reference=None if scores_alone else refer(network, cohort, keep),
        frames=np.minimum(data.n_frames[rows], cohort.config.data.max_eval_frames),
        coverage=coverage,
        perturbed=predict_perturbed(network, cohort, rows, 0 if scores_alone else perturbed),
    )


def write_evaluation(
    network: TrainedNetwork, cohort: Cohort, part: str, screening: Screening, perturbed: int = PERTURBED
) -> None:
    """Evaluate one part, write the results to the run directory, and print their table; `perturbed` as in `evaluate_part`.

    Raises `RunError`, after the table, where the results cannot be written.
    """
    from scoliojax.scores.results import results_table  # imports matplotlib, a third of the start time

    duplicates = cohort.near_duplicates()
    evaluation = evaluate_part(
        network, cohort, part, duplicates, screening.sensitivity, coverage=screening.coverage, perturbed=perturbed
    )
    if not cluster.is_first():
        return
    metrics, problem = keep_results(network, evaluation, screening.prevalence)
    print(results_table(metrics))
    for line in near_duplicate_warning(duplicates):
        print(f"warning: {line}")
    if not run_directory.parts_known(network.directory):
        print(f"warning: {run_directory.UNKNOWN_PARTS}; the scores hold if data.partition is still what it was")
    if problem:
        sys.stdout.flush()
        raise RunError(f"the results above are not kept; {problem}")
    print(f"results: {evaluation_folder(network.directory, part, network.step)}")


def keep_results(network: TrainedNetwork, evaluation: Evaluation, prevalence: float | None) -> tuple[Metrics, str]:
    """Write the evaluation folder of a run; returns the metrics, and why the folder cannot be written, "" where it was."""
    from scoliojax.scores.results import write_results

    folder = evaluation_folder(network.directory, evaluation.part, network.step)
    try:
        return write_results(folder, evaluation, prevalence), ""
    except OSError as error:
        return score(evaluation, prevalence), f"{folder} {unwritable(error)}"


def near_duplicate_warning(duplicates: list[NearDuplicate]) -> list[str]:
    """A warning about near-duplicates for the user; empty where there are none."""
    if not duplicates:
        return []
    pairs = abbreviate([f"{duplicate.sequence} is nearly {duplicate.twin}" for duplicate in duplicates])
    return [f"held-out sequences that are nearly ones trained on: {pairs}; one person under two names makes a score too good"]
