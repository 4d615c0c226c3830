"""The frames and pixels that move a network's answer, by the gradient of its margin (Simonyan et al. 2014)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from scoliojax.scores.figures import new_figure
from scoliojax.training.state import TrainState

SALIENCY_FRAMES = 60  # evenly spaced frames of a sequence
FRAMES_SHOWN = 6


class Saliency(NamedTuple):
    """The saliency of one sequence."""

    numbers: np.ndarray  # s; frame numbers
    frames: np.ndarray  # s h w
    gradient: np.ndarray  # s h w; absolute gradient of the margin at each pixel


def make_saliency(graph: nnx.GraphDef, state: TrainState) -> Callable[[np.ndarray], Saliency]:
    """A function from a sequence, uint8 `[s, 64, 44]`, to the gradient of the margin between the two largest logits.

    It uses 60 evenly spaced frames of a longer sequence.
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
        return Saliency(numbers, silhouettes[numbers], np.asarray(gradient(frames, mask), np.float32)[0, :count])

    return saliency


def draw_saliency(cases: Sequence[tuple[str, Saliency]]) -> Figure:
    """A row for each case: the frames with the largest gradients, these gradients in red, and the share of every frame."""
    widths = [1.7, *[1.0] * FRAMES_SHOWN, 2.6]
    figure, panels = new_figure(9.4, 0.6 + 1.6 * len(cases), len(cases), len(widths), squeeze=False, width_ratios=widths)
    for row, (title, case) in zip(panels, cases, strict=True):
        total = case.gradient.sum((1, 2))  # s
        share = total / total.sum() if total.sum() else total  # s
        top = np.sort(np.argsort(-share, kind="stable")[:FRAMES_SHOWN])
        largest = max(float(case.gradient[top].max()), 1e-30)
        for axes in row[:-1]:
            axes.axis("off")
        row[0].text(0.0, 0.5, title, transform=row[0].transAxes, fontsize=8, va="center", parse_math=False).set_in_layout(False)
        for axes, index in zip(row[1:], top, strict=False):
            axes.imshow(case.frames[index], cmap="gray", vmin=0, vmax=255)
            heat = np.sqrt(case.gradient[index] / largest)  # h w
            axes.imshow(np.ones_like(heat), cmap="Reds", alpha=heat, vmin=0, vmax=1.2)
            axes.set_title(f"frame {case.numbers[index]}", fontsize=7, pad=2)
        row[-1].bar(case.numbers, share, width=max(1.0, float(np.ptp(case.numbers)) / len(share)), color="#cc3311")
        row[-1].set_ylabel("share", fontsize=7)
        row[-1].tick_params(labelsize=7)
    panels[-1, -1].set_xlabel("frame", fontsize=8)
    return figure
