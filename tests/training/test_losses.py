import jax.numpy as jnp
import numpy as np
import pytest

from scoliojax.models.sconet import ScoNetOutput
from scoliojax.training.losses import ScoNetLoss, smoothed_cross_entropy


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
