"""OpenGait checkpoints, read without running any code in them, and written so that OpenGait trains on from them.

`scoliojax.interop.opengait.names` says which of its tensors is which of ours.
"""

import dataclasses
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from scoliojax.errors import RunError, one_line
from scoliojax.files import whole_file
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait.names import Entry, Sizes, entries, from_tree, infer_sizes, to_tree, trained
from scoliojax.models.sconet import ScoNet
from scoliojax.training.optim import multi_step, sgd
from scoliojax.training.state import TrainState, Tree, create_state, split_model

PUBLISHED_SIZES = Sizes((64, 128, 256, 512), 256, (16,), 3)
PUBLISHED_OPTIMIZER = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": (10_000, 14_000, 18_000),
    "decay": 0.1,
}


@dataclass(frozen=True)
class Checkpoint:
    """A whole OpenGait checkpoint in our layouts, all trees float32."""

    sizes: Sizes
    params: Tree
    batch_stats: Tree  # running means and variances
    momentum: Tree  # of the optimiser, like `params`; zeros before the first step
    step: int  # finished steps
    optimizer: dict[str, Any] | None  # arguments of `scoliojax.training.optim.sgd`; None where the file holds weights alone

    def model(self) -> ScoNet:
        """The network that holds these numbers, in float32."""
        return nnx.merge(make_graph(self.sizes, "float32"), self.params, self.batch_stats, copy=True)

    def state(self) -> TrainState:
        """The state from which training goes on: same step, same momentum, same learning rate."""
        rule, _ = sgd(**(self.optimizer or PUBLISHED_OPTIMIZER))  # the state has the same form for any settings
        state, step = create_state(self.params, self.batch_stats, rule), jnp.asarray(self.step, jnp.int32)
        moved = optax.tree_utils.tree_set(state.opt_state, trace=self.momentum, count=step)
        return dataclasses.replace(state, step=step, opt_state=moved)


def make_graph(sizes: Sizes, precision: str) -> nnx.GraphDef:
    """The graph of a network of these sizes, to be merged with parameters and statistics."""
    return split_model(ScoNet(**sizes._asdict(), precision=precision, rng=np.random.default_rng(0)))[0]


def load(path: str | Path, strips: tuple[int, ...] | None = None) -> ScoNet:
    """The network of an OpenGait checkpoint; see `read` for the arguments and errors."""
    return read(path, strips).model()


def read(path: str | Path, strips: tuple[int, ...] | None = None) -> Checkpoint:
    """The content of an OpenGait checkpoint, read without running any code that may be in it; also of a distributed run.

    The strips of the horizontal pyramid are by default inferred from their sum, which works where no count stands twice.
    `RunError` when the file is missing, cut off, damaged or no checkpoint, or its tensors are not those of a ScoNet; it lists
    every difference.
    """
    content = _open(Path(path))
    tensors = _stripped(content["model"])
    try:
        sizes = infer_sizes({name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors.items()}, strips)
    except ValueError as error:  # without sizes only the names can be compared
        others = [line for line in _misnamed(tensors, [one.name for one in entries(PUBLISHED_SIZES)]) if line not in str(error)]
        raise RunError(f"{path} is not a checkpoint of a ScoNet: {'; '.join([str(error), *others])}") from None
    problems: list[str] = []
    found = _collect(tensors, {entry.name: entry for entry in entries(sizes)}, problems)
    step = content.get("iteration", 0)
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**31:
        problems.append(f"iteration is {step!r}, expected a number of steps")
        step = 0
    momentum, optimizer = _read_optimizer(content, sizes, step, problems)
    if problems:
        raise RunError(f"{path} is not a checkpoint of a ScoNet: {'; '.join(problems)}")
    params, batch_stats = (to_tree(sizes, kind, found) for kind in ("params", "batch_stats"))
    return Checkpoint(sizes, params, batch_stats, to_tree(sizes, "params", momentum), step, optimizer)


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The network's tensors of a checkpoint by PyTorch's names, as they are in the file; errors as of `read`."""
    return _stripped(_open(Path(path))["model"])


def _stripped(tensors: dict[Any, Any]) -> dict[str, Any]:
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _open(path: Path) -> dict[str, Any]:
    """The checkpoint's dictionary. Every byte is checked: PyTorch itself does not look at the checksums in its files."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise RunError(f"{path} is damaged: {damaged} does not match its checksum; copy the file again")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; give an OpenGait checkpoint, e.g. ScoNet-20000.pt") from None
    except RunError:
        raise
    except Exception as error:  # bytes from outside can make zip, pickle and torch raise anything; all of it means the same
        reason = one_line(error)
        raise RunError(f"{path} is no checkpoint that can be opened safely ({type(error).__name__}: {reason})") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise RunError(f'{path} holds no "model" dictionary; expected an OpenGait checkpoint with model, optimizer, scheduler')
    return content


def _misnamed(tensors: dict[str, Any], names: Iterable[str]) -> list[str]:
    missing, unknown = set(names) - tensors.keys(), tensors.keys() - set(names)
    return [*(f"{name} is missing" for name in sorted(missing)), *(f"{name} is unknown" for name in sorted(unknown))]


def _collect(tensors: dict[str, Any], expected: dict[str, Entry], problems: list[str]) -> dict[str, np.ndarray]:
    """The tensors that are as expected, as numpy arrays; everything else becomes a line of `problems`."""
    found = {}
    problems += _misnamed(tensors, expected)
    for name, entry in expected.items():
        if name not in tensors:
            continue
        tensor, dtype = tensors[name], torch.int64 if entry.tree == "count" else torch.float32
        if not isinstance(tensor, torch.Tensor):
            problems.append(f"{name} is a {type(tensor).__name__}, expected a tensor")
        elif (tuple(tensor.shape), tensor.dtype, tensor.layout) != (entry.shape, dtype, torch.strided):
            problems.append(f"{name} is {tuple(tensor.shape)} {tensor.dtype}, expected {entry.shape} {dtype}")
        elif not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name} has values that are not finite")
        else:
            found[name] = tensor.detach().numpy()
    return found


def _read_optimizer(
    content: dict[str, Any], sizes: Sizes, step: int, problems: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Momentum and settings; a checkpoint without an optimiser (weights alone) has momentum zero and no settings."""
    expected = {entry.name: entry for entry in trained(sizes)}
    buffers = {name: np.zeros(entry.shape, np.float32) for name, entry in expected.items()}
    if content.get("optimizer") is None:
        return buffers, None
    settings: dict[str, Any] = {}
    try:
        (group,) = content["optimizer"]["param_groups"]
        scheduler = content["scheduler"]
        names = dict(zip(group["params"], expected, strict=True))
        tensors = {
            names.get(number, f"parameter {number}"): state["momentum_buffer"]
            for number, state in content["optimizer"]["state"].items()
            if state.get("momentum_buffer") is not None  # a parameter that has not moved yet has none
        }
        lines: list[str] = []
        buffers |= _collect(tensors, {name: entry for name, entry in expected.items() if name in tensors}, lines)
        problems += [f"momentum of {line}" for line in lines]
        settings = {
            "learning_rate": float(group.get("initial_lr", group["lr"])),
            "momentum": float(group["momentum"]),
            "weight_decay": float(group["weight_decay"]),
            "milestones": tuple(sorted(int(milestone) for milestone in scheduler["milestones"])),
            "decay": float(scheduler["gamma"]),
        }
        sgd(**settings)  # checks the ranges
        if group["dampening"] or group["nesterov"] or group.get("maximize"):
            problems.append("the optimizer uses dampening, nesterov or maximize, which the published recipe does not")
        if scheduler["last_epoch"] != step:
            problems.append(f"the scheduler is at step {scheduler['last_epoch']}, the run at {step}")
        schedule = multi_step(settings["learning_rate"], settings["milestones"], settings["decay"])
        rate = float(np.asarray(schedule(step)))
        if not np.isclose(rate, float(group["lr"]), rtol=1e-5):
            problems.append(f"the learning rate is {group['lr']}, by its schedule it would be {rate:g} at step {step}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problems.append(f"optimizer or scheduler are not those of SGD with MultiStepLR ({type(error).__name__}: {error})")
    return buffers, settings


def save(path: str | Path, model: ScoNet, momentum: Tree | None = None, step: int = 0, optimizer: dict | None = None) -> None:
    """Write a checkpoint that OpenGait loads strictly and trains on from; appears as a whole or not at all.

    `momentum` is like the parameters; None, or step 0, writes an optimiser that has not moved yet. `optimizer` are arguments of
    `scoliojax.training.optim.sgd`, by default as published. `RunError` when the file cannot be written.
    """
    optimizer = optimizer or PUBLISHED_OPTIMIZER
    _, params, batch_stats = split_model(model)
    shapes = (params["backbone"][f"layer{number}"]["conv1"]["kernel"].shape for number in (1, 2, 3, 4))
    _, embedding_dim, classes = params["neck"]["kernel"].shape
    sizes = Sizes(tuple(shape[-1] for shape in shapes), embedding_dim, model.strips, classes)
    arrays = from_tree(sizes, "params", params) | from_tree(sizes, "batch_stats", batch_stats)
    tensors = {
        entry.name: torch.tensor(step) if entry.tree == "count" else torch.from_numpy(arrays[entry.name])
        for entry in entries(sizes)
    }
    rate, milestones = optimizer["learning_rate"], sorted(int(milestone) for milestone in optimizer["milestones"])
    for milestone in milestones:
        if milestone <= step:
            rate *= optimizer["decay"]  # one by one, as PyTorch's scheduler does: the last digits agree
    buffers = {} if momentum is None or step == 0 else from_tree(sizes, "params", momentum)
    places = torch.nn.ParameterList(torch.zeros(()) for _ in trained(sizes))  # only their number is written
    settings = optimizer | {"milestones": milestones}
    rule, schedule = (one.state_dict() for one in torch_reference.sgd(places, settings))
    rule["state"] = {number: {"momentum_buffer": torch.from_numpy(buffer)} for number, buffer in enumerate(buffers.values())}
    rule["param_groups"][0]["lr"] = rate
    schedule |= {"last_epoch": step, "_step_count": step + 1, "_last_lr": [rate]}
    try:
        with whole_file(Path(path)) as fresh:
            torch.save({"model": tensors, "optimizer": rule, "scheduler": schedule, "iteration": step}, fresh)
    except (OSError, RuntimeError) as error:
        raise RunError(f"{path} cannot be written ({one_line(error)}); give another place") from None
