"""What a network that weighs its embeddings by the walker's posture reads of it, and what its gates make of it, by class."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_pipelines.poses.asymmetry import ENTRIES, MEASURES, UNITS
from data_pipelines.poses.joints import PAIRS
from data_pipelines.schema import FRAME_SIZE
from scoliojax.models.drf import DRF
from scoliojax.scores.bootstrap import BAND_DRAWS, LEVEL, subject_draws
from scoliojax.scores.figures import COLOURS, new_figure
from scoliojax.scores.strips import strip_bounds


class Means(NamedTuple):
    """The mean of each class with its 95 % interval over draws of subjects; nan where the class is absent."""

    value: np.ndarray  # k ...
    low: np.ndarray  # k ...
    high: np.ndarray  # k ...


class Gates(NamedTuple):
    """By class: the vector as it was measured, and both gates, each of which is 0..1; and the ranges of the training part."""

    vector: Means  # k 8 3; in `UNITS`
    strips: Means  # k p
    channels: Means  # k c
    low: np.ndarray  # 8 3
    high: np.ndarray  # 8 3


def class_means(values: np.ndarray, labels: np.ndarray, subjects: Sequence[str], classes: int) -> Means:
    """Means of `values` `[n, ...]` by class."""
    flat = values.reshape(len(values), -1).astype(np.float64)  # n x
    is_class = labels == np.arange(classes)[:, None]  # k n

    def mean(weights: np.ndarray) -> np.ndarray:
        shares = weights[:, None] * is_class  # d k n
        with np.errstate(invalid="ignore"):
            return shares @ flat / shares.sum(axis=2, keepdims=True)  # d k x

    drawn = np.concatenate([mean(weights) for weights in subject_draws(subjects, BAND_DRAWS, 0)])  # d k x
    tail = 0.5 - 0.5 * LEVEL
    with np.errstate(all="ignore"):
        low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)  # k x; nan where any draw misses a class
    shape = (classes, *values.shape[1:])
    return Means(*(part.reshape(shape) for part in (mean(np.ones((1, len(values))))[0], low, high)))


def measure_gates(network: DRF, vectors: np.ndarray, labels: np.ndarray, subjects: Sequence[str], classes: int) -> Gates:
    """The gates of a network for the asymmetry vectors `[n, 8, 3]` of n sequences."""
    channels, strips = jax.device_get(network.gates.values(jax.numpy.asarray(vectors), sum(network.strips)))  # n c, n p
    entries, of_strips, of_channels = (class_means(values, labels, subjects, classes) for values in (vectors, strips, channels))
    low, high = jax.device_get((network.gates.low[...], network.gates.high[...]))  # i 3, i 3
    return Gates(entries, of_strips, of_channels, low, high)


def draw_vector(gates: Gates, classes: Sequence[str]) -> Figure:
    """The 24 entries by class with their intervals, over the range of the training part."""
    figure, panels = new_figure(10.2, 4.2, 1, len(MEASURES), sharey=True)
    places = np.arange(len(PAIRS))
    for measure, (axes, title, unit) in enumerate(zip(panels, MEASURES, UNITS, strict=True)):
        low, high = gates.low[:, measure], gates.high[:, measure]  # i
        axes.barh(places, high - low, left=low, height=0.86, color="#eeeeee", label="range of training")
        for index, name in enumerate(classes):
            value, below, above = (part[index, :, measure] for part in gates.vector)  # i
            heights = places + 0.22 * (index - 1)
            axes.hlines(heights, below, above, color=COLOURS[name], linewidth=1.2)
            axes.plot(value, heights, "o", color=COLOURS[name], markersize=4, label=name)
        axes.set(title=title, xlabel=unit, yticks=places, yticklabels=PAIRS, xlim=(0.0, None))
        axes.tick_params(left=False, labelsize=8)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def draw_gates(gates: Gates, strips: Sequence[int], classes: Sequence[str], marks: Mapping[str, float]) -> Figure:
    """The gate of each strip and of each channel by class, with intervals."""
    figure, (body, channels) = new_figure(9.4, 4.2, 1, 2, width_ratios=[1, 1.6])
    bounds = strip_bounds(strips)
    middles = np.array([(top + bottom) / 2 for _, top, bottom in bounds])  # p
    for row in marks.values():
        body.axhline(row, color="#bbbbbb", linewidth=0.6, linestyle=":")
    for level in range(len(strips)):
        chosen = np.array([one == level for one, *_ in bounds])  # p
        _curves(body, gates.strips, chosen, middles[chosen], classes, upright=True)
    body.set(ylim=(FRAME_SIZE, 0), yticks=list(marks.values()), yticklabels=list(marks), xlabel="gate", title="strips")
    order = np.argsort(-np.nanmean(gates.channels.value, axis=0), kind="stable")  # c
    _curves(channels, gates.channels, order, np.arange(len(order)), classes, upright=False)
    channels.set(xlabel="channel, from the most open one on", ylabel="gate", title="channels")
    body.tick_params(left=False, labelsize=8)
    handles = {text: handle for handle, text in zip(*channels.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def _curves(axes: Axes, means: Means, chosen: np.ndarray, places: np.ndarray, classes: Sequence[str], upright: bool) -> None:
    """A line for each class through the `chosen` means at `places`, and its interval."""
    for index, name in enumerate(classes):
        value, low, high = (part[index][chosen] for part in means)  # x
        fill = axes.fill_betweenx if upright else axes.fill_between
        fill(places, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
        line = (value, places) if upright else (places, value)
        axes.plot(*line, color=COLOURS[name], linewidth=1.2, marker="o", markersize=2, label=name)


def vector_rows(gates: Gates, classes: Sequence[str]) -> list[dict[str, str | float]]:
    """A row for each entry and class: name, unit, mean with its interval, and range of the training part."""
    rows = []
    for entry, name in enumerate(ENTRIES):
        pair, measure = divmod(entry, len(MEASURES))
        for index, label in enumerate(classes):
            value, low, high = (float(part[index, pair, measure]) for part in gates.vector)
            row = {"entry": name, "unit": UNITS[measure], "class": label, "mean": value, "low": low, "high": high}
            training = {"training_low": float(gates.low[pair, measure]), "training_high": float(gates.high[pair, measure])}
            rows.append(row | training)
    return rows


def gate_rows(gates: Gates, strips: Sequence[int], classes: Sequence[str]) -> list[dict[str, str | float]]:
    """A row for each strip and channel and class: the mean gate with its interval; of strips also their first and last row."""
    bounds = strip_bounds(strips)
    rows = []
    for kind, means in (("strip", gates.strips), ("channel", gates.channels)):
        for number in range(means.value.shape[1]):
            place = (bounds[number][1], bounds[number][2] - 1) if kind == "strip" else ("", "")
            for index, label in enumerate(classes):
                value, low, high = (float(part[index, number]) for part in means)
                row = {"gate": kind, "number": number, "first_row": place[0], "last_row": place[1], "class": label}
                rows.append(row | {"mean": value, "low": low, "high": high})
    return rows
