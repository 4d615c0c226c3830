import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoliojax.losses import ScoNetLoss, pairwise_distances, smoothed_cross_entropy, triplet_loss
from scoliojax.models.sconet import ScoNetOutput


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


@settings(max_examples=25, deadline=None)
@given(
    identities=st.lists(st.integers(0, 3), min_size=7, max_size=7),
    margin=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_triplet_loss_by_hand(identities, margin, seed):
    embeddings = np.random.default_rng(seed).normal(size=(len(identities), 3, 5)).astype(np.float32)
    found = triplet_loss(jnp.asarray(embeddings), jnp.asarray(identities), margin)
    loss, count = by_hand(embeddings, np.asarray(identities), margin)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.violations, count)


@pytest.mark.parametrize("identities", [[1, 1, 1], [1, 2, 3], [4]])
def test_no_negatives_or_no_other_positives(identities):
    embeddings = jnp.asarray(np.random.default_rng(0).normal(size=(len(identities), 2, 4)), jnp.float32)
    found = triplet_loss(embeddings, jnp.asarray(identities), 0.2)
    if len(set(identities)) == 1:
        assert found.loss.tolist() == [0.0, 0.0]
    assert np.isfinite(jax.grad(lambda e: jnp.sum(triplet_loss(e, jnp.asarray(identities), 0.2).loss))(embeddings)).all()


def test_gradients_stay_finite_where_clips_coincide():
    embeddings = jnp.ones((6, 2, 4))
    gradient = jax.grad(lambda e: jnp.sum(triplet_loss(e, jnp.array([0, 0, 1, 1, 2, 2]), 0.2).loss))(embeddings)
    assert np.isfinite(gradient).all()
    distances = pairwise_distances(jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 64)), jnp.float32) * 100)
    assert not np.diagonal(distances, axis1=1, axis2=2).any()


def test_cross_entropy_by_hand():
    rng = np.random.default_rng(0)
    logits, labels = rng.uniform(-1, 1, (4, 5, 3)).astype(np.float32), np.array([0, 2, 1, 1])
    z = 16 * logits.astype(np.float64)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    target = np.full((4, 5, 3), 0.1 / 3)
    target[np.arange(4), :, labels] += 0.9
    expected = -(target * log_p).sum(-1).mean()
    found = smoothed_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), 16.0, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def output(seed=0):
    rng = np.random.default_rng(seed)
    return ScoNetOutput(
        jnp.asarray(rng.normal(size=(4, 2, 3)), jnp.float32), jnp.asarray(rng.uniform(-1, 1, (4, 2, 3)), jnp.float32)
    )


PLAIN = dict(triplet_weight=1.0, class_weight=1.0, margin=0.2, scale=16.0, label_smoothing=0.1)


def test_the_total_is_the_weighted_sum_and_sconet_leaves_the_identity_term_out():
    labels, identities = jnp.array([0, 0, 1, 2]), jnp.array([5, 5, 6, 7])
    total, terms = ScoNetLoss(**PLAIN | {"triplet_weight": 0.5, "class_weight": 2.0})(output(), labels, identities)
    np.testing.assert_allclose(total, 0.5 * terms["triplet"] + 2.0 * terms["cross_entropy"], rtol=1e-6)
    single, terms = ScoNetLoss(**PLAIN | {"triplet_weight": 0.0})(output(), labels, identities)
    assert single == terms["cross_entropy"] == terms["loss"]
    assert "triplet" not in terms


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"triplet_weight": -1.0}, "triplet_weight=-1"),
        ({"triplet_weight": 0.0, "class_weight": 0.0}, "one must be positive"),
        ({"margin": -0.1}, "margin=-0.1"),
        ({"scale": 0.0}, "scale=0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1"),
    ],
)
def test_impossible_losses(changes, words):
    with pytest.raises(ValueError, match=words):
        ScoNetLoss(**PLAIN | changes)
