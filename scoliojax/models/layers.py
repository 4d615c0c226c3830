"""Building blocks that compute what PyTorch's do. Axis letters as in `data_pipelines.schema`; `b` is clips x frames."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scoliojax.kernels.convolution import convolve, widen

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1  # the weight of the *new* value, PyTorch's convention; flax counts the other way round


# Start values are drawn by numpy: at once, and the same to the bit whatever the device.


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...], fans: int) -> np.ndarray:
    """Uniform within sqrt(6 / `fans`) of zero, float32, where `fans` is fan_in + fan_out (Glorot & Bengio 2010, eq. 16)."""
    limit = (6.0 / fans) ** 0.5
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def xavier_uniform_strips(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Xavier-uniform for one matrix per strip, `[p, in, out]`, with the fans PyTorch computes for a 3-D tensor.

    PyTorch reads such a tensor as a 1-D convolution: fan_in = in * out, fan_out = p * out.
    """
    parts, inputs, outputs = shape
    return xavier_uniform(rng, shape, inputs * outputs + parts * outputs)  # p in out


def batch_norm_scale(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The published start value of batch-norm scales, float32: normal with mean 1 and standard deviation 0.02."""
    return rng.normal(1.0, 0.02, shape).astype(np.float32)


def _mean(values: jax.Array, axes: tuple[int, ...], weights: jax.Array | None) -> jax.Array:
    if weights is None:
        return jnp.mean(values, axes)
    return jnp.sum(values * _along_first(weights, values), axes) / _count(values, axes, weights)


def _count(x: jax.Array, axes: tuple[int, ...], weights: jax.Array | None) -> int | jax.Array:
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
    through_statistics = (bias_gradient + normal * scale_gradient) / _count(x, axes, weights)  # ... *features
    if weights is not None:
        through_statistics *= _along_first(weights, x)  # ... *features
    x_gradient = ((gradient - through_statistics) * (inverse * scale)).astype(x.dtype)  # ... *features
    return x_gradient, scale_gradient, bias_gradient, jax.tree.map(jnp.zeros_like, weights)


normalise_batch.defvjp(_normalise_forward, _normalise_backward)


class BatchNorm(nnx.Module):
    """Batch normalisation over every axis but the trailing feature axes (Ioffe & Szegedy 2015), with PyTorch's statistics.

    Training normalises with the biased variance of the batch and stores the *unbiased* one, weighted by 0.1. Under `jax.jit`
    with a sharded batch the statistics are those of the global batch.

    Args:
      features: shape of the trailing feature axes, e.g. `(c,)` for images or `(p, c)` for per-strip features.
      rng: draws the scale.
    """

    def __init__(self, features: tuple[int, ...], *, rng: np.random.Generator):
        self.features = features
        self.scale = nnx.Param(batch_norm_scale(rng, features))
        self.bias = nnx.Param(np.zeros(features, np.float32))
        self.mean = nnx.BatchStat(np.zeros(features, np.float32))
        self.var = nnx.BatchStat(np.ones(features, np.float32))

    def __call__(self, x: jax.Array, weights: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Normalise `[..., *features]`; the result has `x`'s dtype. With `train`, running statistics move in place.

        `weights` are those of `normalise_batch`: a frame that counts twice is in the statistics as two frames would be.
        """
        scale, bias = self.scale[...], self.bias[...]  # *features
        if train:
            y, mean, var = normalise_batch(x, scale, bias, weights)
            count = _count(x, tuple(range(x.ndim - len(self.features))), weights)
            unbiased = var * (count / jnp.maximum(count - 1, 1))  # *features
            self.mean[...] += BN_MOMENTUM * (mean - self.mean[...])  # *features
            self.var[...] += BN_MOMENTUM * (unbiased - self.var[...])  # *features
            return y  # ... *features
        return ((widen(x) - self.mean[...]) * self.folded()[0] + bias).astype(x.dtype)  # ... *features

    def folded(self) -> tuple[jax.Array, jax.Array]:
        """What evaluation multiplies by, scale over running standard deviation, and what it then adds, both `[*features]`."""
        return _fold(self.scale[...], self.bias[...], self.mean[...], self.var[...])


@jax.jit  # an export computes this ahead: operation by operation the last bit would be another, and a bfloat16 after it
def _fold(scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
    factor = jax.lax.rsqrt(var + BN_EPSILON) * scale  # *features
    return factor, bias - mean * factor


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def maximum(x: jax.Array, axis: int) -> jax.Array:
    """The maximum along a non-negative `axis`, whose gradient goes to the first of the largest values, as in PyTorch.

    The library's gradient looks for the places where `x` equals its maximum. A compiler may compute `x` once more for that,
    rounded otherwise, and then finds no such place: the gradient becomes infinite. The place is an integer here.
    """
    return jnp.max(x, axis)


def _maximum_forward(x, axis):
    return jnp.max(x, axis), (jnp.argmax(x, axis), x.shape[axis])  # both without `axis`


def _maximum_backward(axis, saved, gradient):
    place, size = saved
    shape = (*gradient.shape[:axis], size, *gradient.shape[axis:])
    here = jax.lax.broadcasted_iota(place.dtype, shape, axis) == jnp.expand_dims(place, axis)  # as x
    return (jnp.where(here, jnp.expand_dims(gradient, axis), 0),)  # as x


maximum.defvjp(_maximum_forward, _maximum_backward)


class Conv(nnx.Module):
    """A square convolution without bias, padded by `edge // 2` on every side; starts Xavier-uniform.

    Args:
      inputs: channels.
      outputs: channels.
      edge: of the kernel, 1 or 3.
      stride: in both directions.
      rng: draws the kernel.
    """

    def __init__(self, inputs: int, outputs: int, edge: int, stride: int, *, rng: np.random.Generator):
        shape = (edge, edge, inputs, outputs)
        self.kernel = nnx.Param(xavier_uniform(rng, shape, edge * edge * (inputs + outputs)))
        self.edge, self.stride = edge, stride

    def __call__(self, x: jax.Array, factor: jax.Array | float = 1.0) -> jax.Array:
        """Convolve `[b, h, w, c]` in its own dtype, with kernels times `factor`, `[outputs]`."""
        stride = self.stride
        if self.edge == 1:  # reads every stride-th pixel only, and its gradient reaches no other
            x, stride = x[:, ::stride, ::stride], 1  # b h' w' c
        return convolve(x, (self.kernel[...] * factor).astype(x.dtype), stride)  # b h' w' c'


def convolve_normalise(
    conv: Conv, norm: BatchNorm, x: jax.Array, weights: jax.Array | None = None, *, train: bool
) -> jax.Array:
    """`norm(conv(x))`, `[b, h, w, c]` to `[b, h', w', c']`; in evaluation one convolution, the batch norm in its kernel."""
    if train:
        return norm(conv(x), weights, train=True)  # b h' w' c'
    factor, shift = norm.folded()  # c', c'
    return (widen(conv(x, factor)) + shift).astype(x.dtype)  # b h' w' c'
