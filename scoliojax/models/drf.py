"""DRF (MICCAI 2025, arXiv 2509.00872): ScoNet on skeleton maps, whose embeddings the posture of the walker weighs.

Two gates of the postural asymmetry vector (PAV) multiply the embeddings: one number for each channel, and one for each strip.
Axis letters as in `data_pipelines.schema`; `i` is the axis of the eight pairs of joints.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scoliojax.models.layers import xavier_uniform
from scoliojax.models.sconet import ScoNet

PAIRS, MEASURES = 8, 3  # axes of the vector
LEAST_RANGE = 1e-6  # by which an entry is divided at least


class AsymmetryGates(nnx.Module):
    """The gates of embeddings, and the ranges that bring each entry of the vector to 0..1.

    `low` and `high` are the smallest and the largest value of each entry over the training part, `[8, 3]`. They are fitted
    before the first step, no step changes them, and they are part of every checkpoint. Both are 0 while nobody knows them.
    """

    def __init__(self, channels: int, *, rng: np.random.Generator):
        entries = PAIRS * MEASURES
        self.channel_kernel = nnx.Param(xavier_uniform(rng, (entries, channels), entries + channels))
        self.channel_bias = nnx.Param(np.zeros(channels, np.float32))
        self.strip_kernel = nnx.Param(xavier_uniform(rng, (MEASURES,), MEASURES + 1))
        self.strip_bias = nnx.Param(np.zeros((), np.float32))
        self.low = nnx.BatchStat(np.zeros((PAIRS, MEASURES), np.float32))
        self.high = nnx.BatchStat(np.zeros((PAIRS, MEASURES), np.float32))

    def normalise(self, asymmetry: jax.Array) -> jax.Array:
        """Vectors `[n, 8, 3]` to 0..1; what lies outside the ranges of the training part is clipped."""
        low, high = self.low[...], self.high[...]  # i 3
        return jnp.clip((asymmetry - low) / jnp.maximum(high - low, LEAST_RANGE), 0.0, 1.0)  # n i 3

    def values(self, asymmetry: jax.Array, parts: int) -> tuple[jax.Array, jax.Array]:
        """The gates of vectors `[n, 8, 3]`, in 0..1: of the channels, `[n, c]`, and of the strips, `[n, p]`."""
        vector, exact = self.normalise(asymmetry), jax.lax.Precision.HIGHEST  # n i 3
        channels = jnp.dot(vector.reshape(-1, PAIRS * MEASURES), self.channel_kernel[...], precision=exact)  # n c
        pairs = jnp.dot(vector, self.strip_kernel[...], precision=exact) + self.strip_bias[...]  # n i
        return jax.nn.sigmoid(channels + self.channel_bias[...]), jax.nn.sigmoid(spread(pairs, parts))  # n c, n p

    def __call__(self, embeddings: jax.Array, asymmetry: jax.Array) -> jax.Array:
        """Embeddings `[n, p, c]` times both gates of the vectors `[n, 8, 3]`."""
        channels, strips = self.values(asymmetry, embeddings.shape[1])  # n c, n p
        return embeddings * channels[:, None, :] * strips[:, :, None]  # n p c


def knows_ranges(batch_stats: dict[str, Any]) -> bool:
    """Whether a network's statistics hold the ranges of the vectors that it reads; True for a network that reads none."""
    gates = batch_stats.get("gates")
    return gates is None or bool(np.any(jax.device_get((gates["low"], gates["high"]))))


def spread(values: jax.Array, places: int) -> jax.Array:
    """Values `[n, i]`, linearly interpolated to so many places, `[n, p]`, as PyTorch does without aligned corners.

    The values stand in the middles of i equal pieces, the places in those of p; beyond the outer middles they are constant.
    """
    count = values.shape[1]
    at = np.clip((np.arange(places) + 0.5) * count / places - 0.5, 0, count - 1)  # p
    first = np.minimum(at.astype(int), count - 2)  # p
    share = (at - first).astype(values.dtype)  # p
    return values[:, first] * (1 - share) + values[:, first + 1] * share  # n p


class DRF(ScoNet):
    """The whole network; arguments and errors as of `ScoNet`, of which it has 6,404 parameters more at the published sizes."""

    reads_asymmetry = True

    def __init__(self, *, embedding_dim: int, rng: np.random.Generator, **sizes):
        super().__init__(embedding_dim=embedding_dim, rng=rng, **sizes)
        self.gates = AsymmetryGates(embedding_dim, rng=rng)

    def embed(self, strips: jax.Array, asymmetry: jax.Array | None) -> jax.Array:
        """Pooled strips `[n, p, c]` to gated embeddings, which the identity loss and the neck read."""
        if asymmetry is None:
            raise ValueError("DRF reads the postural asymmetry vectors of the sequences; give asymmetry, [n, 8, 3]")
        return self.gates(super().embed(strips, asymmetry), asymmetry)  # n p c
