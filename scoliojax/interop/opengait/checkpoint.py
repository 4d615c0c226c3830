"""OpenGait checkpoints, read without running any code in them, and written so that OpenGait trains on from them.

`scoliojax.interop.opengait.names` says which of its tensors is which of ours.
"""

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from data_pipelines.schema import CLASSES, abbreviate
from scoliojax.errors import RunError, one_line
from scoliojax.files import whole_file
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait import archive
from scoliojax.interop.opengait.classes import from_ours, to_ours
from scoliojax.interop.opengait.names import STEM, Entry, Sizes, entries, from_tree, infer_sizes, to_tree, trained
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
NETWORK_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network")  # where trainers keep a network
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # parts of names that wrappers add
OTHER_NETWORKS = {  # by how a name of theirs begins
    "PGA.": "a DRF, which reads skeleton maps", "attention_layer.": "a DRF, which reads skeleton maps",
    "layer0.": "a network named like DeepGaitV2", "set_block1.": "a network named like GaitSet",
}  # fmt: skip
CLASS_TENSOR = "BNNecks.fc_bin"  # whose last axis has the classes
MOMENTUM = "momentum of "


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

    `RunError` when the file is missing, cut off, damaged or something else, or its tensors are not those of a ScoNet; it counts
    the differences and names the first.
    """
    path, problems = Path(path), Problems()
    with archive.opened(path) as file:
        tensors, holder = _network(path, file.content)
        content = {} if weights_only else holder
        sizes = _sizes(path, tensors, strips)
        wanted = _judged(tensors, {entry.name: entry for entry in entries(sizes)}, problems)
        step = content.get("iteration", 0)
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**31:
            problems.add("", f"iteration is {_shown(step)}, expected a number of steps")
            step = 0
        moved, optimizer = _read_optimizer(content, sizes, step, problems)
        problems.refuse(path)
        found = _float32(file.numbers(wanted | {f"{MOMENTUM}{name}": tensor for name, tensor in moved.items()}), problems)
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
    notes = []
    if others := sorted({tensor.storage.dtype for tensor in [*wanted.values(), *moved.values()]} - {"float32"}):
        notes.append(f"{' and '.join(others)} became float32; nothing is lost")
    if optimizer is None:
        notes.append("weights alone: no momentum, and the optimiser of the recipe")
    return Checkpoint(sizes, params, batch_stats, to_tree(sizes, "params", momentum), step, optimizer, tuple(notes))


def read_tensors(path: str | Path, strips: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """The network's float32 numbers by PyTorch's names, classes in the file's order; arguments and errors as of `read`."""
    path, problems = Path(path), Problems()
    with archive.opened(path) as file:
        tensors, _ = _network(path, file.content)
        wanted = _judged(tensors, {entry.name: entry for entry in entries(_sizes(path, tensors, strips))}, problems)
        problems.refuse(path)
        found = _float32(file.numbers(wanted), problems)
    problems.refuse(path)
    return found


class Problems:
    """What is wrong with a file, by kind; a message shows three of each kind and how many more."""

    def __init__(self):
        self._kinds: dict[str, list[str]] = {}

    def add(self, kind: str, *texts: str) -> None:
        """Texts of one kind; those of the kind "" are sentences of their own."""
        if texts:
            self._kinds.setdefault(kind, []).extend(texts)

    def refuse(self, path: Path) -> None:
        """Raise `RunError` where there are any."""
        if self._kinds:
            parts = [f"{kind}: {abbreviate(texts, 3)}" if kind else "; ".join(texts) for kind, texts in self._kinds.items()]
            raise RunError(f"{path} is not a checkpoint of a ScoNet; {'; '.join(parts)}")


def _shown(value: Any) -> str:
    """A value out of a file, for a message: short, and without what could hide in it."""
    if value is None or isinstance(value, float | bool) or (isinstance(value, int) and abs(value) < 2**63):
        return repr(value)
    if isinstance(value, archive.Stored):
        return f"a tensor {value.shape} {value.storage.dtype}"
    return f"a {archive.label(value.name)}" if isinstance(value, archive.Other) else f"a {type(value).__name__}"


def _network(path: Path, content: Any) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The network's tensors by name, without the parts of names that wrappers add, and the dictionary that held them.

    That dictionary is empty where the tensors are the whole content.
    """
    found, holder, way = content, {}, "it"
    for _ in range(4):  # one inside another, as where a whole checkpoint was saved as a "model"
        inside = [key for key in NETWORK_KEYS if isinstance(found, dict) and isinstance(found.get(key), dict)]
        if len(inside) > 1:
            raise RunError(f"{path} holds {' and '.join(inside)}, which may be two networks; save one of them alone")
        if not inside:
            break
        found, holder, way = found[inside[0]], found, f'its "{inside[0]}"'
    if not isinstance(found, dict):
        raise RunError(f"{path} holds {_shown(found)}, expected a dictionary of tensors; save the network's state_dict()")
    if not any(isinstance(value, archive.Stored | archive.Other) for value in found.values()):
        keys = abbreviate([archive.label(key) for key in found], 3) or "nothing"
        raise RunError(f"{path}: {way} holds {keys}, and no tensors; expected an OpenGait checkpoint with model and optimizer")
    tensors: dict[str, Any] = {}
    given: dict[str, str] = {}
    for name, tensor in found.items():
        bare = ".".join(part for part in str(name).split(".") if part not in WRAPPERS)
        if bare in tensors:
            both = " and ".join(archive.label(one) for one in (given[bare], name))
            raise RunError(f"{path} holds {both}, two tensors of one name without {', '.join(WRAPPERS)}; keep one of them")
        tensors[bare], given[bare] = tensor, name
    return tensors, holder


def _sizes(path: Path, tensors: dict[str, Any], strips: tuple[int, ...] | None) -> Sizes:
    """The network's sizes; `RunError` with what the file seems to be where it has none."""
    shapes = {name: tensor.shape for name, tensor in tensors.items() if isinstance(tensor, archive.Stored)}
    stem = shapes.get(f"{STEM}.conv1.conv.weight", ())
    kind = next((kind for start, kind in OTHER_NETWORKS.items() if any(name.startswith(start) for name in shapes)), None)
    if kind is None and stem[1:2] == (2,):
        kind = "a network that reads two channels (skeleton maps), such as ScoNet-MT-ske"
    if kind:
        raise RunError(f"{path} is a checkpoint of {kind}; here is a place for a ScoNet that reads silhouettes, one channel")
    try:
        return infer_sizes(shapes, strips)
    except ValueError as error:  # without sizes only the names can be compared
        problems = Problems()
        others = [name for name in tensors if name not in shapes]
        _misnamed(tensors, {entry.name: entry for entry in entries(PUBLISHED_SIZES)}, problems)
        problems.add("no tensor of numbers", *(f"{archive.label(name)} is {_shown(tensors[name])}" for name in others))
        if " is missing" not in str(error):
            problems.add("", str(error))
        problems.refuse(path)
        raise


def _misnamed(tensors: Mapping[str, Any], expected: Mapping[str, Entry], problems: Problems) -> None:
    """Names that are missing, and those that are unknown; the numbers of batches may be missing, because nothing reads them."""
    problems.add("missing", *(name for name, entry in expected.items() if name not in tensors and entry.tree != "count"))
    problems.add("unknown", *(archive.label(name) for name in tensors if name not in expected))


def _judged(
    tensors: Mapping[str, Any], expected: Mapping[str, Entry], problems: Problems, of: str = ""
) -> dict[str, archive.Stored]:
    """The tensors that are as expected and have numbers to read; what is wrong with the others goes to `problems`."""
    found = {}
    _misnamed(tensors, expected, problems)
    for name, entry in expected.items():
        tensor = tensors.get(name)
        if name not in tensors or (entry.tree == "count" and isinstance(tensor, archive.Stored)):
            continue
        if not isinstance(tensor, archive.Stored):
            problems.add("no tensor of numbers", f"{of}{name} is {_shown(tensor)}")
        elif tensor.shape != entry.shape:
            problems.add("another shape", f"{of}{name} is {tensor.shape}, expected {entry.shape}")
        elif tensor.storage.dtype not in archive.FLOATS:
            problems.add("another type", f"{of}{name} is {tensor.storage.dtype}, expected float32")
        elif misfit := tensor.misfit():
            problems.add("more than the file holds", f"{of}{name} {misfit}")
        else:
            found[name] = tensor
    return found


def _float32(arrays: dict[str, np.ndarray], problems: Problems) -> dict[str, np.ndarray]:
    """Numbers as float32; those that are not finite, or do not fit into float32, go to `problems`."""
    found = {}
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            found[name] = array.astype(np.float32)
        if not np.isfinite(array).all():
            problems.add("not finite", name)
        elif not np.array_equal(found[name].astype(array.dtype), array):
            problems.add("digits that float32 does not hold (save them with .float())", f"{name} is {array.dtype}")
    return found


def _number(section: dict[str, Any], key: str) -> float:
    value = section[key]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{key} is {_shown(value)}, expected a finite number")
    return float(value)


def _read_optimizer(
    content: dict[str, Any], sizes: Sizes, step: int, problems: Problems
) -> tuple[dict[str, archive.Stored], dict[str, Any] | None]:
    """Momentum by name and settings; a checkpoint without an optimiser (weights alone) has neither.

    A parameter that has not moved yet has no momentum.
    """
    if content.get("optimizer") is None:
        return {}, None
    expected, moved, settings = trained(sizes), {}, {}
    try:
        groups, scheduler = content["optimizer"]["param_groups"], content["scheduler"]
        if len(groups) != 1 or len(groups[0]["params"]) != len(expected):
            counts = abbreviate([len(group["params"]) for group in groups], 3)
            raise ValueError(f"groups of {counts} tensors, expected one of {len(expected)}")
        group = groups[0]
        names = dict(zip(group["params"], expected, strict=True))
        states = content["optimizer"]["state"]
        problems.add("unknown", *(f"{MOMENTUM}parameter {archive.label(number)}" for number in states if number not in names))
        tensors = {
            names[number].name: state["momentum_buffer"]
            for number, state in states.items()
            if number in names and state.get("momentum_buffer") is not None
        }
        moved = _judged(tensors, {entry.name: entry for entry in expected if entry.name in tensors}, problems, MOMENTUM)
        milestones = scheduler["milestones"]
        if isinstance(milestones, dict) and any(count != 1 for count in milestones.values()):
            raise ValueError("a milestone counts several times")
        settings = {
            "learning_rate": _number(group, "initial_lr" if "initial_lr" in group else "lr"),
            "momentum": _number(group, "momentum"),
            "weight_decay": _number(group, "weight_decay"),
            "milestones": tuple(sorted(operator.index(milestone) for milestone in milestones)),
            "decay": _number(scheduler, "gamma"),
        }
        sgd(**settings)  # checks the ranges
        if group["dampening"] or group["nesterov"] or group.get("maximize"):
            problems.add("", "the optimizer uses dampening, nesterov or maximize, which the published recipe does not")
        if scheduler["last_epoch"] != step:
            problems.add("", f"the scheduler is at step {_shown(scheduler['last_epoch'])}, the run at {step}")
        schedule = multi_step(settings["learning_rate"], settings["milestones"], settings["decay"])
        rate = float(np.asarray(schedule(step)))
        if not np.isclose(rate, _number(group, "lr"), rtol=1e-5):
            problems.add("", f"the learning rate is {group['lr']}, by its schedule it would be {rate:g} at step {step}")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        problems.add(
            "", f"optimizer or scheduler are not those of SGD with MultiStepLR ({reason}); --weights-only leaves them out"
        )
    return moved, settings


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
    sizes = Sizes(tuple(shape[-1] for shape in shapes), embedding_dim, model.strips, count)
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
    except (OSError, RuntimeError) as error:
        raise RunError(f"{path} cannot be written ({one_line(error)}); give another place") from None
