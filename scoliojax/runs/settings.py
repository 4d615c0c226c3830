"""The settings of a run: what each key of a config may hold, and what a config of an older version lacks.

The published recipe has every key, so it says which there are and of which type.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from configs import sconet_mt
from data_pipelines.augment import Augmentation
from data_pipelines.remote import check_url
from data_pipelines.schema import DataError, abbreviate, is_url
from scoliojax import build
from scoliojax.errors import RunError, one_line

# Keys that may change between restarts of a run, because no step depends on them.
FREE_KEYS = {
    "data.root",  # the data may move; its digest is compared instead
    "data.allow_missing",  # without it the same partition is refused; it changes nothing else
    "data.max_eval_frames",
    "data.sequences_per_eval_batch",
    "data.loader_threads",
    "data.cache_gigabytes",
    "train.steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoints_to_keep",
    "train.eval_every",
}
# Keys that a config may lack, because it was written before they were there. They get the value of the published recipe, on
# which no number depends, or which was in force before they were there; a recorded run without `data.share_frames` gets False.
# Any other missing key is an error.
MAY_LACK = {
    "data.modality",
    "data.balanced",
    "data.maps.align",
    "data.maps.body_only",
    "data.maps.sigma",
    "loss.triplet_label",
    "loss.weights_by_class",
    "data.allow_missing",
    "data.sequences_per_eval_batch",
    "data.loader_threads",
    "data.share_frames",
    "data.cache_gigabytes",
    *(f"data.augment.{name}" for name in vars(Augmentation())),
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoints_to_keep",
    "train.eval_every",
}

MOST = 2**31 - 1  # of any whole number; steps and frames are counted in 32 bits
LIMITS = {  # least and largest value of what no constructor judges before data are prepared
    "seed": (0, 2**63 - 1),
    "optimizer.learning_rate": (1e-30, 1e30),  # beyond, it is 0 or infinite in float32
    "data.subjects_per_batch": (1, MOST),
    "data.clips_per_subject": (1, MOST),
    "data.frames_per_clip": (1, MOST),
    "data.max_eval_frames": (1, MOST),
    "data.sequences_per_eval_batch": (1, 2**16),
    "data.loader_threads": (0, 512),
    "data.cache_gigabytes": (0, 1e6),
    "data.synthetic.subjects": (3, 10**6),
    "data.synthetic.frames": (1, 10**6),
    "model.channels": (1, 2**12),
    "model.embedding_dim": (1, 2**13),
    "train.steps": (1, MOST),
    "train.log_every": (1, MOST),
    "train.checkpoint_every": (1, MOST),
    "train.checkpoints_to_keep": (1, MOST),
    "train.eval_every": (0, MOST),
}
OURS = ("drf",)  # networks and optimisers with the keys of the recipe's
MOST_ITEMS = 100  # of a list
MOST_FRAMES = 2**24  # of a training batch; the published one has 1,920
WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of whole numbers",
    dict: "a section with keys",
}


def check(config: build.Config) -> None:
    """Raise `RunError` for the first key that is missing, of another type, not finite or out of range.

    Nothing is computed, read or written; of the network only the sizes are judged.
    """
    given, foreign = dict(_leaves(config.to_dict())), _foreign(config)
    for key, example in _recipe().items():
        if key.split(".")[0] in foreign:
            continue
        if key not in given:
            raise RunError(f"the config has no {key}, e.g. {example!r}; give --config.{key}=VALUE, or a recipe that has it")
        _check_value(key, given[key], example)
    _check_data(config.data)
    build.check_modality(config)
    build.build_optimizer(config)
    build.build_loss(config)


def complete(config: Any) -> None:
    """Give a config, a ConfigDict or a dictionary, the recipe's values for the keys of `MAY_LACK` that it lacks."""
    for key, value in _recipe().items():
        *sections, leaf = key.split(".")
        section = config
        for depth, name in enumerate(sections):
            if depth and key in MAY_LACK and isinstance(section, (dict, ConfigDict)) and name not in section:
                section[name] = {}  # a section that came later as a whole
            section = section.get(name) if isinstance(section, (dict, ConfigDict)) else None
        if key in MAY_LACK and isinstance(section, (dict, ConfigDict)) and leaf not in section:
            section[leaf] = value


def with_tuples(value: Any) -> Any:
    """A recorded config with its lists as tuples, as recipes have them."""
    if isinstance(value, dict):
        return {key: with_tuples(one) for key, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


def no_config(config: dict[str, Any]) -> str | None:
    """The reason why a dictionary cannot be the config of a run, None where it can."""
    tops = {key.split(".")[0]: "." in key for key in _recipe()}  # by key: whether it is a section
    if missing := [name for name in tops if name not in config]:
        return f"it has no key {missing[0]!r}"
    if flat := [name for name, section in tops.items() if section and not isinstance(config[name], dict)]:
        return f"key {flat[0]} is no section with keys, but {_shown(config[flat[0]])}"
    try:
        ConfigDict(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"it has a key that no config can have: {one_line(error)}"
    return None


def refuse_unknown(config: build.Config) -> None:
    """Raise `RunError` for keys that nothing reads."""
    known, foreign = _recipe(), _foreign(config)
    unknown = [key for key, _ in _leaves(config.to_dict()) if key not in known and key.split(".")[0] not in foreign]
    if unknown:
        raise RunError(f"nothing reads {abbreviate(unknown, 3)}; leave it out, or give the key of configs/sconet_mt.py")


@functools.cache
def _recipe() -> Mapping[str, Any]:
    """Every key and value of the published recipe."""
    return MappingProxyType(dict(_leaves(sconet_mt.get_config().to_dict())))


def _leaves(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name, with dots, and value of every key; of an empty section, its own."""
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _foreign(config: build.Config) -> set[str]:
    """Sections of a network or an optimiser other than the recipe's; their constructors judge their keys."""
    found: set[str] = set()
    for name, table in (("model", build.MODELS), ("optimizer", build.OPTIMIZERS)):
        section = config.get(name)
        chosen = section.get("name") if isinstance(section, ConfigDict) else None
        if isinstance(chosen, str) and chosen in table and chosen not in (_recipe()[f"{name}.name"], *OURS):
            found.add(name)
    return found


def _check_value(key: str, value: Any, example: Any) -> None:
    kind, several = type(example), isinstance(value, (list, tuple))
    numbers = value if several else [value]
    of = type(example[0]) if kind is tuple else kind
    wanted = (int, float) if of is float else of
    fits = several == (kind is tuple) and len(numbers) <= MOST_ITEMS
    if not fits or not all(isinstance(one, wanted) and isinstance(one, bool) == (kind is bool) for one in numbers):
        what = "a list of numbers" if kind is tuple and of is float else WORDS[kind]
        raise RunError(f"{key}={_shown(value)} must be {what}, e.g. {example!r}")
    if kind is float and not abs(value) < math.inf:
        raise RunError(f"{key}={_shown(value)} must be a finite number, e.g. {example!r}")
    low, high = LIMITS.get(key, (-1e300, 1e300) if kind is float else (-MOST, MOST))
    if kind is not str and not all(low <= number <= high for number in numbers):
        raise RunError(f"{key}={_shown(value)} must be at least {low} and at most {high}")


def _check_data(data: build.Config) -> None:
    """What several keys of the section `data` say together, and what the data would be asked for first."""
    if data.name not in build.DATA:
        raise RunError(f"data.name={_shown(data.name)} is unknown; known are {', '.join(build.DATA)}")
    if not 0 <= data.validation_fraction < 1:
        raise RunError(f"data.validation_fraction={data.validation_fraction} must be in [0, 1)")
    build.build_augmentation(data)
    frames = data.subjects_per_batch * data.clips_per_subject * data.frames_per_clip
    if frames > MOST_FRAMES:
        raise RunError(
            f"data.subjects_per_batch={data.subjects_per_batch} x data.clips_per_subject={data.clips_per_subject} x "
            f"data.frames_per_clip={data.frames_per_clip} are {frames} frames in a batch, more than {MOST_FRAMES}; lower one"
        )
    for key in ("root", "partition"):
        try:
            if is_url(data[key]):
                check_url(data[key], f"data.{key}")
            Path(data[key]).expanduser()
        except DataError as error:
            raise RunError(str(error)) from None
        except RuntimeError as error:  # the home of a user that there is not
            raise RunError(f"data.{key}={_shown(data[key])}: {one_line(error)}; write the whole path") from None


def _shown(value: Any) -> str:
    """A value for a message, shortened; of a section its keys, because it may be nested too deeply to be printed."""
    if isinstance(value, dict):
        return f"{{{abbreviate(value, 3)}}}"
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
