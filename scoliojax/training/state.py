"""All that changes during a run, as one immutable pytree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

Tree = dict[str, Any]  # nested dicts of arrays


@struct.dataclass
class TrainState:
    """What a checkpoint holds. `step` counts finished steps; the next batch is the batch of that number.

    Attributes:
      step: int32 scalar.
      params: float32 parameters, nested dicts by module name.
      batch_stats: float32 running means and variances, likewise.
      opt_state: of the optax rule (momentum, schedule position).
    """

    step: jax.Array
    params: Tree
    batch_stats: Tree
    opt_state: optax.OptState


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """The functional edge of a model: its static graph, its parameters and its batch statistics as plain dicts."""
    graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def create_state(params: Tree, batch_stats: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))
