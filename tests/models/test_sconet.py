import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoliojax.kernels.pooling import draw_clips, shared_set_pooling
from scoliojax.models.cost import forward_flops_per_frame
from scoliojax.models.sconet import ScoNet, horizontal_pyramid_pooling, l2_normalise, set_pooling
from scoliojax.training.state import split_model

TINY = dict(channels=(2, 3, 4, 5), embedding_dim=4, strips=(16,))
PUBLISHED = dict(channels=(64, 128, 256, 512), embedding_dim=256, strips=(16,))


def clips(n=2, s=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, s, 64, 44), dtype=np.uint8)


def network(**changes) -> ScoNet:
    """A network whose scales, biases and statistics are random numbers, too."""
    graph, params, stats = split_model(ScoNet(**TINY | changes, rng=np.random.default_rng(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.1, 0.4, leaf.shape), leaf.dtype), params)
    stats = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype), stats)
    return nnx.merge(graph, params, stats)


@functools.partial(jax.jit, static_argnames="train")
def run(net: ScoNet, x, mask=None, *, train: bool):
    return net(x, mask, train=train)


def test_the_published_sizes_have_the_parameters_that_the_table_implies():
    _, params, _ = split_model(ScoNet(**PUBLISHED, rng=np.random.default_rng(0)))
    c, features = (64, 128, 256, 512), 16 * 256
    stem = 9 * c[0] + 2 * c[0]
    blocks = sum(9 * i * o + 9 * o * o + 4 * o for i, o in zip((64, *c), c, strict=False))
    skips = sum(i * o + 2 * o for i, o in itertools.pairwise(c))
    head = 16 * 512 * 256 + 2 * features + 16 * 256 * 3
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == stem + blocks + skips + head == 7_014_592


def test_a_published_step_is_the_work_that_the_docs_say():
    assert 3 * 64 * 30 * forward_flops_per_frame(PUBLISHED["channels"]) == pytest.approx(13.6e12, rel=0.02)


@pytest.mark.parametrize(("strips", "parts"), [((16,), 16), ((16, 8, 4, 2, 1), 31), ((1,), 1)])
def test_output_shapes_and_types(strips, parts):
    for precision in ("float32", "bfloat16"):
        output = nnx.eval_shape(lambda precision=precision: network(strips=strips, precision=precision)(clips(), train=True))
        assert output.embeddings.shape == (2, parts, 4)
        assert output.logits.shape == (2, parts, 3)
        assert output.embeddings.dtype == output.logits.dtype == jnp.float32


def test_precision_is_that_of_the_backbone():
    exact, rounded = (run(network(precision=precision), clips(), train=False) for precision in ("float32", "bfloat16"))
    difference = np.abs(exact.embeddings - rounded.embeddings).max()
    assert 1e-6 < difference < 0.03 * np.abs(exact.embeddings).max()
    assert np.abs(exact.logits).max() <= 1.0 + 1e-6  # cosines


def test_frame_order_does_not_matter_and_padding_changes_nothing():
    net, x = network(), clips(s=4)
    plain = run(net, x, train=False)
    shuffled = run(net, x[:, [2, 0, 3, 1]], train=False)
    np.testing.assert_allclose(plain.logits, shuffled.logits, atol=1e-6)
    padded = np.concatenate([x, clips(s=3, seed=1)], axis=1)
    mask = np.arange(7)[None] < np.array([4, 4])[:, None]
    np.testing.assert_allclose(plain.logits, run(net, padded, mask, train=False).logits, atol=1e-6)
    np.testing.assert_allclose(plain.embeddings, run(net, padded, mask, train=False).embeddings, atol=1e-6)
    assert not np.allclose(plain.embeddings, run(net, padded, train=False).embeddings, atol=1e-3)


def test_set_pooling_masks_even_negative_features():
    features = jnp.array([-3.0, -2.0, 5.0]).reshape(1, 3, 1, 1, 1)
    assert set_pooling(features).item() == 5.0
    assert set_pooling(features, jnp.array([[True, True, False]])).item() == -2.0


def test_shared_set_pooling_is_set_pooling_of_the_clips_drawn():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(2, 5, 3, 2, 4)), jnp.float32)
    clip_frames = jnp.asarray(rng.integers(0, 4, (2, 3, 6)), jnp.int32)
    weight = jnp.asarray(rng.normal(size=(6, 3, 2, 4)), jnp.float32)
    plain, shared = (
        jax.jit(jax.value_and_grad(lambda x, pool=pool: jnp.sum(pool(x) * weight)))(features)
        for pool in (lambda x: set_pooling(draw_clips(x, clip_frames)), lambda x: shared_set_pooling(x, clip_frames))
    )
    for one, other in zip(shared, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    assert not np.asarray(shared[1][:, 4]).any()  # in no clip


def test_horizontal_pyramid_pooling_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 16, 5, 3)).astype(np.float32)
    expected = []
    for count in (16, 4, 1):
        for strip in np.split(x, count, axis=1):
            expected.append(strip.mean(axis=(1, 2)) + strip.max(axis=(1, 2)))
    np.testing.assert_allclose(horizontal_pyramid_pooling(jnp.asarray(x), (16, 4, 1)), np.stack(expected, 1), rtol=1e-5)


def test_a_zero_feature_stays_zero_with_a_finite_gradient():
    x = jnp.zeros((2, 3)).at[1].set(jnp.array([3.0, 0.0, 4.0]))
    np.testing.assert_allclose(l2_normalise(x, -1), [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)
    assert np.isfinite(jax.jit(jax.grad(lambda x: jnp.sum(l2_normalise(x, -1))))(x)).all()


def test_training_moves_every_statistic_and_every_parameter_has_a_gradient():
    graph, params, before = split_model(network())

    def loss(params):
        net = nnx.merge(graph, params, before)
        output = net(clips(n=4), train=True)
        stats = nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))
        return jnp.sum(output.logits**3) + jnp.sum(output.embeddings**2), stats

    gradients, after = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, after)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strips": (5,)}, r"model\.strips=\(5,\)"),
        ({"strips": ()}, "model.strips"),
        ({"channels": (1, 2, 3)}, "model.channels"),
        ({"embedding_dim": 0}, "model.embedding_dim=0"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"precision": "float64"}, "precision='float64'"),  # jax keeps 32 bits here
    ],
)
def test_impossible_networks(changes, words):
    with pytest.raises(ValueError, match=words):
        network(**changes)
