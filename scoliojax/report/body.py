"""Where on the body, and in which frames, a network finds its answer.

A network's logit is the mean over strips, so what a strip contributes to telling classes apart can be read off exactly.
What a single pixel contributes cannot; for that there is the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax.scores.bootstrap import BAND_DRAWS, LEVEL, subject_draws
from scoliojax.scores.figures import stamp
from scoliojax.training.state import TrainState

SALIENCY_FRAMES = 60  # of a walk, evenly spaced
FRAMES_SHOWN = 6


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
    found: StripContribution, silhouettes: np.ndarray, strips: Sequence[int], metrics: dict[str, Any]
) -> Figure:
    """Each class's mean silhouette, its strips coloured by contribution, and the contributions with their intervals.

    Where a pyramid has several levels, they stand side by side.
    """
    classes, bounds = list(metrics["classes"]), strip_bounds(strips)
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
    return stamp(figure, metrics["synthetic"], metrics["data"])


class Saliency(NamedTuple):
    """Of one walk: frame numbers `[s]`, frames `[s, h, w]`, and the margin's absolute gradient at each pixel `[s, h, w]`."""

    numbers: np.ndarray
    frames: np.ndarray
    gradient: np.ndarray


def make_saliency(graph: nnx.GraphDef, state: TrainState) -> Callable[[np.ndarray], Saliency]:
    """A function from uint8 `[s, 64, 44]` to what moves the margin between the class called and the next.

    Of long walks, 60 evenly spaced frames stand for all (Simonyan et al. 2014 for the gradient).
    """

    @jax.jit
    def gradient(frames: jax.Array, frame_mask: jax.Array) -> jax.Array:
        def margin(frames: jax.Array) -> jax.Array:
            model = nnx.merge(graph, state.params, state.batch_stats, copy=True)
            logits = model(frames, frame_mask, train=False).logits.mean(axis=1)[0]  # k
            best = jax.lax.top_k(logits, 2)[0]  # 2
            return best[0] - best[1]

        return jnp.abs(jax.grad(margin)(frames))  # 1 s h w

    def saliency(silhouettes: np.ndarray) -> Saliency:
        count = min(len(silhouettes), SALIENCY_FRAMES)
        numbers = np.linspace(0, len(silhouettes) - 1, count).round().astype(int)  # s
        frames = np.zeros((1, SALIENCY_FRAMES, *silhouettes.shape[1:]), np.float32)  # 1 s h w
        frames[0, :count] = silhouettes[numbers]
        mask = np.arange(SALIENCY_FRAMES)[None] < count  # 1 s
        found = np.asarray(gradient(frames, mask), np.float32)[0, :count]  # s h w
        return Saliency(numbers, silhouettes[numbers], found)

    return saliency


def draw_saliency(cases: Sequence[tuple[str, Saliency]], metrics: dict[str, Any]) -> Figure:
    """A row for each case: the frames that move the answer most, with the pixels that do, and every frame's share."""
    figure = Figure(figsize=(9.4, 0.6 + 1.6 * len(cases)), layout="constrained")
    widths = [1.7, *[1.0] * FRAMES_SHOWN, 2.6]
    panels = figure.subplots(len(cases), FRAMES_SHOWN + 2, squeeze=False, width_ratios=widths)
    for row, (title, case) in zip(panels, cases, strict=True):
        total = case.gradient.sum((1, 2))  # s
        share = total / total.sum() if total.sum() else total  # s
        top = np.sort(np.argsort(-share, kind="stable")[:FRAMES_SHOWN])
        largest = max(float(case.gradient[top].max()), 1e-30)
        for axes in row[:-1]:
            axes.axis("off")
        row[0].text(0.0, 0.5, title, transform=row[0].transAxes, fontsize=8, va="center").set_in_layout(False)
        for axes, index in zip(row[1:], top, strict=False):
            axes.imshow(case.frames[index], cmap="gray", vmin=0, vmax=255)
            heat = np.sqrt(case.gradient[index] / largest)  # h w
            axes.imshow(np.ones_like(heat), cmap="Reds", alpha=heat, vmin=0, vmax=1.2)
            axes.set_title(f"frame {case.numbers[index]}", fontsize=7, pad=2)
        row[-1].bar(case.numbers, share, width=max(1.0, float(np.ptp(case.numbers)) / len(share)), color="#cc3311")
        row[-1].set_ylabel("share", fontsize=7)
        row[-1].tick_params(labelsize=7)
    panels[-1, -1].set_xlabel("frame", fontsize=8)
    return stamp(figure, metrics["synthetic"], metrics["data"])
