"""Every config builds, and every leaf of it is read: changing it changes something, or is refused."""

import hashlib
import tempfile
from pathlib import Path

import grain
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import drf, sconet, sconet_mt, sconet_mt_ske
from data_pipelines.pipelines import train_batches
from data_pipelines.schema import CHANNELS, DataError
from data_pipelines.synthetic import synthetic_walkers
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.models.sconet import ScoNetOutput
from scoliojax.runs.directory import FREE_KEYS, flatten
from scoliojax.runs.training import training_schedule, warn_if_long
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.loop import train
from scoliojax.training.losses import ScoNetLoss
from scoliojax.training.state import create_state
from tests.conftest import make_set

RECIPES = [sconet_mt, sconet, sconet_mt_ske, drf]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("variant", sconet_mt.VARIANTS)
def test_every_config_builds(recipe, variant, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)  # the 66 clips of DRF do not divide over four
    config = recipe.get_config(variant)
    build.build_loss(config)
    build.build_optimizer(config)
    training_schedule(config)
    params, _ = jax.eval_shape(lambda: build.build_model(config)[1:])
    assert params["backbone"]["stem_conv"]["kernel"].shape[2] == CHANNELS[config.data.modality]
    data = make_set(per_class=60, frames=2)
    partition = build.build_partition(config, data)
    build.build_sampler(config, data, partition)
    build.build_eval_batcher(config, data, partition.test)
    assert recipe.__doc__
    assert "python -m scoliojax.main --config" in recipe.__doc__


DIFFERENCES = {  # of the published recipe of each network from that of ScoNet-MT
    sconet: {"loss.triplet_weight"},
    sconet_mt_ske: {"data.modality", "data.cache_gigabytes"},
    drf: {
        "data.modality", "data.cache_gigabytes", "data.balanced", "data.subjects_per_batch", "data.clips_per_subject",
        "data.frames_per_clip", "loss.triplet_label", "loss.weights_by_class", "model.name",
    },
}  # fmt: skip


@pytest.mark.parametrize("recipe", DIFFERENCES)
def test_the_published_recipes_differ_where_the_papers_do(recipe):
    plain, own = (flatten(one.get_config().to_dict()) for one in (sconet_mt, recipe))
    assert {key for key in plain if plain[key] != own[key]} == DIFFERENCES[recipe]


def test_the_published_recipe_of_drf_has_its_batches_and_weights(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    config = drf.get_config()
    assert (config.data.subjects_per_batch, config.data.clips_per_subject, config.data.frames_per_clip) == (66, 1, 20)
    data = make_set(per_class=30, frames=25)
    sampler = build.build_sampler(config, data, build.build_partition(config, data))
    assert np.bincount(data.labels[sampler.draw(0)[0]]).tolist() == [22, 22, 22]
    assert build.build_loss(config).weights_by_class == (0.174, 1.413, 1.413)


def test_the_published_recipes_change_no_clip_and_the_quickstart_does():
    for recipe in RECIPES:
        assert not build.build_augmentation(recipe.get_config().data)
    for recipe in (sconet_mt, sconet):
        assert all(vars(build.build_augmentation(recipe.get_config("quickstart").data)).values())


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(ValueError, match="quickstart"):
        sconet_mt.get_config("quick")


def fingerprint(things: list) -> str:
    found = hashlib.sha256()
    for leaf in jax.tree.leaves([thing if jax.tree.leaves(thing) else repr(thing) for thing in things]):
        array = np.asarray(leaf)
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(repr(leaf).encode() if array.dtype == object else array.tobytes())
    return found.hexdigest()


class Recorder:
    """Stands in for log and checkpoint store, and remembers what the loop did."""

    def __init__(self):
        self.events: list[tuple] = []

    def step(self):
        self.events.append(("step",))

    def scalars(self, step, values):
        self.events.append(("log", step, sorted(values)))

    def save(self, state):
        self.events.append(("save", int(state.step)))


def observe_data(config: ConfigDict, monkeypatch) -> list:
    lines: list[str] = []
    walkers: list = []
    options: list = []
    monkeypatch.setattr(build, "synthetic_walkers", lambda **section: walkers.append(section) or make_set(12, 4))
    monkeypatch.setattr(grain, "ReadOptions", lambda **kwargs: options.append(kwargs["num_threads"]) or REAL_OPTIONS(**kwargs))
    data = build.build_data(config, lines.append)
    partition = build.build_partition(config, data)
    sampler = build.build_sampler(config, data, partition)
    batcher = build.build_eval_batcher(config, data, partition.test)
    train_batches(sampler, 0, 1, config.data.loader_threads)
    limit = build.build_cache(config, data).limit
    return [
        vars(partition),
        sampler(0),
        batcher(0),
        len(batcher),
        limit,
        sampler.clips_together,
        options,
        str(walkers),
        str(lines),
    ]


def observe_maps(config: ConfigDict, monkeypatch) -> list:
    config.data.modality, config.data.name = "skeletons", "synthetic"
    config.data.synthetic.subjects, config.data.synthetic.frames = 3, 2
    data = build.build_data(config, print)
    return [data.read(2), data.digest()]


def observe_model(config: ConfigDict, monkeypatch) -> list:
    graphs = []

    def create():
        graph, *trees = build.build_model(config)
        graphs.append(graph)
        return trees

    shapes = jax.eval_shape(create)
    clip = np.full((1, 1, 64, 44), 200, np.uint8)
    program = jax.jit(lambda params, stats: nnx.merge(graphs[0], params, stats)(clip, train=False)).lower(*shapes)
    return [program.as_text()]


def observe_loss(config: ConfigDict, monkeypatch) -> list:
    rng = np.random.default_rng(0)
    fixed = ScoNetOutput(*(jax.numpy.asarray(rng.normal(size=(4, 2, 3)), "float32") for _ in range(2)))
    loss: ScoNetLoss = build.build_loss(config)
    return [loss(fixed, np.array([0, 1, 2, 0]), np.array([0, 0, 1, 1]))]


def observe_optimizer(config: ConfigDict, monkeypatch) -> list:
    rule, schedule = build.build_optimizer(config)
    weights = jax.numpy.ones(3)
    state = rule.init(weights)
    seen = [float(schedule(step)) for step in range(5)]
    for step in range(3):
        updates, state = rule.update(weights * (step + 1), state, weights)
        seen.append(updates)
    return seen


def observe_train(config: ConfigDict, monkeypatch) -> list:
    recorder, state = Recorder(), create_state({"w": np.ones(3, np.float32)}, {}, optax.sgd(0.1))
    lines: list[str] = []
    batches = ({"labels": jax.device_put(np.zeros(2))} for _ in range(config.train.steps))
    train(
        state,
        jax.jit(lambda state, batch: (state.replace(step=state.step + 1), {"loss": jax.numpy.zeros(())})),
        batches,
        training_schedule(config),
        recorder,
        recorder,
        validate=lambda state: {"validation/accuracy": 1.0},
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Checkpoints(Path(folder, "checkpoints"), config.train.checkpoints_to_keep, lines.append)
        store.close()
    return [repr(recorder.events), store.keep, str(lines)]


# What a leaf's section is read by; each builds and uses everything that the section speaks of, without compiling a network.
OBSERVE = {
    "data": observe_data,
    "data.maps": observe_maps,
    "seed": observe_data,
    "model": observe_model,
    "precision": observe_model,
    "loss": observe_loss,
    "optimizer": observe_optimizer,
    "train": observe_train,
}


def observe(section: str, config: ConfigDict, monkeypatch) -> str:
    """Hash of what comes out of a section."""
    return fingerprint(OBSERVE[section](config, monkeypatch))


REAL_OPTIONS = grain.ReadOptions

OTHER = {
    "data.modality": "skeletons",
    "data.balanced": True,
    "data.maps.align": "shared",
    "data.maps.body_only": True,
    "loss.triplet_label": "class",
    "loss.weights_by_class": (1.0, 2.0, 3.0),
    "data.share_frames": False,
    "data.augment.shift": 10,
    "data.augment.mirror": 1.0,
    "data.augment.dilation": 0.0,
    "data.augment.erosion": 0.0,
    "data.augment.tilt": 45.0,
    "data.augment.cut_out": 1.0,
    "data.allow_missing": True,
    "precision": "bfloat16",
    "data.name": "synthetic",
    "data.root": "/nowhere",
    "data.partition": "1:1:2",
    "data.validation_fraction": 0.5,
    "data.max_eval_frames": 3,
    "model.name": "resnet",
    "model.channels": (2, 3, 4, 6),
    "model.strips": (16, 8),
    "optimizer.name": "adam",
    "optimizer.milestones": (1, 3),
    "optimizer.decay": 0.5,
    "loss.label_smoothing": 0.2,
    "data.subjects_per_batch": 4,
    "data.sequences_per_eval_batch": 9,
    "train.eval_every": 1,
}


@pytest.fixture
def probe_config(tiny_config):
    tiny_config.data.name = "scoliosis1k"
    tiny_config.data.validation_fraction = 0.25
    tiny_config.data.augment.update({"dilation": 0.5, "erosion": 0.5, "cut_out": 0.5})
    tiny_config.data.clips_per_subject = 4  # two of them on each of the four devices
    tiny_config.optimizer.milestones = (1, 2)
    tiny_config.train.eval_every = 3
    tiny_config.train.steps = 4
    tiny_config.train.log_every = 2
    return tiny_config


def changed(config: ConfigDict, key: str) -> ConfigDict:
    config = ConfigDict(config.to_dict())
    *sections, leaf = key.split(".")
    section = config
    for name in sections:
        section = section[name]
    old = section[leaf]
    section[leaf] = OTHER.get(key, old * 2 if old else 1)
    assert section[leaf] != old
    return config


LEAVES = sorted(flatten(sconet_mt.get_config("quickstart").to_dict()))


@pytest.fixture(scope="module")
def plain_fingerprints() -> dict[str, str]:
    """Of every section that was asked for, unchanged."""
    return {}


@pytest.mark.parametrize("key", LEAVES)
def test_every_leaf_is_read(key, probe_config, plain_fingerprints, monkeypatch):
    """In its own section: what another one makes of it does not count."""
    section = max((name for name in OBSERVE if f"{key}.".startswith(f"{name}.")), key=len)
    if section not in plain_fingerprints:
        plain_fingerprints[section] = observe(section, probe_config, monkeypatch)
    try:
        found = observe(section, changed(probe_config, key), monkeypatch)
    except (RunError, DataError) as error:
        assert key in str(error), error
        return
    assert found != plain_fingerprints[section], f"{key} changes nothing"


@pytest.mark.parametrize("section", OBSERVE)
def test_the_probe_itself_is_steady(section, probe_config, monkeypatch):
    assert observe(section, probe_config, monkeypatch) == observe(section, ConfigDict(probe_config.to_dict()), monkeypatch)


def test_the_keys_that_may_change_on_restart_exist():
    assert set(LEAVES) >= FREE_KEYS


def test_the_synthetic_section_is_what_the_walkers_take():
    section = sconet_mt.get_config("quickstart").data.synthetic
    section.subjects, section.frames = 3, 2
    assert len(synthetic_walkers(**section)) == 3


@pytest.mark.parametrize("recipe", [sconet_mt, sconet_mt_ske, drf], ids=lambda recipe: recipe.__name__)
def test_a_recipe_for_accelerators_names_its_own_small_variant_on_a_cpu(recipe, capsys):
    warn_if_long(recipe.get_config())
    said = capsys.readouterr().out
    assert "this recipe is meant for an accelerator" in said
    assert f"--config {recipe.__name__.replace('.', '/')}.py:quickstart" in said
    warn_if_long(recipe.get_config("quickstart"))
    assert not capsys.readouterr().out
