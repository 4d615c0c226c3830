"""ReLU, with a gradient that reads as little as possible."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def rectify(x: jax.Array) -> jax.Array:
    """`max(x, 0)` of a sum. The gradient passes where `x` is positive.

    On a GPU the gradient looks at the result, which is in memory anyway, and does not read both terms of the sum again. Other
    devices have these at hand there.
    """
    return jnp.maximum(x, 0)


def _forward(x):
    y = jnp.maximum(x, 0)
    return y, (x, y)


def _backward(saved, gradient):
    def by_result(x, y, gradient):
        return jnp.where(y != 0, gradient, 0)  # XLA would make `x > 0` of `y > 0`

    def by_argument(x, y, gradient):
        return jnp.where(x > 0, gradient, 0)

    return (jax.lax.platform_dependent(*saved, gradient, cuda=by_result, default=by_argument),)


rectify.defvjp(_forward, _backward)
