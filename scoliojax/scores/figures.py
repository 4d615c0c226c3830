"""Figures of scores, from `metrics.json` and the scored sequences. Each names its data."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoliojax.scores.bootstrap import BAND_DRAWS, LEVEL, MOST_UNDEFINED, Estimate, subject_draws
from scoliojax.scores.evaluation import Metrics
from scoliojax.scores.metrics import CALIBRATION_BINS, Ranking, Scored, Scorer, calibration_bins

COLOURS = {"negative": "#0072b2", "neutral": "#e69f00", "positive": "#cc3311", "screening": "#333333"}  # colour-blind safe
MODEL_COLOURS = ("#999999", "#cc3311", "#0072b2", "#009e73")  # of the networks of a study


def stamp(figure: Figure, synthetic: bool, data: str) -> Figure:
    """Write the name of the data under a figure, or in red that they are synthetic."""
    text, colour = ("SYNTHETIC data, not people", "#cc3311") if synthetic else (data, "#555555")
    figure.supxlabel(text, fontsize=9, color=colour, fontweight="bold" if synthetic else "normal", parse_math=False)
    return figure


def svg(figure: Figure, name: str) -> bytes:
    """The content of an SVG file; the same figure and name give the same bytes."""
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def save(figure: Figure, folder: Path, name: str) -> bytes:
    """Write `name.png` and `name.svg`, and return the SVG; the same figure gives the same bytes."""
    figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    figure.set_layout_engine("none")  # keep the layout
    content = svg(figure, name)
    (folder / f"{name}.svg").write_bytes(content)
    return content


def new_figure(width: float, height: float, *layout: int, **options: Any) -> tuple[Figure, Any]:
    """A figure of a size in inches, and its axes; `layout` and `options` as in `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*layout, **options)


def confusion(metrics: Metrics) -> Figure:
    """The confusion matrix, with the share of the true class in each cell."""
    counts, classes = np.array(metrics.confusion), list(metrics.classes)  # k k
    figure, axes = new_figure(4.6, 4.6)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # k k
    axes.imshow(rates, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        share = f"{rates[row, column]:.0%}" if counts[row].sum() else "of none"
        colour = "white" if rates[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}\n{share}", ha="center", va="center", color=colour)
    ticks = range(len(classes))
    axes.set(xticks=ticks, yticks=ticks, xlabel="predicted", ylabel="true", xticklabels=classes, yticklabels=classes)
    axes.set_title(f"{metrics.part}: accuracy {metrics.scores['accuracy'].value:.3f}, n = {metrics.n}", fontsize=10)
    return stamp(figure, metrics.synthetic, metrics.data)


def training_curves(lines: Sequence[dict[str, float]]) -> Figure:
    """Losses, and scores on validation subjects, by step, from the lines of `metrics.jsonl`."""

    def draw(axes: Axes, lines: list[dict[str, float]], names: Sequence[str], prefix: str = "", **style: Any) -> None:
        for name in names:
            values = [line[prefix + name] for line in lines]
            axes.plot([line["step"] for line in lines], values, label=name.replace("_", " "), **style)
        axes.legend(frameon=False, fontsize=8)

    validated = [line for line in lines if "validation/accuracy" in line]
    logged = [line for line in lines if "loss" in line]
    figure, (panels,) = new_figure(9.0 if validated else 6.0, 3.6, 1, 2 if validated else 1, squeeze=False)
    draw(panels[0], logged, [name for name in ("loss", "cross_entropy", "triplet") if logged and name in logged[0]])
    panels[0].set(xlabel="step", ylabel="loss", ylim=(0.0, None), title="training")
    if validated:
        draw(panels[1], validated, ("accuracy", "macro_recall", "macro_f1"), "validation/", marker="o", markersize=3)
        panels[1].set(xlabel="step", ylim=(0.0, 1.02), title="validation subjects")
    return figure


def _band(axes: Axes, x: np.ndarray, curves: np.ndarray, defined: np.ndarray, colour: str) -> None:
    """The pointwise interval of the `defined` curves of `[d, x]`; none where too few are defined."""
    if defined.mean() >= 1.0 - MOST_UNDEFINED:
        tail = 0.5 - 0.5 * LEVEL
        low, high = np.quantile(curves[defined], [tail, 1.0 - tail], axis=0)  # x
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _curves(true: np.ndarray, false: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """False positive rate, sensitivity and precision of each draw, from the counts `[d, t]` of positives, where there are any.

    The curves begin at the threshold above all scores.
    """
    curves = []
    for hits, misses in zip(true, false, strict=True):
        some = hits + misses > 0  # t
        with np.errstate(invalid="ignore"):
            rates = [np.append(0.0, calls[some] / calls[-1]) for calls in (misses, hits)]
        curves.append((*rates, np.append(1.0, hits[some] / (hits + misses)[some])))
    return curves


def roc_and_precision_recall(scorer: Scorer, subjects: Sequence[str], metrics: Metrics) -> Figure:
    """Both curves of screening, and of positive and neutral against the rest, with pointwise 95 % bands over subjects."""
    figure, (roc, recall_axes) = new_figure(9.4, 4.6, 1, 2)
    grid = np.linspace(0.0, 1.0, 101)
    draws = np.concatenate(list(subject_draws(subjects, BAND_DRAWS, 0)))  # d n
    for name in ("screening", "positive", "neutral"):
        yes, colour = scorer.truths[name], COLOURS[name]  # n
        if yes.all() or not yes.any():
            for axes in (roc, recall_axes):
                axes.plot([], [], color=colour, label=f"{name}: undefined, one side is absent")
            continue
        ranking = Ranking(yes, scorer.chances[name])
        area, average = (f"{name} ({metrics.scores[f'{name}/{key}'].value:.3f})" for key in ("auroc", "average_precision"))
        ((misses, hits, precision),) = _curves(*ranking.counts(np.ones((1, len(subjects)))))
        roc.plot(misses, hits, color=colour, label=area)
        recall_axes.step(hits[1:], precision[1:], where="pre", color=colour, label=average)
        drawn = _curves(*ranking.counts(draws))
        defined = np.array([np.isfinite(x).all() and np.isfinite(y).all() for x, y, _ in drawn])  # d
        reached = np.array([np.interp(grid, x, y) for x, y, _ in drawn])  # d x
        held = np.array([z[np.searchsorted(y, grid).clip(1, len(y) - 1)] for _, y, z in drawn])  # d x; as the steps go
        _band(roc, grid, reached, defined, colour)
        _band(recall_axes, grid, held, defined, colour)
    roc.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    point = [metrics.scores.get(f"operating_point/{name}") for name in ("specificity", "sensitivity")]
    specificity, sensitivity = (estimate.value if estimate else None for estimate in point)
    if specificity is not None and sensitivity is not None:
        roc.plot(1.0 - specificity, sensitivity, "o", color=COLOURS["screening"], label="operating point")
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC (area)")
    recall_axes.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="precision-recall (average precision)")
    for axes, corner in ((roc, "lower right"), (recall_axes, "lower left")):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(frameon=False, fontsize=8, loc=corner)
    return figure


def reliability(before: Scored, after: Scored, metrics: Metrics) -> Figure:
    """Share of right predictions by their probability: as trained, and with the temperature if there is one."""
    figure, (axes, below) = new_figure(5.0, 4.8, 2, 1, height_ratios=[3, 1], sharex=True)
    series = [("as trained", before, "#999999")]
    if metrics.calibration and (temperature := metrics.calibration.temperature):
        series.append((f"temperature {temperature:.2f}", after, COLOURS["negative"]))
    for index, (label, scored, colour) in enumerate(series):
        confidence, right, place = calibration_bins(scored)
        means = [(confidence[place == bin_].mean(), right[place == bin_].mean()) for bin_ in np.unique(place)]
        axes.plot(*zip(*means, strict=True), marker="o", markersize=4, color=colour, label=label)
        edges = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
        counts = np.bincount(place, minlength=CALIBRATION_BINS)
        below.bar(edges + (0.3 + 0.4 * index) / CALIBRATION_BINS, counts, width=0.4 / CALIBRATION_BINS, color=colour)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that was right", title="reliability of the class called")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    below.set(xlabel="probability of the class called", ylabel="sequences")
    return figure


def embedding_map(embeddings: np.ndarray, labels: np.ndarray, predictions: np.ndarray, metrics: Metrics) -> Figure:
    """The first two principal components of the embeddings `[n, p, c]`, all strips concatenated."""
    from sklearn.decomposition import PCA  # here: its import takes a second, and only this function needs it

    flat = embeddings.reshape(len(embeddings), -1)  # n pc
    figure, axes = new_figure(5.6, 4.8)
    if len(flat) < 2 or np.ptp(flat, axis=0).max() == 0:
        axes.text(0.5, 0.5, "fewer than two different embeddings", ha="center")
        return figure
    # Lanczos computes only these two: seconds for 7,480 sequences, where all 4,096 components take minutes.
    components = PCA(n_components=2, svd_solver="arpack" if min(flat.shape) > 2 else "full", random_state=0)
    place = components.fit_transform(flat)  # n 2
    for index, name in enumerate(metrics.classes):
        for right, marker, note in ((True, "o", ""), (False, "x", ", called another")):
            rows = (labels == index) & ((predictions == index) == right)
            if rows.any():
                axes.scatter(*place[rows].T, s=22, marker=marker, color=COLOURS[name], alpha=0.8, label=f"{name}{note}")
    first, second = components.explained_variance_ratio_
    axes.set(xlabel=f"component 1 ({first:.0%} of variance)", ylabel=f"component 2 ({second:.0%})", title="embeddings")
    axes.legend(fontsize=8)
    return figure


Point = tuple[str, str, dict[str, Estimate]]  # ratio, network and scores of a run
Published = tuple[str, dict[str, float | None]]  # ratio and scores


def class_ratios(
    points: Sequence[Point], titles: dict[str, str], published: Sequence[Published], synthetic: bool, data: str
) -> Figure:
    """A class-ratio study of the scores in `titles`: a dot for every run, a line for the mean, stars for published scores."""
    ratios, models = (list(dict.fromkeys(names)) for names in list(zip(*points, strict=True))[:2])
    figure, (panels,) = new_figure(3.1 * len(titles), 3.6, 1, len(titles), squeeze=False)
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for index, (model, colour) in enumerate(zip(models, MODEL_COLOURS, strict=False)):
            runs = [(ratios.index(ratio), scores[name].value) for ratio, network, scores in points if network == model]
            lacking = {place for place, value in runs if value is None}  # a mean of the others would be of fewer seeds
            known = [(place + 0.08 * (2 * index + 1 - len(models)), value) for place, value in runs if value is not None]
            axes.plot(*np.array(known).reshape(-1, 2).T, "o", color=colour, alpha=0.5, markersize=4)
            places = sorted({place for place, _ in runs} - lacking)
            means = [np.mean([value for place, value in runs if place == here and value is not None]) for here in places]
            axes.plot(places, means, color=colour, label=model)
        stars = [(ratios.index(ratio), scores[name]) for ratio, scores in published if scores[name] is not None]
        if stars:
            axes.plot(*np.array(stars).T, "*", color="black", markersize=10, label="sconet_mt, published")
        axes.set(xticks=range(len(ratios)), title=title, ylim=(0.0, 1.02), xlabel="positive : neutral : negative")
        axes.set_xticklabels([Path(ratio).stem for ratio in ratios], fontsize=8, parse_math=False)
        axes.legend(frameon=False, fontsize=8)
    return stamp(figure, synthetic, data)
