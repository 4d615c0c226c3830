"""The step: deterministic, and the same on one device as on four."""

import functools
import json

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from ml_collections import ConfigDict

from scoliojax import build
from scoliojax.devices.mesh import data_mesh, replicated, to_devices
from scoliojax.kernels.pooling import draw_clips
from scoliojax.training.checkpoint import digest
from scoliojax.training.state import create_state
from scoliojax.training.step import fingerprint, make_train_step


def compile_quickly(lowered):
    """Without XLA's newer code generator, in a third of the time; later versions of XLA have no other."""
    try:
        return lowered.compile({"xla_cpu_use_fusion_emitters": False})
    except jax.errors.JaxRuntimeError:
        return lowered.compile()


@functools.cache
def build_step(text: str, devices: int):
    """A run's step, its first state and its devices; what two tests run is traced and compiled once."""
    config = ConfigDict(json.loads(text))
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    graph, *start = build.build_model(config)
    wide = config.precision == "float64"
    params, stats = jax.tree.map(lambda leaf: leaf.astype(np.float64 if wide else np.float32), start)
    if "gates" in stats:  # vectors drawn here are in 0..1
        stats["gates"]["high"] = np.ones_like(stats["gates"]["high"])
    optimizer, schedule = build.build_optimizer(config)
    step = make_train_step(graph, build.build_loss(config, mesh), optimizer, schedule, replicated(mesh))
    programs = {}

    def compiled(state, batch):
        form = tuple(batch)  # with and without shared frames
        if form not in programs:
            lowered = step.lower(state, batch)
            programs[form] = compile_quickly(lowered) if wide else lowered.compile()
        return programs[form](state, batch)

    return compiled, create_state(params, stats, optimizer), mesh


def draw_batch(rng, **changes):
    return {
        "frames": rng.integers(0, 256, (8, 3, 64, 44), dtype=np.uint8),
        "labels": np.arange(8, dtype=np.int32) % 3,
        "identities": np.arange(8, dtype=np.int32) // 2,
    } | changes


def draw_maps(config, rng) -> dict:
    """What a batch of a DRF has in place of silhouettes."""
    if config.model.name != "drf":
        return {}
    maps = rng.integers(0, 256, (8, 3, 2, 64, 44), dtype=np.uint8)
    return {"frames": maps, "asymmetry": rng.random((8, 8, 3), np.float32)}


def run_steps(config, devices: int, steps: int = 3, batch=None):
    step, start, mesh = build_step(json.dumps(config.to_dict()), devices)
    state = jax.device_put(jax.tree.map(np.array, start), replicated(mesh))  # a step takes its state's memory
    history = []
    rng = np.random.default_rng(0)
    for _ in range(steps):
        state, metrics = step(state, to_devices(batch or draw_batch(rng, **draw_maps(config, rng)), mesh))
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


@pytest.mark.slow
def test_four_devices_compute_what_one_does(tiny_config):
    """In float64: so small a batch makes a step ill-conditioned, and float32 may part by a thousandth without any fault.

    It is a DRF's, with triplets by class and weights of classes; the next test has the same of a ScoNet.
    """
    assert len(data_mesh().devices) == 4
    tiny_config.precision = "float64"
    tiny_config.model.name, tiny_config.data.modality = "drf", "skeletons"
    tiny_config.loss.update({"triplet_label": "class", "weights_by_class": (0.174, 1.413, 1.413)})
    with jax.enable_x64(True):
        one_state, one = run_steps(tiny_config, 1)
        four_state, four = run_steps(tiny_config, 4)
    for step in range(3):
        for name in one[step]:
            assert four[step][name] == pytest.approx(one[step][name], rel=1e-6), (step, name)
    for a, b in zip(jax.tree.leaves(one_state), jax.tree.leaves(four_state), strict=True):
        assert np.linalg.norm(np.subtract(a, b)) <= 1e-6 * np.linalg.norm(b)


@pytest.mark.slow
def test_frames_computed_once_give_the_step_of_frames_computed_for_every_clip(tiny_config):
    """One device without sharing, and four that share, in float64; one frame is in no clip, others are in several."""
    tiny_config.precision = "float64"
    rng = np.random.default_rng(0)
    shared = {
        "frames": rng.integers(0, 256, (4, 5, 64, 44), dtype=np.uint8),
        "clip_frames": rng.integers(0, 4, (4, 2, 3), dtype=np.int32),
        "labels": np.arange(8, dtype=np.int32) % 3,
        "identities": np.arange(8, dtype=np.int32) // 2,
    }
    plain = {name: array for name, array in shared.items() if name != "clip_frames"}
    plain["frames"] = np.asarray(draw_clips(shared["frames"], shared["clip_frames"]))
    with jax.enable_x64(True):
        expected_state, expected = run_steps(tiny_config, 1, 2, plain)
        state, found = run_steps(tiny_config, 4, 2, shared)
    for step in range(2):
        assert found[step]["batch_fingerprint"] == expected[step]["batch_fingerprint"]
        for name in expected[step]:
            assert found[step][name] == pytest.approx(expected[step][name], rel=1e-6), (step, name)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected_state), strict=True):
        assert np.linalg.norm(np.subtract(a, b)) <= 1e-6 * np.linalg.norm(b)


@pytest.mark.slow
@pytest.mark.optimised
def test_the_same_input_gives_the_same_bits(tiny_config):
    first, history = run_steps(tiny_config, 1)
    again, _ = run_steps(tiny_config, 1)
    assert digest(first) == digest(again)
    assert int(first.step) == 3
    assert set(history[0]) >= {"loss", "cross_entropy", "triplet", "learning_rate", "gradient_norm"}


@pytest.mark.optimised
def test_a_network_can_learn_one_batch_by_heart(tiny_config):
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 0], np.int32)
    batch = draw_batch(np.random.default_rng(0), labels=labels)
    _, history = run_steps(tiny_config, 1, 40, batch)
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]


def test_the_fingerprint_sees_every_pixel_label_identity_and_place():
    rng = np.random.default_rng(0)
    batch = {
        "frames": rng.integers(0, 256, (4, 2, 64, 44), dtype=np.uint8),
        "labels": np.arange(4, dtype=np.int32) % 3,
        "identities": np.arange(4, dtype=np.int32),
    }

    def changed(name, place, value) -> dict:
        array = batch[name].copy()
        array[place] = value
        return batch | {name: array}

    pixel = int(batch["frames"][1, 1, 5, 6])
    others = [
        changed("frames", (1, 1, 5, 6), (pixel + 1) % 256),
        changed("labels", 2, 0),
        changed("identities", 3, 9),
        batch | {"frames": batch["frames"][[1, 0, 2, 3]]},
        batch | {"frames": batch["frames"][:, ::-1]},
    ]
    found = {int(fingerprint(jax.tree.map(jax.numpy.asarray, one))) for one in [batch, *others]}
    assert len(found) == 6
