"""Batch-all triplet loss in bounded memory.

Axis letters as in `data_pipelines.schema`; here `m` is anchors of a device and `a` anchors of a block of them.

The direct form stores every (anchor, positive, negative), `[p, n, n, n]`: 69 GB of float32 at 1,024 clips and 16 strips. Here
a block of anchors is compared with all clips, `[p, a, n]`, for one positive of each anchor at a time. The forward pass sums
value and gradient, so that nothing larger than the embeddings is kept for the backward pass. Each of several devices has the
anchors of its clips and a copy of all clips.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from scoliojax.devices.mesh import AXIS
from scoliojax.kernels.numerics import widen

BLOCK_BYTES = 2**26  # of one `[p, a, n]` array on one device; about five of them are in memory at a time
HIGHEST = jax.lax.Precision.HIGHEST


class TripletTerms(NamedTuple):
    loss: jax.Array  # p; the mean over the triplets that violate the margin
    violations: jax.Array  # p; the number of those triplets, a float, because int32 may overflow
    mean_distance: jax.Array  # p; over all pairs, including each anchor with itself; without gradient


class Sums(NamedTuple):
    hinge: jax.Array  # p
    violations: jax.Array  # p
    distance: jax.Array  # p
    gradient: jax.Array  # p n c; of `hinge`, with respect to the embeddings


def triplet_loss(embeddings: jax.Array, identities: jax.Array, margin: float, mesh: Mesh | None = None) -> TripletTerms:
    """Batch-all triplet loss (Hermans et al. 2017, eq. 6), strip by strip, over the global batch.

    Every (anchor, positive, negative) counts; the anchor is also its own positive, as in the published runs. A strip's loss is
    the sum of `relu(margin + d(a, i) - d(a, j))` divided by the number of terms above zero, and 0 where there are none. `d` is
    the Euclidean distance. The distance of a clip from itself is exactly zero; rounding in `x2 + y2 - 2xy` would give up to
    5e-3. The gradient at distance zero is zero, not infinite.

    Args:
      embeddings: `[n, p, c]`.
      identities: int `[n]`; equal numbers mark clips of one sequence.
      margin: in units of embedding distance; published 0.2.
      mesh: the mesh over which clips are sharded; None on a single device. Devices exchange the embeddings once and their
        gradients once.
    """
    x = jnp.swapaxes(widen(embeddings), 0, 1)  # p n c
    sums: tuple[jax.Array, jax.Array, jax.Array] = _sums(x, identities, margin, mesh)
    hinge, violations, distance = sums  # p each
    return TripletTerms(hinge / jnp.maximum(violations, 1.0), violations, distance / x.shape[1] ** 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sums(x: jax.Array, identities: jax.Array, margin: float, mesh: Mesh | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _sums_forward(x, identities, margin, mesh)[0]


def _sums_forward(x, identities, margin, mesh):
    if mesh is None or mesh.size == 1:
        hinge, violations, distance, gradient = sum_triplets(x, x, identities, identities, jnp.arange(x.shape[1]), margin)
    else:
        alike, by_clip = PartitionSpec(), PartitionSpec(None, AXIS)
        hinge, violations, distance, gradient = jax.shard_map(
            functools.partial(_sum_shard, margin=margin),
            mesh=mesh,
            in_specs=(by_clip, PartitionSpec(AXIS)),
            out_specs=(alike, alike, alike, by_clip),
            check_vma=False,  # a loop starts from zeros, equal on all devices, and ends with values that differ
        )(x, identities)
    return (hinge, violations, distance), gradient


def _sums_backward(margin, mesh, gradient, cotangents):
    return cotangents[0][:, None, None] * gradient, None


_sums.defvjp(_sums_forward, _sums_backward)


def _sum_shard(own: jax.Array, own_identities: jax.Array, *, margin: float) -> tuple[jax.Array, ...]:
    """The sums over the triplets whose anchors are on this device, added over all devices."""
    x = jax.lax.all_gather(own, AXIS, axis=1, tiled=True)  # p n c
    identities = jax.lax.all_gather(own_identities, AXIS, tiled=True)  # n
    places = jax.lax.axis_index(AXIS) * own.shape[1] + jnp.arange(own.shape[1])  # m
    sums = sum_triplets(own, x, own_identities, identities, places, margin)
    hinge, violations, distance = jax.lax.psum((sums.hinge, sums.violations, sums.distance), AXIS)
    return hinge, violations, distance, jax.lax.psum_scatter(sums.gradient, AXIS, scatter_dimension=1, tiled=True)


def sum_triplets(
    own: jax.Array, x: jax.Array, own_identities: jax.Array, identities: jax.Array, places: jax.Array, margin: float
) -> Sums:
    """Sums over the triplets of some anchors, one block of anchors at a time; the gradient is that of all clips.

    `own`: embeddings of the `m` anchors, `[p, m, c]`; `x`: embeddings of all clips, `[p, n, c]`; `own_identities` `[m]`;
    `identities` `[n]`; `places`: indices of the anchors among all clips, `[m]`.
    """
    parts, n, _ = x.shape
    anchors = own.shape[1]
    most = max(1, BLOCK_BYTES // (parts * n * x.dtype.itemsize))
    block = max(size for size in range(1, min(most, anchors) + 1) if anchors % size == 0)

    square = jnp.sum(jnp.square(x), axis=-1)  # p n
    order = jnp.argsort(identities)  # n; clips of one sequence side by side
    ranked = identities[order]  # n
    begin, end = (jnp.searchsorted(ranked, own_identities, side=side) for side in ("left", "right"))  # m; places in `order`

    def add_block(index: jax.Array, sums: Sums) -> Sums:
        def take(array: jax.Array, axis: int = 0) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(array, index * block, block, axis)

        first, last, place, identity, anchor = take(begin), take(end), take(places), take(own_identities), take(own, 1)
        own_square = square[:, place]  # p a
        inner = jnp.einsum("pac,pnc->pan", anchor, x, precision=HIGHEST)  # p a n
        gap = own_square[..., None] + square[:, None, :] - 2.0 * inner  # p a n
        apart = (gap > 0.0) & (place[:, None] != jnp.arange(n))  # p a n
        distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, gap, 1.0)), 0.0)  # p a n
        negative = identity[:, None] != identities  # a n

        def add_positive(turn: jax.Array, found: tuple) -> tuple:
            hinge, violations, pull = found
            positive = order[jnp.minimum(first + turn, n - 1)]  # a; the anchor's next positive
            there = first + turn < last  # a
            at_positive = jnp.broadcast_to(positive[None, :, None], (parts, block, 1))  # p a 1
            excess = margin + jnp.take_along_axis(distances, at_positive, axis=-1) - distances  # p a n
            violated = (excess > 0.0) & negative & there[:, None]  # p a n
            count = jnp.sum(violated, axis=-1).astype(x.dtype)  # p a
            hinge += jnp.sum(jnp.where(violated, excess, 0.0), axis=(1, 2))  # p
            violations += jnp.sum(count, axis=1)  # p
            pull += jnp.where(jnp.arange(n) == at_positive, count[..., None], 0.0) - violated  # p a n; d hinge / d distance
            return hinge, violations, pull

        nothing = (sums.hinge, sums.violations, jnp.zeros_like(distances))
        hinge, violations, pull = jax.lax.fori_loop(0, jnp.max(end - begin), add_positive, nothing)
        weight = jnp.where(apart, pull / jnp.where(apart, distances, 1.0), 0.0)  # p a n
        # d distance(a, b) / d a = (a - b) / distance(a, b), and the other way round for b
        gradient = anchor * jnp.sum(weight, axis=-1, keepdims=True)  # p a c
        gradient -= jnp.einsum("pan,pnc->pac", weight, x, precision=HIGHEST)  # p a c
        others = jnp.sum(weight, axis=1)[..., None] * x  # p n c
        others -= jnp.einsum("pan,pac->pnc", weight, anchor, precision=HIGHEST)  # p n c
        others = others.at[:, place].add(gradient)  # p n c
        return Sums(hinge, violations, sums.distance + jnp.sum(distances, axis=(1, 2)), sums.gradient + others)

    zero = jnp.zeros(parts, x.dtype)  # p
    return jax.lax.fori_loop(0, anchors // block, add_block, Sums(zero, zero, zero, jnp.zeros_like(x)))
