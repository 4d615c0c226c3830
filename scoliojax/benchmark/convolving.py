"""Time of each convolution of the backbone with both gradients: ours, that of XLA, and that of PyTorch if installed."""

import importlib.util
from collections.abc import Callable

import jax
import numpy as np

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH
from scoliojax.benchmark.timing import Row, Work, interleave
from scoliojax.kernels.convolution import by_library, convolve

FRAMES = 60


def shapes(channels: tuple[int, ...]) -> list[tuple[int, int, int, int, int]]:
    """Rows, columns, input channels, output channels and stride of all different 3x3 convolutions except the stem."""
    distinct, h, w = [], FRAME_SIZE, FRAME_WIDTH
    for inputs, outputs, stride in zip((channels[0], *channels), channels, (1, 2, 2, 1), strict=False):
        distinct.append((h, w, inputs, outputs, stride))
        h, w = h // stride, w // stride
        distinct.append((h, w, outputs, outputs, 1))
    return list(dict.fromkeys(distinct))


def measure(channels: tuple[int, ...], rounds: int) -> list[Row]:
    """Milliseconds of forward pass, input gradient and kernel gradient together, in float32."""
    rng = np.random.default_rng(0)
    rows = []
    for h, w, inputs, outputs, stride in shapes(channels):
        x = rng.normal(size=(FRAMES, h, w, inputs)).astype(np.float32)  # b h w c
        kernel = rng.normal(size=(3, 3, inputs, outputs)).astype(np.float32)
        gradient = rng.normal(size=(FRAMES, h // stride, w // stride, outputs)).astype(np.float32)
        ways = {name: _ours(way, x, kernel, gradient, stride) for name, way in (("ours", convolve), ("library", by_library))}
        if importlib.util.find_spec("torch"):
            from scoliojax.benchmark.original import convolution

            ways["theirs"] = convolution(x, kernel, gradient, stride)
        times = {name: [1e3 * second for second in seconds] for name, seconds in interleave(ways, rounds).items()}
        what = f"convolution and gradients, {FRAMES} x {h} x {w} x {inputs} to {outputs}, stride {stride}"
        rows.append(Row(what, "ms", times["ours"], times.get("theirs", []), f"XLA's own: {np.median(times['library']):.4g} ms"))
    return rows


def _ours(way: Callable, x: np.ndarray, kernel: np.ndarray, gradient: np.ndarray, stride: int) -> Work:
    def whole(x, kernel, gradient):
        result, transpose = jax.vjp(lambda x, kernel: way(x, kernel, stride), x, kernel)
        return result, transpose(gradient)

    placed = jax.device_put((x, kernel, gradient))
    run = jax.jit(whole)
    return lambda: jax.block_until_ready(run(*placed))
