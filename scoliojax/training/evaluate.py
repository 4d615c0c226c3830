"""Runs a trained network over whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from scoliojax.models.sconet import ScoNetOutput
from scoliojax.training.state import Tree

EvalStep = Callable[[Tree, Tree, jax.Array, jax.Array], ScoNetOutput]


class Predictions(NamedTuple):
    """In the order of the data, whatever the order of the batches."""

    rows: np.ndarray  # n; which sequence, an index into the data
    embeddings: np.ndarray | None  # n p c; None where they were not asked for
    strip_logits: np.ndarray  # n p k; cosines

    @property
    def logits(self) -> np.ndarray:
        """What decides: the mean over strips, `[n, k]`."""
        return self.strip_logits.mean(axis=1)  # n k


def make_eval_step(graph: nnx.GraphDef, replicated: Sharding | None = None) -> EvalStep:
    """Compile `(params, batch_stats, silhouettes, frame_mask) -> ScoNetOutput` with running statistics.

    Args:
      graph: of the model, from `split_model`.
      replicated: sharding of the output, so that every process sees all of it. None on a single device.
    """

    def step(params: Tree, batch_stats: Tree, silhouettes: jax.Array, frame_mask: jax.Array) -> ScoNetOutput:
        return nnx.merge(graph, params, batch_stats, copy=True)(silhouettes, frame_mask, train=False)

    return jax.jit(step, out_shardings=replicated)


def evaluate(
    eval_step: EvalStep, params: Tree, batch_stats: Tree, batches: Iterable[dict[str, Any]], embeddings: bool = True
) -> Predictions:
    """Predict every sequence of `batches` once; padded rows (`rows` = -1) are left out of the result.

    Args:
      eval_step: from `make_eval_step`.
      params: of the network.
      batch_stats: of the network.
      batches: with `silhouettes` and `frame_mask` on the devices, and `rows` of the whole batch.
      embeddings: keep them, too: at the published sizes 16 KB a sequence, where the logits take 192 bytes.
    """
    rows, embedded, logits = [], [], []
    waiting: ScoNetOutput | None = None

    def fetch(output: ScoNetOutput) -> None:
        if embeddings:
            embedded.append(np.asarray(output.embeddings))  # n p c
        logits.append(np.asarray(output.logits))  # n p k

    for batch in batches:
        output = eval_step(params, batch_stats, batch["silhouettes"], batch["frame_mask"])
        rows.append(np.asarray(batch["rows"]))  # n
        if waiting is not None:  # one batch late, so that the devices have the next to work on meanwhile
            fetch(waiting)
        waiting = output
    if waiting is not None:
        fetch(waiting)
    found = np.concatenate(rows)
    order = np.argsort(found, kind="stable")[np.sum(found < 0) :]
    kept = np.concatenate(embedded)[order] if embeddings else None  # n p c
    return Predictions(found[order], kept, np.concatenate(logits)[order])
