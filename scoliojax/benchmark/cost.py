"""Peak speeds of accelerators."""

from __future__ import annotations

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
    """The peak speed of a known device in bfloat16, floating-point operations a second; None for other devices."""
    return next((peak for name, peak in PEAKS.items() if device_kind.startswith(name)), None)
