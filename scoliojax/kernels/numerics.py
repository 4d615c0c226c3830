"""The precision of statistics, strips and losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def widen(x: jax.Array) -> jax.Array:
    """`x` in float32, or in float64 where it already is: statistics, strips and losses are never computed in less."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
