"""What a report is made of: a run's predictions, figures and cases, and its comparison with other runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError
from scoliojax.report import saliency
from scoliojax.runs import directory as run_directory
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.environment import read_environment
from scoliojax.runs.evaluation import Screening, evaluate_part, near_duplicate_warning
from scoliojax.runs.run import TrainedNetwork
from scoliojax.scores import figures, strips
from scoliojax.scores.bootstrap import Comparison, compare
from scoliojax.scores.evaluation import Evaluation, Metrics, evaluation_folder, score
from scoliojax.scores.metrics import Scorer
from scoliojax.scores.results import write_results
from scoliojax.training.log import read_log

UNCERTAIN = 0.2  # between the two most probable classes
CERTAIN_WRONG = 3


class Case(NamedTuple):
    """A sequence that somebody should look at."""

    row: int  # of the evaluated sequences
    reason: str
    certainty: float  # probability of the class called


@dataclass(frozen=True)
class Evidence:
    """Of one run.

    Attributes:
      workdir: the run directory.
      config: of the run.
      environment: in which it was trained.
      metrics: of the part.
      evaluation: of the part.
      scorer: of them.
      cases: those to review, the gravest first.
      contribution: of the strips.
      drawings: figures by name, each with its title and what it shows.
      warnings: for the reader.
      digest: of the data.
    """

    workdir: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: Metrics
    evaluation: Evaluation
    scorer: Scorer
    cases: list[Case]
    contribution: strips.StripContribution
    drawings: dict[str, Drawing]
    warnings: list[str]
    digest: str


class Drawing(NamedTuple):
    figure: Figure
    title: str
    shows: str


class Rival(NamedTuple):
    """Another run on the same sequences."""

    workdir: Path
    config: dict[str, Any]
    metrics: Metrics
    comparison: Comparison
    differing: list[tuple[str, Any, Any]]  # config keys, and both values


def gather(network: TrainedNetwork, cohort: Cohort, part: str, screening: Screening) -> Evidence:
    """Evaluate a run and draw it; its evaluation folder is brought up to date, too."""
    duplicates = cohort.near_duplicates()
    evaluation = evaluate_part(network, cohort, part, duplicates, screening.sensitivity, embeddings=True)
    metrics = write_results(evaluation_folder(network.directory, part, network.step), evaluation, screening.prevalence)
    scorer = evaluation.scorer(screening.prevalence)
    contribution = strips.strip_contribution(evaluation.strip_logits, evaluation.labels, evaluation.subjects)
    drawings = _draw(network, cohort, evaluation, scorer, contribution, metrics)
    for drawing in drawings.values():
        figures.stamp(drawing.figure, metrics.synthetic, metrics.data)
    return Evidence(
        workdir=network.directory,
        config=network.config.to_dict(),
        environment=read_environment(network.directory),
        metrics=metrics,
        evaluation=evaluation,
        scorer=scorer,
        cases=cases_to_review(evaluation),
        contribution=contribution,
        drawings=drawings,
        warnings=[*near_duplicate_warning(duplicates), *metrics.notes],
        digest=cohort.data.digest(),
    )


def _draw(
    network: TrainedNetwork,
    cohort: Cohort,
    evaluation: Evaluation,
    scorer: Scorer,
    contribution: strips.StripContribution,
    metrics: Metrics,
) -> dict[str, Drawing]:
    scored, classes = evaluation.scored, evaluation.classes
    assert evaluation.embeddings is not None  # `gather` asks for them
    silhouettes = strips.mean_silhouettes(cohort.read_once, evaluation.rows, evaluation.labels, len(classes))
    drawings = {
        "confusion": Drawing(
            figures.confusion(metrics), "Confusion matrix", "Sequences of each true class by the class called, and their share."
        ),
        "curves": Drawing(
            figures.roc_and_precision_recall(scorer, evaluation.subjects, metrics),
            "All thresholds",
            "Sensitivity against false calls, and against predictive value, with 95 % bands over subjects. Average precision "
            "and predictive values depend on how common each class is among these sequences.",
        ),
        "reliability": Drawing(
            figures.reliability(scored._replace(probabilities=evaluation.uncalibrated), scored, metrics),
            "Reliability",
            "On the dotted line a class called with probability 0.8 is right in 8 of 10 sequences.",
        ),
        "strips": Drawing(
            strips.draw_contribution(contribution, silhouettes, tuple(network.config.model.strips), classes),
            "Which part of the body drives each class",
            "How much higher each strip's logit of a class is for sequences of that class than for the others, over the mean "
            "silhouette. The mean over strips is what the whole network separates the class by. Every strip sees some rows "
            "above and below it.",
        ),
        "embeddings": Drawing(
            figures.embedding_map(evaluation.embeddings, evaluation.labels, scored.predictions, metrics),
            "Embedding map",
            "Each sequence by the first two principal components of its embeddings; crosses were called another class.",
        ),
    }
    lines = read_log(network.directory / "metrics.jsonl")
    if any("loss" in line for line in lines):
        shows = "The losses of training, and the scores of the validation subjects where there are some."
        drawings = {"training": Drawing(figures.training_curves(lines), "Training", shows)} | drawings
    find = saliency.make_saliency(network.graph, network.state)
    shown = []
    for row in certain_cases(evaluation):
        called, true = (classes[ids[row]] for ids in (scored.predictions, scored.labels))
        verdict = "right" if called == true else f"wrong: is {true}"
        title = f"{evaluation.sequences[row]}\ncalled {called}\nprobability {scored.probabilities[row].max():.2f}\n{verdict}"
        shown.append((title, find(cohort.cache(int(evaluation.rows[row])))))
    if shown:
        drawings["saliency"] = Drawing(
            saliency.draw_saliency(shown),
            "Frames behind the most certain answers",
            "The most certain right answer for each class, then the most certain wrong ones. Bars: share of each frame in the "
            f"gradient of the answer's margin (of walks beyond {saliency.SALIENCY_FRAMES} frames, as many evenly spaced ones); "
            "pictures: the frames with the largest shares, with the pixels that matter.",
        )
    return drawings


def certain_cases(evaluation: Evaluation) -> list[int]:
    """Rows: the most certain right answer for each class called, then the most certain wrong ones."""
    scored = evaluation.scored
    certainty = scored.probabilities.max(axis=1)  # n
    order = np.argsort(-certainty, kind="stable")  # n
    right = scored.predictions == scored.labels  # n
    chosen = []
    for index in range(len(evaluation.classes)):
        chosen += [int(row) for row in order if right[row] and scored.predictions[row] == index][:1]
    return chosen + [int(row) for row in order if not right[row]][:CERTAIN_WRONG]


def cases_to_review(evaluation: Evaluation) -> list[Case]:
    """Missed people first, then false alarms, other wrong classes, and narrow decisions; the most certain of each first."""
    scored = evaluation.scored
    yes = scored.labels > 0  # n
    called = scored.predictions > 0 if scored.referred is None else scored.referred  # n
    ordered = np.sort(scored.probabilities, axis=1)[:, ::-1]  # n k
    reasons: list[tuple[str, np.ndarray]] = [
        ("missed", yes & ~called),
        ("false alarm", ~yes & called),
        ("another class", scored.predictions != scored.labels),
        ("narrow", ordered[:, 0] - ordered[:, 1] < UNCERTAIN),
    ]
    found, seen = [], np.zeros(len(yes), bool)
    for reason, rows in reasons:
        chosen = [Case(int(row), reason, float(ordered[row, 0])) for row in np.flatnonzero(rows & ~seen)]
        found += sorted(chosen, key=lambda case: -case.certainty)
        seen |= rows
    return found


def compare_runs(ours: Evidence, network: TrainedNetwork, cohort: Cohort, part: str, screening: Screening) -> Rival:
    """Another run against ours; nothing is written into its folder.

    Raises:
      RunError: when it would be on other sequences.
    """
    there = network.directory
    if ours.digest != cohort.data.digest():
        raise RunError(f"--compare={there} has other data than {ours.workdir}; compare runs of one data set")
    differing = set(ours.evaluation.sequences) ^ {cohort.data.sequences[row] for row in cohort.rows(part)}
    if differing:
        raise RunError(
            f"--compare={there} was evaluated on other sequences (the {part} parts differ in {abbreviate(sorted(differing))}); "
            "compare runs of one partition"
        )
    evaluation = evaluate_part(network, cohort, part, [], screening.sensitivity, keep=False)
    comparison = compare(ours.scorer, evaluation.scorer(screening.prevalence), evaluation.subjects)
    config = network.config.to_dict()
    one, other = run_directory.flatten(ours.config), run_directory.flatten(config)
    changed = [(key, one.get(key), other.get(key)) for key in sorted(one | other) if one.get(key) != other.get(key)]
    return Rival(there, config, score(evaluation, screening.prevalence), comparison, changed)
