import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scoliojax.training.optim import multi_step, sgd

PLAIN = dict(learning_rate=0.1, momentum=0.9, weight_decay=5e-4, milestones=(2, 4), decay=0.1)


def test_the_rate_drops_at_the_milestone_itself():
    schedule = multi_step(0.1, (10, 14), 0.1)
    np.testing.assert_allclose(
        [schedule(step) for step in (0, 9, 10, 13, 14, 99)], [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6
    )


def test_sgd_is_pytorch_s():
    rng = np.random.default_rng(0)
    weight, momentum = rng.normal(size=5), np.zeros(5)
    rule, schedule = sgd(**PLAIN)
    params = jnp.asarray(weight, jnp.float32)
    state = rule.init(params)
    for step in range(6):
        gradient = rng.normal(size=5)
        momentum = 0.9 * momentum + (gradient + 5e-4 * weight)
        weight = weight - 0.1 * 0.1 ** sum(step >= milestone for milestone in (2, 4)) * momentum
        updates, state = rule.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, weight, rtol=1e-5)
        assert float(schedule(step)) == pytest.approx(0.1 * 0.1 ** sum(step >= m for m in (2, 4)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"momentum": 1.0}, "momentum=1"),
        ({"weight_decay": -1.0}, "weight_decay=-1"),
        ({"decay": 0.0}, "decay=0"),
        ({"milestones": (4, 2)}, "milestones"),
        ({"milestones": (0,)}, "milestones"),
    ],
)
def test_impossible_optimisers(changes, words):
    with pytest.raises(ValueError, match=words):
        sgd(**PLAIN | changes)
