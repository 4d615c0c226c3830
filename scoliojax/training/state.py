"""All that changes during a run, as one immutable pytree."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

Tree = dict[str, Any]  # nested dicts of arrays


@struct.dataclass
class TrainState:
    """The content of a checkpoint."""

    step: jax.Array  # int32 scalar, finished steps; also the number of the next batch
    params: Tree  # float32 parameters by module name
    batch_stats: Tree  # float32 running means and variances by module name
    opt_state: optax.OptState  # momentum and schedule position


def split_model(model: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
    """The static graph of a model, and its parameters and batch statistics as plain dicts."""
    graph, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)


def create_state(params: Tree, batch_stats: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))


@jax.jit
def _all_finite(parts: dict[str, Any]) -> dict[str, jax.Array]:
    """For each part of a state, whether all its numbers are finite: one scalar each."""

    def finite(part: Any) -> jax.Array:
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(part)]))

    return {name: finite(part) for name, part in parts.items()}


def not_finite(state: TrainState) -> list[str]:
    """Which parts of a state have a number that is not finite: parameters, batch statistics, sums of the optimiser.

    They are reduced on the devices, a scalar each.
    """
    parts = named_parts(state)
    finite = jax.device_get(_all_finite({name: part for name, part in parts.items() if jax.tree.leaves(part)}))
    return [name for name in parts if not finite.get(name, True)]


def named_parts(state: TrainState) -> Tree:
    """What has numbers that must be finite, by its name in a message."""
    return {"parameters": state.params, "batch statistics": state.batch_stats, "sums of the optimiser": state.opt_state}
