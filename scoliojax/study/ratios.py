"""The paper's class-ratio study: every class ratio x network x seed, trained or gone on with, then one table and one picture.

A ratio is positive:neutral:negative of the training part, or an official partition file. Each cell is a run directory of its
own; finished cells are skipped and a stopped one goes on.
"""

from __future__ import annotations

import copy
import csv
import statistics
from pathlib import Path
from typing import NamedTuple

from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.training import run_training
from scoliojax.scores.evaluation import Metrics, find_metrics
from scoliojax.study import MODELS

SCORES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "screening/sensitivity": "screening sensitivity",
    "screening/specificity": "screening specificity",
    "screening/auroc": "screening AUROC",
}
PUBLISHED = {
    ("1:1:8", "sconet_mt"): ({"accuracy": 0.820, "screening/specificity": 0.765}, "arXiv 2407.05726, as defined there"),
}


class Cell(NamedTuple):
    """One run of the study."""

    ratio: str
    model: str
    seed: int
    folder: Path
    config: build.Config


def cells(recipe: build.Config, ratios: list[str], models: list[str], seeds: int, workdir: Path) -> list[Cell]:
    """Every combination.

    Raises:
      RunError: for an unknown model, a name given twice, or fewer than one seed.
    """
    if unknown := [model for model in models if model not in MODELS]:
        raise RunError(f"--models={','.join(models)}: {unknown[0]!r} is unknown; known are {', '.join(MODELS)}")
    if seeds < 1:
        raise RunError(f"--seeds={seeds} must be at least 1")
    names = {ratio: Path(ratio).stem.replace(":", "-") for ratio in ratios}
    for option, given in (("ratios", list(map(names.get, ratios))), ("models", models)):
        if len(set(given)) < len(given) or not all(given):
            raise RunError(f"--{option}={','.join(ratios if option == 'ratios' else models)} names one twice, or none")
    found = []
    for ratio in ratios:
        for model in models:
            for seed in range(recipe.seed, recipe.seed + seeds):
                config = copy.deepcopy(recipe)
                config.data.partition, config.seed = ratio, seed
                config.loss.triplet_weight = (recipe.loss.triplet_weight or 1.0) if model == "sconet_mt" else 0.0
                found.append(Cell(ratio, model, seed, workdir / names[ratio] / model / f"seed-{seed}", config))
    return found


def check(study: list[Cell]) -> None:
    """Raise, before hours of training, what some cell would stop with."""
    with cluster.first_alone("data"):  # the first may have to prepare them
        data = build.build_data(study[0].config, report=cluster.print_once)
    for cell in study:
        build.build_sampler(cell.config, data, build.build_partition(cell.config, data))
        build.build_model(cell.config)
        if (cell.folder / "config.json").exists():
            run_directory.check_config(cell.folder, cell.config.to_dict())
            run_directory.check_data(cell.folder, data.digest())


def finish(cell: Cell) -> Metrics:
    """Train a cell, or go on with it, or find it finished; returns its metrics on the test part."""
    name = f"{cell.ratio} {cell.model} seed {cell.seed}"
    metrics = find_metrics(cell.folder, cell.config.train.steps)
    if metrics is not None:
        cluster.print_once(f"== {name}: finished")
        return metrics
    cluster.print_once(f"== {name}")
    try:
        run_training(cell.config, cell.folder)
    except RunError as error:
        raise RunError(f"{name}: {error}") from None
    cluster.barrier("cell")
    metrics = find_metrics(cell.folder, cell.config.train.steps)
    if metrics is None:
        raise RunError(
            f"{name}: train.steps={cell.config.train.steps}, but {cell.folder} was trained further; give as many steps, "
            "or another --workdir"
        )
    return metrics


Spreads = dict[str, tuple[float | None, float | None]]  # by score, mean and standard deviation over seeds


class Row(NamedTuple):
    """A line of the table: one ratio and model."""

    ratio: str
    model: str
    seeds: int | None  # None: not given
    scores: Spreads
    source: str = "ours"


def _spread(values: list[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation; None where a value, or a second seed, is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def summarise(study: list[Cell], found: list[Metrics]) -> list[Row]:
    """Rows in the order of the study: each model, what was published for it, and the second model minus the first."""
    rows = []
    models = list(dict.fromkeys(cell.model for cell in study))
    for ratio in dict.fromkeys(cell.ratio for cell in study):
        values = {}  # by model and score, one for each seed
        for model in models:
            metrics = [one for cell, one in zip(study, found, strict=True) if (cell.ratio, cell.model) == (ratio, model)]
            values[model] = {name: [one.scores[name].value for one in metrics] for name in SCORES}
            rows.append(Row(ratio, model, len(metrics), {name: _spread(values[model][name]) for name in SCORES}))
            if published := PUBLISHED.get((_as_ratio(ratio), model)):
                figures, source = published
                scores: Spreads = {name: (figures.get(name), None) for name in SCORES}
                rows.append(Row(ratio, model, None, scores, f"published on Scoliosis1K, {source}"))
        if len(models) == 2:
            first, second = (values[model] for model in models)
            apart = {
                name: _spread(
                    [None if None in pair else pair[1] - pair[0] for pair in zip(first[name], second[name], strict=True)]
                )
                for name in SCORES
            }
            rows.append(Row(ratio, f"{models[1]} - {models[0]}", len(metrics), apart, "ours, seed by seed"))
    return rows


def _as_ratio(ratio: str) -> str:
    """The ratio that an official file is named after, such as `Scoliosis1K_118.json`."""
    digits = Path(ratio).stem.rpartition("_")[2]
    return (
        ":".join((digits[0], digits[1], digits[2:]))
        if ratio.endswith(".json") and digits.isdigit() and len(digits) > 2
        else ratio
    )


def table(rows: list[Row], data: str, synthetic: bool) -> str:
    """The rows as Markdown; every one of ours on synthetic data says so."""
    lines = [f"Test part of {data}. Mean and standard deviation over seeds.", ""]
    lines += ["| ratio | network | seeds | " + " | ".join(SCORES.values()) + " | source |", "|---" * (len(SCORES) + 4) + "|"]
    for row in rows:
        mark = " (synthetic)" if synthetic and row.source.startswith("ours") else ""
        missing = "undefined" if row.source.startswith("ours") else "not given"
        cells = [_cell(*row.scores[name], missing) for name in SCORES]
        lines.append(f"| {row.ratio} | {row.model} | {row.seeds or missing} | {' | '.join(cells)} | {row.source}{mark} |")
    return "\n".join(lines) + "\n"


def _cell(mean: float | None, spread: float | None, missing: str) -> str:
    if mean is None:
        return missing
    return f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"


def write_study(workdir: Path, study: list[Cell], found: list[Metrics]) -> str:
    """Write `study.md`, `study.csv` (a line for each cell), `study.png` and `study.svg`; returns the table."""
    from scoliojax.scores.figures import class_ratios, save

    rows = summarise(study, found)
    data, synthetic = found[0].data, found[0].synthetic
    text = table(rows, data, synthetic)
    (workdir / "study.md").write_text(text, encoding="utf-8")
    with (workdir / "study.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        bounds = [f"{name}{end}" for name in SCORES for end in ("", "/low", "/high")]
        writer.writerow(["ratio", "model", "seed", "step", "synthetic", *bounds])
        for cell, metrics in zip(study, found, strict=True):
            numbers = [number for name in SCORES for number in metrics.scores[name][:3]]
            writer.writerow([cell.ratio, cell.model, cell.seed, metrics.step, synthetic, *numbers])
    points = [(cell.ratio, cell.model, metrics.scores) for cell, metrics in zip(study, found, strict=True)]
    published = [] if synthetic else [row for row in rows if row.source.startswith("published")]
    stars = [(row.ratio, {name: mean for name, (mean, _) in row.scores.items()}) for row in published]
    save(class_ratios(points, SCORES, stars, synthetic, data), workdir, "study")
    return text
