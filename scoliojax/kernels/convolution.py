"""Square convolutions with PyTorch's padding; on a CPU our own code computes the large ones and all kernel gradients.

XLA for CPU computes a convolution patch by patch, and its kernel gradient in another layout of the whole batch. Here large
convolutions are matrix products over a few frames at a time, so that their operands stay in the processor's cache. With stride
1 this is minimal filtering, F(2x2, 3x3) of Lavin & Gray 2016 (arXiv 1509.09308, section 4.1): 16 products in place of 36. With
stride 2 the operands are patches. Where there are few channels of output, XLA's convolution is slow, so it computes several
columns of a row as channels of one place. `docs/performance.md` has the speed of each.

Axis letters as in `data_pipelines.schema`; `b` is the frames of all clips, `e` a kernel's edge, `i` and `j` are rows and
columns of 2x2 tiles, `d` is output channels.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from scoliojax.kernels.numerics import widen

CHUNK = 4  # most frames computed at a time
LARGE = 64  # smallest number of channels for which our code is faster
WIDE = 32  # channels of output from which on XLA's convolution is fast

Grid = list[list[jax.Array]]


def by_library(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's convolution with PyTorch's padding; with stride 2 `SAME` pads right and below only, which gives other numbers."""
    pad = (kernel.shape[0] // 2, kernel.shape[0] // 2)
    return _library(x, kernel, (stride, stride), (pad, pad))


def _library(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]) -> jax.Array:
    precision = None if x.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST  # otherwise accelerators round the factors
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout, precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A square convolution without bias: `[b, h, w, c]` and `[e, e, c, d]` to `[b, h / stride, w / stride, d]`.

    The padding is `e // 2` on every side. Value and gradients equal those of `jax.lax.conv_general_dilated` up to rounding.
    """
    if _is_large(kernel):
        ours = _by_tiles if stride == 1 else functools.partial(_by_patches, stride=stride)
    elif _is_narrow(kernel, stride):
        ours = _by_columns
    else:
        return by_library(x, kernel, stride)
    return jax.lax.platform_dependent(x, kernel, cpu=ours, default=lambda x, kernel: by_library(x, kernel, stride))


def _is_large(kernel: jax.Array) -> bool:
    return kernel.shape[0] == 3 and min(kernel.shape[2:]) >= LARGE


def _is_narrow(kernel: jax.Array, stride: int) -> bool:
    return kernel.shape[0] == 3 and stride == 1 and kernel.shape[3] < WIDE


def _forward(x, kernel, stride):
    return convolve(x, kernel, stride), (x, kernel)


def _backward(stride, saved, gradient):
    x, kernel = saved

    def input_of_library(kernel, gradient):
        return jax.linear_transpose(lambda x: by_library(x, kernel, stride), x)(gradient)[0]

    def kernel_of_library(x, gradient):
        return jax.linear_transpose(lambda kernel: by_library(x, kernel, stride), kernel)(gradient)[0]

    def input_by_convolution(kernel, gradient):
        """The input gradient with stride 1 and an odd edge, which is itself a convolution."""
        return convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), 1)

    if stride == 1:
        x_gradient = jax.lax.platform_dependent(kernel, gradient, cpu=input_by_convolution, default=input_of_library)  # b h w c
    elif _is_large(kernel):
        ours = functools.partial(_input_gradient_by_phases, shape=x.shape)
        x_gradient = jax.lax.platform_dependent(kernel, gradient, cpu=ours, default=input_of_library)  # b h w c
    else:
        x_gradient = input_of_library(kernel, gradient)  # b h w c
    if _is_large(kernel) and stride == 1:
        sum_chunks = _kernel_gradient_by_tiles
    else:
        sum_chunks = functools.partial(_kernel_gradient_by_patches, edge=kernel.shape[0], stride=stride)

    def kernel_by_chunks(x, gradient):
        """The kernel gradient; where frames are sharded, each device first sums over its own."""
        groups = math.gcd(x.shape[0], jax.device_count())
        if groups == 1:  # an axis of one would make the matrix products slower
            return sum_chunks(x, gradient).astype(kernel.dtype)
        dealt = (array.reshape(groups, -1, *array.shape[1:]) for array in (x, gradient))  # groups b h w c
        return jax.vmap(sum_chunks)(*dealt).sum(axis=0).astype(kernel.dtype)

    return x_gradient, jax.lax.platform_dependent(x, gradient, cpu=kernel_by_chunks, default=kernel_of_library)


convolve.defvjp(_forward, _backward)


def _by_columns(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution with stride 1, where several columns `n` of a row, `[n, d]`, are the channels of one place."""
    b, h, w, _ = x.shape
    edge, _, c, d = kernel.shape
    n, pad = max(1, WIDE // d), edge // 2
    places = [jnp.pad(kernel, ((0, 0), (place, n - 1 - place), (0, 0), (0, 0))) for place in range(n)]  # n times: e e+n-1 c d
    wide = jnp.stack(places, axis=3).reshape(edge, edge + n - 1, c, n * d)  # e e+n-1 c n-d
    out = _library(x, wide, (1, n), ((pad, pad), (pad, pad + -w % n)))  # b h w/n n-d
    return out.reshape(b, h, -1, d)[:, :, :w]  # b h w d


def _chunk(frames: int) -> int:
    return max(size for size in range(1, CHUNK + 1) if frames % size == 0)


def _slice(array: jax.Array, start: jax.Array, size: int, axis: int = 0) -> jax.Array:
    """A widened slice. XLA for CPU widens a whole bfloat16 array before it slices it, but not an array of integers."""
    if array.dtype != jnp.bfloat16:
        return jax.lax.dynamic_slice_in_dim(array, start, size, axis)
    piece = jax.lax.dynamic_slice_in_dim(jax.lax.bitcast_convert_type(array, jnp.uint16), start, size, axis)
    return widen(jax.lax.bitcast_convert_type(piece, jnp.bfloat16))


def _map_chunks(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function` of `[b, ...]`, computed on a few widened frames at a time; in `x`'s dtype.

    The frames are split into one group for each device, and a chunk has frames of every group. So where frames are sharded,
    each device computes its own.
    """
    groups = math.gcd(x.shape[0], jax.device_count())
    dealt = x.reshape(groups, -1, *x.shape[1:])  # groups b/groups h w c
    chunk = _chunk(dealt.shape[1])

    def one(index):
        part = _slice(dealt, index * chunk, chunk, axis=1)  # groups chunk h w c
        result = function(part.reshape(-1, *x.shape[1:])).astype(x.dtype)  # groups-chunk h' w' d
        return result.reshape(groups, chunk, *result.shape[1:])  # groups chunk h' w' d

    done = jax.lax.map(one, jnp.arange(dealt.shape[1] // chunk))  # chunks groups chunk h' w' d
    return done.swapaxes(0, 1).reshape(-1, *done.shape[3:])  # b h' w' d


# Minimal filtering: each 2x2 tile of the result is computed from the 4x4 tile of the input around it.


def _spread_input(d: Sequence[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _spread_kernel(g: Sequence[jax.Array]) -> list[jax.Array]:
    return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]


def _gather_kernel(u: Sequence[jax.Array]) -> list[jax.Array]:
    """Transpose of `_spread_kernel`."""
    return [u[0] + (u[1] + u[2]) / 2, (u[1] - u[2]) / 2, (u[1] + u[2]) / 2 + u[3]]


def _gather_output(m: Sequence[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _spread_output(y: Sequence[jax.Array]) -> list[jax.Array]:
    """Transpose of `_gather_output`."""
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]


def _both_ways(transform: Callable[[Sequence[jax.Array]], list[jax.Array]], grid: Grid) -> Grid:
    """Apply `transform` to the columns of a grid of arrays, then to its rows."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _tiles(rows: int, columns: int) -> tuple[int, int]:
    return -(-rows // 2), -(-columns // 2)


def _input_tiles(x: jax.Array) -> Grid:
    """The 4x4 places of all tiles, transformed, each `[b-i-j, c]`."""
    _, h, w, c = x.shape
    i, j = _tiles(h, w)
    padded = jnp.pad(x, ((0, 0), (1, 2 * i + 1 - h), (1, 2 * j + 1 - w), (0, 0)))  # b 2i+2 2j+2 c
    rows, columns = ([slice(place, place + 2 * count - 1, 2) for place in range(4)] for count in (i, j))
    places = [[padded[:, row, column] for column in columns] for row in rows]  # 4x4, each b i j c
    return [[place.reshape(-1, c) for place in row] for row in _both_ways(_spread_input, places)]


def _interleave(quarters: Grid) -> jax.Array:
    """2x2 arrays `[b, i, j, d]` to `[b, 2i, 2j, d]`."""
    b, i, j, d = quarters[0][0].shape
    return jnp.stack([jnp.stack(row, axis=3) for row in quarters], axis=2).reshape(b, 2 * i, 2 * j, d)


def _by_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution with stride 1."""
    _, h, w, _ = x.shape
    wide = widen(kernel)
    spread = _both_ways(_spread_kernel, [[wide[row, column] for column in range(3)] for row in range(3)])  # 4x4, each c d

    def convolve_chunk(part):
        tiles = zip(_input_tiles(part), spread, strict=True)
        products = [[place @ factor for place, factor in zip(*row, strict=True)] for row in tiles]  # 4x4, each b-i-j d
        quarters = _both_ways(_gather_output, products)  # 2x2, each b-i-j d
        shape = (-1, *_tiles(h, w), kernel.shape[3])
        return _interleave([[quarter.reshape(shape) for quarter in row] for row in quarters])[:, :h, :w]  # b h w d

    return _map_chunks(convolve_chunk, x)


def _kernel_gradient_by_tiles(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """The kernel gradient with stride 1, `[3, 3, c, d]`, widened."""
    _, h, w, c = x.shape
    d = gradient.shape[3]
    i, j = _tiles(h, w)
    chunk = _chunk(x.shape[0])

    def add_chunk(index, total):
        tiles = _input_tiles(_slice(x, index * chunk, chunk))  # 4x4, each b-i-j c
        part = jnp.pad(_slice(gradient, index * chunk, chunk), ((0, 0), (0, 2 * i - h), (0, 2 * j - w), (0, 0)))  # b 2i 2j d
        spread = _both_ways(_spread_output, [[part[:, row::2, column::2] for column in range(2)] for row in range(2)])
        return [
            [total[row][column] + tiles[row][column].T @ spread[row][column].reshape(-1, d) for column in range(4)]
            for row in range(4)
        ]  # 4x4, each c d

    zero = jnp.zeros((c, d), jnp.promote_types(x.dtype, jnp.float32))
    total = jax.lax.fori_loop(0, x.shape[0] // chunk, add_chunk, [[zero] * 4] * 4)
    return jnp.stack([jnp.stack(row) for row in _both_ways(_gather_kernel, total)])  # 3 3 c d


def _patches(x: jax.Array, edge: int, stride: int) -> jax.Array:
    """All input values of each output pixel, `[b-h'-w', e-e-c]`."""
    _, h, w, c = x.shape
    rows, columns = -(-h // stride), -(-w // stride)
    pad = (edge // 2,) * 2
    padded = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))  # b h+ w+ c
    down, right = ([slice(place, place + stride * (n - 1) + 1, stride) for place in range(edge)] for n in (rows, columns))
    places = [padded[:, row, column] for row in down for column in right]  # ee times: b h' w' c
    return jnp.concatenate(places, axis=-1).reshape(-1, edge * edge * c)


def _by_patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    _, h, w, _ = x.shape
    edge, _, _, d = kernel.shape
    flat = widen(kernel).reshape(-1, d)  # eec d
    shape = (-1, -(-h // stride), -(-w // stride), d)
    return _map_chunks(lambda part: (_patches(part, edge, stride) @ flat).reshape(shape), x)  # b h' w' d


def _kernel_gradient_by_patches(x: jax.Array, gradient: jax.Array, edge: int, stride: int) -> jax.Array:
    """The kernel gradient `[e, e, c, d]`, widened: output gradient times patches, summed over chunks of frames."""
    c, d = x.shape[-1], gradient.shape[-1]
    chunk = _chunk(x.shape[0])

    def add_chunk(index, total):
        laid_out = _patches(_slice(x, index * chunk, chunk), edge, stride)  # b-h'-w' eec
        return total + _slice(gradient, index * chunk, chunk).reshape(-1, d).T @ laid_out  # d eec

    start = jnp.zeros((d, edge * edge * c), jnp.promote_types(x.dtype, jnp.float32))  # d eec
    total = jax.lax.fori_loop(0, x.shape[0] // chunk, add_chunk, start)  # d eec
    return total.T.reshape(edge, edge, c, d)


def _input_gradient_by_phases(kernel: jax.Array, gradient: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The input gradient with stride 2: an even row is the middle of one patch, an odd row is at the edge of two."""
    _, h, w, _ = gradient.shape
    turned = widen(kernel).swapaxes(2, 3)  # 3 3 d c
    readers = {0: [(0, 1)], 1: [(0, 2), (1, 0)]}  # row 2i + phase is in result row i + shift, through this kernel row

    def phase(padded, row, column):
        pairs = [(down, right, top, left) for down, top in readers[row] for right, left in readers[column]]
        pixels = jnp.concatenate([padded[:, down : down + h, right : right + w] for down, right, _, _ in pairs], -1)
        factors = jnp.concatenate([turned[top, left] for _, _, top, left in pairs])  # n-d c
        return pixels @ factors  # b h w c

    def convolve_chunk(part):
        padded = jnp.pad(part, ((0, 0), (0, 1), (0, 1), (0, 0)))  # b h+1 w+1 d
        return _interleave([[phase(padded, row, column) for column in range(2)] for row in range(2)])  # b 2h 2w c

    return _map_chunks(convolve_chunk, gradient)[:, : shape[1], : shape[2]]  # b 2h 2w c, less where the size is odd
