"""The precision of statistics, strips and losses."""

import jax
import jax.numpy as jnp


def widen(x: jax.Array) -> jax.Array:
    """`x` in float32, or float64 where it is float64: the precision of all statistics, strips and losses."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
