"""The network and the optimiser in what a file describes, judged before a number is read."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError, one_line
from scoliojax.interop.opengait.archive import FLOATS
from scoliojax.interop.opengait.names import Entry, Sizes, entries, infer_sizes, trained
from scoliojax.interop.opengait.networks import PUBLISHED_SIZES
from scoliojax.interop.opengait.stored import Stored, label, shown
from scoliojax.training.optim import multi_step, sgd

OTHER_NETWORKS = {"layer0.": "DeepGaitV2", "set_block1.": "GaitSet"}  # by how a name of theirs begins
MOMENTUM = "momentum of "
OPTIONAL = "optimiser and step (--weights-only leaves them out)"
MOST_MILESTONES = 1000


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
            texts = [text for each in self._kinds.values() for text in each]
            if OPTIONAL not in self._kinds and any(text.startswith(MOMENTUM) for text in texts):
                parts.append("--weights-only leaves the momentum out")
            raise RunError(
                f"{path} is no usable checkpoint of a ScoNet or DRF; {'; '.join(parts)}; save it again, or give another"
            )


def find_sizes(path: Path, tensors: dict[str, Any], strips: tuple[int, ...] | None) -> Sizes:
    """The network's sizes; `RunError` with what the file seems to be where it has none."""
    shapes = {name: tensor.shape for name, tensor in tensors.items() if isinstance(tensor, Stored)}
    first = next(iter(shapes), "")
    prefixes = ("", *(first[: at + 1] for at, sign in enumerate(first) if sign == "."))
    shared = [prefix for prefix in prefixes if all(name.startswith(prefix) for name in shapes)]
    begins = {prefix + start: kind for prefix in shared for start, kind in OTHER_NETWORKS.items()}
    kind = next((kind for begin, kind in begins.items() if any(name.startswith(begin) for name in shapes)), None)
    if kind:
        raise RunError(f"{path} is a checkpoint of a network named like {kind}; give one of a ScoNet or DRF")
    try:
        return infer_sizes(shapes, strips)
    except ValueError as error:  # without sizes only the names can be compared
        problems = Problems()
        others = [name for name in tensors if name not in shapes]
        _misnamed(tensors, {entry.name: entry for entry in entries(PUBLISHED_SIZES)}, problems)
        problems.add("no tensor of numbers", *(f"{label(name)} is {shown(tensors[name])}" for name in others))
        if " is missing" not in str(error):
            problems.add("", str(error))
        problems.refuse(path)
        raise


def _misnamed(tensors: Mapping[str, Any], expected: Mapping[str, Entry], problems: Problems) -> None:
    """Names that are missing, and those that are unknown; the numbers of batches may be missing, because nothing reads them."""
    problems.add("missing", *(name for name, entry in expected.items() if name not in tensors and entry.tree != "count"))
    problems.add("unknown", *(label(name) for name in tensors if name not in expected))


def find_tensors(
    tensors: Mapping[str, Any], expected: Mapping[str, Entry], problems: Problems, of: str = ""
) -> dict[str, Stored]:
    """The tensors that are as expected and have numbers to read; what is wrong with the others goes to `problems`."""
    found = {}
    _misnamed(tensors, expected, problems)
    for name, entry in expected.items():
        tensor = tensors.get(name)
        if name not in tensors or (entry.tree == "count" and isinstance(tensor, Stored)):
            continue
        if not isinstance(tensor, Stored):
            problems.add("no tensor of numbers", f"{of}{name} is {shown(tensor)}")
        elif tensor.shape != entry.shape:
            problems.add("another shape", f"{of}{name} is {tensor.shape}, expected {entry.shape}")
        elif tensor.storage.dtype not in FLOATS:
            problems.add("another type", f"{of}{name} is {tensor.storage.dtype}, expected float32")
        elif misfit := tensor.misfit():
            problems.add("views that do not fit", f"{of}{name} {misfit}")
        else:
            found[name] = tensor
    return found


def to_float32(arrays: dict[str, np.ndarray], problems: Problems) -> dict[str, np.ndarray]:
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


def find_step(content: dict[Any, Any], plain: Callable[[Any], Any], problems: Problems) -> int | None:
    """The number of finished steps; 0 for weights alone that state none, None where a number is wanted and there is none.

    `plain` gives the integer in a tensor.
    """
    if content.get("optimizer") is not None and "iteration" not in content:
        problems.add(OPTIONAL, "iteration, the number of finished steps, is missing")
        return None
    step = plain(content.get("iteration", 0))
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**31:
        return step
    problems.add(OPTIONAL, f"iteration is {shown(step)}, expected a number of steps")
    return None


def _number(section: dict[str, Any], key: str) -> float:
    value = section[key]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{key} is {shown(value)}, expected a finite number")
    return float(value)


def _numbered(names: Iterable[str], sizes: Sizes, momentum: Mapping[int, Any]) -> list[Entry]:
    """The parameters by the optimiser's numbers, which are those of a network's modules in the order they were made.

    Two orders are known, with convolution or norm of the stem first; where the shapes fit neither, it is that of the names in
    the file. `momentum`: tensors by places in that order.
    """
    known = trained(sizes)
    places = {entry.name: place for place, entry in enumerate(known)}
    stem, rest = known[:3], known[3:]
    turned = [stem[-1], *stem[:-1]] if stem[0].path[-1] != "kernel" else [*stem[1:], stem[0]]
    listed = [known[places[name]] for name in names if name in places]

    def fits(order: list[Entry]) -> bool:
        return all(getattr(tensor, "shape", None) == order[place].shape for place, tensor in momentum.items())

    orders = [known, [*turned, *rest], *([listed] if len(listed) == len(known) else [])]
    return next((order for order in orders if fits(order)), known)


def find_optimizer(
    content: dict[str, Any], names: Iterable[str], sizes: Sizes, step: int | None, problems: Problems
) -> tuple[dict[str, Stored], dict[str, Any] | None]:
    """Momentum by name and settings; a checkpoint without an optimiser (weights alone) has neither.

    A parameter that has not moved yet has no momentum. `names` are those of the network's tensors, as the file lists them.
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
        if not all(isinstance(number, int) for number in group["params"]):
            raise ValueError("params are no numbers")
        places = {number: place for place, number in enumerate(group["params"])}
        states = content["optimizer"]["state"]
        problems.add("unknown", *(f"{MOMENTUM}parameter {label(number)}" for number in states if number not in places))
        buffers = {
            places[number]: state["momentum_buffer"]
            for number, state in states.items()
            if number in places and state.get("momentum_buffer") is not None
        }
        order = _numbered(names, sizes, buffers)
        tensors = {order[place].name: buffer for place, buffer in buffers.items()}
        moved = find_tensors(tensors, {entry.name: entry for entry in expected if entry.name in tensors}, problems, MOMENTUM)
        milestones = scheduler["milestones"]
        if len(milestones) > MOST_MILESTONES:
            raise ValueError(f"{len(milestones)} milestones, expected {MOST_MILESTONES} or fewer")
        if isinstance(milestones, dict) and any(count != 1 for count in milestones.values()):
            raise ValueError("a milestone counts several times")
        if any(isinstance(milestone, int) and milestone >= 2**31 for milestone in milestones):
            raise ValueError("a milestone is no number of steps")
        settings = {
            "learning_rate": _number(group, "initial_lr" if "initial_lr" in group else "lr"),
            "momentum": _number(group, "momentum"),
            "weight_decay": _number(group, "weight_decay"),
            "milestones": tuple(sorted(operator.index(milestone) for milestone in milestones)),
            "decay": _number(scheduler, "gamma"),
        }
        sgd(**settings)  # checks the ranges
        if group["dampening"] or group["nesterov"] or group.get("maximize"):
            problems.add(OPTIONAL, "the optimizer uses dampening, nesterov or maximize, which the published recipe does not")
        if step is None:
            return moved, settings  # the rest would follow from a step
        if scheduler["last_epoch"] != step:
            problems.add(OPTIONAL, f"the scheduler is at step {shown(scheduler['last_epoch'])}, the run at {step}")
        schedule = multi_step(settings["learning_rate"], settings["milestones"], settings["decay"])
        rate = float(np.asarray(schedule(step)))
        if not np.isclose(rate, _number(group, "lr"), rtol=1e-5):
            problems.add(
                OPTIONAL, f"the learning rate is {shown(group['lr'])}, by its schedule it would be {rate:g} at step {step}"
            )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else one_line(error)
        problems.add(OPTIONAL, f"optimizer or scheduler are not those of SGD with MultiStepLR ({reason})")
    return moved, settings
