"""The rows of the parity table: a statistic, its distance from PyTorch, and PyTorch's own rounding of the same statistic.

Two float32 programs that add in different orders differ by rounding. How much depends on the network, its numbers and the
batch: no constant holds for every recording. A row passes within its tolerance, which is the same for all rows, or within
`SLACK` times what PyTorch in float32 differs from PyTorch in float64 in exactly that row's statistic. The samples of PyTorch's
rounding are runs of our PyTorch reference; the recording is none of them, for an error in it would excuse itself.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from scoliojax.interop.parity.replay import LOSS, Arrays, Step
from scoliojax.interop.torch_reference import triplet_terms

TOLERANCE = 1e-5  # float32, of the largest value or of a tensor's norm: about 100 roundings of 2^-23
EXACT = 1e-6  # float64
SLACK = 3.0  # both sides are rounded, and the largest of a few samples is not the largest possible
SAMPLES, MOST = 3, 24  # of PyTorch's rounding: at first, and before a row is called beyond
CEILING = 0.5  # beyond it nothing is called rounding

Measure = Callable[[Step, Step], np.ndarray]  # one distance, or one for each tensor


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      quantity: the statistic.
      tolerance: bound that needs no further reason; infinite where float32 cannot tell any more.
      measured: distance between scoliojax and PyTorch.
      rounding: the same statistic of PyTorch in float32 against PyTorch in float64; 0 where it was not measured.
      slack: factor on `rounding`.
    """

    quantity: str
    tolerance: float
    measured: float
    rounding: float = 0.0
    slack: float = SLACK

    @property
    def passes(self) -> bool:
        return self.measured <= max(self.tolerance, min(self.slack * self.rounding, CEILING))

    @property
    def verdict(self) -> str:
        if not self.passes:
            return "beyond"
        if math.isinf(self.tolerance):
            return "chaos"
        return "within" if self.measured <= self.tolerance else "rounding"


def apart(ours: object, theirs: object) -> float:
    """Largest absolute difference, in units of the largest value of `theirs` where that exceeds 1."""
    wide = np.asarray(theirs, np.float64)
    return float(np.max(np.abs(np.asarray(ours, np.float64) - wide)) / max(1.0, np.max(np.abs(wide))))


def of_norm(ours: Arrays, theirs: Arrays) -> np.ndarray:
    """Distance of each tensor of `theirs`, relative to its norm. Numpy's maximum of them keeps a NaN; Python's may lose it."""
    assert ours.keys() >= theirs.keys(), theirs.keys() - ours.keys()
    return np.array(
        [
            np.linalg.norm(ours[name] - value.astype(np.float64)) / max(np.linalg.norm(value), 1e-12)
            for name, value in theirs.items()
        ]
    )


def _plain(name: str) -> tuple[str, Measure]:
    return name.replace("_", " "), lambda a, b: np.array([apart(getattr(a, name), getattr(b, name))])


def _tensors(name: str, wanted: Arrays) -> tuple[str, Measure]:
    def measure(a: Step, b: Step) -> np.ndarray:
        return of_norm(getattr(a, name), {key: getattr(b, name)[key] for key in wanted})

    return f"{name}, worst tensor, of its norm", measure


def _statistics(number: int, recorded: Step) -> Iterator[tuple[str, Measure]]:
    """Names and measures of the float32 rows of a step. Tensors that the recording leaves out are not compared."""
    if number == 0:
        yield from map(_plain, ("embeddings", "logits", "triplet", "mean_distance", "cross_entropy"))
        name, measure = _tensors("gradients", recorded.gradients)
        yield name, measure
        yield name.replace("worst", "median"), lambda a, b: np.array([np.median(measure(a, b))])
    yield "loss, relative", lambda a, b: np.array([abs(a.loss / b.loss - 1.0)])
    for name in ("parameters", "statistics"):
        if getattr(recorded, name):
            yield _tensors(name, getattr(recorded, name))


def compare_steps(
    found: list[Step],
    other: list[Step],
    exact: list[Step],
    identities: np.ndarray,
    samples: list[list[Step]],
    sample: Callable[[int], list[Step]],
) -> Iterator[Row]:
    """Rows for float32 steps here against float32 steps there.

    Each tensor has a rounding of its own, and the worst is the one furthest beyond it. Rounding grows from step to step, with
    luck in between: it is the largest up to the step. It also jumps, where a maximum is taken elsewhere or a clip crosses the
    margin, so before a row is called beyond, more samples are drawn. Training at learning rate 0.1 multiplies rounding, and
    where `SLACK` times that of a later step exceeds `CEILING`, float32 has no bound to give.

    Args:
      found: steps of scoliojax.
      other: steps of PyTorch, recorded or computed.
      exact: steps of the PyTorch reference in float64.
      identities: of the first batch, `[n]`.
      samples: steps of the PyTorch reference in float32, each rounded differently; `other` must not be among them.
      sample: draws a further one by its number.
    """
    samples = list(samples)

    def row(number: int, name: str, measure: Measure) -> Row:
        measured = measure(found[number], other[number])  # t
        distances = [measure(a, b) for run in samples for a, b in zip(run[: number + 1], exact, strict=False)]
        rounding = np.max(distances, axis=0)  # t
        lost = (number > 0) & (SLACK * rounding > CEILING)  # t
        limit = np.where(lost, np.inf, np.maximum(TOLERANCE, np.minimum(SLACK * rounding, CEILING)))  # t
        worst = int(np.argmax(measured / limit))  # the first NaN where there is one
        tolerance = math.inf if lost[worst] else TOLERANCE
        return Row(f"step {number}: {name}", tolerance, float(measured[worst]), float(rounding[worst]))

    def violations() -> Row:
        undecided, triplets = undecided_violations([run[0] for run in samples], exact[0], identities)
        differing = float(np.max(np.abs(found[0].violations - other[0].violations)))
        return Row("step 0: violations, of all triplets", 0.0, differing / triplets, undecided / triplets, slack=1.0)

    rows = [partial(row, number, *statistic) for number, step in enumerate(other) for statistic in _statistics(number, step)]
    for compute in (violations, *rows):
        while not compute().passes and len(samples) < MOST:
            samples.append(sample(len(samples)))
        yield compute()


def undecided_violations(samples: Sequence[Step], exact: Step, identities: np.ndarray) -> tuple[int, int]:
    """The triplets of a strip that rounding may move across the margin, at most, and all triplets of a strip.

    Undecided is a triplet whose hinge is nearer to zero than `SLACK` times the rounding of its two distances. A clip's distance
    from itself, rounding noise in PyTorch, has a rounding of its own.
    """
    terms, triplets, distances = (value.numpy() for value in _terms(exact, identities))  # p a i j, a i j, p n n
    errors = np.max([np.abs(_terms(run, identities)[2].numpy() - distances) for run in samples], axis=(0, 1))  # n n
    itself = np.eye(len(errors), dtype=bool)
    errors = np.where(itself, errors[itself].max(), errors[~itself].max(initial=0.0))  # n n
    undecided = triplets & (np.abs(terms) <= SLACK * (errors[:, :, None] + errors[:, None, :]))  # p a i j
    return int(undecided.sum(axis=(1, 2, 3)).max()), max(int(triplets.sum()), 1)


def _terms(step: Step, identities: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return triplet_terms(torch.as_tensor(step.embeddings), torch.as_tensor(identities), LOSS.margin)


def compare_exactly(found: list[Step], other: list[Step], shaken: Callable[[], list[Step]] | None = None) -> Iterator[Row]:
    """Rows for float64 steps here against float64 steps there, the largest difference of all steps.

    Args:
      found: steps of scoliojax.
      other: steps of the PyTorch reference.
      shaken: computes the latter from a start that is off by a float64 rounding; asked once, when a row exceeds `EXACT`, as
        after many steps.
    """
    plain = map(_plain, ("embeddings", "logits", "mean_distance", "triplet", "violations", "cross_entropy", "loss"))
    tensors = (_tensors(name, getattr(other[0], name)) for name in ("gradients", "parameters", "statistics"))
    sample = None
    for name, measure in (*plain, *tensors):
        measured = float(np.max([measure(a, b) for a, b in zip(found, other, strict=True)]))
        if shaken and sample is None and not measured <= EXACT:
            sample = shaken()
        rounding = float(np.max([measure(a, b) for a, b in zip(sample, other, strict=True)])) if sample else 0.0
        yield Row(f"float64: {name}", EXACT, measured, rounding)
