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
    number = clip_frames.reshape(-1, clip_frames.shape[2], 1, 1, 1)  # n s 1 1 1
    place = jnp.take_along_axis(number, jnp.argmax(drawn, axis=1, keepdims=True), axis=1)  # n 1 h w c
    return jnp.max(drawn, axis=1), (place, clip_frames.shape, features.shape[1])


def _shared_set_pooling_backward(saved, gradient):
    place, (groups, clips, _), frames = saved
    place, gradient = (array.reshape(groups, clips, 1, *gradient.shape[1:]) for array in (place, gradient))  # g m 1 h w c
    number = jnp.arange(frames)[:, None, None, None]  # u 1 1 1
    parts = [jnp.where(place[:, clip] == number, gradient[:, clip], 0) for clip in range(clips)]  # m times: g u h w c
    return sum(parts[1:], parts[0]), None  # one by one: XLA for CPU sums along an inner axis 35 times more slowly


shared_set_pooling.defvjp(_shared_set_pooling_forward, _shared_set_pooling_backward)
