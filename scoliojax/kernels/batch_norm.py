"""Batch normalisation with the statistics of the batch, and its gradient. Axis letters as in `data_pipelines.schema`."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scoliojax.kernels.numerics import widen

BN_EPSILON = 1e-5


class RowWeights(NamedTuple):
    """How often each row of the first axis counts. Their sum is given, so that devices need not add it up together."""

    each: jax.Array  # b, float32
    total: float | jax.Array


def count_values(x: jax.Array, axes: tuple[int, ...], weights: RowWeights | None) -> float | jax.Array:
    """Number of values in a mean over the leading `axes`."""
    rows = x.shape[0] if weights is None else weights.total
    return rows * math.prod(x.shape[axis] for axis in axes[1:])


def _weigh(values: jax.Array, weights: RowWeights | None) -> jax.Array:
    return values if weights is None else values * weights.each.reshape(-1, *[1] * (values.ndim - 1))


def _statistics(
    x: jax.Array, axes: tuple[int, ...], near: jax.Array, weights: RowWeights | None
) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over the leading `axes`, in float32: of bfloat16 in one pass about `near`, else in two."""
    wide, count = widen(x), count_values(x, axes, weights)  # ... *features
    if x.dtype == jnp.bfloat16:
        apart = wide - near  # ... *features
        weighted = _weigh(apart, weights)  # ... *features
        offset = jnp.sum(weighted, axes) / count  # *features
        square = jnp.sum(weighted * apart, axes) / count  # *features
        return near + offset, jnp.maximum(square - jnp.square(offset), 0.0)
    mean = jnp.sum(_weigh(wide, weights), axes) / count  # *features
    return mean, jnp.sum(_weigh(jnp.square(wide - mean), weights), axes) / count


@jax.custom_vjp
def normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, weights: RowWeights | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation of `x`, `[..., *features]`, with the batch's statistics (Ioffe & Szegedy 2015, algorithm 1).

    The result is the normalised `x` in its dtype, and the batch's mean and biased variance, float32 `[*features]`, for running
    statistics only: no gradient flows through them. `scale`, `bias` and `near` are float32 `[*features]`. `near` is a guess of
    the mean, such as the running mean; the result does not depend on it but for rounding.

    Statistics are computed in float32. Those of float32 take two passes, because one pass loses digits where the mean is much
    larger than the deviation. Those of bfloat16 take one pass about `near`, which moves the variance by 1e-7 of the squared
    distance between `near` and the mean; the 8 bits of the values themselves moved it by 1e-6 of the squared mean before. One
    pass can be taken while the values are computed, and needs one exchange between devices. The gradient is written by hand so
    that the backward pass needs only `x`, in its dtype.
    """
    return _normalise_forward(x, scale, bias, near, weights)[0]


def _normalise_forward(x, scale, bias, near, weights):
    mean, var = _statistics(x, tuple(range(x.ndim - scale.ndim)), near, weights)  # *features
    inverse = jax.lax.rsqrt(var + BN_EPSILON)  # *features
    factor = inverse * scale  # *features
    if x.dtype == jnp.bfloat16:
        y = (widen(x) * factor + (bias - mean * factor)).astype(x.dtype)  # ... *features
    else:
        y = ((widen(x) - mean) * factor + bias).astype(x.dtype)  # ... *features
    return (y, mean, var), (x, mean, inverse, scale, weights)


def _normalise_backward(saved, cotangents):
    x, mean, inverse, scale, weights = saved
    axes = tuple(range(x.ndim - scale.ndim))
    gradient = widen(cotangents[0])  # ... *features
    bias_gradient = jnp.sum(gradient, axes)  # *features
    # On a CPU adding 0 x gradient makes `apart` depend on the backward pass. Otherwise XLA, which drops optimisation barriers
    # there, computes it after the forward pass and keeps it in memory. Elsewhere both sums are taken in one pass.
    late = jax.lax.platform_dependent(
        mean, bias_gradient, cpu=lambda mean, sums: mean + 0.0 * sums, default=lambda mean, sums: mean
    )
    apart = widen(x) - late  # ... *features
    scale_gradient = jnp.sum(gradient * apart, axes) * inverse  # *features
    share = inverse * scale / count_values(x, axes, weights)  # *features
    through_statistics = apart * (share * inverse * scale_gradient) + share * bias_gradient  # ... *features
    x_gradient = (gradient * (inverse * scale) - _weigh(through_statistics, weights)).astype(x.dtype)  # ... *features
    return x_gradient, scale_gradient, bias_gradient, jnp.zeros_like(mean), jax.tree.map(jnp.zeros_like, weights)


normalise_batch.defvjp(_normalise_forward, _normalise_backward)


def product_statistics(x: jax.Array, kernel: jax.Array, weights: RowWeights | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of `x @ kernel` over the leading axes, float32 `[d]`, without a look at the product.

    `x` is `[b, h, w, q]` and `kernel` float32 `[q, d]`. The mean of the product is the product of the mean, and its variance is
    `k' C k` with the covariance `C`, `[q, q]`, of `x`. That pays where q is small; gradients flow through both. The covariance
    is taken in one pass, which is exact enough for bfloat16, as in `normalise_batch`.
    """
    axes, exact = tuple(range(x.ndim - 1)), jax.lax.Precision.HIGHEST
    count = count_values(x, axes, weights)
    weighted = _weigh(widen(x), weights)  # b h w q
    mean = jnp.sum(weighted, axes) / count  # q
    square = jnp.einsum("bhwp,bhwq->pq", weighted.astype(x.dtype), x, preferred_element_type=mean.dtype) / count  # q q
    spread = jnp.matmul(square - mean[:, None] * mean, kernel, precision=exact)  # q d
    return jnp.matmul(mean, kernel, precision=exact), jnp.maximum(jnp.sum(kernel * spread, axis=0), 0.0)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`x + bias` in the dtype of `x`, `[..., c]`; the gradient of `bias`, float32 `[c]`, is summed in float32.

    In bfloat16 this sum, and a ReLU after it, are part of a GPU's convolution.
    """
    return x + bias.astype(x.dtype)


add_bias.defvjp(
    lambda x, bias: (add_bias(x, bias), None),
    lambda _, gradient: (gradient, jnp.sum(widen(gradient), tuple(range(gradient.ndim - 1)))),
)
