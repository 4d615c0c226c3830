"""The frames and pixels that move a network's answer, by the gradient of its margin (Simonyan et al. 2014)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax.scores.figures import new_figure
from scoliojax.scores.strips import side_by_side
from scoliojax.training.state import TrainState

SALIENCY_FRAMES = 60  # evenly spaced frames of a sequence
FRAMES_SHOWN = 6


class Saliency(NamedTuple):
    """The saliency of one sequence."""

    numbers: np.ndarray  # s; frame numbers
    frames: np.ndarray  # s (2) h w
    gradient: np.ndarray  # s (2) h w; absolute gradient of the margin at each pixel


def make_saliency(graph: nnx.GraphDef, state: TrainState) -> Callable[..., Saliency]:
    """A function from a sequence to the gradient of the margin between the two largest logits.

    The sequence is uint8 `[s, 64, 44]` or `[s, 2, 64, 44]`, with the asymmetry vector `[8, 3]` where the network reads it. Of a
    longer sequence it uses 60 evenly spaced frames.
    """

    @jax.jit
    def gradient(frames: jax.Array, frame_mask: jax.Array, asymmetry: jax.Array | None) -> jax.Array:
        def margin(frames: jax.Array) -> jax.Array:
            model = nnx.merge(graph, state.params, state.batch_stats, copy=True)
            logits = model(frames, frame_mask, asymmetry=asymmetry, train=False).logits.mean(axis=1)[0]  # k
            best = jax.lax.top_k(logits, 2)[0]  # 2
            return best[0] - best[1]

        return jnp.abs(jax.grad(margin)(frames))  # 1 s (2) h w

    def saliency(clip: np.ndarray, asymmetry: np.ndarray | None = None) -> Saliency:
        count = min(len(clip), SALIENCY_FRAMES)
        numbers = np.linspace(0, len(clip) - 1, count).round().astype(int)  # s
        frames = np.zeros((1, SALIENCY_FRAMES, *clip.shape[1:]), np.float32)  # 1 s (2) h w
        frames[0, :count] = clip[numbers]
        mask = np.arange(SALIENCY_FRAMES)[None] < count  # 1 s
        found = gradient(frames, mask, None if asymmetry is None else asymmetry[None])  # 1 s (2) h w
        return Saliency(numbers, clip[numbers], np.asarray(found, np.float32)[0, :count])

    return saliency


def draw_saliency(cases: Sequence[tuple[str, Saliency]]) -> Figure:
    """A row for each case: the frames with the largest gradients, these gradients in red, and the share of every frame.

    Of skeleton maps half as many frames are shown, limbs left and joints right.
    """
    channels = cases[0][1].frames[0].size // (FRAME_SIZE * FRAME_WIDTH)
    most = FRAMES_SHOWN // channels
    widths = [1.7, *[1.0 * channels] * most, 2.6]
    figure, panels = new_figure(9.4, 0.6 + 1.6 * len(cases), len(cases), len(widths), squeeze=False, width_ratios=widths)
    for row, (title, case) in zip(panels, cases, strict=True):
        total = case.gradient.reshape(len(case.gradient), -1).sum(axis=1)  # s
        share = total / total.sum() if total.sum() else total  # s
        top = np.sort(np.argsort(-share, kind="stable")[:most])
        largest = max(float(case.gradient[top].max()), 1e-30)
        for axes in row[:-1]:
            axes.axis("off")
        row[0].text(0.0, 0.5, title, transform=row[0].transAxes, fontsize=8, va="center", parse_math=False).set_in_layout(False)
        for axes, index in zip(row[1:], top, strict=False):
            axes.imshow(side_by_side(case.frames[index]), cmap="gray", vmin=0, vmax=255)
            heat = np.sqrt(side_by_side(case.gradient[index]) / largest)  # h w
            axes.imshow(np.ones_like(heat), cmap="Reds", alpha=heat, vmin=0, vmax=1.2)
            axes.set_title(f"frame {case.numbers[index]}", fontsize=7, pad=2)
        row[-1].bar(case.numbers, share, width=max(1.0, float(np.ptp(case.numbers)) / len(share)), color="#cc3311")
        row[-1].set_ylabel("share", fontsize=7)
        row[-1].tick_params(labelsize=7)
    panels[-1, -1].set_xlabel("frame", fontsize=8)
    return figure
