"""The rows of the parity table: a statistic, its distance from PyTorch, and PyTorch's own rounding of the same statistic.

Two float32 programs that add in different orders differ by rounding. How much depends on the network, its numbers and the
batch: no constant holds for every recording. A row passes within its tolerance, which is the same for all rows, or within
`SLACK` times what PyTorch in float32 differs from PyTorch in float64 in exactly that row's statistic. The samples of PyTorch's
rounding are runs of our PyTorch reference; the recording is none of them, for an error in it would excuse itself.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from scoliojax.interop.opengait.names import Sizes
from scoliojax.interop.parity.replay import LOSS, Batch, Step
from scoliojax.interop.torch_reference import arrange, triplet_terms

TOLERANCE = 1e-5  # float32, of the largest value or of a tensor's norm: about 100 roundings of 2^-23
EXACT = 1e-6  # float64
SLACK = 3.0  # both sides are rounded, and the largest of a few samples is not the largest possible
SAMPLES, MOST = 3, 24  # of PyTorch's rounding: at first, and before a row is called beyond
CEILING = 0.5  # beyond it nothing is called rounding
NUMBERS = ("embeddings", "logits", "triplet", "mean_distance", "violations", "cross_entropy")
LATER = ("loss", "parameters", "statistics")  # the float32 rows of all steps; the others are of the first step


class Row(NamedTuple):
    """One line of the table."""

    quantity: str
    tolerance: float  # needs no further reason; above `CEILING` where PyTorch itself rounds by more than that
    measured: float  # distance between scoliojax and PyTorch
    rounding: float = 0.0  # distance of PyTorch in float32 from PyTorch in float64; 0 where it was not measured
    slack: float = SLACK  # factor on `rounding`

    @property
    def limit(self) -> float:
        return max(self.tolerance, min(self.slack * self.rounding, CEILING))

    @property
    def passes(self) -> bool:
        return self.measured <= self.limit

    @property
    def verdict(self) -> str:
        if not self.passes:
            return "beyond"
        if self.tolerance > CEILING:
            return "chaos"
        return "within" if self.measured <= self.tolerance else "rounding"


def apart(ours: object, theirs: object) -> float:
    """Largest absolute difference, in units of the largest value of `theirs` where that exceeds 1."""
    wide = np.asarray(theirs, np.float64)
    return float(np.max(np.abs(np.asarray(ours, np.float64) - wide)) / max(1.0, np.max(np.abs(wide))))


def distances(ours: Step, theirs: Step, wanted: Step) -> dict[str, np.ndarray]:
    """Distances of the statistics that `wanted` holds, by the names of their rows: `[1]`, or one for each tensor, `[t]`."""
    held = [name for name in NUMBERS if getattr(wanted, name) is not None]
    found = {name.replace("_", " "): np.array([apart(getattr(ours, name), getattr(theirs, name))]) for name in held}
    found["loss, relative"] = np.array([abs(ours.loss / theirs.loss - 1.0)])
    for kind in ("gradients", "parameters", "statistics"):
        mine, yours = getattr(ours, kind), getattr(theirs, kind)
        gaps = [
            np.linalg.norm(mine[name] - yours[name].astype(np.float64)) / max(np.linalg.norm(yours[name]), 1e-12)
            for name in getattr(wanted, kind)
        ]
        if gaps:
            found[f"{kind}, worst tensor, of its norm"] = np.array(gaps)
        if gaps and kind == "gradients":
            found[f"{kind}, median tensor, of its norm"] = np.array([np.median(gaps)])
    return found


def compare_steps(
    found: list[Step], other: list[Step], exact: list[Step], first: Batch, sizes: Sizes, sample: Callable[[int], list[Step]]
) -> Iterator[Row]:
    """Rows for float32 steps of scoliojax against `other`, float32 steps of PyTorch, recorded or computed.

    `exact` are the PyTorch reference's steps in float64; `sample(number)` gives its steps in float32, rounded differently for
    each number, and never `other`. Rounding jumps where a maximum is taken elsewhere or a clip crosses the margin: before a row
    is called beyond, more samples are drawn. `first` is the first batch.
    """
    samples = [sample(number) for number in range(SAMPLES)]

    def rounding(number: int, run: list[Step]) -> dict[str, np.ndarray]:
        """Distances of a sample from float64, the largest up to a step: they grow from step to step, with luck in between."""
        steps = [distances(run[i], exact[i], other[number]) for i in range(number + 1)]
        return {name: np.max([step[name] for step in steps], axis=0) for name in steps[0]}

    for number, theirs in enumerate(other):
        measured = distances(found[number], theirs, theirs)
        roundings = [rounding(number, run) for run in samples]
        while True:
            rows = [
                _furthest(f"step {number}: {name}", values, np.max([one[name] for one in roundings], axis=0), number > 0)
                for name, values in measured.items()
                if name != "violations" and (number == 0 or name.startswith(LATER))
            ]
            if number == 0:
                rows.append(_violations(found[0], theirs, exact[0], first, sizes, [run[0] for run in samples]))
            if len(samples) == MOST or all(row.passes for row in rows):
                break
            samples.append(sample(len(samples)))
            roundings.append(rounding(number, samples[-1]))
        yield from rows


def _furthest(name: str, measured: np.ndarray, rounding: np.ndarray, later: bool) -> Row:
    """Row of the tensor that is furthest beyond its own rounding, both `[t]`.

    Training at learning rate 0.1 multiplies rounding. Where that of PyTorch in a later step is itself beyond `CEILING`, it is
    the only bound.
    """
    tolerances = np.where(later & (rounding > CEILING), SLACK * rounding, TOLERANCE)  # t
    rows = [Row(name, *map(float, values)) for values in zip(tolerances, measured, rounding, strict=True)]
    return rows[np.argmax([row.measured / row.limit for row in rows])]  # the first NaN where there is one


def _violations(found: Step, other: Step, exact: Step, batch: Batch, sizes: Sizes, samples: Sequence[Step]) -> Row:
    """The row of the triplets that violate the margin; its rounding is those that rounding may move across it, at most.

    Undecided is a triplet whose hinge is nearer to zero than `SLACK` times the rounding of its two distances. A clip's distance
    from itself, rounding noise in PyTorch, has a rounding of its own.
    """
    alike, mixed = torch.as_tensor(batch.alike(sizes)), batch.mixed(sizes)
    (terms, triplets, distances), *rounded = (
        [value.numpy() for value in triplet_terms(torch.as_tensor(step.embeddings), alike, LOSS.margin, mixed)]
        for step in (exact, *samples)
    )  # p a i j, a i j, p n n each
    errors = np.max([np.abs(values[2] - distances) for values in rounded], axis=(0, 1))  # n n
    itself = np.eye(len(errors), dtype=bool)
    errors = np.where(itself, errors[itself].max(), errors[~itself].max(initial=0.0))  # n n
    near, far, _ = (value.numpy() for value in arrange(torch.from_numpy(errors), alike, mixed))  # a i, a j
    undecided = triplets & (np.abs(terms) <= SLACK * (near[:, :, None] + far[:, None, :]))  # p a i j
    every = max(int(triplets.sum()), 1)  # of a strip
    differing = np.abs(found.violations - other.violations)  # p
    most = undecided.sum(axis=(1, 2, 3))  # p
    strip = np.argmax(differing - most)  # the furthest beyond; the first NaN where there is one
    return Row(
        "step 0: violations, of all triplets", 0.0, float(differing[strip] / every), float(most[strip] / every), slack=1.0
    )


def compare_exactly(found: list[Step], other: list[Step], shaken: list[Step]) -> Iterator[Row]:
    """Rows for float64 steps of scoliojax against those of PyTorch: the first step, then the largest difference of the others.

    `shaken` are the latter from a start that is off by what float64 differs in one step. Later steps multiply that, more in
    networks whose batch norms see few clips; for the first step it excuses nothing.
    """
    measured, rounding = ([distances(a, b, b) for a, b in zip(run, other, strict=True)] for run in (found, shaken))
    for name in measured[0]:
        if "median" not in name:
            yield Row(f"float64, step 0: {name}", EXACT, float(np.max(measured[0][name])))
    for name in measured[-1]:
        if "median" not in name and len(measured) > 1:
            worst = (float(np.max([step[name] for step in steps[1:] if name in step])) for steps in (measured, rounding))
            yield Row(f"float64, later: {name}", EXACT, *worst)
