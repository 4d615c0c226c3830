"""Batch normalisation with the statistics of the batch, and its gradient. Axis letters as in `data_pipelines.schema`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from scoliojax.kernels.numerics import widen

BN_EPSILON = 1e-5


def _mean(values: jax.Array, axes: tuple[int, ...], weights: jax.Array | None) -> jax.Array:
    if weights is None:
        return jnp.mean(values, axes)
    return jnp.sum(values * _along_first(weights, values), axes) / count_values(values, axes, weights)


def count_values(x: jax.Array, axes: tuple[int, ...], weights: jax.Array | None) -> int | jax.Array:
    """How many values a mean over the leading `axes` is of."""
    if weights is None:
        return math.prod(x.shape[axis] for axis in axes)
    return jnp.sum(weights) * math.prod(x.shape[axis] for axis in axes[1:])


def _along_first(weights: jax.Array, x: jax.Array) -> jax.Array:
    return weights.reshape(-1, *[1] * (x.ndim - 1))


@jax.custom_vjp
def normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation with the batch's own statistics (Ioffe & Szegedy 2015, algorithm 1), in float32.

    Mean and variance are taken in two passes: one pass (mean of squares minus squared mean) loses digits. The gradient is
    written out so that the backward pass needs `x` alone, in its own dtype.

    Args:
      x: `[..., *features]`.
      scale: float32 `[*features]`.
      bias: float32 `[*features]`.
      weights: float32 `[x.shape[0]]`, how often each of the first axis counts; None where each does once.

    Returns:
      The normalised `x` in its own dtype, and the batch's mean and biased variance, float32 `[*features]`, to be used for
      running statistics only: no gradient flows through them.
    """
    return _normalise_forward(x, scale, bias, weights)[0]


def _normalise_forward(x, scale, bias, weights):
    axes = tuple(range(x.ndim - scale.ndim))
    wide = widen(x)  # ... *features
    mean = _mean(wide, axes, weights)  # *features
    var = _mean(jnp.square(wide - mean), axes, weights)  # *features
    inverse = jax.lax.rsqrt(var + BN_EPSILON)  # *features
    y = ((wide - mean) * (inverse * scale) + bias).astype(x.dtype)  # ... *features
    return (y, mean, var), (x, mean, inverse, scale, weights)


def _normalise_backward(saved, cotangents):
    x, mean, inverse, scale, weights = saved
    axes = tuple(range(x.ndim - scale.ndim))
    gradient = widen(cotangents[0])  # ... *features
    bias_gradient = jnp.sum(gradient, axes)  # *features
    # Adding 0 x gradient ties `normal` to the backward pass: XLA for CPU, which drops optimisation barriers, would otherwise
    # compute it right after the forward pass and keep it until here.
    normal = (widen(x) - (mean + 0.0 * bias_gradient)) * inverse  # ... *features
    scale_gradient = jnp.sum(gradient * normal, axes)  # *features
    through_statistics = (bias_gradient + normal * scale_gradient) / count_values(x, axes, weights)  # ... *features
    if weights is not None:
        through_statistics *= _along_first(weights, x)  # ... *features
    x_gradient = ((gradient - through_statistics) * (inverse * scale)).astype(x.dtype)  # ... *features
    return x_gradient, scale_gradient, bias_gradient, jax.tree.map(jnp.zeros_like, weights)


normalise_batch.defvjp(_normalise_forward, _normalise_backward)
