"""The identity loss: by hand, against the direct form, in bounded memory, and on one device as on four."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoliojax.devices.mesh import data_mesh, sharded
from scoliojax.kernels import triplet
from scoliojax.kernels.triplet import triplet_loss


def by_hand(embeddings: np.ndarray, identities: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Every triplet in a loop, in float64."""
    n, parts, _ = embeddings.shape
    totals, counts = np.zeros(parts), np.zeros(parts)
    for part in range(parts):
        x = embeddings[:, part].astype(np.float64)
        for anchor, positive, negative in itertools.product(range(n), repeat=3):
            if identities[anchor] == identities[positive] and identities[anchor] != identities[negative]:
                term = margin + np.linalg.norm(x[anchor] - x[positive]) - np.linalg.norm(x[anchor] - x[negative])
                totals[part] += max(term, 0.0)
                counts[part] += term > 0
    return totals / np.maximum(counts, 1), counts


compiled = jax.jit(triplet_loss, static_argnums=2)


@settings(max_examples=25, deadline=None)
@given(
    identities=st.lists(st.integers(0, 3), min_size=7, max_size=7),
    margin=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_triplet_loss_by_hand(identities, margin, seed):
    embeddings = np.random.default_rng(seed).normal(size=(len(identities), 3, 5)).astype(np.float32)
    found = compiled(jnp.asarray(embeddings), jnp.asarray(identities), margin)
    loss, count = by_hand(embeddings, np.asarray(identities), margin)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.violations, count)


@pytest.mark.parametrize("identities", [[1, 1, 1], [1, 2, 3], [4]])
def test_no_negatives_or_no_other_positives(identities):
    embeddings = jnp.asarray(np.random.default_rng(0).normal(size=(len(identities), 2, 4)), jnp.float32)
    (_, found), gradient = weighted(triplet_loss)(embeddings, jnp.asarray(identities))
    if len(set(identities)) == 1:
        assert found.loss.tolist() == [0.0, 0.0]
    assert np.isfinite(gradient).all()


def test_gradients_stay_finite_where_clips_coincide():
    embeddings = jnp.ones((6, 2, 4))
    _, gradient = weighted(triplet_loss)(embeddings, jnp.array([0, 0, 1, 1, 2, 2]))
    assert np.isfinite(gradient).all()
    far = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 64)), jnp.float32) * 100
    assert not compiled(far, jnp.array([0]), 0.2).mean_distance.any()  # a clip is nowhere but where it is


def direct(embeddings, identities, margin):
    """The definition, every triplet laid out: `[p, n, n, n]`, gradient by jax."""
    x = jnp.swapaxes(embeddings, 0, 1)  # p n c
    square = jnp.sum(jnp.square(x), axis=-1)  # p n
    inner = jnp.einsum("pac,pbc->pab", x, x, precision=jax.lax.Precision.HIGHEST)  # p n n
    gap = square[:, :, None] + square[:, None, :] - 2.0 * inner  # p n n
    apart = (gap > 0.0) & ~jnp.eye(x.shape[1], dtype=bool)  # p n n
    distances = jnp.where(apart, jnp.sqrt(jnp.where(apart, gap, 1.0)), 0.0)  # p n n
    same = identities[:, None] == identities[None, :]  # n n
    triplets = same[:, :, None] & ~same[:, None, :]  # a i j
    hinge = margin + distances[:, :, :, None] - distances[:, :, None, :]  # p a i j
    hinge = jnp.where(triplets, jax.nn.relu(hinge), 0.0)  # p a i j
    violations = jnp.sum(hinge > 0.0, axis=(1, 2, 3))  # p
    return jnp.sum(hinge, axis=(1, 2, 3)) / jnp.maximum(violations, 1), violations, jnp.mean(distances, axis=(1, 2))


def weighted(function, **options):
    """Value, terms and gradient of a sum over strips, each with a weight of its own."""

    def total(embeddings, identities):
        terms = function(embeddings, identities, 0.2, **options)
        return jnp.sum(jnp.linspace(0.5, 1.5, embeddings.shape[1]) * terms[0]), terms

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize("block_bytes", [2**26, 2**14], ids=["one block", "many blocks"])
def test_value_and_gradient_are_those_of_the_direct_form(block_bytes, monkeypatch):
    monkeypatch.setattr(triplet, "BLOCK_BYTES", block_bytes)
    embeddings = jnp.asarray(np.random.default_rng(0).normal(size=(64, 16, 32)), jnp.float32)
    identities = jnp.asarray(np.random.default_rng(1).integers(0, 9, 64))  # sequences of unequal numbers of clips
    (value, terms), gradient = weighted(triplet_loss)(embeddings, identities)
    (expected, truth), truth_gradient = weighted(direct)(embeddings, identities)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    np.testing.assert_array_equal(terms.violations, truth[1])
    np.testing.assert_allclose(terms.loss, truth[0], rtol=1e-6)
    np.testing.assert_allclose(terms.mean_distance, truth[2], rtol=1e-6)
    assert np.linalg.norm(gradient - truth_gradient) <= 1e-6 * np.linalg.norm(truth_gradient)


@pytest.mark.optimised
def test_memory_stays_bounded_where_the_direct_form_has_no_room():
    n, parts, channels = 4096, 16, 256
    shapes = jax.ShapeDtypeStruct((n, parts, channels), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)
    memory = weighted(triplet_loss).lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2**31 < parts * n**3 * 4 / 2000


@pytest.mark.optimised
def test_four_devices_give_the_loss_of_one_and_no_device_sees_all_distances():
    embeddings = jnp.asarray(np.random.default_rng(0).normal(size=(32, 4, 8)), jnp.float32)
    identities = jnp.arange(32, dtype=jnp.int32) // 4
    (value, alone), gradient = weighted(triplet_loss)(embeddings, identities)
    mesh = data_mesh()
    assert len(mesh.devices) == 4
    apart = jax.device_put(embeddings, sharded(mesh)), jax.device_put(identities, sharded(mesh))
    (found, terms), found_gradient = weighted(triplet_loss, mesh=mesh)(*apart)
    np.testing.assert_array_equal(terms.violations, alone.violations)
    np.testing.assert_allclose(terms.mean_distance, alone.mean_distance, rtol=1e-6)
    assert float(found) == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(found_gradient, gradient, rtol=1e-5, atol=1e-7)
    assert found_gradient.sharding.is_equivalent_to(sharded(mesh), 3)
    program = weighted(triplet_loss, mesh=mesh).lower(*apart).compile().as_text()
    assert "f32[4,8,32]" in program  # p a n: a quarter of the anchors
    assert "f32[4,32,32]" not in program
