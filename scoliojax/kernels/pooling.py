"""Maxima over frames and strips, whose gradient goes to one place. Axis letters as in `data_pipelines.schema`."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def maximum(x: jax.Array, axis: int) -> jax.Array:
    """The maximum along a non-negative `axis`, whose gradient goes to the first of the largest values, as in PyTorch.

    JAX's gradient goes to the places where `x` equals its maximum. A compiler may compute `x` a second time with another
    rounding, so that no place equals it and the gradient is infinite. Here the place is stored as an integer.
    """
    return jnp.max(x, axis)


def _maximum_forward(x, axis):
    return jnp.max(x, axis), (jnp.argmax(x, axis), x.shape[axis])  # both without `axis`


def _maximum_backward(axis, saved, gradient):
    place, size = saved
    shape = (*gradient.shape[:axis], size, *gradient.shape[axis:])
    here = jax.lax.broadcasted_iota(place.dtype, shape, axis) == jnp.expand_dims(place, axis)  # as x
    return (jnp.where(here, jnp.expand_dims(gradient, axis), 0),)  # as x


maximum.defvjp(_maximum_forward, _maximum_backward)


def draw_clips(frames: jax.Array, clip_frames: jax.Array) -> jax.Array:
    """Clips that share frames: frames `[g, u, ...]` and frame numbers `[g, m, s]` to clips `[g m, s, ...]`."""
    drawn = jax.vmap(lambda group, numbers: group.at[numbers].get(mode="promise_in_bounds"))(frames, clip_frames)
    return drawn.reshape(-1, *drawn.shape[2:])  # gm s ...


@jax.custom_vjp
def shared_set_pooling(features: jax.Array, clip_frames: jax.Array) -> jax.Array:
    """Set pooling of clips that share frames: `[g, u, h, w, c]` and frame numbers `[g, m, s]` to `[g m, h, w, c]`.

    Value and gradient are those of `set_pooling` of `draw_clips`; gradients are summed in the same order on every device.
    """
    return jnp.max(draw_clips(features, clip_frames), axis=1)  # n h w c


def _shared_set_pooling_forward(features, clip_frames):
    drawn = draw_clips(features, clip_frames)  # n s h w c
    return jnp.max(drawn, axis=1), (jnp.argmax(drawn, axis=1), clip_frames, features.shape[1])


def _shared_set_pooling_backward(saved, gradient):
    turn, clip_frames, frames = saved
    groups, clips, _ = clip_frames.shape
    turn, gradient = (array.reshape(groups, clips, 1, *gradient.shape[1:]) for array in (turn, gradient))  # g m 1 h w c
    ways = {"cpu": add_one_by_one, "tpu": add_by_products, "default": add_at_once}
    ways = {name: functools.partial(way, frames=frames) for name, way in ways.items()}
    return jax.lax.platform_dependent(turn, gradient, clip_frames, **ways), None


# The gradient of a clip's maxima, `[g, m, 1, h, w, c]`, added where the maxima were: `turn`, of the same shape, is their place
# in the clip, and `clip_frames` has its frame. All three give `[g, u, h, w, c]`, u = `frames`.


def add_one_by_one(turn: jax.Array, gradient: jax.Array, clip_frames: jax.Array, frames: int) -> jax.Array:
    """Clip by clip, for CPUs: XLA sums along an inner axis there 35 times more slowly."""
    place, number = _frame(turn, clip_frames), _numbers(frames)  # g m 1 h w c, u 1 1 1
    parts = [jnp.where(place[:, clip] == number, gradient[:, clip], 0) for clip in range(place.shape[1])]  # m times: g u h w c
    return sum(parts[1:], parts[0])  # g u h w c


def add_at_once(turn: jax.Array, gradient: jax.Array, clip_frames: jax.Array, frames: int) -> jax.Array:
    """In one sum, where nothing but the result is written."""
    here = _frame(turn, clip_frames) == _numbers(frames)  # g m u h w c
    return jnp.sum(jnp.where(here, gradient, 0), axis=1, dtype=gradient.dtype)  # g u h w c


def add_by_products(turn: jax.Array, gradient: jax.Array, clip_frames: jax.Array, frames: int) -> jax.Array:
    """As a matrix product with zeros and ones, for TPUs, which would look up a frame for each maximum one by one."""
    drawn = jnp.where(_numbers(clip_frames.shape[2]) == turn, gradient, 0)  # g m s h w c
    taken = (clip_frames[..., None] == jnp.arange(frames)).astype(gradient.dtype)  # g m s u
    precision = None if gradient.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST  # otherwise the factors are rounded
    return jnp.einsum("gmsu,gmshwc->guhwc", taken, drawn, precision=precision)  # g u h w c


def _frame(turn: jax.Array, clip_frames: jax.Array) -> jax.Array:
    return jnp.take_along_axis(clip_frames[..., None, None, None], turn, axis=2)  # g m 1 h w c


def _numbers(count: int) -> jax.Array:
    return jnp.arange(count)[:, None, None, None]  # u 1 1 1


shared_set_pooling.defvjp(_shared_set_pooling_forward, _shared_set_pooling_backward)
