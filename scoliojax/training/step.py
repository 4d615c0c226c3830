"""One optimiser step: a pure function of state and batch, compiled once."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Sharding

from scoliojax.devices.mesh import compiler_options
from scoliojax.training.state import TrainState, Tree

Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]


def fingerprint(batch: dict[str, jax.Array]) -> jax.Array:
    """A uint32 checksum of every pixel, label and identity and its place; the same on any number of devices.

    Asymmetry vectors are those of the identities.
    """
    frames = batch["frames"]
    if "clip_frames" in batch:
        frames = jax.vmap(lambda shared, numbers: shared[numbers])(frames, batch["clip_frames"])  # g m s ...

    def weigh(array: jax.Array) -> jax.Array:
        rows = array.reshape(array.shape[0], -1).astype(jnp.uint32)  # n other
        odd = 2 * jnp.arange(rows.size, dtype=jnp.uint32).reshape(rows.shape) + 1  # n other
        return jnp.sum(rows * odd * odd, dtype=jnp.uint32)

    return weigh(frames) + 3 * weigh(batch["labels"]) + 5 * weigh(batch["identities"])


def make_train_step(
    graph: nnx.GraphDef,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    replicated: Sharding | None = None,
) -> Step:
    """Compile the step `(state, batch) -> (state, metrics)`; the state passed in is donated and cannot be used again.

    The batch holds `frames` uint8 `[n, s, 64, 44]`, or `[n, s, 2, 64, 44]` of skeleton maps, `labels` and `identities` int32
    `[n]`, for a network that reads asymmetry vectors `asymmetry` float32 `[n, 8, 3]`, and where clips share frames
    `clip_frames` (see `ScoNet.__call__`). The metrics are scalars: those of `loss`, which is `(output, labels, identities) ->
    (scalar, dict of scalars)`, `learning_rate` by `schedule`, `gradient_norm` and `batch_fingerprint`. `replicated` is the
    sharding of state and metrics, None on a single device. With the batch sharded over its first axis, batch statistics and
    triplet distances are those of the global batch.
    """

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        def objective(params):
            model = nnx.merge(graph, params, state.batch_stats, copy=True)
            inputs = {name: batch.get(name) for name in ("clip_frames", "asymmetry")}
            output = model(batch["frames"], **inputs, train=True)
            total, terms = loss(output, batch["labels"], batch["identities"])
            return total, (terms, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

        (_, (terms, batch_stats)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics = terms | {
            "learning_rate": schedule(state.step),
            "gradient_norm": optax.tree.norm(gradients),
            "batch_fingerprint": fingerprint(batch),
        }
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, cast(Tree, params), batch_stats, opt_state), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=replicated, compiler_options=compiler_options(replicated))
