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


WEIGHTS = (0.174, 1.413, 1.413)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("weights", [WEIGHTS, (0.6, 1.2, 1.2), (5.0, 0.01, 1.0), (2.0, 2.0, 2.0), ()])
def test_weights_of_classes_are_those_of_pytorch(weights, smoothing):
    torch = pytest.importorskip("torch", reason="torch is not installed; install the extra `torch`")
    rng = np.random.default_rng(0)
    logits, labels = rng.uniform(-1, 1, (7, 5, 3)), rng.integers(0, 3, 7)  # n p k, n
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(weights) if weights else None, label_smoothing=smoothing)
    given = torch.from_numpy(16 * logits.astype(np.float32)).swapaxes(1, 2)  # n k p
    expected = theirs(given, torch.from_numpy(labels)[:, None].expand(-1, 5)).item()
    found = smoothed_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), 16.0, smoothing, weights)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_equal_weights_are_none_to_the_bit():
    rng = np.random.default_rng(1)
    logits, labels = jnp.asarray(rng.uniform(-1, 1, (6, 4, 3)), jnp.float32), jnp.asarray(rng.integers(0, 3, 6))
    plain = smoothed_cross_entropy(logits, labels, 16.0, 0.1)
    for weights in ((1.0, 1.0, 1.0), (0.3, 0.3, 0.3)):
        assert smoothed_cross_entropy(logits, labels, 16.0, 0.1, weights) == plain


PLAIN = dict(triplet_weight=1.0, class_weight=1.0, margin=0.2, scale=16.0, label_smoothing=0.1)


def test_the_total_is_the_weighted_sum_and_sconet_leaves_the_identity_term_out():
    labels, identities = jnp.array([0, 0, 1, 2]), jnp.array([5, 5, 6, 7])
    total, terms = ScoNetLoss(**PLAIN | {"triplet_weight": 0.5, "class_weight": 2.0})(output(), labels, identities)
    np.testing.assert_allclose(total, 0.5 * terms["triplet"] + 2.0 * terms["cross_entropy"], rtol=1e-6)
    single, terms = ScoNetLoss(**PLAIN | {"triplet_weight": 0.0})(output(), labels, identities)
    assert single == terms["cross_entropy"] == terms["loss"]
    assert "triplet" not in terms


def test_clips_of_one_class_are_positive_pairs_where_the_label_is_the_class():
    labels, identities = jnp.array([0, 0, 1, 2]), jnp.array([5, 6, 7, 8])
    _, by_class = ScoNetLoss(**PLAIN, triplet_label="class")(output(), labels, identities)
    _, of_sequences = ScoNetLoss(**PLAIN)(output(), identities, labels)
    assert by_class["triplet"] == of_sequences["triplet"]
    assert by_class["triplet"] != ScoNetLoss(**PLAIN)(output(), labels, identities)[1]["triplet"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"triplet_weight": -1.0}, "triplet_weight=-1"),
        ({"triplet_weight": 0.0, "class_weight": 0.0}, "one must be positive"),
        ({"margin": -0.1}, "margin=-0.1"),
        ({"scale": 0.0}, "scale=0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1"),
        ({"triplet_label": "subject"}, "triplet_label='subject'"),
        ({"weights_by_class": (1.0, 0.0, 2.0)}, r"weights_by_class=\(1\.0, 0\.0, 2\.0\)"),
        ({"weights_by_class": (1.0, float("nan"), 2.0)}, "weights_by_class"),
    ],
)
def test_impossible_losses(changes, words):
    with pytest.raises(ValueError, match=words):
        ScoNetLoss(**PLAIN | changes)
