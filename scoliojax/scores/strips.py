"""The contribution of each strip of the body to each class.

A network's logit is the mean over strips, so the contribution of a strip can be read off exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax.scores.bootstrap import BAND_DRAWS, LEVEL, subject_draws


class StripContribution(NamedTuple):
    """In cosine, `[p, k]`: how much higher a strip's logit of a class is for sequences of the class than for the others.

    Logits count from their mean over the classes: what all share decides nothing. The mean over strips is what the network as a
    whole separates the class by. nan where the class, or all others, are absent.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def strip_bounds(strips: Sequence[int]) -> list[tuple[int, int, int]]:
    """Level of the horizontal pyramid, first pixel row and last (exclusive) of every strip, in the network's order."""
    return [
        (level, index * FRAME_SIZE // count, (index + 1) * FRAME_SIZE // count)
        for level, count in enumerate(strips)
        for index in range(count)
    ]


def strip_contribution(strip_logits: np.ndarray, labels: np.ndarray, subjects: Sequence[str]) -> StripContribution:
    """Contribution of every strip to every class, with 95 % intervals over draws of subjects.

    Args:
      strip_logits: `[n, p, k]`.
      labels: `[n]`.
      subjects: n names.
    """
    n, _, k = strip_logits.shape
    centred = strip_logits - strip_logits.mean(axis=2, keepdims=True)  # n p k
    is_class = labels[:, None] == np.arange(k)  # n k

    def separation(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            sides = []
            for side in (is_class, ~is_class):
                share = weights[:, :, None] * side  # d n k
                sides.append(np.einsum("dnk,npk->dpk", share, centred) / share.sum(1)[:, None, :])  # d p k
        return sides[0] - sides[1]  # d p k

    drawn = np.concatenate([separation(weights) for weights in subject_draws(subjects, BAND_DRAWS, 0)])  # d p k
    tail = 0.5 - 0.5 * LEVEL
    with np.errstate(all="ignore"):
        low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)  # p k; nan where any draw misses a class
    return StripContribution(separation(np.ones((1, n)))[0], low, high)


def mean_silhouettes(read: Callable[[int], np.ndarray], rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean frame of each class, 0..255, `[k, 64, 44]`; nan where a class is absent."""
    totals, counts = np.zeros((classes, FRAME_SIZE, FRAME_WIDTH)), np.zeros(classes)  # k h w, k
    for row, label in zip(rows, labels, strict=True):
        totals[label] += read(int(row)).mean(axis=0)  # h w
        counts[label] += 1
    with np.errstate(invalid="ignore"):
        return totals / counts[:, None, None]  # k h w


def draw_contribution(
    found: StripContribution, silhouettes: np.ndarray, strips: Sequence[int], classes: Sequence[str]
) -> Figure:
    """Each class's mean silhouette, its strips coloured by contribution, and the contributions with their intervals.

    Where a pyramid has several levels, they stand side by side.
    """
    bounds = strip_bounds(strips)
    figure = Figure(figsize=(3.4 * len(classes), 4.6), layout="constrained")
    panels = figure.subplots(1, 2 * len(classes), width_ratios=[44, 56] * len(classes), sharey=True)
    lowest, largest = float(np.nanmin(found, initial=0.0)), float(np.nanmax(found, initial=1e-9))
    colouring = ScalarMappable(Normalize(min(0.0, float(np.nanmin(found.value, initial=0.0))), largest), "plasma")
    for index, name in enumerate(classes):
        body, bars = panels[2 * index], panels[2 * index + 1]
        painted = np.zeros((FRAME_SIZE, FRAME_WIDTH, 3))  # h w 3
        for place, (level, top, bottom) in enumerate(bounds):
            value, low, high = (array[place, index] for array in found)
            colour = colouring.to_rgba(value)[:3]
            left, right = (edge * FRAME_WIDTH // len(strips) for edge in (level, level + 1))
            painted[top:bottom, left:right] = colour
            thick = (bottom - top) / len(strips)
            middle = top + thick * (level + 0.5)
            bars.barh(middle, value, height=0.8 * thick, color=colour)
            bars.plot([low, high], [middle, middle], color="black", linewidth=1.0)
        body.imshow(painted * silhouettes[index][..., None] / 255.0, extent=(0, FRAME_WIDTH, FRAME_SIZE, 0), aspect="auto")
        bars.axvline(0.0, color="black", linewidth=0.6)
        bars.set(xlim=(1.1 * lowest, 1.1 * largest), ylim=(FRAME_SIZE, 0))
        bars.tick_params(left=False, labelsize=7)
        body.set(xticks=[], yticks=sorted({top for level, top, _ in bounds if level == 0}), title=name)
        body.tick_params(labelsize=6)
    panels[0].set_ylabel("pixel row, head at the top")
    figure.colorbar(colouring, ax=panels, shrink=0.6, label="contribution to the class (cosine)", pad=0.01)
    return figure
