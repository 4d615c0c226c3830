"""The network and the optimiser in what a file describes: found in any clothes, and judged before a number is read."""

import math
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError, one_line
from scoliojax.interop.opengait.archive import FLOATS
from scoliojax.interop.opengait.description import Other, Stored, label
from scoliojax.interop.opengait.names import STEM, Entry, Sizes, entries, infer_sizes, trained
from scoliojax.training.optim import multi_step, sgd

PUBLISHED_SIZES = Sizes((64, 128, 256, 512), 256, (16,), 3)
NETWORK_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network")  # where trainers keep a network
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # parts of names that wrappers add
OTHER_NETWORKS = {  # by how a name of theirs begins
    "PGA.": "a DRF, which reads skeleton maps", "attention_layer.": "a DRF, which reads skeleton maps",
    "layer0.": "a network named like DeepGaitV2", "set_block1.": "a network named like GaitSet",
}  # fmt: skip
STARTS = re.compile(r"(?:^|(?<=\.))(?:Backbone|FCs|BNNecks)\.")  # how the names of a ScoNet's tensors begin
MOMENTUM = "momentum of "
DEEPEST = 10  # dictionaries inside each other that are searched for a network
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
            raise RunError(f"{path} is no usable checkpoint of a ScoNet; {'; '.join(parts)}; save it again, or give another")


def _shown(value: Any) -> str:
    """A value out of a file, for a message: short, and without what could hide in it."""
    if value is None or isinstance(value, float | bool) or (isinstance(value, int) and abs(value) < 2**63):
        return repr(value)
    if isinstance(value, Stored):
        return f"a tensor {value.shape} {value.storage.dtype}"
    return f"a {label(value.name)}" if isinstance(value, Other) else f"a {type(value).__name__}"


class _Found(NamedTuple):
    """A dictionary of tensors in a file, or the part of one whose names begin alike."""

    keys: tuple[str, ...]  # that lead to the dictionary
    prefix: str  # of the names, with the dot at its end
    size: int  # how many names of a ScoNet, or tensors of another network, it has
    content: dict[Any, Any]
    around: tuple[dict[Any, Any], ...]  # the dictionaries that hold it, the outermost first

    @property
    def way(self) -> str:
        return label(".".join([*self.keys, *filter(None, [self.prefix.rstrip(".")])])) or "the outermost names"

    @property
    def is_named(self) -> bool:
        """Whether a trainer keeps the network, and not a copy of it, under such a name."""
        last = [*self.keys, *self.prefix.split(".")[:-1]][-1:]
        return not last or last[0] in NETWORK_KEYS


def _bare(name: Any) -> str:
    """A name without the parts that wrappers add."""
    return ".".join(part for part in str(name).split(".") if part not in WRAPPERS)


def _find_all(content: dict[Any, Any]) -> tuple[list[_Found], list[_Found]]:
    """The networks in a file, however deep: those with names of a ScoNet below one prefix each, and any other tensors."""
    ours = {entry.name for entry in entries(PUBLISHED_SIZES)}
    networks, others, seen, splits = [], [], {id(content)}, {}
    queue: list[tuple[tuple[str, ...], dict[Any, Any], tuple[dict[Any, Any], ...]]] = [((), content, ())]
    for keys, found, around in queue:
        names: dict[str, set[str]] = {}
        for key, value in found.items():
            if isinstance(value, dict) and isinstance(key, str) and len(keys) < DEEPEST and id(value) not in seen:
                seen.add(id(value))
                queue.append(((*keys, key), value, (*around, found)))
            if isinstance(value, Stored | Other) and isinstance(key, str):
                if key not in splits:
                    bare, at = _bare(key), [match.start() for match in STARTS.finditer(_bare(key))]
                    splits[key] = next(((bare[:i], bare[i:]) for i in at if bare[i:] in ours), None)
                if splits[key]:
                    names.setdefault(splits[key][0], set()).add(splits[key][1])
        networks += [_Found(keys, prefix, len(each), found, around) for prefix, each in names.items()]
        if count := sum(isinstance(value, Stored) for value in found.values()):
            others.append(_Found(keys, "", count, found, around))
    return networks, others


def find_network(path: Path, content: Any) -> tuple[dict[str, Any], dict[Any, Any], list[str]]:
    """The network's tensors by name, the dictionary with their optimiser and step, and what a user should know of the choice.

    The network is found in any dictionary inside others, below any prefix that all its names have. The names come without the
    prefix and without the parts that wrappers add. The second dictionary is empty where no optimiser or step is in the file.
    """
    if not isinstance(content, dict):
        raise RunError(f"{path} holds {_shown(content)}, expected a dictionary of tensors; save the network's state_dict()")
    networks, others = _find_all(content)
    if not networks and not others:
        keys = abbreviate([label(key) for key in content], 3) or "nothing"
        raise RunError(f"{path}: it holds {keys}, and no network; expected an OpenGait checkpoint with model and optimizer")
    largest = max(networks or others, key=lambda one: one.size)
    rivals = [one for one in networks if 2 * one.size > largest.size] or [largest]  # smaller ones are strays
    named = [one for one in rivals if one.is_named] if len(rivals) > 1 else rivals
    if len(named) != 1:
        ways = [one.way for one in named or rivals]
        raise RunError(
            f"{path} holds {' and '.join(ways[:3])}{f' and {len(ways) - 3} more' if ways[3:] else ''}, which may be "
            f"{'two' if len(ways) == 2 else len(ways)} networks; save one of them alone"
        )
    (taken,) = named
    notes = []
    if len(rivals) > 1 or not taken.is_named:
        rest = abbreviate([one.way for one in rivals if one is not taken], 3)
        notes.append(f"the network is that of {taken.way}" + (f"; left out: {rest}" if rest else ""))
    tensors: dict[str, Any] = {}
    given: dict[str, str] = {}
    outside = []
    for name, tensor in taken.content.items():
        bare = _bare(name)
        if taken.prefix and not bare.startswith(taken.prefix):
            if not any(one.content is taken.content and one.prefix and bare.startswith(one.prefix) for one in rivals):
                outside.append(label(name))
            continue
        bare = bare.removeprefix(taken.prefix)
        if bare in tensors:
            both = " and ".join(label(one) for one in (given[bare], name))
            raise RunError(
                f"{path} holds {both}, one name without what wrappers add ({abbreviate(WRAPPERS, 2)}); keep one of them"
            )
        tensors[bare], given[bare] = tensor, name
    if outside:
        notes.append(f"left out, because their names do not begin with {label(taken.prefix)}: {abbreviate(outside, 3)}")
    return tensors, next((one for one in taken.around[::-1] if "optimizer" in one or "iteration" in one), {}), notes


def find_sizes(path: Path, tensors: dict[str, Any], strips: tuple[int, ...] | None) -> Sizes:
    """The network's sizes; `RunError` with what the file seems to be where it has none."""
    shapes = {name: tensor.shape for name, tensor in tensors.items() if isinstance(tensor, Stored)}
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
        problems.add("no tensor of numbers", *(f"{label(name)} is {_shown(tensors[name])}" for name in others))
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
            problems.add("no tensor of numbers", f"{of}{name} is {_shown(tensor)}")
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
    """The number of finished steps, 0 where the content states none, None where it states no number of steps.

    `plain` gives the integer in a tensor.
    """
    step = plain(content.get("iteration", 0))
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**31:
        return step
    problems.add(OPTIONAL, f"iteration is {_shown(step)}, expected a number of steps")
    return None


def _number(section: dict[str, Any], key: str) -> float:
    value = section[key]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{key} is {_shown(value)}, expected a finite number")
    return float(value)


def find_optimizer(
    content: dict[str, Any], sizes: Sizes, step: int | None, problems: Problems
) -> tuple[dict[str, Stored], dict[str, Any] | None]:
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
        if not all(isinstance(number, int) for number in group["params"]):
            raise ValueError("params are no numbers")
        names = dict(zip(group["params"], expected, strict=True))
        states = content["optimizer"]["state"]
        problems.add("unknown", *(f"{MOMENTUM}parameter {label(number)}" for number in states if number not in names))
        tensors = {
            names[number].name: state["momentum_buffer"]
            for number, state in states.items()
            if number in names and state.get("momentum_buffer") is not None
        }
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
            problems.add(OPTIONAL, f"the scheduler is at step {_shown(scheduler['last_epoch'])}, the run at {step}")
        schedule = multi_step(settings["learning_rate"], settings["milestones"], settings["decay"])
        rate = float(np.asarray(schedule(step)))
        if not np.isclose(rate, _number(group, "lr"), rtol=1e-5):
            problems.add(
                OPTIONAL, f"the learning rate is {_shown(group['lr'])}, by its schedule it would be {rate:g} at step {step}"
            )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else one_line(error)
        problems.add(OPTIONAL, f"optimizer or scheduler are not those of SGD with MultiStepLR ({reason})")
    return moved, settings
