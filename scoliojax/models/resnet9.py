"""ResNet9: the frame-wise backbone of ScoNet, a stem and four basic blocks (He et al. 2016, section 4.1)."""

import jax
import numpy as np
from flax import nnx

from scoliojax.kernels.batch_norm import RowWeights
from scoliojax.kernels.rectify import rectify
from scoliojax.models.layers import BatchNorm, Conv, convolve_normalise


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with a skip connection; a 1x1 convolution and a batch norm on the skip where the shape changes.

    `last`: the block before set pooling, whose gradient is zero wherever the block's result is (see `ScoNet.pool`).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, last: bool = False, rng: np.random.Generator):
        self.conv1 = Conv(inputs, outputs, 3, stride, rng=rng)
        self.norm1 = BatchNorm((outputs,), rng=rng)
        self.conv2 = Conv(outputs, outputs, 3, 1, rng=rng)
        self.norm2 = BatchNorm((outputs,), rng=rng)
        self.last = last
        self.changes_shape = stride != 1 or inputs != outputs
        if self.changes_shape:
            self.skip_conv = Conv(inputs, outputs, 1, stride, rng=rng)
            self.skip_norm = BatchNorm((outputs,), rng=rng)

    def __call__(self, x: jax.Array, weights: RowWeights | None = None, *, train: bool) -> jax.Array:
        y = nnx.relu(convolve_normalise(self.conv1, self.norm1, x, weights, train=train))  # b h' w' c'
        y = convolve_normalise(self.conv2, self.norm2, y, weights, train=train)  # b h' w' c'
        if self.changes_shape:
            x = convolve_normalise(self.skip_conv, self.skip_norm, x, weights, train=train)  # b h' w' c'
        return rectify(x + y, self.last)  # b h' w' c'


class ResNet9(nnx.Module):
    """Frames `[b, 64, 44, inputs]` to feature maps `[b, 16, 11, c]`, in the frames' dtype.

    `channels`: output channels of the four blocks; the stem has as many as the first block. `inputs`: channels of a frame.
    """

    def __init__(self, channels: tuple[int, ...], inputs: int = 1, *, rng: np.random.Generator):
        self.stem_conv = Conv(inputs, channels[0], 3, 1, rng=rng)
        self.stem_norm = BatchNorm((channels[0],), rng=rng)  # no pooling after the stem, because frames are small
        self.layer1 = BasicBlock(channels[0], channels[0], 1, rng=rng)
        self.layer2 = BasicBlock(channels[0], channels[1], 2, rng=rng)
        self.layer3 = BasicBlock(channels[1], channels[2], 2, rng=rng)
        self.layer4 = BasicBlock(channels[2], channels[3], 1, last=True, rng=rng)

    def __call__(self, x: jax.Array, weights: RowWeights | None = None, *, train: bool) -> jax.Array:
        """`weights`: how often each of the `b` frames counts in batch statistics; None for once."""
        x = rectify(convolve_normalise(self.stem_conv, self.stem_norm, x, weights, train=train, images=True))  # b 64 44 c
        x = self.layer1(x, weights, train=train)  # b 64 44 c
        x = self.layer2(x, weights, train=train)  # b 32 22 c
        x = self.layer3(x, weights, train=train)  # b 16 11 c
        return self.layer4(x, weights, train=train)  # b 16 11 c
