"""The contribution of each strip of the body to each class.

A network's logit is the mean over strips, so the contribution of a strip can be read off exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax.scores.bootstrap import BAND_DRAWS, LEVEL, subject_draws
from scoliojax.scores.figures import new_figure

# Pixel rows of a normalised silhouette, which reaches from row 0 to row 64: the middle of the head, then heights of shoulders,
# hips, knees and ankles as shares of an adult's height (Drillis and Contini 1966), measured on nobody here.
MARKS = {"head": 4.2, "shoulders": 11.6, "hips": 30.1, "knees": 45.8, "feet": 61.5}


class StripContribution(NamedTuple):
    """The difference of a strip's mean logit of a class between the sequences of that class and all others, in cosine.

    The mean over the classes is subtracted from the logits first, because it changes no prediction. The mean contribution over
    strips is the difference of the whole network's logit. nan where the class, or all others, are absent.
    """

    value: np.ndarray  # p k
    low: np.ndarray  # p k; bounds of the interval
    high: np.ndarray  # p k


def side_by_side(frame: np.ndarray) -> np.ndarray:
    """A picture of a frame: `[64, 44]` as it is, `[2, 64, 44]` as `[64, 88]`, limbs left and joints right.

    Not one upon the other, because maps drawn as published do not fit each other.
    """
    return frame if frame.ndim == 2 else np.concatenate(list(frame), axis=1)


def strip_bounds(strips: Sequence[int]) -> list[tuple[int, int, int]]:
    """Level of the horizontal pyramid, first and last (exclusive) pixel row of every strip, in the network's order."""
    return [
        (level, index * FRAME_SIZE // count, (index + 1) * FRAME_SIZE // count)
        for level, count in enumerate(strips)
        for index in range(count)
    ]


def strip_contribution(strip_logits: np.ndarray, labels: np.ndarray, subjects: Sequence[str]) -> StripContribution:
    """Contribution of every strip `[n, p, k]` to every class, with 95 % intervals over draws of subjects."""
    n, _, k = strip_logits.shape
    centred = strip_logits - strip_logits.mean(axis=2, keepdims=True)  # n p k
    is_class = labels[:, None] == np.arange(k)  # n k

    def separation(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = [weights[:, :, None] * rows for rows in (is_class, ~is_class)]  # each d n k
            means = [np.einsum("dnk,npk->dpk", share, centred) / share.sum(1)[:, None, :] for share in shares]  # each d p k
        return means[0] - means[1]  # d p k

    drawn = np.concatenate([separation(weights) for weights in subject_draws(subjects, BAND_DRAWS, 0)])  # d p k
    tail = 0.5 - 0.5 * LEVEL
    with np.errstate(all="ignore"):
        low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)  # p k; nan where any draw misses a class
    return StripContribution(separation(np.ones((1, n)))[0], low, high)


def mean_silhouettes(read: Callable[[int], np.ndarray], rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean frame of each class, `[k, 64, 44]` or `[k, 2, 64, 44]`, 0..255; nan where a class is absent."""
    totals: list[np.ndarray | float] = [0.0] * classes  # each (2) h w
    counts = np.bincount(labels, minlength=classes)  # k
    for row, label in zip(rows, labels, strict=True):
        totals[label] += read(int(row)).mean(axis=0)  # (2) h w
    shape = next(np.shape(total) for total, count in zip(totals, counts, strict=True) if count)
    return np.stack([total / count if count else np.full(shape, np.nan) for total, count in zip(totals, counts, strict=True)])


def draw_contribution(
    contribution: StripContribution,
    silhouettes: np.ndarray,
    strips: Sequence[int],
    classes: Sequence[str],
    first: int = 0,
    marks: Mapping[str, float] = MappingProxyType(MARKS),
) -> Figure:
    """The mean frame of each class, coloured by contribution, side by side for several levels, and bars with intervals.

    White is no contribution, red is for the class and blue against it. The class `first` comes first. `silhouettes`: as from
    `mean_silhouettes`; `marks`: names of pixel rows, by default those of silhouettes.
    """
    bounds, channels = strip_bounds(strips), silhouettes[0].size // (FRAME_SIZE * FRAME_WIDTH)
    wide = channels * FRAME_WIDTH
    size = (wide + 56) * 0.034 * len(classes)
    figure, panels = new_figure(size, 4.6, 1, 2 * len(classes), width_ratios=[wide, 56] * len(classes), sharey=True)
    lowest, highest = float(np.nanmin(contribution, initial=0.0)), float(np.nanmax(contribution, initial=1e-9))
    largest = float(np.nanmax(np.abs(contribution.value), initial=1e-9))
    colouring = ScalarMappable(Normalize(-largest, largest), "RdBu_r")
    order = sorted(range(len(classes)), key=lambda index: index != first)
    for index, (body, bars) in zip(order, panels.reshape(-1, 2), strict=True):
        painted = np.zeros((FRAME_SIZE, FRAME_WIDTH, 3))  # h w 3
        for place, (level, top, bottom) in enumerate(bounds):
            value, low, high = (array[place, index] for array in contribution)
            colour = colouring.to_rgba(value)[:3]
            left, right = (edge * FRAME_WIDTH // len(strips) for edge in (level, level + 1))
            painted[top:bottom, left:right] = colour
            thick = (bottom - top) / len(strips)
            middle = top + thick * (level + 0.5)
            bars.barh(middle, value, height=0.8 * thick, color=colour, edgecolor="#777777", linewidth=0.4)
            bars.plot([low, high], [middle, middle], color="black", linewidth=1.0)
        shown = np.tile(painted, (1, channels, 1)) * side_by_side(silhouettes[index])[..., None] / 255.0  # h w 3
        body.imshow(shown, extent=(0, wide, FRAME_SIZE, 0), aspect="auto")
        for axes, colour in ((body, "#bbbbbb"), (bars, "#999999")):
            for row in marks.values():
                axes.axhline(row, color=colour, linewidth=0.6, linestyle=":", zorder=0.5 if axes is bars else 2)
        bars.axvline(0.0, color="black", linewidth=0.8)
        bars.set(xlim=(1.1 * lowest, 1.1 * highest), ylim=(FRAME_SIZE, 0))
        bars.tick_params(left=False, labelsize=8)
        body.set(xticks=[], yticks=list(marks.values()), yticklabels=list(marks), title=classes[index])
        body.tick_params(left=False, labelsize=9)
    label = "against the class (blue), for it (red); cosine"
    figure.colorbar(colouring, ax=panels, shrink=0.8, pad=0.01).set_label(label, fontsize=9)
    return figure
