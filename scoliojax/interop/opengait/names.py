"""Names and layouts of the tensors of an OpenGait checkpoint, and the place of each in our trees.

An OpenGait checkpoint is `{"model", "optimizer", "scheduler", "iteration"}`. Convolution kernels are `[out, in, h, w]` there
and `[h, w, in, out]` here; the neck's batch norm is flattened channel by channel there, `[c * p]`, and is `[p, c]` here. A file
of UMGRL's DRF is the same with the gates' tensors beside; the ranges that normalise asymmetry vectors are in no file.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from data_pipelines.schema import CHANNELS, abbreviate
from scoliojax.models.drf import MEASURES, PAIRS
from scoliojax.models.sconet import FEATURE_ROWS
from scoliojax.training.state import Tree

STEM = "Backbone.forward_block"
GATES, AUTHORS_GATES = "PGA.", "attention_layer."  # how the names of a DRF's gates begin; the second in its authors' own files


class Sizes(NamedTuple):
    """Sizes of a network, read off the tensors of a checkpoint: the arguments of `TorchScoNet`, in order."""

    channels: tuple[int, ...]
    embedding_dim: int
    strips: tuple[int, ...]
    classes: int
    inputs: int = 1  # channels of a frame: 1 of silhouettes, 2 of skeleton maps
    gates: bool = False  # a DRF

    @property
    def network(self) -> str:
        """`model.name` of a config."""
        return "drf" if self.gates else "sconet"

    @property
    def modality(self) -> str:
        """`data.modality` of a config."""
        return next(modality for modality, channels in CHANNELS.items() if channels == self.inputs)


class Layout(NamedTuple):
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


PLAIN = Layout(lambda x: x, lambda x: x)
KERNEL = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
MATRIX = Layout(lambda x: x.T, lambda x: x.T)
ROW = Layout(lambda x: x.reshape(-1), lambda x: x.reshape(1, -1, 1))  # of a convolution to one channel
NUMBER = Layout(lambda x: x.reshape(()), lambda x: x.reshape(1))


def _neck_layout(parts: int) -> Layout:
    return Layout(lambda x: x.reshape(-1, parts).T, lambda x: x.T.reshape(-1))


class Entry(NamedTuple):
    """One tensor of a checkpoint: its name and shape there, which of our trees holds it, and where."""

    name: str
    shape: tuple[int, ...]
    tree: str  # "params" | "batch_stats" | "count" (PyTorch counts the batches; here the step says it)
    path: tuple[str, ...]
    layout: Layout


def entries(sizes: Sizes) -> Iterator[Entry]:
    """Every tensor of the network in PyTorch's order, which is also the order of the optimiser's numbers.

    Where the network reads two channels the norm of the stem comes first, as in UMGRL's files.
    """
    channels, parts = sizes.channels, sum(sizes.strips)

    def kernel(name: str, inputs: int, outputs: int, edge: int, *path: str) -> Iterator[Entry]:
        yield Entry(f"{name}.weight", (outputs, inputs, edge, edge), "params", (*path, "kernel"), KERNEL)

    def norm(name: str, features: int, *path: str, layout: Layout = PLAIN) -> Iterator[Entry]:
        yield Entry(f"{name}.weight", (features,), "params", (*path, "scale"), layout)
        yield Entry(f"{name}.bias", (features,), "params", (*path, "bias"), layout)
        yield Entry(f"{name}.running_mean", (features,), "batch_stats", (*path, "mean"), layout)
        yield Entry(f"{name}.running_var", (features,), "batch_stats", (*path, "var"), layout)
        yield Entry(f"{name}.num_batches_tracked", (), "count", (), PLAIN)

    stem = [
        kernel(f"{STEM}.conv1.conv", sizes.inputs, channels[0], 3, "backbone", "stem_conv"),
        norm(f"{STEM}.bn1", channels[0], "backbone", "stem_norm"),
    ]
    for part in stem if sizes.inputs == 1 else reversed(stem):
        yield from part
    for number, (inputs, outputs) in enumerate(zip((channels[0], *channels[:-1]), channels, strict=True), start=1):
        block, path = f"{STEM}.layer{number}.0", ("backbone", f"layer{number}")
        yield from kernel(f"{block}.conv1", inputs, outputs, 3, *path, "conv1")
        yield from norm(f"{block}.bn1", outputs, *path, "norm1")
        yield from kernel(f"{block}.conv2", outputs, outputs, 3, *path, "conv2")
        yield from norm(f"{block}.bn2", outputs, *path, "norm2")
        if number in (2, 3) or inputs != outputs:
            yield from kernel(f"{block}.downsample.0", inputs, outputs, 1, *path, "skip_conv")
            yield from norm(f"{block}.downsample.1", outputs, *path, "skip_norm")
    yield Entry("FCs.fc_bin", (parts, channels[-1], sizes.embedding_dim), "params", ("fc", "kernel"), PLAIN)
    yield Entry("BNNecks.fc_bin", (parts, sizes.embedding_dim, sizes.classes), "params", ("neck", "kernel"), PLAIN)
    yield from norm("BNNecks.bn1d", parts * sizes.embedding_dim, "neck", "norm", layout=_neck_layout(parts))
    if sizes.gates:
        shape = sizes.embedding_dim, PAIRS * MEASURES
        yield Entry(f"{GATES}channel_attention.weight", shape, "params", ("gates", "channel_kernel"), MATRIX)
        yield Entry(f"{GATES}channel_attention.bias", shape[:1], "params", ("gates", "channel_bias"), PLAIN)
        yield Entry(f"{GATES}spatial_attention.weight", (1, MEASURES, 1), "params", ("gates", "strip_kernel"), ROW)
        yield Entry(f"{GATES}spatial_attention.bias", (1,), "params", ("gates", "strip_bias"), NUMBER)


def trained(sizes: Sizes) -> list[Entry]:
    """The tensors that the optimiser moves, by its numbers."""
    return [entry for entry in entries(sizes) if entry.tree == "params"]


def infer_sizes(shapes: Mapping[str, tuple[int, ...]], strips: tuple[int, ...] | None = None) -> Sizes:
    """The network's sizes from its tensors' shapes by PyTorch's names.

    The strips of the horizontal pyramid are by default inferred from their sum: a sum of different divisors of 16 has one
    decomposition, its binary digits. A pyramid that lists a count twice has to be given. `ValueError` names tensors
    that are missing or have the wrong number of axes, or says that the strips do not fit.
    """
    stem = f"{STEM}.conv1.conv.weight"
    ranks = {stem: 4} | {f"{STEM}.layer{number}.0.conv1.weight": 4 for number in (1, 2, 3, 4)}
    ranks |= {"FCs.fc_bin": 3, "BNNecks.fc_bin": 3}
    found = {name: tuple(shapes.get(name, ())) for name in ranks}
    unusable = [
        f"{name} is {found[name]}, expected {rank} axes of at least 1" if name in shapes else f"{name} is missing"
        for name, rank in ranks.items()
        if len(found[name]) != rank or min(found[name]) < 1
    ]
    if unusable:
        raise ValueError(abbreviate(unusable, 3))
    (_, inputs, *_), *convolutions, fc, neck = found.values()
    gates = any(name.startswith(GATES) for name in shapes)
    if inputs not in CHANNELS.values():
        raise ValueError(f"{stem} is {found[stem]}, of {inputs} channels; 1 (silhouettes) or 2 (skeleton maps) are expected")
    if gates and inputs == 1:
        raise ValueError(f"it has gates ({GATES}*) and {stem} is {found[stem]}, of 1 channel; a DRF reads 2, skeleton maps")
    if strips is None:
        strips = tuple(count for count in (16, 8, 4, 2, 1) if fc[0] & count)
    if sum(strips) != fc[0] or any(count < 1 or FEATURE_ROWS % count for count in strips):
        raise ValueError(
            f"strips ({abbreviate(strips)}) do not fit: divisors of {FEATURE_ROWS} that add up to {fc[0]} are wanted; "
            "give --strips"
        )
    return Sizes(tuple(shape[0] for shape in convolutions), fc[2], strips, neck[2], inputs, gates)


def to_tree(sizes: Sizes, kind: str, arrays: Mapping[str, np.ndarray]) -> Tree:
    """Our tree ("params" or "batch_stats") from tensors by PyTorch's names, in their dtype; a DRF's ranges are not known."""
    ours = {entry.path: entry.layout.to_ours(arrays[entry.name]) for entry in entries(sizes) if entry.tree == kind}
    if sizes.gates and kind == "batch_stats":
        ours |= {("gates", name): np.zeros((PAIRS, MEASURES), np.float32) for name in ("low", "high")}
    return unflatten_dict({path: jnp.asarray(np.array(array, order="C")) for path, array in ours.items()})


def with_ranges(batch_stats: Tree, low: np.ndarray, high: np.ndarray) -> Tree:
    """Statistics of a DRF with these ranges of asymmetry vectors, `[8, 3]` each."""
    return batch_stats | {"gates": {"low": jnp.asarray(low, jnp.float32), "high": jnp.asarray(high, jnp.float32)}}


def from_tree(sizes: Sizes, kind: str, tree: Tree) -> dict[str, np.ndarray]:
    """Tensors by PyTorch's names from one of our trees, in its dtype: the inverse of `to_tree`, but for a DRF's ranges."""
    flat = flatten_dict(tree)
    wanted = [entry for entry in entries(sizes) if entry.tree == kind]
    return {entry.name: np.array(entry.layout.to_theirs(np.asarray(flat[entry.path])), order="C") for entry in wanted}
