"""Runs a trained network over whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scoliojax.models.sconet import ScoNetOutput
from scoliojax.train_state import Tree

EvalStep = Callable[[Tree, Tree, jax.Array, jax.Array], ScoNetOutput]


class Predictions(NamedTuple):
    """In the order in which the sequences came."""

    rows: np.ndarray  # n; which sequence, an index into the data
    logits: np.ndarray  # n k; cosines, mean over strips


def make_eval_step(graph: nnx.GraphDef) -> EvalStep:
    """Compile `(params, batch_stats, silhouettes, frame_mask) -> ScoNetOutput` with running statistics."""

    def step(params: Tree, batch_stats: Tree, silhouettes: jax.Array, frame_mask: jax.Array) -> ScoNetOutput:
        return nnx.merge(graph, params, batch_stats, copy=True)(silhouettes, frame_mask, train=False)

    return jax.jit(step)


def evaluate(eval_step: EvalStep, params: Tree, batch_stats: Tree, batches: Iterable[dict[str, jax.Array]]) -> Predictions:
    """Predict every sequence of `batches` once; padded rows (`rows` = -1) are left out of the result.

    Args:
      eval_step: from `make_eval_step`.
      params: of the network.
      batch_stats: of the network.
      batches: with `silhouettes`, `frame_mask` and `rows`, on the devices.
    """
    rows, logits = [], []
    for batch in batches:
        output = eval_step(params, batch_stats, batch["silhouettes"], batch["frame_mask"])
        rows.append(np.asarray(batch["rows"]))
        logits.append(np.asarray(jnp.mean(output.logits, axis=1)))  # n k
    real = np.concatenate(rows) >= 0
    return Predictions(np.concatenate(rows)[real], np.concatenate(logits)[real])
