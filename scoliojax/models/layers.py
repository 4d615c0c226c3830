"""Building blocks that compute what PyTorch's do. Axis letters as in `data_pipelines.schema`; `b` is clips x frames."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.1  # the weight of the *new* value, PyTorch's convention; flax counts the other way round


def widen(x: jax.Array) -> jax.Array:
    """`x` in float32, or in float64 where it already is: statistics, strips and losses are never computed in less."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


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


@jax.custom_vjp
def normalise_batch(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation with the batch's own statistics (Ioffe & Szegedy 2015, algorithm 1), in float32.

    Mean and variance are taken in two passes: one pass (mean of squares minus squared mean) loses digits. The gradient is
    written out so that the backward pass needs `x` alone, in its own dtype.

    Args:
      x: `[..., *features]`.
      scale: float32 `[*features]`.
      bias: float32 `[*features]`.

    Returns:
      The normalised `x` in its own dtype, and the batch's mean and biased variance, float32 `[*features]`, to be used for
      running statistics only: no gradient flows through them.
    """
    return _normalise_forward(x, scale, bias)[0]


def _normalise_forward(x, scale, bias):
    axes = tuple(range(x.ndim - scale.ndim))
    wide = widen(x)  # ... *features
    mean = jnp.mean(wide, axes)  # *features
    var = jnp.mean(jnp.square(wide - mean), axes)  # *features
    inverse = jax.lax.rsqrt(var + BN_EPSILON)  # *features
    y = ((wide - mean) * (inverse * scale) + bias).astype(x.dtype)  # ... *features
    return (y, mean, var), (x, mean, inverse, scale)


def _normalise_backward(saved, cotangents):
    x, mean, inverse, scale = saved
    axes = tuple(range(x.ndim - scale.ndim))
    gradient = widen(cotangents[0])  # ... *features
    bias_gradient = jnp.sum(gradient, axes)  # *features
    # Adding 0 x gradient ties `normal` to the backward pass: XLA for CPU, which drops optimisation barriers, would otherwise
    # compute it right after the forward pass and keep it until here.
    normal = (widen(x) - (mean + 0.0 * bias_gradient)) * inverse  # ... *features
    scale_gradient = jnp.sum(gradient * normal, axes)  # *features
    count = x.size // mean.size
    centred = gradient - (bias_gradient + normal * scale_gradient) / count  # ... *features
    return (centred * (inverse * scale)).astype(x.dtype), scale_gradient, bias_gradient


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

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise `[..., *features]`; the result has `x`'s dtype. With `train`, running statistics move in place."""
        scale, bias = self.scale[...], self.bias[...]  # *features
        if train:
            y, mean, var = normalise_batch(x, scale, bias)
            count = x.size // mean.size
            unbiased = var * (count / max(count - 1, 1))  # *features
            self.mean[...] += BN_MOMENTUM * (mean - self.mean[...])  # *features
            self.var[...] += BN_MOMENTUM * (unbiased - self.var[...])  # *features
            return y  # ... *features
        factor = jax.lax.rsqrt(self.var[...] + BN_EPSILON) * scale  # *features
        return ((widen(x) - self.mean[...]) * factor + bias).astype(x.dtype)  # ... *features


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


CHUNK = 4  # frames whose patches are laid out at once: the patches stay near the processor


def _convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The convolution itself, padded by `kernel // 2` on every side.

    The padding is explicit: `SAME` at stride 2 gives the right shape and the wrong numbers (it pads right and below only).
    """
    half = kernel.shape[0] // 2
    pad = (half, half)
    precision = None if x.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST  # accelerators would round the factors
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), (pad, pad), dimension_numbers=layout, precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A square convolution without bias: `[b, h, w, c]` and `[e, e, c, d]` to `[b, h / stride, w / stride, d]`.

    The gradients are those of `jax.lax.conv_general_dilated`, save that on a CPU the kernel's is computed as matrix products
    over a few frames at a time: XLA's own gathers the whole batch in another layout first, and is much slower there.
    """
    return _convolve(x, kernel, stride)


def _convolve_forward(x, kernel, stride):
    return _convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(stride, saved, gradient):
    x, kernel = saved
    (x_gradient,) = jax.vjp(lambda x: _convolve(x, kernel, stride), x)[1](gradient)

    def by_library(x, gradient):
        return jax.vjp(lambda kernel: _convolve(x, kernel, stride), kernel)[1](gradient)[0]

    def by_chunks(x, gradient):
        """Frames are dealt to as many groups as there are devices: where they are sharded, each device sums its own."""
        sum_chunks = functools.partial(_kernel_gradient, edge=kernel.shape[0], stride=stride)
        groups = math.gcd(x.shape[0], jax.device_count())
        if groups == 1:  # an axis of one would make the matrix products slower
            return sum_chunks(x, gradient).astype(kernel.dtype)
        dealt = (array.reshape(groups, -1, *array.shape[1:]) for array in (x, gradient))  # groups b h w c
        return jax.vmap(sum_chunks)(*dealt).sum(axis=0).astype(kernel.dtype)

    return x_gradient, jax.lax.platform_dependent(x, gradient, cpu=by_chunks, default=by_library)


def _kernel_gradient(x: jax.Array, gradient: jax.Array, edge: int, stride: int) -> jax.Array:
    """Gradient of the kernel, float32 `[e, e, c, d]`: output gradient times patches, summed over chunks of frames."""
    frames, inputs = x.shape[0], x.shape[-1]
    _, rows, columns, outputs = gradient.shape
    chunk = max(size for size in range(1, CHUNK + 1) if frames % size == 0)
    pad = (edge // 2,) * 2

    def take(array, index):
        dtype = array.dtype
        if dtype == jnp.bfloat16:  # as integers: XLA for CPU widens a whole bfloat16 array before it takes a slice of it
            array = jax.lax.bitcast_convert_type(array, jnp.uint16)  # b h w c
        part = jax.lax.dynamic_slice_in_dim(array, index * chunk, chunk)  # chunk h w c
        return widen(jax.lax.bitcast_convert_type(part, dtype) if part.dtype != dtype else part)  # chunk h w c

    def add_chunk(index, total):
        part = jnp.pad(take(x, index), ((0, 0), pad, pad, (0, 0)))  # chunk h+ w+ c
        patches = [
            part[:, top : top + stride * (rows - 1) + 1 : stride, left : left + stride * (columns - 1) + 1 : stride]
            for top in range(edge)
            for left in range(edge)
        ]  # ee times: chunk h' w' c
        laid_out = jnp.concatenate(patches, axis=-1).reshape(-1, edge * edge * inputs)  # chunk-h'w' eec
        return total + take(gradient, index).reshape(-1, outputs).T @ laid_out  # d eec

    start = jnp.zeros((outputs, edge * edge * inputs), jnp.promote_types(x.dtype, jnp.float32))  # d eec
    total = jax.lax.fori_loop(0, frames // chunk, add_chunk, start)  # d eec
    return total.T.reshape(edge, edge, inputs, outputs)


convolve.defvjp(_convolve_forward, _convolve_backward)


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

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve `[b, h, w, c]` in its own dtype."""
        stride = self.stride
        if self.edge == 1:  # reads every stride-th pixel only, and its gradient reaches no other
            x, stride = x[:, ::stride, ::stride], 1  # b h' w' c
        return convolve(x, self.kernel[...].astype(x.dtype), stride)  # b h' w' c'
