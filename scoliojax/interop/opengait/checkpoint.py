"""OpenGait checkpoints, read without running any code in them, and written so that OpenGait trains on from them.

`scoliojax.interop.opengait.names` says which of its tensors is which of ours.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from data_pipelines.command import unwritable
from data_pipelines.poses.asymmetry import Normalisation
from data_pipelines.schema import CLASSES, abbreviate
from scoliojax.errors import RunError, one_line
from scoliojax.files import whole_file
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait import archive
from scoliojax.interop.opengait.classes import from_ours, to_ours
from scoliojax.interop.opengait.contents import (
    MOMENTUM,
    Problems,
    find_optimizer,
    find_sizes,
    find_step,
    find_tensors,
    to_float32,
)
from scoliojax.interop.opengait.names import Sizes, entries, from_tree, to_tree, trained, with_ranges
from scoliojax.interop.opengait.networks import find_network
from scoliojax.models.drf import DRF
from scoliojax.models.sconet import ScoNet
from scoliojax.training.optim import sgd
from scoliojax.training.state import TrainState, Tree, create_state, split_model

PUBLISHED_OPTIMIZER = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": (10_000, 14_000, 18_000),
    "decay": 0.1,
}
CLASS_TENSOR = "BNNecks.fc_bin"  # whose last axis has the classes


@dataclass(frozen=True)
class Checkpoint:
    """A whole OpenGait checkpoint in our layouts, all trees float32."""

    sizes: Sizes
    params: Tree
    batch_stats: Tree  # running means and variances
    momentum: Tree  # of the optimiser, like `params`; zeros before the first step
    step: int  # finished steps
    optimizer: dict[str, Any] | None  # arguments of `scoliojax.training.optim.sgd`; None where the file holds weights alone
    notes: tuple[str, ...] = ()  # what a user should know of how it was read
    tensors: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # the network's numbers by PyTorch's names

    def model(self) -> ScoNet:
        """The network that holds these numbers, in float32."""
        return nnx.merge(make_graph(self.sizes, "float32"), self.params, self.batch_stats, copy=True)

    def fitted(self, asymmetry: np.ndarray) -> "Checkpoint":
        """The same DRF with the ranges of asymmetry vectors `[n, 8, 3]`, which its file does not hold."""
        ranges = Normalisation.fit(asymmetry)
        return dataclasses.replace(self, batch_stats=with_ranges(self.batch_stats, ranges.low, ranges.high))

    def state(self) -> TrainState:
        """The state from which training goes on: same step, same momentum, same learning rate."""
        rule, _ = sgd(**(self.optimizer or PUBLISHED_OPTIMIZER))  # the state has the same form for any settings
        state, step = create_state(self.params, self.batch_stats, rule), jnp.asarray(self.step, jnp.int32)
        moved = optax.tree_utils.tree_set(state.opt_state, trace=self.momentum, count=step)
        return dataclasses.replace(state, step=step, opt_state=moved)


def make_graph(sizes: Sizes, precision: str) -> nnx.GraphDef:
    """The graph of a network of these sizes, to be merged with parameters and statistics."""
    arguments = sizes._asdict()
    network = DRF if arguments.pop("gates") else ScoNet
    return split_model(network(**arguments, precision=precision, rng=np.random.default_rng(0)))[0]


def load(path: str | Path, strips: tuple[int, ...] | None = None, classes: Sequence[str] = CLASSES) -> ScoNet:
    """The network of an OpenGait checkpoint; see `read` for the arguments and errors."""
    return read(path, strips, classes).model()


def read(
    path: str | Path,
    strips: tuple[int, ...] | None = None,
    classes: Sequence[str] = CLASSES,
    weights_only: bool = False,
) -> Checkpoint:
    """The content of an OpenGait checkpoint, read without running any code that may be in it; also of a distributed run.

    Also taken are files of PyTorch before 1.6, weights alone, names with what wrappers such as `module.` put into them, and
    numbers of float16, bfloat16 or float64 where float32 loses nothing.

    Args:
      path: the file.
      strips: of each level of the horizontal pyramid; by default inferred from their sum, which works where no count stands
        twice.
      classes: the order of the classes in the file, which it does not state (`scoliojax.interop.opengait.classes`).
      weights_only: leave out the optimiser and the step.

    `RunError` when the file is missing, cut off, damaged or something else, or its tensors are not those of a ScoNet or
    DRF; it counts the differences and names the first.
    """
    path, problems = Path(path), Problems()
    with archive.opened(path) as file:
        tensors, holder, notes = find_network(path, file.content)
        content = {} if weights_only else holder
        sizes = find_sizes(path, tensors, strips)
        wanted = find_tensors(tensors, {entry.name: entry for entry in entries(sizes)}, problems)
        step = find_step(content, file.plain, problems)
        moved, optimizer = find_optimizer(content, tensors, sizes, step, problems)
        problems.refuse(path)
        found = to_float32(file.numbers(wanted | {f"{MOMENTUM}{name}": tensor for name, tensor in moved.items()}), problems)
    variances = [entry.name for entry in entries(sizes) if entry.path[-1:] == ("var",) and entry.name in found]
    problems.add("negative variances", *(name for name in variances if bool((found[name] < 0).any())))
    problems.refuse(path)
    momentum = {entry.name: found.get(f"{MOMENTUM}{entry.name}", np.zeros(entry.shape, np.float32)) for entry in trained(sizes)}
    if tuple(classes) != CLASSES:
        if sizes.classes != len(CLASSES):
            raise RunError(f"--classes={','.join(classes)}, but {path} has {sizes.classes} classes; leave it out")
        for arrays in (found, momentum):
            arrays[CLASS_TENSOR] = arrays[CLASS_TENSOR][..., to_ours(classes)]
    params, batch_stats = (to_tree(sizes, kind, found) for kind in ("params", "batch_stats"))
    if others := sorted({tensor.storage.dtype for tensor in [*wanted.values(), *moved.values()]} - {"float32"}):
        notes.append(f"{' and '.join(others)} became float32; nothing is lost")
    if optimizer is None:
        notes.append("weights alone: no momentum, and the optimiser of the recipe")
    elif step and optimizer["momentum"] and (still := [name for name in momentum if name not in moved]):
        notes.append(f"{len(still)} of {len(momentum)} parameters have no momentum at step {step}: {abbreviate(still, 3)}")
    moments, network = to_tree(sizes, "params", momentum), {name: found[name] for name in wanted}
    return Checkpoint(sizes, params, batch_stats, moments, step or 0, optimizer, tuple(notes), network)


def save(
    path: str | Path,
    model: ScoNet,
    momentum: Tree | None = None,
    step: int = 0,
    optimizer: dict | None = None,
    classes: Sequence[str] = CLASSES,
) -> None:
    """Write a checkpoint that OpenGait loads strictly and trains on from; appears as a whole or not at all.

    `momentum` is like the parameters; None, or step 0, writes an optimiser that has not moved yet. `optimizer` are arguments of
    `scoliojax.training.optim.sgd`, by default as published. `classes` is their order in the file. `RunError` when the file
    cannot be written.
    """
    optimizer = optimizer or PUBLISHED_OPTIMIZER
    _, params, batch_stats = split_model(model)
    shapes = (params["backbone"][f"layer{number}"]["conv1"]["kernel"].shape for number in (1, 2, 3, 4))
    _, embedding_dim, count = params["neck"]["kernel"].shape
    sizes = Sizes(
        tuple(shape[-1] for shape in shapes), embedding_dim, model.strips, count, model.inputs, isinstance(model, DRF)
    )
    arrays = from_tree(sizes, "params", params) | from_tree(sizes, "batch_stats", batch_stats)
    buffers = {} if momentum is None or step == 0 else from_tree(sizes, "params", momentum)
    if tuple(classes) != CLASSES:
        for given in filter(None, (arrays, buffers)):
            given[CLASS_TENSOR] = np.ascontiguousarray(given[CLASS_TENSOR][..., from_ours(classes)])
    tensors = {
        entry.name: torch.tensor(step) if entry.tree == "count" else torch.from_numpy(arrays[entry.name])
        for entry in entries(sizes)
    }
    rate, milestones = optimizer["learning_rate"], sorted(int(milestone) for milestone in optimizer["milestones"])
    for milestone in milestones:
        if milestone <= step:
            rate *= optimizer["decay"]  # one by one, as PyTorch's scheduler does: the last digits agree
    places = torch.nn.ParameterList(torch.zeros(()) for _ in trained(sizes))  # only their number is written
    settings = optimizer | {"milestones": milestones}
    rule, schedule = (one.state_dict() for one in torch_reference.sgd(places, settings))
    rule["state"] = {number: {"momentum_buffer": torch.from_numpy(buffer)} for number, buffer in enumerate(buffers.values())}
    rule["param_groups"][0]["lr"] = rate
    schedule |= {"last_epoch": step, "_step_count": step + 1, "_last_lr": [rate]}
    try:
        with whole_file(Path(path)) as fresh:
            torch.save({"model": tensors, "optimizer": rule, "scheduler": schedule, "iteration": step}, fresh)
    except OSError as error:
        raise RunError(f"{path} {unwritable(error)}") from None
    except RuntimeError as error:  # of PyTorch's writer, which keeps the cause to itself
        raise RunError(f"{path} cannot be written ({one_line(error)}); make room on the disk, or give another place") from None
