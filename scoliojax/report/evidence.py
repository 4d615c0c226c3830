"""The content of a report: predictions, figures and cases of a run, and its comparison with other runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from data_pipelines.schema import SILHOUETTES, abbreviate
from scoliojax.errors import RunError
from scoliojax.report import gates as posture
from scoliojax.report import saliency
from scoliojax.report.gates import Gates
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.directory import flatten
from scoliojax.runs.environment import read_environment
from scoliojax.runs.evaluation import Screening, evaluate_part, keep_results, near_duplicate_warning
from scoliojax.runs.run import TrainedNetwork
from scoliojax.scores import figures, strips
from scoliojax.scores.bootstrap import Comparison, compare
from scoliojax.scores.evaluation import Evaluation, Metrics, score
from scoliojax.scores.metrics import Scorer
from scoliojax.scores.model_card import modality_of
from scoliojax.training.log import read_log

UNCERTAIN = 0.2  # least difference between the probabilities of the two most probable classes
CERTAIN_WRONG = 3  # number of wrong predictions shown


class Case(NamedTuple):
    """A sequence for a person to review."""

    row: int  # index among the evaluated sequences
    reason: str
    certainty: float  # probability of the predicted class


@dataclass(frozen=True)
class Evidence:
    """The results of one run on one part."""

    workdir: Path
    config: dict[str, Any]
    environment: dict[str, Any]  # content of `environment.json`
    metrics: Metrics
    evaluation: Evaluation
    scorer: Scorer
    contribution: strips.StripContribution
    figures: dict[str, Figure]  # by file name
    warnings: list[str]
    digest: str  # digest of the data
    gates: Gates | None = None  # None: the network has none


class Rival(NamedTuple):
    """Another run on the same sequences."""

    workdir: Path
    config: dict[str, Any]
    metrics: Metrics
    comparison: Comparison
    differing: list[tuple[str, Any, Any]]  # config keys with different values, and both values


def gather(network: TrainedNetwork, cohort: Cohort, part: str, screening: Screening) -> Evidence:
    """Evaluate a run and draw its figures; its evaluation folder is written anew, too."""
    duplicates = cohort.near_duplicates()
    evaluation = evaluate_part(network, cohort, part, duplicates, screening.sensitivity, coverage=screening.coverage)
    metrics, problem = keep_results(network, evaluation, screening.prevalence)
    if problem:
        print(f"warning: the evaluation is in the report alone; {problem}", file=sys.stderr)
    scorer, scored = evaluation.scorer(screening.prevalence), evaluation.scored
    labels, classes = evaluation.labels, evaluation.classes
    assert evaluation.embeddings is not None  # as requested
    contribution = strips.strip_contribution(evaluation.strip_logits, labels, evaluation.subjects)
    frames = strips.mean_silhouettes(cohort.read_once, evaluation.rows, labels, len(classes))  # k (2) 64 44
    levels, marks = tuple(network.config.model.strips), network.marks
    drawn: dict[str, Figure] = {}
    lines = read_log(network.directory / "metrics.jsonl")
    if any("loss" in line for line in lines):
        drawn["training"] = figures.training_curves(lines)
    drawn["confusion"] = figures.confusion(metrics)
    drawn["curves"] = figures.roc_and_precision_recall(scorer, evaluation.subjects, metrics)
    drawn["reliability"] = figures.reliability(scored._replace(probabilities=evaluation.uncalibrated), scored, metrics)
    drawn["strips"] = strips.draw_contribution(contribution, frames, levels, classes, marks=marks)
    found = None
    if cohort.data.asymmetry is not None:
        vectors = cohort.data.asymmetry[evaluation.rows]  # n 8 3
        found = posture.measure_gates(network.module(), vectors, labels, evaluation.subjects, len(classes))
        drawn["asymmetry"] = posture.draw_vector(found, classes)
        drawn["gates"] = posture.draw_gates(found, levels, classes, marks)
    drawn["embeddings"] = figures.embedding_map(evaluation.embeddings, labels, scored.predictions, metrics)
    if cases := _saliency(network, cohort, evaluation):
        drawn["saliency"] = saliency.draw_saliency(cases)
    for figure in drawn.values():
        figures.stamp(figure, metrics.synthetic, metrics.data)
    return Evidence(
        workdir=network.directory,
        config=network.config.to_dict(),
        environment=read_environment(network.directory),
        metrics=metrics,
        evaluation=evaluation,
        scorer=scorer,
        contribution=contribution,
        figures=drawn,
        warnings=[*near_duplicate_warning(duplicates), *metrics.notes],
        digest=cohort.data.digest(),
        gates=found,
    )


def _saliency(network: TrainedNetwork, cohort: Cohort, evaluation: Evaluation) -> list[tuple[str, saliency.Saliency]]:
    """Title and saliency of the most certain predictions."""
    scored, find, cases = evaluation.scored, saliency.make_saliency(network.graph, network.state), []
    for row in certain_cases(evaluation):
        called, true = (evaluation.classes[ids[row]] for ids in (scored.predictions, scored.labels))
        verdict = "right" if called == true else f"wrong: is {true}"
        title = f"{evaluation.sequences[row]}\ncalled {called}\nprobability {scored.probabilities[row].max():.2f}\n{verdict}"
        place, vectors = int(evaluation.rows[row]), cohort.data.asymmetry
        cases.append((title, find(cohort.cache(place), None if vectors is None else vectors[place])))
    return cases


def certain_cases(evaluation: Evaluation) -> list[int]:
    """Row indices of the most certain right prediction of each class, then of the most certain wrong predictions."""
    scored = evaluation.scored
    order = np.argsort(-scored.probabilities.max(axis=1), kind="stable")  # n
    predictions = scored.predictions[order]  # n
    right = predictions == scored.labels[order]  # n
    chosen = [order[right & (predictions == index)][:1] for index in range(len(evaluation.classes))]
    return np.concatenate([*chosen, order[~right][:CERTAIN_WRONG]]).tolist()


def cases_to_review(evaluation: Evaluation) -> list[Case]:
    """False negatives first, then false positives, other wrong classes, and narrow decisions; the most certain first."""
    scored = evaluation.scored
    yes = scored.labels > 0  # n
    called = scored.predictions > 0 if scored.referred is None else scored.referred  # n
    ordered = np.sort(scored.probabilities, axis=1)[:, ::-1]  # n k
    reasons = {"missed": yes & ~called, "false alarm": ~yes & called, "another class": scored.predictions != scored.labels}
    reasons["narrow"] = ordered[:, 0] - ordered[:, 1] < UNCERTAIN
    cases, seen = [], np.zeros(len(yes), bool)
    for reason, rows in reasons.items():
        chosen = [Case(int(row), reason, float(ordered[row, 0])) for row in np.flatnonzero(rows & ~seen)]
        cases += sorted(chosen, key=lambda case: -case.certainty)
        seen |= rows
    return cases


def compare_runs(ours: Evidence, network: TrainedNetwork, cohort: Cohort, part: str, screening: Screening) -> Rival:
    """Another run against ours, without writing into its folder; `RunError` where its sequences are others.

    Where it reads something else of them, such as skeletons in place of silhouettes, ids, subjects and labels are compared;
    else the data have to be equal.
    """
    config = network.config.to_dict()
    if _read_of(ours.config) == _read_of(config) and ours.digest != cohort.data.digest():
        raise RunError(f"--compare={network.directory} has other data than {ours.workdir}; compare runs of one data set")
    theirs, rows = cohort.data, cohort.rows(part)
    differing = set(ours.evaluation.sequences) ^ {theirs.sequences[row] for row in rows}
    if differing:
        raise RunError(
            f"--compare={network.directory} was evaluated on other sequences (the {part} parts differ in "
            f"{abbreviate(sorted(differing))}); compare runs of one partition"
        )
    places = {theirs.sequences[row]: (theirs.subjects[row], int(theirs.labels[row])) for row in rows}
    here = zip(ours.evaluation.subjects, ours.evaluation.labels.tolist(), strict=True)
    others = [name for name, one in zip(ours.evaluation.sequences, here, strict=True) if places[name] != one]
    if others:
        raise RunError(
            f"--compare={network.directory} has other subjects or classes than {ours.workdir} of {abbreviate(others, 3)}; "
            "compare runs of the same walks"
        )
    evaluation = evaluate_part(network, cohort, part, [], screening.sensitivity, keep=False, scores_alone=True)
    rank = {name: place for place, name in enumerate(evaluation.sequences)}
    order = np.array([rank[name] for name in ours.evaluation.sequences])  # n; a set of another kind may have another order
    scored = evaluation.scored.ordered(order)
    theirs_scored = Scorer(scored, evaluation.classes, screening.prevalence)
    comparison = compare(ours.scorer, theirs_scored, ours.evaluation.subjects)
    here, there = flatten(ours.config), flatten(config)
    changed = [(key, here.get(key), there.get(key)) for key in sorted(here | there) if here.get(key) != there.get(key)]
    return Rival(network.directory, config, score(evaluation, screening.prevalence), comparison, changed)


def _read_of(config: dict[str, Any]) -> tuple[Any, ...]:
    """What tells the frames of one run from those of another that has the same walks."""
    modality = modality_of(config)
    return (modality,) if modality == SILHOUETTES else (modality, config["data"]["maps"], config["model"]["name"])
