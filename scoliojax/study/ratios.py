"""The paper's class-ratio study: train every class ratio x network x seed, then write one table and one picture.

A ratio is positive:neutral:negative of the training part, or an official partition file. Each cell has its own run directory;
finished cells are skipped and a stopped cell is continued.
"""

import copy
import itertools
import re
import statistics
from pathlib import Path
from typing import NamedTuple

from data_pipelines.splits import RATIO
from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.files import whole_file, write_csv
from scoliojax.runs import directory as run_directory
from scoliojax.runs import settings
from scoliojax.runs.cohort import parts_of
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
PUBLISHED = {("1:1:8", "sconet_mt"): {"accuracy": 0.820, "screening/specificity": 0.765}}
SOURCE = "arXiv 2407.05726, as defined there"
# The evaluator behind the published figures printed recall and specificity of class 0, which is negative, as those of positive.
DOUBTFUL = "screening/specificity"
FOOTNOTE = (
    "(a) Not certain to be the specificity of screening: the evaluation code of that time printed recall and specificity of "
    "the class negative under the heading positive. The 76.5 % may be the share of neutral or positive children who were not "
    "called negative, which is the sensitivity of screening."
)


class Cell(NamedTuple):
    """One run of the study."""

    ratio: str
    model: str
    seed: int
    folder: Path
    config: build.Config


def cells(recipe: build.Config, ratios: list[str], models: list[str], seeds: int, workdir: Path) -> list[Cell]:
    """Every combination; raises `RunError` for an unknown model, a name given twice, or fewer than one seed."""
    if unknown := [model for model in models if model not in MODELS]:
        raise RunError(f"--models={','.join(models)}: {unknown[0]!r} is unknown; known are {', '.join(MODELS)}")
    if seeds < 1:
        raise RunError(f"--seeds={seeds} must be at least 1")
    names = {ratio: Path(ratio).stem.replace(":", "-") for ratio in ratios}
    for option, given in (("ratios", list(map(names.get, ratios))), ("models", models)):
        if len(set(given)) < len(given) or not all(given):
            raise RunError(f"--{option}={','.join(ratios if option == 'ratios' else models)} names one twice, or none")
    study = []
    for ratio, model, seed in itertools.product(ratios, models, range(recipe.seed, recipe.seed + seeds)):
        config = copy.deepcopy(recipe)
        config.data.partition, config.seed = ratio, seed
        config.data.allow_missing = recipe.data.allow_missing and not RATIO.fullmatch(ratio)  # it belongs to a file
        config.loss.triplet_weight = (recipe.loss.triplet_weight or 1.0) if model == "sconet_mt" else 0.0
        study.append(Cell(ratio, model, seed, workdir / names[ratio] / model / f"seed-{seed}", config))
    return study


def check(study: list[Cell]) -> None:
    """Raise the errors that a cell would raise later, before hours of training."""
    for cell in study:
        settings.check(cell.config)
    with cluster.first_alone("data"):  # the first process may prepare the data
        data = build.build_data(study[0].config, report=cluster.print_once)
    for cell in study:
        partition = build.build_partition(cell.config, data)
        build.build_sampler(cell.config, data, partition)
        build.build_model(cell.config)
        if (cell.folder / "config.json").exists():
            run_directory.check_config(cell.folder, cell.config.to_dict())  # also of the rate: cells are compared
            run_directory.check_data(cell.folder, data.digest(), parts_of(data, partition))


def finish(cell: Cell) -> Metrics:
    """Train or continue a cell unless it is finished; returns its metrics on the test part."""
    name = f"{cell.ratio} {cell.model} seed {cell.seed}"
    if metrics := find_metrics(cell.folder, cell.config.train.steps):
        if Path(metrics.partition).name != Path(cell.ratio).name:
            raise RunError(
                f"{name}: the metrics.json of step {metrics.step} in {cell.folder} is of data.partition={metrics.partition!r}; "
                "delete that evaluation, and run the same command again"
            )
        cluster.print_once(f"== {name}: finished")
        return metrics
    cluster.print_once(f"== {name}")
    try:
        run_training(cell.config, cell.folder)
    except RunError as error:
        raise RunError(f"{name}: {error}") from None
    cluster.barrier("cell")
    if metrics := find_metrics(cell.folder, cell.config.train.steps):
        return metrics
    raise RunError(
        f"{name}: train.steps={cell.config.train.steps}, but {cell.folder} was trained further; give as many steps, "
        "or another --workdir"
    )


Spread = tuple[float | None, float | None]  # mean and standard deviation over seeds
Spreads = dict[str, Spread]  # by score


class Row(NamedTuple):
    """A line of the table."""

    ratio: str
    model: str
    seeds: int | None  # None for published values
    scores: Spreads
    source: str = "ours"


def _spread(values: list[float | None]) -> Spread:
    """Mean and standard deviation; None where a value, or a second seed, is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def summarise(study: list[Cell], metrics: list[Metrics]) -> list[Row]:
    """Rows in the order of the study: each model, its published scores, and the second model minus the first."""
    rows = []
    models = list(dict.fromkeys(cell.model for cell in study))
    for ratio in dict.fromkeys(cell.ratio for cell in study):
        values = {}  # by model and score, one for each seed
        for model in models:
            runs = [run for cell, run in zip(study, metrics, strict=True) if (cell.ratio, cell.model) == (ratio, model)]
            values[model] = {name: [run.scores[name].value for run in runs] for name in SCORES}
            rows.append(Row(ratio, model, len(runs), {name: _spread(values[model][name]) for name in SCORES}))
            if published := PUBLISHED.get((_as_ratio(ratio), model)):
                scores: Spreads = {name: (published.get(name), None) for name in SCORES}
                rows.append(Row(ratio, model, None, scores, f"published on Scoliosis1K, {SOURCE}"))
        if len(models) == 2:
            differences: Spreads = {}
            for name in SCORES:
                pairs = zip(*(values[model][name] for model in models), strict=True)
                differences[name] = _spread([None if None in pair else pair[1] - pair[0] for pair in pairs])
            rows.append(Row(ratio, f"{models[1]} - {models[0]}", len(runs), differences, "ours, seed by seed"))
    return rows


def _as_ratio(ratio: str) -> str:
    """The ratio in the name of an official file: 1:1:8 for `Scoliosis1K_118.json`."""
    digits = re.fullmatch(r"(?:.*_)?(\d)(\d)(\d+)\.json", Path(ratio).name)
    return ":".join(digits.groups()) if digits else ratio


def table(rows: list[Row], data: str, synthetic: bool) -> str:
    """The rows as Markdown; our rows on synthetic data are marked, and so is a published score of doubtful meaning."""
    lines = [f"Test part of {data}. Mean and standard deviation over seeds.", ""]
    lines += ["| ratio | network | seeds | " + " | ".join(SCORES.values()) + " | source |", "|---" * (len(SCORES) + 4) + "|"]
    for row in rows:
        mark = " (synthetic)" if synthetic and row.source.startswith("ours") else ""
        missing = "undefined" if row.source.startswith("ours") else "not given"
        cells = [_cell(*row.scores[name], missing) for name in SCORES]
        if row.seeds is None and row.scores[DOUBTFUL][0] is not None:
            cells[list(SCORES).index(DOUBTFUL)] += " (a)"
        lines.append(f"| {row.ratio} | {row.model} | {row.seeds or missing} | {' | '.join(cells)} | {row.source}{mark} |")
    if any(row.seeds is None and row.scores[DOUBTFUL][0] is not None for row in rows):
        lines += ["", FOOTNOTE]
    return "\n".join(lines) + "\n"


def _cell(mean: float | None, spread: float | None, missing: str) -> str:
    if mean is None:
        return missing
    return f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"


def write_study(workdir: Path, study: list[Cell], metrics: list[Metrics]) -> str:
    """Write `study.md`, `study.csv` (a line for each cell), `study.png` and `study.svg`; returns the table."""
    from scoliojax.scores.figures import class_ratios, save

    rows = summarise(study, metrics)
    data, synthetic = metrics[0].data, metrics[0].synthetic
    text = table(rows, data, synthetic)
    with whole_file(workdir / "study.md") as fresh:
        fresh.write_text(text, encoding="utf-8")
    bounds = [f"{name}{end}" for name in SCORES for end in ("", "/low", "/high")]
    lines = []
    for cell, run in zip(study, metrics, strict=True):
        numbers = [number for name in SCORES for number in run.scores[name][:3]]
        lines.append([cell.ratio, cell.model, cell.seed, run.step, synthetic, *numbers])
    write_csv(workdir / "study.csv", ["ratio", "model", "seed", "step", "synthetic", *bounds], lines)
    points = [(cell.ratio, cell.model, run.scores) for cell, run in zip(study, metrics, strict=True)]
    published = [] if synthetic else [row for row in rows if row.source.startswith("published")]
    stars = [(row.ratio, {name: mean for name, (mean, _) in row.scores.items()}) for row in published]
    titles = SCORES | ({DOUBTFUL: f"{SCORES[DOUBTFUL]} (star: see (a))"} if stars else {})
    save(class_ratios(points, titles, stars, synthetic, data), workdir, "study")
    return text
