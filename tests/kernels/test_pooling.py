"""Set pooling of clips that share frames: each device's way is that of the clips one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from scoliojax.kernels.pooling import (
    add_at_once,
    add_by_products,
    add_one_by_one,
    draw_clips,
    maximum,
    shared_set_pooling,
)
from scoliojax.kernels.rectify import mask_gradient, rectify

GROUPS, CLIPS, LENGTH, FRAMES, SHAPE = 2, 3, 4, 7, (3, 2, 5)


def draw(dtype=np.float32):
    """Features with many equal values, and the frames of clips: some in several clips, some twice in one, some in none."""
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.integers(-2, 3, (GROUPS, FRAMES, *SHAPE)), dtype)
    return features, jnp.asarray(rng.integers(0, FRAMES - 1, (GROUPS, CLIPS, LENGTH)), jnp.int32)


@pytest.mark.parametrize("way", [add_one_by_one, add_at_once, add_by_products])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_goes_to_the_first_of_the_largest_frames_of_each_clip(way, dtype):
    features, clip_frames = draw(dtype)
    weight = jnp.asarray(np.random.default_rng(2).integers(1, 9, (GROUPS * CLIPS, *SHAPE)), dtype)  # exact in sums

    def pool(features):
        return jnp.sum(maximum(draw_clips(features, clip_frames), 1) * weight)

    expected = jax.grad(pool)(features)
    turn = jnp.argmax(draw_clips(features, clip_frames), axis=1)
    turn, gradient = (array.reshape(GROUPS, CLIPS, 1, *SHAPE) for array in (turn, weight))
    found = way(turn, gradient, clip_frames, FRAMES)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    assert not np.any(found[:, FRAMES - 1])  # in no clip
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(shared_set_pooling(x, clip_frames) * weight))(features), expected)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_every_platform_takes_its_own_way(platform):
    features, clip_frames = draw()

    def gradient(features):
        return jax.grad(lambda x: jnp.sum(shared_set_pooling(x, clip_frames) ** 2))(features)

    text = jax.jit(gradient).trace(features).lower(lowering_platforms=(platform,)).as_text()
    assert ("dot_general" in text) == (platform == "tpu")


def test_the_gradient_of_a_rectified_sum_passes_where_it_is_positive():
    x = jnp.array([-1.0, 0.0, -0.0, 2.0**-100, 2.0])
    np.testing.assert_array_equal(rectify(x), [0.0, 0.0, 0.0, 2.0**-100, 2.0])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(rectify(x) * 3.0))(x), [0.0, 0.0, 0.0, 3.0, 3.0])
    check_grads(rectify, (jnp.array([-1.5, 0.5, 2.0]),), 1, ["rev"])


@pytest.mark.parametrize("shared", [False, True])
def test_a_gradient_masked_by_the_maxima_is_that_of_the_relu_before_them(shared):
    features, clip_frames = draw()

    def pool(features):
        return shared_set_pooling(features, clip_frames) if shared else maximum(features, 1)

    weight = jnp.asarray(np.random.default_rng(3).integers(1, 9, pool(features).shape), jnp.float32)
    found = jax.grad(lambda x: jnp.sum(mask_gradient(pool(rectify(x, True))) * weight))(features - 1.0)
    expected = jax.grad(lambda x: jnp.sum(pool(rectify(x)) * weight))(features - 1.0)
    np.testing.assert_array_equal(found, expected)
    assert 0 < np.count_nonzero(expected) < weight.size  # some maxima are zero
    assert jax.grad(lambda x: jnp.sum(rectify(x, True)))(-jnp.ones(1)) == 1  # nothing is looked at before it
