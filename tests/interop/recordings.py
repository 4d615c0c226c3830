"""Recordings as the original would write them, made by our PyTorch reference at other sizes, strips and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from data_pipelines.schema import frame_shape
from data_pipelines.silhouettes import cut_sides
from data_pipelines.synthetic import walk
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait.checkpoint import PUBLISHED_OPTIMIZER
from scoliojax.interop.opengait.names import Sizes
from scoliojax.interop.parity.replay import random_batches, random_start, theirs


def write_recording(
    folder: Path,
    sizes: Sizes,
    identities: Sequence[int],
    frames: int,
    seed: int,
    steps: int = 5,
    falls: tuple[int, ...] = (2, 4),
    lengths: Sequence[int] = (3, 1),
) -> Path:
    """Write `train.npz`, `eval.npz`, `metrics.npz` and a checkpoint, as `golden/README.md` describes them.

    Args:
      folder: made when missing.
      sizes: of the network.
      identities: of each batch, `[n]`; the classes of a DRF's batches are as equally frequent as can be.
      frames: of each clip.
      seed: of the start, the clips and the labels.
      steps: of training.
      falls: steps at which the learning rate falls to a tenth.
      lengths: frames of each whole sequence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = random_start(sizes, seed)
    walkers = np.stack([walk(one, frames, seed + row)[1] for row, one in enumerate(identities)])  # n s 64 64
    if sizes.inputs == 2:
        walkers = np.stack([walkers, walkers[..., ::-1, :]], axis=2)  # n s 2 64 64
    noise = random_batches(seed, steps, identities, 1, sizes)
    batches = [dataclasses.replace(batch, frames=cut_sides(walkers)) for batch in noise]  # on an empty ground: equal values
    run = theirs(start, sizes, batches, PUBLISHED_OPTIMIZER | {"milestones": falls}, torch.float32)
    train = {f"init/{name}": value for name, value in start.items()} | {
        f"grad0/{name}": value for name, value in run[0].gradients.items()
    }
    for i, (batch, step) in enumerate(zip(batches, run, strict=True)):
        values = {
            "sils" if sizes.inputs == 1 else "maps": walkers,
            "labels": batch.labels,
            "pids": batch.identities,
            "embeddings": step.embeddings,
            "logits": step.logits,
            "triplet_loss": step.triplet,
            "triplet_num": step.violations,
            "mean_dist": step.mean_distance,
            **({"pav": batch.asymmetry} if sizes.gates else {}),
            "ce_loss": np.float32(step.cross_entropy),
            "total": np.float32(step.loss),
            "lr": PUBLISHED_OPTIMIZER["learning_rate"] * 0.1 ** sum(fall <= i for fall in falls),
        }
        train |= {f"step{i}/{name}": value for name, value in values.items()}
        if i in (0, steps - 1):
            train |= {f"after{i + 1}/{name}": value for name, value in (step.parameters | step.statistics).items()}
    np.savez(folder / "train.npz", **train)

    net = torch_reference.holding(sizes, run[-1].parameters | run[-1].statistics).eval()
    torch.save({"model": net.state_dict()}, folder / f"ScoNet-{steps:05d}.pt")
    rng = np.random.default_rng(seed)
    pixels = frame_shape(sizes.modality)[:-1] + (64,)
    sequences = [rng.integers(0, 256, (length, *pixels), dtype=np.uint8) for length in lengths]
    vectors = rng.random((len(lengths), 8, 3), np.float32)  # n 8 3
    with torch.no_grad():
        outputs = [
            net(torch.from_numpy(np.ascontiguousarray(cut_sides(sequence)))[None], torch.from_numpy(vector)[None])
            for sequence, vector in zip(sequences, vectors, strict=True)
        ]
    embeddings, logits = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
    np.savez(
        folder / "eval.npz",
        **{f"seq{i}": sequence for i, sequence in enumerate(sequences)},
        embeddings=embeddings,
        logits=logits,
        pred=logits.mean(2).argmax(1),
        **({"pav": vectors} if sizes.gates else {}),
    )

    labels = rng.integers(0, sizes.classes, 50)
    logits = rng.uniform(-1.0, 1.0, (len(labels), sizes.classes, sum(sizes.strips))).astype(np.float32)
    predictions = logits.mean(2).argmax(1)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, average="macro", zero_division=0.0)
    accuracy = accuracy_score(labels, predictions)
    np.savez(folder / "metrics.npz", labels=labels, logits=logits, accuracy=accuracy, precision=precision, recall=recall, f1=f1)
    return folder


def change(folder: Path, file: str, **changes) -> None:
    """Replace arrays of a recording's file by a function of themselves; a name's `__` stands for `/`."""
    arrays = dict(np.load(folder / f"{file}.npz"))
    for name, function in changes.items():
        name = name.replace("__", "/")
        arrays[name] = function(arrays[name])
    np.savez(folder / f"{file}.npz", **arrays)
