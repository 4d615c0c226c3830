"""Building blocks with the results of PyTorch's. Axis letters as in `data_pipelines.schema`; `b` is clips x frames."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scoliojax.kernels.batch_norm import BN_EPSILON, RowWeights, add_bias, count_values, normalise_batch, product_statistics
from scoliojax.kernels.convolution import convolve
from scoliojax.kernels.numerics import widen

BN_MOMENTUM = 0.1  # weight of the *new* value, PyTorch's convention; flax's momentum is 1 - 0.1


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...], fans: int) -> np.ndarray:
    """Uniform within sqrt(6 / `fans`) of zero, float32, where `fans` is fan_in + fan_out (Glorot & Bengio 2010, eq. 16).

    numpy draws all start values, because they are then equal to the bit on every device.
    """
    limit = (6.0 / fans) ** 0.5
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def xavier_uniform_strips(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Xavier-uniform for one matrix per strip, `[p, in, out]`, with the fans PyTorch computes for a 3-D tensor.

    PyTorch reads such a tensor as a 1-D convolution: fan_in = in * out, fan_out = p * out.
    """
    parts, inputs, outputs = shape
    return xavier_uniform(rng, shape, inputs * outputs + parts * outputs)  # p in out


class BatchNorm(nnx.Module):
    """Batch normalisation over every axis but the trailing feature axes (Ioffe & Szegedy 2015), with PyTorch's statistics.

    Training normalises with the biased variance of the batch and stores the *unbiased* one, weighted by 0.1. Under `jax.jit`
    with a sharded batch the statistics are those of the global batch. `features` is the shape of the trailing feature axes:
    `(c,)` for images, `(p, c)` for strips.
    """

    def __init__(self, features: tuple[int, ...], *, rng: np.random.Generator):
        self.features = features
        self.scale = nnx.Param(rng.normal(1.0, 0.02, features).astype(np.float32))  # start value as published
        self.bias = nnx.Param(np.zeros(features, np.float32))
        self.mean = nnx.BatchStat(np.zeros(features, np.float32))
        self.var = nnx.BatchStat(np.ones(features, np.float32))

    def __call__(self, x: jax.Array, weights: RowWeights | None = None, *, train: bool) -> jax.Array:
        """Normalise `[..., *features]` in its dtype; `train` updates running statistics; `weights` as in `normalise_batch`."""
        scale, bias = self.scale[...], self.bias[...]  # *features
        if train:
            y, mean, var = normalise_batch(x, scale, bias, self.mean[...], weights)
            self.remember(mean, var, count_values(x, tuple(range(x.ndim - len(self.features))), weights))
            return y  # ... *features
        return ((widen(x) - self.mean[...]) * self.folded()[0] + bias).astype(x.dtype)  # ... *features

    def remember(self, mean: jax.Array, var: jax.Array, count: float | jax.Array) -> None:
        """Move the running statistics towards those of a batch of `count` values, `[*features]`; `var` is biased."""
        unbiased = var * (count / jnp.maximum(count - 1, 1))  # *features
        self.mean[...] += BN_MOMENTUM * (mean - self.mean[...])  # *features
        self.var[...] += BN_MOMENTUM * (unbiased - self.var[...])  # *features

    def folded(self) -> tuple[jax.Array, jax.Array]:
        """Factor (scale over running standard deviation) and shift of an evaluation, both `[*features]`."""
        return _fold(self.scale[...], self.bias[...], self.mean[...], self.var[...])


@jax.jit  # an export evaluates this early; without jit the last bit would differ, and so would a bfloat16 after it
def _fold(scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
    factor = jax.lax.rsqrt(var + BN_EPSILON) * scale  # *features
    return factor, bias - mean * factor


class Conv(nnx.Module):
    """A square convolution without bias, padded by `edge // 2` (0 or 1) on every side, with Xavier-uniform start values."""

    def __init__(self, inputs: int, outputs: int, edge: int, stride: int, *, rng: np.random.Generator):
        shape = (edge, edge, inputs, outputs)
        self.kernel = nnx.Param(xavier_uniform(rng, shape, edge * edge * (inputs + outputs)))
        self.edge, self.stride = edge, stride

    def __call__(self, x: jax.Array, factor: jax.Array | float = 1.0) -> jax.Array:
        """Convolve `[b, h, w, c]` in its dtype with the kernel times `factor`, `[outputs]`."""
        stride = self.stride
        if self.edge == 1:  # only every stride-th pixel has an effect
            x, stride = x[:, ::stride, ::stride], 1  # b h' w' c
        return convolve(x, (self.kernel[...] * factor).astype(x.dtype), stride)  # b h' w' c'


def convolve_normalise(
    conv: Conv, norm: BatchNorm, x: jax.Array, weights: RowWeights | None = None, *, train: bool, images: bool = False
) -> jax.Array:
    """`norm(conv(x))`, `[b, h, w, c]` to `[b, h', w', c']`; in evaluation the kernel includes the batch norm.

    `images`: `x` are pictures, of few channels, and nobody asks for their gradient.
    """
    if train and images and x.dtype == jnp.bfloat16:
        return _convolve_images(conv, norm, x, weights)  # b h w c'
    if train:
        return norm(conv(x), weights, train=True)  # b h' w' c'
    factor, shift = norm.folded()  # c', c'
    return (widen(conv(x, factor)) + shift).astype(x.dtype)  # b h' w' c'


def _convolve_images(conv: Conv, norm: BatchNorm, x: jax.Array, weights: RowWeights | None) -> jax.Array:
    """`norm(conv(x))` in training, of images `[b, h, w, c]` in bfloat16: the kernel includes the batch norm here, too.

    The batch's statistics follow from those of the few pixels under the kernel. So the features are written once, complete, and
    neither they nor their gradient is read for a batch norm.
    """
    edge, (_, h, w, c) = conv.edge, x.shape
    padded = jnp.pad(x, ((0, 0), (edge // 2, edge // 2), (edge // 2, edge // 2), (0, 0)))  # b h+e-1 w+e-1 c
    # Without their mean, which a batch norm takes off anyway, the kernel's gradient loses no digits in bfloat16. In sixteenths,
    # so that black and white stay exact.
    centre = jnp.round(16.0 * jnp.mean(widen(x), axis=(0, 1, 2))) / 16.0  # c
    padded = (widen(padded) - centre).astype(x.dtype)  # b h+e-1 w+e-1 c
    seen = [padded[:, row : row + h, column : column + w] for row in range(edge) for column in range(edge)]
    # XLA for GPUs ends where it is to cut patches within a matrix product.
    patches = jax.lax.optimization_barrier(jnp.concatenate(seen, axis=3))  # b h w e-e-c
    kernel = conv.kernel[...].reshape(edge * edge * c, -1)  # e-e-c c'
    mean, var = product_statistics(patches, kernel, weights)  # c', c'
    count = count_values(x, (0, 1, 2), weights)
    removed = jnp.sum(centre[:, None] * jnp.sum(kernel.reshape(edge * edge, c, -1), axis=0), axis=0)  # c'
    norm.remember(*jax.lax.stop_gradient((mean + removed, var)), count)
    factor, shift = _fold(norm.scale[...], norm.bias[...], mean, var)  # c', c'
    return add_bias(convolve(patches, (kernel * factor).astype(x.dtype)[None, None], 1), shift)  # b h w c'
