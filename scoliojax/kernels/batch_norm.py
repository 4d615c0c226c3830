"""Batch normalisation with the statistics of the batch, and its gradient. Axis letters as in `data_pipelines.schema`."""

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
    """Number of values in a mean over the leading `axes`."""
    if weights is None:
        return math.prod(x.shape[axis] for axis in axes)
    return jnp.sum(weights) * math.prod(x.shape[axis] for axis in axes[1:])


def _along_first(weights: jax.Array, x: jax.Array) -> jax.Array:
    return weights.reshape(-1, *[1] * (x.ndim - 1))


@jax.custom_vjp
def normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation of `x`, `[..., *features]`, with the batch's statistics (Ioffe & Szegedy 2015, algorithm 1).

    The result is the normalised `x` in its dtype, and the batch's mean and biased variance, float32 `[*features]`, for running
    statistics only: no gradient flows through them. `scale` and `bias` are float32 `[*features]`; `weights`, float32
    `[x.shape[0]]`, says how often each row of the first axis counts (None: once).

    Mean and variance are computed in float32 in two passes, because one pass (mean of squares minus squared mean) loses digits.
    The gradient is written by hand so that the backward pass needs only `x`, in its dtype.
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
    # Adding 0 x gradient makes `normal` depend on the backward pass. Otherwise XLA for CPU, which drops optimisation barriers,
    # computes it after the forward pass and keeps it in memory.
    normal = (widen(x) - (mean + 0.0 * bias_gradient)) * inverse  # ... *features
    scale_gradient = jnp.sum(gradient * normal, axes)  # *features
    through_statistics = (bias_gradient + normal * scale_gradient) / count_values(x, axes, weights)  # ... *features
    if weights is not None:
        through_statistics *= _along_first(weights, x)  # ... *features
    x_gradient = ((gradient - through_statistics) * (inverse * scale)).astype(x.dtype)  # ... *features
    return x_gradient, scale_gradient, bias_gradient, jax.tree.map(jnp.zeros_like, weights)


normalise_batch.defvjp(_normalise_forward, _normalise_backward)
