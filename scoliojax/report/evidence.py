"""What a report is made of: a run's predictions, figures and cases, and its comparison with other runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError
from scoliojax.report import body
from scoliojax.runs import directory as run_directory
from scoliojax.runs.job import Job, near_duplicate_warning
from scoliojax.scores import figures
from scoliojax.scores.bootstrap import Comparison, compare
from scoliojax.scores.metrics import Scorer
from scoliojax.scores.results import EvaluatedSequences, score, write_results
from scoliojax.training.evaluate import Predictions
from scoliojax.training.log import read_log
from scoliojax.training.state import TrainState

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
      metrics: as `metrics.json` holds them.
      evaluated: the sequences.
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
    metrics: dict[str, Any]
    evaluated: EvaluatedSequences
    scorer: Scorer
    cases: list[Case]
    contribution: body.StripContribution
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
    metrics: dict[str, Any]
    comparison: Comparison
    differing: list[tuple[str, Any, Any]]  # config keys, and both values


def gather(job: Job, state: TrainState, part: str) -> Evidence:
    """Evaluate a run and draw it; its evaluation folder is brought up to date, too."""
    duplicates = job.leaks()
    evaluated, found = job.evaluated(state, part, embeddings=True)
    folder = job.workdir / "evaluation" / f"{part}-step-{int(state.step):06d}"
    metrics = write_results(folder, evaluated, job.about(state, duplicates), job.prevalence)
    scorer = Scorer(evaluated.scored, evaluated.classes, job.prevalence)
    contribution = body.strip_contribution(found.strip_logits, evaluated.labels, evaluated.subjects)
    return Evidence(
        workdir=job.workdir,
        config=job.config.to_dict(),
        environment=run_directory.read_environment(job.workdir),
        metrics=metrics,
        evaluated=evaluated,
        scorer=scorer,
        cases=cases_to_review(evaluated),
        contribution=contribution,
        drawings=_draw(job, state, evaluated, found, scorer, contribution, metrics),
        warnings=[*near_duplicate_warning(duplicates), *metrics["notes"]],
        digest=job.data.digest(),
    )


def _draw(
    job: Job,
    state: TrainState,
    evaluated: EvaluatedSequences,
    found: Predictions,
    scorer: Scorer,
    contribution: body.StripContribution,
    metrics: dict[str, Any],
) -> dict[str, Drawing]:
    scored, strips = evaluated.scored, tuple(job.config.model.strips)
    assert found.embeddings is not None  # `gather` asks for them
    silhouettes = body.mean_silhouettes(job.read_once, found.rows, evaluated.labels, len(evaluated.classes))
    drawings = {
        "confusion": Drawing(
            figures.confusion(metrics), "Confusion matrix", "Sequences of each true class by the class called, and their share."
        ),
        "curves": Drawing(
            figures.roc_and_precision_recall(scorer, evaluated.subjects, metrics),
            "All thresholds",
            "Sensitivity against false calls, and against predictive value, with 95 % bands over subjects. Average precision "
            "and predictive values depend on how common each class is among these sequences.",
        ),
        "reliability": Drawing(
            figures.reliability(scored._replace(probabilities=evaluated.uncalibrated), scored, metrics),
            "Reliability",
            "On the dotted line a class called with probability 0.8 is right in 8 of 10 sequences.",
        ),
        "strips": Drawing(
            body.draw_contribution(contribution, silhouettes, strips, metrics),
            "Which part of the body drives each class",
            "How much higher each strip's logit of a class is for sequences of that class than for the others, over the mean "
            "silhouette. The mean over strips is what the whole network separates the class by. Every strip sees some rows "
            "above and below it.",
        ),
        "embeddings": Drawing(
            figures.embedding_map(found.embeddings, evaluated.labels, scored.predictions, metrics),
            "Embedding map",
            "Each sequence by the first two principal components of its embeddings; crosses were called another class.",
        ),
    }
    lines = read_log(job.workdir / "metrics.jsonl")
    if any("loss" in line for line in lines):
        shows = "The losses of training, and the scores of the validation subjects where there are some."
        drawings = {
            "training": Drawing(figures.training_curves(lines, metrics["synthetic"], metrics["data"]), "Training", shows)
        } | drawings
    saliency = body.make_saliency(job.graph, state)
    shown = []
    for row in certain_cases(evaluated):
        called, true = (evaluated.classes[ids[row]] for ids in (scored.predictions, scored.labels))
        verdict = "right" if called == true else f"wrong: is {true}"
        title = f"{evaluated.sequences[row]}\ncalled {called}\nprobability {scored.probabilities[row].max():.2f}\n{verdict}"
        shown.append((title, saliency(job.cache(int(found.rows[row])))))
    if shown:
        drawings["saliency"] = Drawing(
            body.draw_saliency(shown, metrics),
            "Frames behind the most certain answers",
            "The most certain right answer for each class, then the most certain wrong ones. Bars: share of each frame in the "
            f"gradient of the answer's margin (of walks beyond {body.SALIENCY_FRAMES} frames, as many evenly spaced ones); "
            "pictures: the frames with the largest shares, with the pixels that matter.",
        )
    return drawings


def certain_cases(evaluated: EvaluatedSequences) -> list[int]:
    """Rows: the most certain right answer for each class called, then the most certain wrong ones."""
    scored = evaluated.scored
    certainty = scored.probabilities.max(axis=1)  # n
    order = np.argsort(-certainty, kind="stable")  # n
    right = scored.predictions == scored.labels  # n
    chosen = []
    for index in range(len(evaluated.classes)):
        chosen += [int(row) for row in order if right[row] and scored.predictions[row] == index][:1]
    return chosen + [int(row) for row in order if not right[row]][:CERTAIN_WRONG]


def cases_to_review(evaluated: EvaluatedSequences) -> list[Case]:
    """Missed people first, then false alarms, other wrong classes, and narrow decisions; the most certain of each first."""
    scored = evaluated.scored
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


def compare_runs(ours: Evidence, job: Job, state: TrainState, part: str) -> Rival:
    """Another run against ours; nothing is written into its folder.

    Raises:
      RunError: when it would be on other sequences.
    """
    if ours.digest != job.data.digest():
        raise RunError(f"--compare={job.workdir} has other data than {ours.workdir}; compare runs of one data set")
    evaluated, _ = job.evaluated(state, part, keep=False)
    here, there = set(ours.evaluated.sequences), set(evaluated.sequences)
    if here != there:
        raise RunError(
            f"--compare={job.workdir} was evaluated on other sequences (the {part} parts differ in "
            f"{abbreviate(sorted(here ^ there))}); compare runs of one partition"
        )
    metrics = score(evaluated, job.about(state, []), job.prevalence)
    scorer = Scorer(evaluated.scored, evaluated.classes, job.prevalence)
    comparison = compare(ours.scorer, scorer, evaluated.subjects)
    one, other = run_directory.flatten(ours.config), run_directory.flatten(job.config.to_dict())
    differing = [(key, one.get(key), other.get(key)) for key in sorted(one | other) if one.get(key) != other.get(key)]
    return Rival(job.workdir, job.config.to_dict(), metrics, comparison, differing)
