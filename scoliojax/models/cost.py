"""Number of floating-point operations of the network."""

from collections.abc import Sequence

FRAME_PIXELS = 64 * 44


def forward_flops_per_frame(channels: Sequence[int], frame_channels: int = 1) -> int:
    """Floating-point operations (two per multiply-add) of the backbone's convolutions for one frame."""
    inputs = (channels[0], *channels[:-1])
    multiply_adds = FRAME_PIXELS * 9 * frame_channels * channels[0]  # stem
    for block, (size, shrinkage) in enumerate(zip(channels, (1, 4, 16, 16), strict=True)):
        skip = inputs[block] * size if block else 0
        multiply_adds += FRAME_PIXELS // shrinkage * (9 * inputs[block] * size + 9 * size * size + skip)
    return 2 * multiply_adds


def train_flops_per_step(channels: Sequence[int], clips: int, frames_per_clip: int, frame_channels: int = 1) -> int:
    """Floating-point operations of a training step: forward, input gradient and weight gradient, three forward passes."""
    return 3 * clips * frames_per_clip * forward_flops_per_frame(channels, frame_channels)
