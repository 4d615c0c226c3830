"""The network among what a file describes: in any dictionary, below any prefix of its names."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError
from scoliojax.interop.opengait.names import AUTHORS_GATES, GATES, Sizes, entries
from scoliojax.interop.opengait.stored import Other, Stored, label, shown

PUBLISHED_SIZES = Sizes((64, 128, 256, 512), 256, (16,), 3)
NETWORK_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network")  # where trainers keep a network
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # parts of names that wrappers add
NAMES = {entry.name for entry in entries(PUBLISHED_SIZES._replace(inputs=2, gates=True))}
NAMES |= {name.replace(GATES, AUTHORS_GATES) for name in NAMES if name.startswith(GATES)}
STARTS = re.compile(r"(?:^|(?<=\.))(?:Backbone|FCs|BNNecks|PGA|attention_layer)\.")  # how these names begin


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
    networks, others, seen, splits = [], [], {id(content)}, {}
    queue: list[tuple[tuple[str, ...], dict[Any, Any], tuple[dict[Any, Any], ...]]] = [((), content, ())]
    for keys, found, around in queue:
        names: dict[str, set[str]] = {}
        for key, value in found.items():
            if isinstance(value, dict) and isinstance(key, str) and id(value) not in seen:
                seen.add(id(value))
                queue.append(((*keys, key), value, (*around, found)))
            if isinstance(value, Stored | Other) and isinstance(key, str):
                if key not in splits:
                    bare, at = _bare(key), [match.start() for match in STARTS.finditer(_bare(key))]
                    splits[key] = next(((bare[:i], bare[i:]) for i in at if bare[i:] in NAMES), None)
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
        raise RunError(f"{path} holds {shown(content)}, expected a dictionary of tensors; save the network's state_dict()")
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
    gates, authors = ([name for name in tensors if name.startswith(start)] for start in (GATES, AUTHORS_GATES))
    if gates and authors:
        raise RunError(
            f"{path} holds {label(given[gates[0]])} and {label(given[authors[0]])}, gates by two names; keep those of one"
        )
    tensors = {GATES + name.removeprefix(AUTHORS_GATES) if name in authors else name: tensors[name] for name in tensors}
    if outside:
        notes.append(f"left out, because their names do not begin with {label(taken.prefix)}: {abbreviate(outside, 3)}")
    return tensors, next((one for one in taken.around[::-1] if "optimizer" in one or "iteration" in one), {}), notes
