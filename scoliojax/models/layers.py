"""Building blocks that compute what PyTorch's do. Axis letters as in `data_pipelines.schema`; `b` is clips x frames."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scoliojax.kernels.batch_norm import BN_EPSILON, count_values, normalise_batch
from scoliojax.kernels.convolution import convolve
from scoliojax.kernels.numerics import widen

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
            count = count_values(x, tuple(range(x.ndim - len(self.features))), weights)
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
