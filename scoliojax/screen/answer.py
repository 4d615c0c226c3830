"""What a trained network says of one walk: of the whole, of its windows, and by which strips of the body."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipelines.schema import CLASSES, FRAME_SIZE, FRAME_WIDTH
from data_pipelines.silhouettes import cut_sides
from data_pipelines.video.walk import Walk
from scoliojax.runs.run import TrainedNetwork
from scoliojax.scores.calibration import screening_score
from scoliojax.scores.metrics import refuse_not_finite, softmax
from scoliojax.training.state import Tree

CHUNK = 15  # frames that the network sees at a time


@dataclass(frozen=True)
class Reading:
    """Of the whole walk or of one window.

    Attributes:
      first: index of its first frame among the usable ones.
      last: of its last.
      strip_logits: cosines `[p, k]`.
      probabilities: calibrated where the network is, `[k]`.
      referred: at the operating point; None where there is none.
    """

    first: int
    last: int
    strip_logits: np.ndarray
    probabilities: np.ndarray
    referred: bool | None

    @property
    def called(self) -> str:
        """The class of the largest mean logit, as evaluation calls it."""
        return CLASSES[int(np.argmax(self.strip_logits.mean(axis=0)))]

    @property
    def screening(self) -> float:
        """Probability of positive or neutral."""
        return float(screening_score(self.probabilities[None])[0])


@dataclass(frozen=True)
class Answer:
    """Of one walk by one network.

    Attributes:
      walk: that was read; frames beyond `frames_used` were not.
      network: that read it.
      whole: of all frames used.
      windows: in order.
      frames_used: the first ones, at most so many as evaluation uses.
    """

    walk: Walk
    network: TrainedNetwork
    whole: Reading
    windows: list[Reading]
    frames_used: int

    @property
    def agreeing(self) -> int:
        """Windows that are called what the whole walk is called."""
        return sum(one.called == self.whole.called for one in self.windows)

    @property
    def synthetic(self) -> bool:
        return self.network.synthetic


# Functions of the graph's value, so that all screeners of networks that are built alike share one compiled program.


@partial(jax.jit, static_argnums=0)
def _pool(graph: nnx.GraphDef, params: Tree, batch_stats: Tree, frames: jax.Array, frame_mask: jax.Array) -> jax.Array:
    return nnx.merge(graph, params, batch_stats, copy=True).pool(frames, frame_mask, train=False)  # 1 16 11 c


@partial(jax.jit, static_argnums=0)
def _read(graph: nnx.GraphDef, params: Tree, batch_stats: Tree, pooled: jax.Array) -> jax.Array:
    return nnx.merge(graph, params, batch_stats, copy=True).read(pooled, train=False).logits  # 1 p k


class Screener:
    """Reads walks with one network, compiled once, a few frames in memory at a time.

    The maximum over the frames of a walk (set pooling) is the maximum over its windows of theirs, so every frame is computed
    once for both.

    Args:
      network: that reads.
      window: frames of a window.
    """

    def __init__(self, network: TrainedNetwork, window: int = 30):
        self._network, self._window = network, window
        self._max_frames = int(network.config.data.max_eval_frames)

        graph, state = network.graph, network.state
        self._pool = partial(_pool, graph, state.params, state.batch_stats)
        self._read = partial(_read, graph, state.params, state.batch_stats)

    def __call__(self, walk: Walk) -> Answer:
        """Read one walk; raises `RunError` where a logit is not finite."""
        silhouettes = cut_sides(walk.silhouettes[: self._max_frames])  # s 64 44
        bounds = window_bounds(len(silhouettes), self._window)
        pooled = [self._pooled(silhouettes[first:last]) for first, last in bounds]
        whole = self._reading(walk, 0, len(silhouettes), jnp.max(jnp.stack(pooled), axis=0))
        windows = [self._reading(walk, *bound, maps) for bound, maps in zip(bounds, pooled, strict=True)]
        return Answer(walk, self._network, whole, windows, len(silhouettes))

    def _pooled(self, silhouettes: np.ndarray) -> jax.Array:
        """The feature map of a piece of a walk, uint8 `[s, 64, 44]` to `[1, 16, 11, c]`."""
        best = None
        for start in range(0, len(silhouettes), CHUNK):
            piece = silhouettes[start : start + CHUNK]  # s 64 44
            frames = np.zeros((1, CHUNK, FRAME_SIZE, FRAME_WIDTH), np.uint8)  # 1 s 64 44
            frames[0, : len(piece)] = piece
            found = self._pool(frames, np.arange(CHUNK)[None] < len(piece))  # 1 16 11 c
            best = found if best is None else jnp.maximum(best, found)  # 1 16 11 c
        assert best is not None, "a window has frames"
        return best

    def _reading(self, walk: Walk, first: int, last: int, pooled: jax.Array) -> Reading:
        network = self._network
        strip_logits = np.asarray(self._read(pooled))[0]  # p k
        logits = strip_logits.mean(axis=0, keepdims=True)  # 1 k
        refuse_not_finite(logits, [walk.name])
        if network.calibration is None:
            return Reading(first, last - 1, strip_logits, softmax(logits, network.scale)[0], None)
        probabilities = network.calibration.probabilities(logits, network.scale)  # 1 k
        referred = network.calibration.referred(probabilities)
        return Reading(first, last - 1, strip_logits, probabilities[0], None if referred is None else bool(referred[0]))


def window_bounds(frames: int, window: int) -> list[tuple[int, int]]:
    """First frame and last (exclusive) of every window; a rest of less than half a window joins the one before."""
    starts = list(range(0, frames, window))
    if len(starts) > 1 and frames - starts[-1] < window / 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], frames], strict=True))
