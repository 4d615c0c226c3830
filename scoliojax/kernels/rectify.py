"""ReLU, with a gradient that reads as little as possible."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rectify(x: jax.Array, masked: bool = False) -> jax.Array:
    """`max(x, 0)` of a sum. The gradient passes where `x` is positive.

    On a GPU the gradient looks at the result, which is in memory anyway, and does not read both terms of the sum again. Other
    devices have these at hand there. `masked`: the gradient that will come is zero wherever the result is, so that nothing need
    be looked at; a TPU does all the same, because its compiler then keeps the gradient in the layout of the features.
    """
    return jnp.maximum(x, 0)


def _forward(x, masked):
    y = jnp.maximum(x, 0)
    return y, (x, y)


def _backward(masked, saved, gradient):
    def by_result(x, y, gradient):
        return jnp.where(y != 0, gradient, 0)  # XLA would make `x > 0` of `y > 0`

    def by_argument(x, y, gradient):
        return jnp.where(x > 0, gradient, 0)

    ways = {"cuda": by_result, "default": by_argument}
    if masked:
        ways = {"tpu": by_argument, "default": lambda x, y, gradient: gradient}
    return (jax.lax.platform_dependent(*saved, gradient, **ways),)


rectify.defvjp(_forward, _backward)


@jax.custom_vjp
def mask_gradient(y: jax.Array) -> jax.Array:
    """`y`, a maximum over results of `rectify`; the gradient passes where `y` is positive, for `rectify(..., masked=True)`."""
    return y


mask_gradient.defvjp(lambda y: (y, y), lambda y, gradient: (jnp.where(y > 0, gradient, 0),))
