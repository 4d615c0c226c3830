"""What a training step costs, by arithmetic, and what this machine can do, by a short measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax.models.layers import convolve


def forward_flops_per_frame(channels: Sequence[int]) -> int:
    """Floating-point operations (two per multiply-add) of the backbone's convolutions for one frame."""
    inputs = (channels[0], *channels[:-1])
    full = FRAME_SIZE * FRAME_WIDTH
    multiply_adds = full * 9 * channels[0]  # stem
    for block, (size, area) in enumerate(zip(channels, (full, full // 4, full // 16, full // 16), strict=True)):
        skip = inputs[block] * size if block else 0
        multiply_adds += area * (9 * inputs[block] * size + 9 * size * size + skip)
    return 2 * multiply_adds


def train_flops_per_step(channels: Sequence[int], clips: int, frames_per_clip: int) -> int:
    """Forward, input gradient and weight gradient: three times the forward pass."""
    return 3 * clips * frames_per_clip * forward_flops_per_frame(channels)


# Dense bfloat16 products, floating-point operations a second, by the beginning of the device's name; vendors' figures.
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
}


def peak_flops_per_second(device_kind: str) -> float | None:
    """In bfloat16, of a known device; None for others."""
    return next((peak for name, peak in PEAKS.items() if device_kind.startswith(name)), None)


def measured_flops_per_second() -> float:
    """What a 3x3 convolution and its gradients reach here, in float32; the median of three short runs."""

    def energy(x, kernel):
        return jnp.sum(jnp.square(convolve(x, kernel, 1)))

    x, kernel = jnp.ones((16, 32, 22, 128)), jnp.ones((3, 3, 128, 128))
    run = jax.jit(jax.grad(energy, (0, 1)))
    jax.block_until_ready(run(x, kernel))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(run(x, kernel))
        seconds.append(time.perf_counter() - start)
    return 3 * 2 * 16 * 32 * 22 * 9 * 128 * 128 / float(np.median(seconds))
