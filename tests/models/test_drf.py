"""DRF: ScoNet on skeleton maps, whose embeddings two gates of the posture weigh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from data_pipelines.poses.asymmetry import Normalisation
from scoliojax.devices.mesh import data_mesh, replicated, to_devices
from scoliojax.models.drf import DRF, AsymmetryGates, knows_ranges, spread
from scoliojax.models.sconet import ScoNet
from scoliojax.training.evaluate import make_eval_step
from scoliojax.training.state import split_model

TINY = dict(channels=(2, 3, 4, 5), embedding_dim=4, strips=(8, 4), inputs=2)
PUBLISHED = dict(channels=(64, 128, 256, 512), embedding_dim=256, strips=(16,), inputs=2)


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Asymmetry vectors as they are measured: entries of other sizes."""
    rng = np.random.default_rng(seed)
    return (rng.random((count, 8, 3)) * rng.uniform(1, 20, (8, 3))).astype(np.float32)


@functools.cache
def network() -> DRF:
    """A network whose parameters are random numbers, and whose ranges are those of eight vectors."""
    graph, params, stats = split_model(DRF(**TINY, rng=np.random.default_rng(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.1, 0.4, leaf.shape), leaf.dtype), params)
    ranges = Normalisation.fit(vectors(8))
    stats = jax.tree.map(jnp.asarray, stats | {"gates": {"low": ranges.low, "high": ranges.high}})
    return nnx.merge(graph, params, stats)


def maps(n=2, s=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, s, 2, 64, 44), dtype=np.uint8)


@functools.cache
def evaluation():
    graph, params, stats = split_model(network())
    mesh = data_mesh()
    steps = {devices: make_eval_step(graph, replicated(mesh) if devices > 1 else None) for devices in (1, 4)}

    def evaluate(devices: int, frames, mask, asymmetry):
        batch = {"frames": frames, "frame_mask": mask, "asymmetry": asymmetry}
        if devices > 1:
            batch = to_devices(batch, mesh)
        return jax.device_get(steps[devices](params, stats, *batch.values()))

    return evaluate


def test_the_published_sizes_have_6404_parameters_more_and_two_channels_576():
    def count(cls, **changes) -> int:
        net = nnx.eval_shape(lambda: cls(**PUBLISHED | changes, rng=np.random.default_rng(0)))
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(net, nnx.Param))))

    assert count(DRF) - count(ScoNet) == 6404
    assert count(ScoNet) - count(ScoNet, inputs=1) == 576


def test_four_devices_evaluate_as_one_does_and_padding_changes_nothing():
    evaluate, asymmetry = evaluation(), vectors(4, seed=1)
    frames, mask = maps(4, 3), np.ones((4, 3), bool)
    one, four = (evaluate(devices, frames, mask, asymmetry) for devices in (1, 4))
    padded, seen = np.concatenate([frames, maps(4, 2, seed=1)], axis=1), np.arange(5) < np.full((4, 1), 3)
    for other in (four, evaluate(1, padded, seen, asymmetry)):
        np.testing.assert_allclose(other.embeddings, one.embeddings, atol=1e-6)
        np.testing.assert_allclose(other.logits, one.logits, atol=1e-6)
    turned = evaluate(1, frames, mask, asymmetry[::-1])
    assert np.abs(turned.embeddings - one.embeddings).max() > 1e-3


def test_embeddings_are_those_of_sconet_times_both_gates():
    net, asymmetry = network(), vectors(3, seed=2)
    strips = jnp.asarray(np.random.default_rng(0).normal(size=(3, 12, 5)), jnp.float32)
    normal = Normalisation(np.asarray(net.gates.low[...]), np.asarray(net.gates.high[...]))(asymmetry).astype(np.float64)
    weight, bias = (np.asarray(value[...], np.float64) for value in (net.gates.channel_kernel, net.gates.channel_bias))
    channels = 1 / (1 + np.exp(-(normal.reshape(3, 24) @ weight + bias)))  # n c
    pairs = normal @ np.asarray(net.gates.strip_kernel[...], np.float64) + float(net.gates.strip_bias[...])  # n i
    places = (np.arange(12) + 0.5) * 8 / 12 - 0.5
    of_strips = 1 / (1 + np.exp(-np.array([np.interp(places, np.arange(8), row) for row in pairs])))  # n p
    expected = np.asarray(ScoNet.embed(net, strips, None)) * channels[:, None] * of_strips[:, :, None]
    np.testing.assert_allclose(net.embed(strips, jnp.asarray(asymmetry)), expected, rtol=1e-5, atol=1e-6)


def test_what_lies_outside_the_ranges_is_clipped():
    low, high = np.full((8, 3), 1.0, np.float32), np.full((8, 3), 3.0, np.float32)
    low[0, 0] = high[0, 0] = 2.0  # an entry that is the same in every sequence
    gates = AsymmetryGates(4, rng=np.random.default_rng(0))
    assert not knows_ranges({"gates": {"low": gates.low[...], "high": gates.high[...]}})
    gates.low[...], gates.high[...] = jnp.asarray(low), jnp.asarray(high)
    assert knows_ranges({"gates": {"low": low, "high": high}})
    assert knows_ranges({"backbone": {}})
    given = np.stack([np.full((8, 3), value, np.float32) for value in (0.0, 1.0, 1.5, 3.0, 9.0)])
    np.testing.assert_array_equal(gates.normalise(jnp.asarray(given)), Normalisation(low, high)(given))
    assert np.asarray(gates.normalise(jnp.asarray(given)))[:, 1, 1].tolist() == [0.0, 0.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize("places", [1, 3, 8, 12, 16, 31])
def test_pairs_are_spread_over_strips_as_pytorch_interpolates(places):
    torch = pytest.importorskip("torch", reason="torch is not installed; install the extra `torch`")
    values = np.random.default_rng(places).normal(size=(5, 8)).astype(np.float32)
    given = torch.from_numpy(values).double()[:, None]  # whose places are not rounded
    theirs = torch.nn.functional.interpolate(given, places, mode="linear", align_corners=False)
    np.testing.assert_allclose(spread(jnp.asarray(values), places), theirs[:, 0].numpy(), atol=1e-6)


def test_initial_values_are_xavier_uniform_with_biases_of_zero():
    gates = nnx.to_pure_dict(nnx.state(DRF(**TINY | {"embedding_dim": 256}, rng=np.random.default_rng(0)).gates, nnx.Param))
    for name, limit in {"channel_kernel": (6 / (24 + 256)) ** 0.5, "strip_kernel": (6 / (3 + 1)) ** 0.5}.items():
        largest = np.abs(gates[name]).max()
        assert 0.2 * limit < largest <= limit, name
    assert np.abs(gates["channel_kernel"]).max() > 0.99 * (6 / 280) ** 0.5
    assert not np.any(gates["channel_bias"])
    assert not np.any(gates["strip_bias"])


def test_without_vectors_it_says_what_to_give():
    net = network()
    with pytest.raises(ValueError, match=r"asymmetry vectors of the sequences; give asymmetry, \[n, 8, 3\]"):
        nnx.eval_shape(lambda: net(maps(), train=False))


def test_every_gate_has_a_gradient_and_no_step_moves_the_ranges():
    graph, params, before = split_model(network())
    features = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 11, 5)), jnp.float32)

    def loss(params):
        net = nnx.merge(graph, params, before)
        output = net.head(features, jnp.asarray(vectors(3)), train=True)
        return jnp.sum(output.logits**3) + jnp.sum(output.embeddings**2), nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))

    gradients, after = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["gates"]))
    jax.tree.map(np.testing.assert_array_equal, after["gates"], before["gates"])
