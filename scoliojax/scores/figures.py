"""Pictures of scores, drawn from `metrics.json` and what was scored. Each says whose data it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoliojax.scores.bootstrap import BAND_DRAWS, LEVEL, MOST_UNDEFINED, Estimate, subject_draws
from scoliojax.scores.evaluation import Metrics
from scoliojax.scores.metrics import CALIBRATION_BINS, Ranking, Scored, Scorer, calibration_bins

COLOURS = {"negative": "#0072b2", "neutral": "#e69f00", "positive": "#cc3311", "screening": "#333333"}  # told apart by all


def stamp(figure: Figure, synthetic: bool, data: str) -> Figure:
    """Say under a figure whose data it shows; in red where nobody walked."""
    text, colour = ("SYNTHETIC data, not people", "#cc3311") if synthetic else (data, "#555555")
    figure.supxlabel(text, fontsize=9, color=colour, fontweight="bold" if synthetic else "normal")
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.png` and `name.svg`; the same figure gives the same bytes."""
    figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    figure.set_layout_engine("none")  # keep what was laid out
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def confusion(metrics: Metrics) -> Figure:
    """Counts, and the share of the true class that they are."""
    counts, classes = np.array(metrics.confusion), list(metrics.classes)  # k k
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # k k
    axes.imshow(rates, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        rate = rates[row, column]
        share = f"{rate:.0%}" if counts[row].sum() else "of none"
        axes.text(column, row, f"{count}\n{share}", ha="center", va="center", color="white" if rate > 0.5 else "black")
    axes.set(xticks=range(len(classes)), yticks=range(len(classes)), xlabel="predicted", ylabel="true")
    axes.set_xticklabels(classes)
    axes.set_yticklabels(classes)
    axes.set_title(f"{metrics.part}: accuracy {metrics.scores['accuracy'].value:.3f}, n = {metrics.n}", fontsize=10)
    return stamp(figure, metrics.synthetic, metrics.data)


def training_curves(lines: Sequence[dict[str, float]]) -> Figure:
    """Losses, and scores on validation subjects, by step, from the lines of `metrics.jsonl`."""
    validated = [line for line in lines if "validation/accuracy" in line]
    logged = [line for line in lines if "loss" in line]
    figure = Figure(figsize=(9.0 if validated else 6.0, 3.6), layout="constrained")
    panels = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    terms = [name for name in ("loss", "cross_entropy", "triplet") if logged and name in logged[0]]
    for name in terms:
        panels[0].plot([line["step"] for line in logged], [line[name] for line in logged], label=name.replace("_", " "))
    panels[0].set(xlabel="step", ylabel="loss", ylim=(0.0, None), title="training")
    panels[0].legend(frameon=False, fontsize=8)
    if validated:
        for name in ("accuracy", "macro_recall", "macro_f1"):
            steps, values = [line["step"] for line in validated], [line[f"validation/{name}"] for line in validated]
            panels[1].plot(steps, values, marker="o", markersize=3, label=name.replace("_", " "))
        panels[1].set(xlabel="step", ylim=(0.0, 1.02), title="validation subjects")
        panels[1].legend(frameon=False, fontsize=8)
    return figure


def _band(axes: Axes, x: np.ndarray, curves: np.ndarray, defined: np.ndarray, colour: str) -> None:
    """Pointwise interval of curves `[d, x]`, those `defined`; none where too few are."""
    if defined.mean() >= 1.0 - MOST_UNDEFINED:
        tail = 0.5 - 0.5 * LEVEL
        low, high = np.quantile(curves[defined], [tail, 1.0 - tail], axis=0)  # x
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _curves(true: np.ndarray, false: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each draw's calls `[d, t]`: false-call rate, sensitivity and precision from no calls on, where somebody is called."""
    found = []
    for hits, misses in zip(true, false, strict=True):
        some = hits + misses > 0  # t
        with np.errstate(invalid="ignore"):
            rates = [np.append(0.0, calls[some] / calls[-1]) for calls in (misses, hits)]
        found.append((*rates, np.append(1.0, hits[some] / (hits + misses)[some])))
    return found


def roc_and_precision_recall(scorer: Scorer, subjects: Sequence[str], metrics: Metrics) -> Figure:
    """Both curves of screening, and of positive and neutral against the rest, with pointwise 95 % bands over subjects."""
    figure = Figure(figsize=(9.4, 4.6), layout="constrained")
    roc, recall_axes = figure.subplots(1, 2)
    grid = np.linspace(0.0, 1.0, 101)
    draws = np.concatenate(list(subject_draws(subjects, BAND_DRAWS, 0)))  # d n
    for name in ("screening", "positive", "neutral"):
        yes = scorer.truths[name]  # n
        if yes.all() or not yes.any():
            roc.plot([], [], color=COLOURS[name], label=f"{name}: undefined, one side is absent")
            recall_axes.plot([], [], color=COLOURS[name], label=f"{name}: undefined, one side is absent")
            continue
        ranking = Ranking(yes, scorer.chances[name])
        colour, scores = COLOURS[name], metrics.scores
        (misses, hits, precision), *_ = _curves(*ranking.counts(np.ones((1, len(subjects)))))
        roc.plot(misses, hits, color=colour, label=f"{name} ({scores[f'{name}/auroc'].value:.3f})")
        label = f"{name} ({scores[f'{name}/average_precision'].value:.3f})"
        recall_axes.step(hits[1:], precision[1:], where="pre", color=colour, label=label)
        drawn = _curves(*ranking.counts(draws))
        defined = np.array([np.isfinite(one[0]).all() and np.isfinite(one[1]).all() for one in drawn])  # d
        reached = np.array([np.interp(grid, x, y) for x, y, _ in drawn])  # d x
        held = np.array([held[np.searchsorted(y, grid).clip(1, len(y) - 1)] for _, y, held in drawn])  # d x; as the steps go
        _band(roc, grid, reached, defined, colour)
        _band(recall_axes, grid, held, defined, colour)
    roc.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    point = [metrics.scores.get(f"operating_point/{name}") for name in ("specificity", "sensitivity")]
    specificity, sensitivity = (one.value if one else None for one in point)
    if specificity is not None and sensitivity is not None:
        roc.plot(1.0 - specificity, sensitivity, "o", color=COLOURS["screening"], label="operating point")
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC (area)")
    recall_axes.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="precision-recall (average precision)")
    for axes in (roc, recall_axes):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(frameon=False, fontsize=8, loc="lower right" if axes is roc else "lower left")
    return figure


def reliability(before: Scored, after: Scored, metrics: Metrics) -> Figure:
    """How often the class called was right, by its probability: as trained, and with the temperature where there is one."""
    figure = Figure(figsize=(5.0, 4.8), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    temperature = metrics.calibration and metrics.calibration.temperature
    series = [("as trained", before, "#999999")]
    if temperature:
        series.append((f"temperature {temperature:.2f}", after, COLOURS["negative"]))
    for index, (label, scored, colour) in enumerate(series):
        confidence, right, place = calibration_bins(scored)
        used = np.unique(place)
        x = [confidence[place == one].mean() for one in used]
        y = [right[place == one].mean() for one in used]
        axes.plot(x, y, marker="o", markersize=4, color=colour, label=label)
        edges = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
        counts = np.bincount(place, minlength=CALIBRATION_BINS)
        width = 0.4 / CALIBRATION_BINS
        below.bar(edges + (0.3 + 0.4 * index) / CALIBRATION_BINS, counts, width=width, color=colour)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that was right", title="reliability of the class called")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    below.set(xlabel="probability of the class called", ylabel="sequences")
    return figure


def embedding_map(embeddings: np.ndarray, evaluated_labels: np.ndarray, predictions: np.ndarray, metrics: Metrics) -> Figure:
    """The first two principal components of the embeddings `[n, p, c]`, all strips together."""
    from sklearn.decomposition import PCA  # here: a second to import, and only this needs it

    flat = embeddings.reshape(len(embeddings), -1)  # n pc
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    if len(flat) < 2 or np.ptp(flat, axis=0).max() == 0:
        axes.text(0.5, 0.5, "fewer than two different embeddings", ha="center")
        return figure
    # Lanczos finds these two alone: of 7,480 sequences in seconds, where all 4,096 components take minutes.
    found = PCA(n_components=2, svd_solver="arpack" if min(flat.shape) > 2 else "full", random_state=0)
    place = found.fit_transform(flat)  # n 2
    for index, name in enumerate(metrics.classes):
        for right, marker, note in ((True, "o", ""), (False, "x", ", called another")):
            rows = (evaluated_labels == index) & ((predictions == index) == right)
            if rows.any():
                axes.scatter(*place[rows].T, s=22, marker=marker, color=COLOURS[name], alpha=0.8, label=f"{name}{note}")
    shares = found.explained_variance_ratio_
    axes.set(xlabel=f"component 1 ({shares[0]:.0%} of variance)", ylabel=f"component 2 ({shares[1]:.0%})", title="embeddings")
    axes.legend(fontsize=8)
    return figure


def class_ratios(
    points: Sequence[tuple[str, str, dict[str, Estimate]]],
    titles: dict[str, str],
    published: Sequence[tuple[str, dict[str, float | None]]],
    synthetic: bool,
    data: str,
) -> Figure:
    """A class-ratio study: every run as a dot, the mean over seeds as a line.

    Args:
      points: ratio, network and scores of each run.
      titles: of the scores to draw.
      published: ratio and scores, drawn as stars.
      synthetic: True where nobody walked.
      data: name of the data set.
    """
    ratios, models = list(dict.fromkeys(one[0] for one in points)), list(dict.fromkeys(one[1] for one in points))
    figure = Figure(figsize=(3.1 * len(titles), 3.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles.items(), strict=True):
        for index, (model, colour) in enumerate(zip(models, ("#999999", "#cc3311"), strict=False)):
            runs = [(ratios.index(one[0]), one[2][name].value) for one in points if one[1] == model]
            lacking = {place for place, value in runs if value is None}  # a mean of the others would be of fewer seeds
            known = [(place + 0.08 * (2 * index - 1), value) for place, value in runs if value is not None]
            axes.plot(*np.array(known).reshape(-1, 2).T, "o", color=colour, alpha=0.5, markersize=4)
            places = sorted({place for place, _ in runs} - lacking)
            means = [np.mean([value for place, value in runs if place == here and value is not None]) for here in places]
            axes.plot(places, means, color=colour, label=model)
        stars = [(ratios.index(ratio), scores[name]) for ratio, scores in published if scores[name] is not None]
        if stars:
            axes.plot(*np.array(stars).T, "*", color="black", markersize=10, label="sconet_mt, published")
        axes.set(xticks=range(len(ratios)), title=title, ylim=(0.0, 1.02), xlabel="positive : neutral : negative")
        axes.set_xticklabels([Path(ratio).stem for ratio in ratios], fontsize=8)
        axes.legend(frameon=False, fontsize=8)
    return stamp(figure, synthetic, data)
