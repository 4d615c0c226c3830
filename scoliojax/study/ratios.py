"""The paper's class-ratio study: train every class ratio x network x seed, then write tables and one picture.

A ratio is positive:neutral:negative of the training part, or an official partition file. Each cell has its own run directory;
finished cells are skipped and a stopped cell is continued.
"""

import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipelines.schema import SequenceSet
from data_pipelines.splits import RATIO
from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.files import whole_file, write_csv
from scoliojax.runs import directory as run_directory
from scoliojax.runs import settings
from scoliojax.runs.cohort import parts_of
from scoliojax.runs.training import run_training
from scoliojax.scores.bootstrap import Estimate, McNemar
from scoliojax.scores.evaluation import Metrics, find_metrics
from scoliojax.study import MODELS, networks
from scoliojax.study.pairs import Pairs, Predicted, pair_up, read_predicted

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


def cells(
    recipe: build.Config,
    ratios: list[str],
    models: list[str],
    seeds: int,
    workdir: Path,
    variant: str = "",
    changes: Sequence[str] = (),
) -> list[Cell]:
    """Every combination, of the variant of the networks' recipes and with what the user gave, `--config.KEY=VALUE`.

    Raises `RunError` for an unknown model, a name given twice, fewer than one seed, or a recipe that is none of silhouettes.
    """
    networks.check_base(recipe)
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
        config = networks.network_config(recipe, model, variant, changes, _as_ratio(ratio))
        config.data.partition, config.seed = ratio, seed
        config.data.allow_missing = recipe.data.allow_missing and not RATIO.fullmatch(ratio)  # it belongs to a file
        study.append(Cell(ratio, model, seed, workdir / names[ratio] / model / f"seed-{seed}", config))
    return study


def check(study: list[Cell]) -> None:
    """Raise the errors that a cell would raise later, before hours of training."""
    for cell in study:
        settings.check(cell.config)
    opened: dict[tuple, SequenceSet] = {}  # by what networks read
    for cell in study:
        if networks.reads(cell.config) not in opened:
            with cluster.first_alone("data"):  # the first process may prepare the data
                data = opened[networks.reads(cell.config)] = build.build_data(cell.config, report=cluster.print_once)
            networks.refuse_other_walks(next(iter(opened.values())), data)
        data = opened[networks.reads(cell.config)]
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
    intervals: dict[str, Estimate] = {}  # of the means over seeds, by score  # noqa: RUF012, nobody writes to it
    tests: Sequence[McNemar] = ()  # of a difference: of the class called, for each seed


def _spread(values: list[float | None]) -> Spread:
    """Mean and standard deviation; None where a value, or a second seed, is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def summarise(study: list[Cell], metrics: list[Metrics], pairs: Mapping[str, Pairs] | None = None) -> list[Row]:
    """Rows in the order of the study: each model, its published scores, and the differences of every pair of models.

    `pairs`: by ratio the intervals and tests, None for none.
    """
    rows = []
    models = list(dict.fromkeys(cell.model for cell in study))
    for ratio in dict.fromkeys(cell.ratio for cell in study):
        values, found = {}, pairs[ratio] if pairs else None  # by model and score, one for each seed
        for model in models:
            runs = [run for cell, run in zip(study, metrics, strict=True) if (cell.ratio, cell.model) == (ratio, model)]
            values[model] = {name: [run.scores[name].value for run in runs] for name in SCORES}
            spreads = {name: _spread(values[model][name]) for name in SCORES}
            rows.append(Row(ratio, model, len(runs), spreads, intervals=found.scores.means[model] if found else {}))
            if published := PUBLISHED.get((_as_ratio(ratio), model)):
                scores: Spreads = {name: (published.get(name), None) for name in SCORES}
                rows.append(Row(ratio, model, None, scores, f"published on Scoliosis1K, {SOURCE}"))
        for pair in itertools.combinations(models, 2):
            differences: Spreads = {}
            for name in SCORES:
                both = zip(*(values[model][name] for model in pair), strict=True)
                differences[name] = _spread([None if None in two else two[1] - two[0] for two in both])
            intervals, tests = (found.scores.differences[pair], found.tests[pair]) if found else ({}, ())
            title = f"{pair[1]} - {pair[0]}"
            rows.append(Row(ratio, title, len(runs), differences, "ours, seed by seed", intervals, tests))
    return rows


def _as_ratio(ratio: str) -> str:
    """The ratio in the name of an official file: 1:1:8 for `Scoliosis1K_118.json`."""
    digits = re.fullmatch(r"(?:.*_)?(\d)(\d)(\d+)\.json", Path(ratio).name)
    return ":".join(digits.groups()) if digits else ratio


def table(rows: list[Row], data: str, synthetic: bool) -> str:
    """The rows as Markdown; our rows on synthetic data are marked, and so is a published score of doubtful meaning."""
    lines = [
        f"Test part of {data}. Mean and standard deviation over seeds; in brackets the 95 % interval of that mean over "
        "subjects. Differences: of the same walks (paired bootstrap), and McNemar's exact test of the class called, seed by "
        "seed.",
        "",
    ]
    titles = ["ratio", "network", "seeds", *SCORES.values(), "McNemar's p", "source"]
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        mark = " (synthetic)" if synthetic and row.source.startswith("ours") else ""
        missing = "undefined" if row.source.startswith("ours") else "not given"
        cells = [_cell(*row.scores[name], row.intervals.get(name), missing) for name in SCORES]
        if row.seeds is None and row.scores[DOUBTFUL][0] is not None:
            cells[list(SCORES).index(DOUBTFUL)] += " (a)"
        tests = ", ".join("never unequal" if one.p_value is None else f"{one.p_value:.2g}" for one in row.tests)
        lines.append(
            f"| {row.ratio} | {row.model} | {row.seeds or missing} | {' | '.join([*cells, tests])} | {row.source}{mark} |"
        )
    if any(row.seeds is None and row.scores[DOUBTFUL][0] is not None for row in rows):
        lines += ["", FOOTNOTE]
    return "\n".join(lines) + "\n"


def _cell(mean: float | None, spread: float | None, interval: Estimate | None, missing: str) -> str:
    if mean is None:
        return missing
    text = f"{mean:.4f}" if spread is None else f"{mean:.4f} ± {spread:.4f}"
    if interval is None or interval.low is None or interval.high is None:
        return text
    return f"{text} ({interval.low:.3f} to {interval.high:.3f})"


def compare_cells(study: list[Cell], metrics: list[Metrics]) -> dict[str, Pairs]:
    """Intervals and paired tests by ratio, from what the cells predicted."""
    predicted: dict[str, dict[str, list[Predicted]]] = {}
    for cell, run in zip(study, metrics, strict=True):
        predicted.setdefault(cell.ratio, {}).setdefault(cell.model, []).append(read_predicted(cell.folder, run.step))
    return {ratio: pair_up(runs, tuple(SCORES)) for ratio, runs in predicted.items()}


def write_study(workdir: Path, study: list[Cell], metrics: list[Metrics]) -> str:
    """Write `study.md`, `study.csv` (a line for each cell), `pairs.csv`, `study.png` and `study.svg`; returns the table."""
    from scoliojax.scores.figures import class_ratios, save

    pairs = compare_cells(study, metrics)
    rows = summarise(study, metrics, pairs)
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
    _write_pairs(workdir / "pairs.csv", pairs, list(dict.fromkeys(cell.seed for cell in study)), synthetic)
    points = [(cell.ratio, cell.model, run.scores) for cell, run in zip(study, metrics, strict=True)]
    published = [] if synthetic else [row for row in rows if row.source.startswith("published")]
    stars = [(row.ratio, {name: mean for name, (mean, _) in row.scores.items()}) for row in published]
    titles = SCORES | ({DOUBTFUL: f"{SCORES[DOUBTFUL]} (star: see (a))"} if stars else {})
    save(class_ratios(points, titles, stars, synthetic, data), workdir, "study")
    return text


def _write_pairs(path: Path, pairs: Mapping[str, Pairs], seeds: Sequence[int], synthetic: bool) -> None:
    """A line for each ratio, pair of networks and score, and one for each seed's test."""
    header = ["ratio", "first", "second", "score", "seed", "synthetic", "difference", "low", "high"]
    lines = []
    for ratio, found in pairs.items():
        for pair, differences in found.scores.differences.items():
            lines += [[ratio, *pair, name, "", synthetic, *one[:3], "", "", ""] for name, one in differences.items()]
            tests = zip(seeds, found.tests[pair], strict=True)
            lines += [[ratio, *pair, "McNemar", seed, synthetic, "", "", "", *one] for seed, one in tests]
    write_csv(path, [*header, "first_only", "second_only", "p_value"], lines)
