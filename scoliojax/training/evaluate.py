"""Evaluation: a trained network on whole sequences."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Sharding

from scoliojax.devices.mesh import compiler_options
from scoliojax.models.sconet import ScoNetOutput
from scoliojax.training.state import Tree

EvalStep = Callable[..., ScoNetOutput]


class Predictions(NamedTuple):
    """The outputs for `n` sequences, in the order of the data."""

    rows: np.ndarray  # n; index of the sequence in the data
    embeddings: np.ndarray | None  # n p c; None where they were not requested
    strip_logits: np.ndarray  # n p k; cosines

    @property
    def logits(self) -> np.ndarray:
        """The mean over strips, `[n, k]`; the largest one is the predicted class."""
        return self.strip_logits.mean(axis=1)  # n k


def make_eval_step(graph: nnx.GraphDef, replicated: Sharding | None = None) -> EvalStep:
    """Compile `(params, batch_stats, frames, frame_mask, asymmetry=None) -> ScoNetOutput` with running statistics.

    The arrays are as in `ScoNet.__call__`. `graph`: the model's, from `split_model`; `replicated`: sharding of the output, so
    that every process has all of it.
    """

    def step(
        params: Tree, batch_stats: Tree, frames: jax.Array, frame_mask: jax.Array, asymmetry: jax.Array | None = None
    ) -> ScoNetOutput:
        return nnx.merge(graph, params, batch_stats, copy=True)(frames, frame_mask, asymmetry=asymmetry, train=False)

    return jax.jit(step, out_shardings=replicated, compiler_options=compiler_options(replicated))


def inputs_of(batch: dict[str, Any]) -> tuple[Any, ...]:
    """What an evaluation step takes of a batch, in its order."""
    return tuple(batch[name] for name in ("frames", "frame_mask", "asymmetry") if name in batch)


def evaluate(
    eval_step: EvalStep, params: Tree, batch_stats: Tree, batches: Iterable[dict[str, Any]], embeddings: bool = True
) -> Predictions:
    """Predict every sequence of `batches` once; padded rows (`rows` = -1) are left out of the result.

    A batch holds `frames`, `frame_mask` and what else the network reads on the devices, and `rows` of all processes.
    `embeddings`: keep the embeddings, too; at the published sizes these take 16 KB per sequence, the logits 192 bytes.
    """
    rows: list[np.ndarray] = []
    outputs: list[ScoNetOutput] = []

    def fetch(index: int) -> None:
        outputs[index] = jax.device_get(outputs[index] if embeddings else outputs[index]._replace(embeddings=None))

    for batch in batches:
        outputs.append(eval_step(params, batch_stats, *inputs_of(batch)))
        rows.append(np.asarray(batch["rows"]))  # n
        if len(outputs) > 1:  # one batch late, so that the devices compute the next one meanwhile
            fetch(-2)
    fetch(-1)
    all_rows = np.concatenate(rows)
    order = np.argsort(all_rows, kind="stable")[np.sum(all_rows < 0) :]
    kept = np.concatenate([output.embeddings for output in outputs])[order] if embeddings else None  # n p c
    return Predictions(all_rows[order], kept, np.concatenate([output.logits for output in outputs])[order])
