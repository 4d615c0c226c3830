"""Number of floating-point operations of a training step, and the peak speed of known devices."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH

# Dense bfloat16 matrix products, in floating-point operations per second, by prefix of the device kind; figures of the vendors.
PEAKS = {
    "NVIDIA H200": 989e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
}


def forward_flops_per_frame(channels: Sequence[int]) -> int:
    """Floating-point operations (two per multiply-add) of the convolutions of the backbone for one frame."""
    inputs = (channels[0], *channels[:-1])
    full = FRAME_SIZE * FRAME_WIDTH
    multiply_adds = full * 9 * channels[0]  # stem
    for block, (size, area) in enumerate(zip(channels, (full, full // 4, full // 16, full // 16), strict=True)):
        skip = inputs[block] * size if block else 0
        multiply_adds += area * (9 * inputs[block] * size + 9 * size * size + skip)
    return 2 * multiply_adds


def train_flops_per_step(channels: Sequence[int], clips: int, frames_per_clip: int) -> int:
    """Floating-point operations of forward pass, input gradient and weight gradient: three times the forward pass."""
    return 3 * clips * frames_per_clip * forward_flops_per_frame(channels)


def peak_flops_per_second(device_kind: str) -> float | None:
    """Peak bfloat16 speed of a known device; None for others."""
    return next((peak for name, peak in PEAKS.items() if device_kind.startswith(name)), None)
