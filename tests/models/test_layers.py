import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scoliojax.kernels.batch_norm import RowWeights, normalise_batch
from scoliojax.kernels.convolution import LARGE, WIDE, by_library, convolve
from scoliojax.kernels.pooling import maximum
from scoliojax.models.layers import BatchNorm, Conv, convolve_normalise, xavier_uniform_strips


def normal(shape, seed=0, mean=0.0):
    return jnp.asarray(np.random.default_rng(seed).normal(mean, 1.0, shape), jnp.float32)


def by_hand(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """A convolution as its definition, padded by `edge // 2` all round, in float64."""
    edge, pad = kernel.shape[0], kernel.shape[0] // 2
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = range(0, x.shape[1] - edge + 1, stride)
    columns = range(0, x.shape[2] - edge + 1, stride)
    out = [[np.einsum("bhwc,hwcd->bd", x[:, i : i + edge, j : j + edge], kernel) for j in columns] for i in rows]
    return np.moveaxis(np.array(out), 2, 0)


SIZES = [(3, 1), (3, 2), (1, 2)]


@pytest.mark.parametrize(("edge", "stride"), SIZES)
def test_convolution_pads_both_sides_alike(edge, stride):
    x, kernel = normal((2, 8, 6, 3)), normal((edge, edge, 3, 4), seed=1)
    out = convolve(x, kernel, stride)
    np.testing.assert_allclose(out, by_hand(np.asarray(x), np.asarray(kernel), stride), rtol=1e-5, atol=1e-5)
    if edge == 3 and stride == 2:
        layout = ("NHWC", "HWIO", "NHWC")
        same = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)
        assert same.shape == out.shape
        assert not np.allclose(same, out, atol=0.1)  # the trap


@pytest.mark.parametrize(("edge", "stride", "frames"), [(3, 1, 1), (3, 1, 6), (3, 2, 7), (3, 2, 8), (1, 2, 18)])
def test_convolution_gradients_equal_the_library_s(edge, stride, frames):
    x, kernel = normal((frames, 64, 44, 3)), normal((edge, edge, 3, 4), seed=1)
    weight = normal(convolve(x, kernel, stride).shape, seed=2)

    def gradients(function):
        return jax.jit(jax.grad(lambda x, kernel: jnp.sum(function(x, kernel, stride) * weight), (0, 1)))(x, kernel)

    for ours, theirs in zip(gradients(convolve), gradients(by_library), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("frames", "size"), [(18, (7, 5)), (8, (6, 4))])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(LARGE, LARGE + 2), (1, 8), (8, 8), (12, 5), (WIDE - 1, WIDE)])
def test_convolutions_and_their_gradients_are_the_library_s_to_rounding(channels, stride, frames, size):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, kernel = jnp.asarray(rng.normal(size=(frames, *size, channels[0]))), jnp.asarray(rng.normal(size=(3, 3, *channels)))
        ours, transpose = jax.vjp(jax.jit(lambda x, kernel: convolve(x, kernel, stride)), x, kernel)
        library, library_s = jax.vjp(jax.jit(lambda x, kernel: by_library(x, kernel, stride)), x, kernel)
        weight = jnp.asarray(rng.normal(size=library.shape))
        for one, other in zip((ours, *transpose(weight)), (library, *library_s(weight)), strict=True):
            assert one.dtype == np.float64
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_on_a_cpu_a_large_convolution_and_its_gradients_are_matrix_products(stride):
    def program(channels: int) -> str:
        x, kernel = jnp.ones((4, 8, 6, channels)), jnp.ones((3, 3, channels, channels))
        gradients = jax.value_and_grad(lambda x, kernel: jnp.sum(convolve(x, kernel, stride) ** 2), (0, 1))
        return jax.jit(gradients).lower(x, kernel).as_text()

    assert "stablehlo.convolution" not in program(LARGE)
    assert "stablehlo.convolution" in program(LARGE - 1)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_large_convolution_of_bfloat16_rounds_its_result_only(stride):
    x = normal((6, 8, 6, LARGE)).astype(jnp.bfloat16)
    kernel = normal((3, 3, LARGE, LARGE), seed=1).astype(jnp.bfloat16)
    out = convolve(x, kernel, stride)
    assert out.dtype == jnp.bfloat16
    exact = by_hand(np.asarray(x, np.float64), np.asarray(kernel, np.float64), stride)
    np.testing.assert_allclose(np.asarray(out, np.float64), exact, rtol=2.0**-8, atol=1e-3)


def test_batch_norm_keeps_pytorch_s_statistics():
    x = normal((5, 4, 3, 2), mean=3.0)
    norm = BatchNorm((2,), rng=np.random.default_rng(0))
    norm.bias[...] = jnp.array([0.5, -1.0])
    out = norm(x, train=True)
    flat = np.asarray(x, np.float64).reshape(-1, 2)
    expected = (np.asarray(x) - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * np.asarray(norm.scale[...]) + [0.5, -1.0]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-6)
    evaluated = norm(x, train=False)
    expected = (np.asarray(x) - norm.mean[...]) / np.sqrt(np.asarray(norm.var[...]) + 1e-5) * norm.scale[...] + norm.bias[...]
    np.testing.assert_allclose(evaluated, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("edge", "stride"), SIZES)
def test_evaluation_has_the_batch_norm_in_the_kernel(edge, stride, monkeypatch):
    rng = np.random.default_rng(0)
    conv, norm = Conv(3, 4, edge, stride, rng=rng), BatchNorm((4,), rng=rng)
    x = normal((6, 8, 6, 3))
    for _ in range(3):
        convolve_normalise(conv, norm, x, train=True)
    norm.bias[...] = normal((4,), seed=1)
    expected = norm(conv(x), train=False)
    with monkeypatch.context() as patch:
        patch.setattr(BatchNorm, "__call__", None)  # nothing after the convolution
        found = convolve_normalise(conv, norm, x, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    trained = convolve_normalise(conv, norm, x, train=True)
    assert not np.allclose(found, trained, atol=0.1)  # the batch's own statistics


@pytest.mark.optimised
def test_a_batch_norm_folded_ahead_has_the_bits_of_one_folded_in_a_program():
    norm = BatchNorm((999,), rng=np.random.default_rng(0))
    norm.bias[...], norm.mean[...] = normal((999,), seed=1), normal((999,), seed=2)
    norm.var[...] = jnp.square(normal((999,), seed=3))
    graph, state = nnx.split(norm)
    inside = jax.jit(lambda state, x: x + nnx.merge(graph, state).folded()[1])(state, jnp.zeros((7, 999)))
    np.testing.assert_array_equal(np.broadcast_to(norm.folded()[1], inside.shape), inside)


def test_a_frame_that_counts_twice_is_two_frames_to_a_batch_norm():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, scale, bias = (jnp.asarray(rng.normal(size=shape)) for shape in ((4, 3, 2, 5), (5,), (5,)))
        counts = np.array([2, 1, 0, 3])
        repeated = np.repeat(np.arange(4), counts)
        weight = jnp.asarray(rng.normal(size=(6, 3, 2, 5)))  # of the gradient, as of six frames

        def plain(x, scale, bias):
            y, mean, var = normalise_batch(x[repeated], scale, bias, jnp.zeros(5))
            return jnp.sum(y * weight), (mean, var)

        def weighted(x, scale, bias):
            y, mean, var = normalise_batch(x, scale, bias, jnp.zeros(5), RowWeights(jnp.asarray(counts, jnp.float32), 6.0))
            return jnp.sum(y[repeated] * weight), (mean, var)

        expected, found = (
            jax.jit(jax.value_and_grad(function, (0, 1, 2), has_aux=True))(x, scale, bias) for function in (plain, weighted)
        )
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)

        norms = [BatchNorm((5,), rng=np.random.default_rng(0)) for _ in range(2)]
        norms[0](x[repeated], train=True)
        norms[1](x, RowWeights(jnp.asarray(counts, jnp.float32), 6.0), train=True)
        np.testing.assert_allclose(norms[1].var[...], norms[0].var[...], rtol=1e-6)


def test_batch_norm_over_several_feature_axes_takes_statistics_over_the_clips():
    x = normal((6, 4, 3))
    norm = BatchNorm((4, 3), rng=np.random.default_rng(0))
    norm(x, train=True)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * np.var(x, axis=0, ddof=1), rtol=1e-5)


def test_the_variance_of_a_large_mean_keeps_its_digits():
    x = normal((4096, 1), mean=0.0) * 1e-2 + 100.0
    _, mean, var = normalise_batch(x, jnp.ones(1), jnp.zeros(1), jnp.zeros(1))
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(var, exact.var(0), rtol=1e-3)
    one_pass = jnp.mean(x * x, 0) - mean * mean
    assert abs(one_pass[0] / exact.var() - 1) > 0.1  # the trap


@pytest.mark.parametrize(
    ("mean", "distance", "bound"),
    [  # of the mean in deviations, of the guess from it, and the largest relative error of the variance
        (0.0, 0.0, 1e-5),
        (3.0, 3.0, 1e-5),  # the first step of a network, whose running means are zero
        (1000.0, 0.0, 1e-5),
        (1000.0, 10.0, 1e-4),
        (1000.0, 1000.0, 0.2),  # no good guess; that these values have 8 bits moved the variance more
        (-50.0, 50.0, 2e-3),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_one_pass_about_a_guess_of_the_mean_is_as_exact_as_two(mean, distance, bound, weighted):
    values = np.random.default_rng(0).normal(mean, 1.0, (64, 32, 22, 2))
    x = jnp.asarray(values, jnp.bfloat16)
    weights = np.random.default_rng(1).integers(0, 3, 64) if weighted else np.ones(64)
    given = RowWeights(jnp.asarray(weights, jnp.float32), float(weights.sum())) if weighted else None
    near = jnp.full(2, mean - distance, jnp.float32)
    y, found_mean, found = jax.jit(normalise_batch)(x, jnp.ones(2), jnp.zeros(2), near, given)
    rows = np.repeat(np.asarray(x, np.float64), weights.astype(int), axis=0).reshape(-1, 2)
    exact = rows.var(0)
    np.testing.assert_allclose(found_mean, rows.mean(0), rtol=1e-6, atol=1e-4)
    assert np.max(np.abs(found / exact - 1)) <= bound
    if bound > 1e-3:
        assert (
            np.max(np.abs(found / exact - 1))
            < np.max(np.abs(exact / np.repeat(values, weights.astype(int), 0).var() - 1)) + 1e-3
        )
    expected = (np.asarray(x, np.float64) - rows.mean(0)) / np.sqrt(exact + 1e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=max(2.0**-7, bound), atol=0.02)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_values_have_more_bits_the_guess_does_not_matter(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(np.random.default_rng(0).normal(1000.0, 1.0, (64, 32, 2)), dtype)
        ones, zeros = jnp.ones(2, dtype), jnp.zeros(2, dtype)
        (_, mean, var), (_, other, same) = (normalise_batch(x, ones, zeros, near) for near in (zeros, 1000.0 * ones))
        np.testing.assert_array_equal((mean, var), (other, same))
        np.testing.assert_allclose(var, np.asarray(x, np.float64).var((0, 1)), rtol=1e-5)


def test_batch_norm_gradient_equals_that_of_the_formula():
    x, scale, bias = normal((7, 5, 3), mean=1.0), normal((3,), 1), normal((3,), 2)
    weight = normal(x.shape, 3)

    def formula(x, scale, bias):
        mean, var = jnp.mean(x, (0, 1)), jnp.var(x, (0, 1))
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    ours = jax.jit(jax.grad(lambda *a: jnp.sum(normalise_batch(*a, jnp.zeros(3))[0] * weight), (0, 1, 2)))(x, scale, bias)
    theirs = jax.jit(jax.grad(lambda *a: jnp.sum(formula(*a) * weight), (0, 1, 2)))(x, scale, bias)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_start_values_have_pytorch_s_ranges():
    strips = xavier_uniform_strips(np.random.default_rng(0), (16, 32, 24))
    limit = np.sqrt(6 / (32 * 24 + 16 * 24))
    assert 0.98 * limit < np.abs(strips).max() <= limit
    kernel = Conv(16, 32, 3, 1, rng=np.random.default_rng(0)).kernel[...]
    limit = np.sqrt(6 / (9 * 16 + 9 * 32))
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    scale = BatchNorm((20_000,), rng=np.random.default_rng(0)).scale[...]
    np.testing.assert_allclose([scale.mean(), scale.std()], [1.0, 0.02], atol=1e-3)


def test_maximum_is_the_maximum_and_its_gradient_goes_to_the_first_of_equals():
    x = jnp.array([[1.0, 3.0, 3.0], [-2.0, -5.0, -2.0]])
    np.testing.assert_array_equal(maximum(x, 1), [3.0, -2.0])
    gradient = jax.grad(lambda x: jnp.sum(maximum(x, 1) * jnp.array([1.0, 2.0])))(x)
    np.testing.assert_array_equal(gradient, [[0.0, 1.0, 0.0], [2.0, 0.0, 0.0]])


@pytest.mark.optimised
def test_maximum_of_a_batch_norm_has_the_same_gradient_however_it_is_compiled():
    """Compiled at level 0, the library's maximum finds no largest value again and divides by their number, zero."""
    x, ones = normal((8, 16, 11, 6)), jnp.ones(6)
    weight = normal((8, 11, 6), seed=1)
    function = jax.jit(jax.grad(lambda x: jnp.sum(weight * maximum(normalise_batch(x, ones, ones, ones)[0], 1))))
    plain = function.lower(x).compile({"xla_backend_optimization_level": 0})(x)
    np.testing.assert_allclose(plain, function(x), rtol=1e-4, atol=1e-5)


def images(frames: int) -> np.ndarray:
    """Uint8 frames `[frames, 16, 11]` of a few grey blots, black elsewhere, as silhouettes are."""
    rng = np.random.default_rng(0)
    blots = np.repeat(np.repeat(rng.integers(0, 3, (frames, 4, 3)), 4, 1), 4, 2)[:, :, :11]
    return np.pad((blots * rng.integers(90, 128, blots.shape)).astype(np.uint8)[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("counts", [None, [1, 3, 0, 2, 5, 1]])
def test_images_in_bfloat16_are_normalised_as_exactly_as_features_are(counts, channels):
    """Values, running statistics and gradients, against float64: as near as those of a batch norm after a convolution."""
    rng = np.random.default_rng(1)
    conv, norm = Conv(channels, 8, 3, 1, rng=rng), BatchNorm((8,), rng=rng)
    norm.bias[...] = normal((8,), seed=1)
    pictures = np.stack([images(6), images(6)[::-1, ::-1] // 2], axis=3)[..., :channels]  # b h w c
    x = jnp.asarray(pictures / 255.0, jnp.bfloat16)  # b h w c
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(6, 16, 11, 8)))  # b h w c
    weights = RowWeights(jnp.ones(6) if counts is None else jnp.asarray(counts, jnp.float32), 6.0 if counts is None else 12.0)
    weight = weight * weights.each[:, None, None, None]

    def results(convolve_normalise, dtype):
        graph, state = nnx.split((conv, norm))

        def objective(state):
            layers = nnx.merge(graph, state)
            y = convolve_normalise(*layers, x.astype(dtype))
            return jnp.sum(y * weight.astype(y.dtype)), (y, layers[1].mean[...], layers[1].var[...])

        state = jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(dtype, jnp.float32)), state)
        (_, found), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(state)
        flat = [gradients[0]["kernel"], gradients[1]["scale"], gradients[1]["bias"]]
        return [np.asarray(value, np.float64) for value in (*found, *(leaf[...] for leaf in flat))]

    def whole(conv, norm, x):
        return convolve_normalise(conv, norm, x, weights, train=True, images=True)

    def apart(conv, norm, x):
        return norm(conv(x), weights, train=True)

    with jax.enable_x64(True):
        exact = results(apart, jnp.float64)
    ours, theirs = results(whole, jnp.bfloat16), results(apart, jnp.bfloat16)
    for truth, one, other in zip(exact, ours, theirs, strict=True):
        assert np.linalg.norm(one - truth) < 1.7 * np.linalg.norm(other - truth) < 0.02 * np.linalg.norm(truth)
    for truth, one in zip(exact[1:3], ours[1:3], strict=True):  # statistics of features that were not rounded
        np.testing.assert_allclose(one, truth, rtol=1e-6, atol=1e-8)
