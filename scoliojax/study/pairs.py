"""Intervals of a study's scores, and paired tests of its networks, from what each predicted for the same walks."""

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.schema import CLASSES, abbreviate
from scoliojax.errors import RunError, one_line
from scoliojax.scores.bootstrap import McNemar, SeedScores, compare_seeds, mcnemar
from scoliojax.scores.evaluation import evaluation_folder
from scoliojax.scores.metrics import Scored, Scorer
from scoliojax.scores.people import differing_walks


class Predicted(NamedTuple):
    """What a run predicted for the test part, as `predictions.csv` has it."""

    sequences: list[str]
    subjects: list[str]
    scored: Scored


def read_predicted(workdir: Path, step: int) -> Predicted:
    """The predictions of a run's test part; raises `RunError` where the file is not there or not what an evaluation writes."""
    path = evaluation_folder(workdir, "test", step) / "predictions.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        labels, predictions = (np.array([CLASSES.index(row[key]) for row in rows]) for key in ("label", "prediction"))
        chances = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])  # n k
        referred = np.array([row["referred"] == "yes" for row in rows]) if "referred" in rows[0] else None
        names, subjects = ([row[key] for row in rows] for key in ("sequence", "subject"))
        return Predicted(names, subjects, Scored(labels, chances, predictions, referred))
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise RunError(f"{path} cannot be read ({what}); delete {path.parent}, and run the same command again") from None


class Pairs(NamedTuple):
    """What several networks, each of several seeds, make of the same walks."""

    scores: SeedScores
    tests: dict[tuple[str, str], list[McNemar]]  # by two networks: of the class called, for each seed


def pair_up(runs: Mapping[str, Sequence[Predicted]], names: Sequence[str]) -> Pairs:
    """Compare the runs of several networks, by network one of each seed, by the scores `names`.

    Raises `RunError` where their walks differ.
    """
    first = next(iter(runs.values()))[0]
    for network, each in runs.items():
        for run in each:
            _refuse_others(first, run, network)
    scorers = {network: [Scorer(run.scored, CLASSES) for run in each] for network, each in runs.items()}
    right = {network: [run.scored.predictions == run.scored.labels for run in each] for network, each in runs.items()}
    tests = {
        pair: [mcnemar(*both) for both in zip(*(right[network] for network in pair), strict=True)]
        for pair in itertools.combinations(runs, 2)
    }
    return Pairs(compare_seeds(scorers, first.subjects, names), tests)


def _refuse_others(first: Predicted, other: Predicted, network: str) -> None:
    """Raise `RunError` where two runs were evaluated on other walks, or these have another subject or class."""
    if differing := differing_walks(*((run.sequences, run.subjects, run.scored.labels) for run in (first, other))):
        raise RunError(
            f"{network} was evaluated on other walks than the first network of the study ({abbreviate(differing, 3)}: in one "
            "alone, or of another subject or class); a paired test needs the same"
        )
    if first.sequences != other.sequences:
        raise RunError(f"{network} was evaluated on the same walks in another order; a paired test needs the same order")
