"""ResNet9: the frame-wise backbone of ScoNet, a stem and four basic blocks (He et al. 2016, section 4.1)."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx

from scoliojax.models.layers import BatchNorm, Conv


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with a skip connection; a 1x1 convolution and a batch norm on the skip where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rng: np.random.Generator):
        self.conv1 = Conv(inputs, outputs, 3, stride, rng=rng)
        self.norm1 = BatchNorm((outputs,), rng=rng)
        self.conv2 = Conv(outputs, outputs, 3, 1, rng=rng)
        self.norm2 = BatchNorm((outputs,), rng=rng)
        self.changes_shape = stride != 1 or inputs != outputs
        if self.changes_shape:
            self.skip_conv = Conv(inputs, outputs, 1, stride, rng=rng)
            self.skip_norm = BatchNorm((outputs,), rng=rng)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x), train=train))  # b h' w' c'
        y = self.norm2(self.conv2(y), train=train)  # b h' w' c'
        if self.changes_shape:
            x = self.skip_norm(self.skip_conv(x), train=train)  # b h' w' c'
        return nnx.relu(x + y)  # b h' w' c'


class ResNet9(nnx.Module):
    """Silhouette frames `[b, 64, 44, 1]` to feature maps `[b, 16, 11, c]`, in the frames' dtype.

    Args:
      channels: four, output channels of the four blocks; the stem has as many as the first.
      rng: draws the start values.
    """

    def __init__(self, channels: tuple[int, ...], *, rng: np.random.Generator):
        self.stem_conv = Conv(1, channels[0], 3, 1, rng=rng)
        self.stem_norm = BatchNorm((channels[0],), rng=rng)
        # no pooling after the stem: silhouettes are small
        self.layer1 = BasicBlock(channels[0], channels[0], 1, rng=rng)
        self.layer2 = BasicBlock(channels[0], channels[1], 2, rng=rng)
        self.layer3 = BasicBlock(channels[1], channels[2], 2, rng=rng)
        self.layer4 = BasicBlock(channels[2], channels[3], 1, rng=rng)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nnx.relu(self.stem_norm(self.stem_conv(x), train=train))  # b 64 44 c
        x = self.layer1(x, train=train)  # b 64 44 c
        x = self.layer2(x, train=train)  # b 32 22 c
        x = self.layer3(x, train=train)  # b 16 11 c
        return self.layer4(x, train=train)  # b 16 11 c
