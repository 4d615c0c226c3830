"""The losses of ScoNet-MT; the identity loss itself is `kernels.triplet`. Axis letters as in `data_pipelines.schema`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from scoliojax.kernels.numerics import widen
from scoliojax.kernels.triplet import triplet_loss
from scoliojax.models.sconet import ScoNetOutput

LEAST_WEIGHT = 1e-6  # of a class; less would vanish in single precision
SEQUENCE, CLASS = "sequence", "class"


def smoothed_cross_entropy(
    logits: jax.Array, labels: jax.Array, scale: float, smoothing: float, weights: Sequence[float] = ()
) -> jax.Array:
    """Cross entropy of `scale * logits` with label smoothing (Szegedy et al. 2016, section 7), mean over clips and strips.

    Args:
      logits: cosines `[n, p, k]`.
      labels: int class ids `[n]`.
      scale: inverse temperature of the cosine logits; published 16.
      smoothing: probability mass that is spread evenly over all classes; published 0.1.
      weights: of the classes, `[k]`; equal ones, or none, change nothing. As in PyTorch every class's part of a clip's loss has
        the weight of that class, and the sum is divided by that of the weights of the true classes.
    """
    weighted, logits = len(set(weights)) > 1, widen(logits)  # n p k
    each = jnp.asarray(weights if weighted else 1.0, logits.dtype)  # k
    target = each * optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1])[:, None, :], smoothing)  # n 1 k
    mean = jnp.mean(optax.softmax_cross_entropy(scale * logits, target))
    return mean / jnp.mean(each[labels]) if weighted else mean


@dataclass(frozen=True)
class ScoNetLoss:
    """`triplet_weight` x identity loss + `class_weight` x classification loss. A term of weight 0 is not computed.

    ScoNet-MT has both weights 1; ScoNet has `triplet_weight=0`; DRF takes clips of one class for positive pairs and weighs the
    classes. Raises `ValueError` for weights that are negative or both zero, a negative margin, a scale that is not positive, a
    smoothing outside [0, 1), another label of triplets, or weights of classes that are not positive.
    """

    triplet_weight: float
    class_weight: float
    margin: float  # in units of embedding distance
    scale: float  # inverse temperature of the cosine logits
    label_smoothing: float
    triplet_label: str = SEQUENCE  # what makes two clips a positive pair: that they show one "sequence", or one "class"
    weights_by_class: tuple[float, ...] = ()  # of the classes in the classification loss; equal ones, or none, change nothing
    mesh: Mesh | None = None  # the mesh over which clips are sharded; None on a single device

    def __post_init__(self):
        weights = self.triplet_weight, self.class_weight
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ValueError(
                f"loss.triplet_weight={self.triplet_weight} and loss.class_weight={self.class_weight} must be finite and not "
                "negative, and one must be positive"
            )
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"loss.margin={self.margin} must be finite and not negative")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"loss.scale={self.scale} must be positive and finite")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing={self.label_smoothing} must be in [0, 1)")
        if self.triplet_label not in (SEQUENCE, CLASS):
            raise ValueError(f'loss.triplet_label={self.triplet_label!r} must be "{SEQUENCE}" or "{CLASS}"')
        if not all(LEAST_WEIGHT <= weight < math.inf for weight in self.weights_by_class):
            raise ValueError(f"loss.weights_by_class={tuple(self.weights_by_class)} must be positive and finite numbers")

    def __call__(self, output: ScoNetOutput, labels: jax.Array, identities: jax.Array) -> tuple[jax.Array, dict]:
        """The total loss and the scalars to log; `labels`: int class ids `[n]`, `identities`: int sequence numbers `[n]`."""
        total, terms = jnp.zeros(()), {}
        if self.class_weight:
            weights = self.weights_by_class
            cross_entropy = smoothed_cross_entropy(output.logits, labels, self.scale, self.label_smoothing, weights)
            total += self.class_weight * cross_entropy
            correct = jnp.argmax(output.logits, axis=-1) == labels[:, None]  # n p
            terms |= {"cross_entropy": cross_entropy, "strip_accuracy": jnp.mean(correct)}
        if self.triplet_weight:
            alike = labels if self.triplet_label == CLASS else identities  # n
            triplet = triplet_loss(output.embeddings, alike, self.margin, self.mesh)
            total += self.triplet_weight * jnp.mean(triplet.loss)
            terms |= {"triplet": jnp.mean(triplet.loss), "triplet_violations": jnp.mean(triplet.violations)}
            terms["embedding_distance"] = jnp.mean(triplet.mean_distance)
        return total, {"loss": total, **terms}
