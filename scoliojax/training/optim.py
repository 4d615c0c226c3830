"""The published optimiser: PyTorch's SGD with a multi-step schedule, from optax parts."""

import math
from collections.abc import Sequence

import optax


def multi_step(learning_rate: float, milestones: Sequence[int], decay: float) -> optax.Schedule:
    """The learning rate at a step: multiplied by `decay` from each milestone on (PyTorch's `MultiStepLR`)."""
    return optax.piecewise_constant_schedule(learning_rate, {int(step): decay for step in milestones})


def sgd(
    *, learning_rate: float, momentum: float, weight_decay: float, milestones: Sequence[int], decay: float
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """SGD as PyTorch computes it, and its schedule: `m = momentum * m + (g + weight_decay * w); w -= rate * m`.

    Weight decay is added to the gradient *before* momentum and acts on every parameter, batch norm included. Published:
    learning rate 0.1 at step 0, momentum 0.9, weight decay 5e-4, and `decay` 0.1 at the steps 10,000, 14,000 and 18,000. Raises
    `ValueError` for numbers out of range and milestones that do not rise.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"optimizer.learning_rate={learning_rate} must be positive and finite")
    if not 0 <= momentum < 1:
        raise ValueError(f"optimizer.momentum={momentum} must be in [0, 1)")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"optimizer.weight_decay={weight_decay} must be finite and not negative")
    if not 0 < decay <= 1:
        raise ValueError(f"optimizer.decay={decay} must be in (0, 1]")
    if not all(step >= 1 for step in milestones) or list(milestones) != sorted(set(milestones)):
        raise ValueError(f"optimizer.milestones={tuple(milestones)} must be rising positive steps")
    schedule = multi_step(learning_rate, milestones, decay)
    parts = optax.add_decayed_weights(weight_decay), optax.trace(momentum), optax.scale_by_learning_rate(schedule)
    return optax.chain(*parts), schedule
