"""The two losses of ScoNet-MT. Axis letters as in `data_pipelines.schema`; `a` anchors, `i` positives, `j` negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scoliojax.models.layers import widen
from scoliojax.models.sconet import ScoNetOutput


class TripletTerms(NamedTuple):
    loss: jax.Array  # p; the mean over the triplets that violate the margin
    violations: jax.Array  # p; how many triplets do
    mean_distance: jax.Array  # p; over all pairs, the anchor with itself included


def pairwise_distances(embeddings: jax.Array) -> jax.Array:
    """Euclidean distances of all pairs, strip by strip: `[n, p, c]` to `[p, n, n]`.

    A clip is at distance zero from itself, exactly: rounding in `x2 + y2 - 2xy` would make it up to 5e-3. The gradient at
    distance zero is zero, not infinite: both the argument and the result of the root are guarded.
    """
    x = jnp.swapaxes(widen(embeddings), 0, 1)  # p n c
    square = jnp.sum(jnp.square(x), axis=-1)  # p n
    inner = jnp.einsum("pac,pbc->pab", x, x, precision=jax.lax.Precision.HIGHEST)  # p n n
    gap = square[:, :, None] + square[:, None, :] - 2.0 * inner  # p n n
    apart = (gap > 0.0) & ~jnp.eye(x.shape[1], dtype=bool)  # p n n
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, gap, 1.0)), 0.0)  # p n n


def triplet_loss(embeddings: jax.Array, identities: jax.Array, margin: float) -> TripletTerms:
    """Batch-all triplet loss (Hermans et al. 2017, eq. 6), strip by strip, over the global batch.

    Every (anchor, positive, negative) counts; the anchor is its own positive too, as in the published runs. A strip's loss is
    the sum of `relu(margin + d(a, i) - d(a, j))` over the number of terms above zero, and 0 where there are none.

    Args:
      embeddings: `[n, p, c]`.
      identities: int `[n]`; equal numbers mark clips of one sequence.
      margin: in units of embedding distance; published 0.2.
    """
    distances = pairwise_distances(embeddings)  # p n n
    same = identities[:, None] == identities[None, :]  # n n
    triplets = same[:, :, None] & ~same[:, None, :]  # a i j
    hinge = margin + distances[:, :, :, None] - distances[:, :, None, :]  # p a i j
    hinge = jnp.where(triplets, jax.nn.relu(hinge), 0.0)  # p a i j
    total = jnp.sum(hinge, axis=(1, 2, 3))  # p
    violations = jnp.sum(hinge > 0.0, axis=(1, 2, 3))  # p
    return TripletTerms(total / jnp.maximum(violations, 1), violations, jnp.mean(distances, axis=(1, 2)))


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, scale: float, smoothing: float) -> jax.Array:
    """Cross entropy of `scale * logits` with label smoothing (Szegedy et al. 2016, section 7), mean over clips and strips.

    Args:
      logits: cosines `[n, p, k]`.
      labels: int `[n]` class ids.
      scale: inverse temperature of the cosines; published 16.
      smoothing: probability mass spread evenly over all classes; published 0.1.
    """
    log_probability = jax.nn.log_softmax(scale * widen(logits), axis=-1)  # n p k
    target = jax.nn.one_hot(labels, logits.shape[-1])[:, None, :]  # n 1 k
    target = (1.0 - smoothing) * target + smoothing / logits.shape[-1]  # n 1 k
    return -jnp.mean(jnp.sum(target * log_probability, axis=-1))


@dataclass(frozen=True)
class ScoNetLoss:
    """`triplet_weight` x identity loss + `class_weight` x classification loss. A weight of 0 leaves its term out altogether.

    ScoNet-MT has both weights 1; ScoNet has `triplet_weight=0`.

    Raises:
      ValueError: for weights that are negative or both zero, a negative margin, a scale that is not positive, or a smoothing
        outside [0, 1).
    """

    triplet_weight: float
    class_weight: float
    margin: float
    scale: float
    label_smoothing: float

    def __post_init__(self):
        if min(self.triplet_weight, self.class_weight) < 0 or self.triplet_weight == self.class_weight == 0:
            raise ValueError(
                f"loss.triplet_weight={self.triplet_weight} and loss.class_weight={self.class_weight} must not be negative, "
                "and one must be positive"
            )
        if self.margin < 0:
            raise ValueError(f"loss.margin={self.margin} must not be negative")
        if self.scale <= 0:
            raise ValueError(f"loss.scale={self.scale} must be positive")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing={self.label_smoothing} must be in [0, 1)")

    def __call__(self, output: ScoNetOutput, labels: jax.Array, identities: jax.Array) -> tuple[jax.Array, dict]:
        """The total loss, and what to log: scalars by name.

        Args:
          output: of the network, `n` clips.
          labels: int `[n]` class ids.
          identities: int `[n]` sequence numbers.
        """
        total = jnp.zeros(())
        terms = {}
        if self.class_weight:
            cross_entropy = smoothed_cross_entropy(output.logits, labels, self.scale, self.label_smoothing)
            total += self.class_weight * cross_entropy
            right = jnp.argmax(output.logits, axis=-1) == labels[:, None]  # n p
            terms |= {"cross_entropy": cross_entropy, "strip_accuracy": jnp.mean(right)}
        if self.triplet_weight:
            triplet = triplet_loss(output.embeddings, identities, self.margin)
            total += self.triplet_weight * jnp.mean(triplet.loss)
            terms |= {
                "triplet": jnp.mean(triplet.loss),
                "triplet_violations": jnp.mean(triplet.violations.astype(jnp.float32)),
                "embedding_distance": jnp.mean(triplet.mean_distance),
            }
        return total, {"loss": total, **terms}
