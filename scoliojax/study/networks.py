"""The networks of a study: what each changes in a recipe of ScoNet-MT, and whether all read the same walks."""

import copy
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from flax.traverse_util import flatten_dict

from configs import drf, sconet, sconet_mt, sconet_mt_ske
from data_pipelines.schema import SILHOUETTES, SequenceSet, abbreviate
from data_pipelines.splits import RATIO
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.scores.people import differing_walks
from scoliojax.study import MODELS

RECIPES: dict[str, ModuleType] = dict(zip(MODELS, (sconet, sconet_mt, sconet_mt_ske, drf), strict=True))
MAKES = ("data.modality", "model.name", "loss.triplet_weight")  # what makes a network; a study sets it, whatever was given


def variant_of(file: str) -> str:
    """The variant that `--config FILE` names, where our recipes have it."""
    name = "" if os.path.isfile(file) else file.partition(":")[2]
    return name if name in sconet_mt.VARIANTS else ""


def check_base(recipe: build.Config) -> None:
    """Raise `RunError` for a recipe that is not of ScoNet or ScoNet-MT on silhouettes."""
    if recipe.data.modality != SILHOUETTES or recipe.model.name != "sconet":
        raise RunError(
            f"data.modality={recipe.data.modality!r} with model.name={recipe.model.name!r}: a study sets both for each of "
            "--models; give a recipe for silhouettes, e.g. configs/sconet_mt.py, and leave them out"
        )


def network_config(recipe: build.Config, model: str, variant: str, changes: Sequence[str], ratio: str) -> build.Config:
    """A recipe of ScoNet-MT as that of another network: with what its own recipe has otherwise, but for what the user gave.

    `changes`: what the user gave, `--config.KEY=VALUE`. `ratio`: of the training part, by which the classes are weighted
    where the network's published recipe weighs them.
    """
    config, given = copy.deepcopy(recipe), {change.removeprefix("--config.").partition("=")[0].strip() for change in changes}
    plain, own = (_leaves(one.get_config(variant)) for one in (sconet_mt, RECIPES[model]))
    published = _leaves(RECIPES[model].get_config())
    found = {key: value for key, value in own.items() if value != plain[key]}
    found["loss.triplet_weight"] = (recipe.loss.triplet_weight or 1.0) if own["loss.triplet_weight"] else 0.0
    if published["loss.weights_by_class"] != plain["loss.weights_by_class"]:
        found["loss.weights_by_class"] = class_weights(ratio, published["loss.weights_by_class"])
    config.update_from_flattened_dict({key: value for key, value in found.items() if key in MAKES or key not in given})
    return config


def class_weights(ratio: str, published: tuple[float, ...]) -> tuple[float, ...]:
    """Weights of negative, neutral and positive, inverse to their shares in training and 3 together.

    At 1:1:8 those `published`, which differ from these in the third digit; also where the ratio is not known.
    """
    parts = [float(part) for part in ratio.split(":")] if RATIO.fullmatch(ratio) else [0.0]
    if ratio == "1:1:8" or not all(parts):  # a zero is refused where the data are divided
        return published
    inverse = [1 / part for part in reversed(parts)]
    return tuple(round(3 * one / sum(inverse), 4) for one in inverse)


def _leaves(config: build.Config) -> dict[str, Any]:
    return flatten_dict(config.to_dict(), sep=".")


def reads(config: build.Config) -> tuple:
    """What tells the data of one config from those of another in a study."""
    return config.data.modality, build.reads_asymmetry(config)


def refuse_other_walks(first: SequenceSet, second: SequenceSet) -> None:
    """Raise `RunError` where two sets, of different modalities, are not of the same walks of the same people."""
    if differing := differing_walks(*((data.sequences, data.subjects, data.labels) for data in (first, second))):
        raise RunError(
            f"--models: {second.name} does not have the walks of {first.name} ({abbreviate(differing, 3)}: in one alone, or of "
            "another subject or class); prepare both together, or give networks of one modality"
        )
    if first.sequences != second.sequences:
        raise RunError(f"--models: {second.name} has the walks of {first.name} in another order; prepare both together")
