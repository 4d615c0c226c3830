"""Calibration and operating point: fitted on validation subjects, kept beside the checkpoint, applied wherever it is used.

Temperature scaling (Guo et al. 2017, section 4.2) divides the logits by one number; it changes how certain the network claims
to be, and no prediction. The operating point is the probability of "positive or neutral" from which a person is referred, the
highest that reaches a wanted sensitivity on the validation subjects.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import special

from data_pipelines.schema import CLASSES
from scoliojax.files import read_json, write_json
from scoliojax.scores import conformal
from scoliojax.scores.metrics import softmax

WANTED_SENSITIVITY = 0.9
TEMPERATURES = (0.05, 20.0)  # bounds of the search; an optimum at a bound does not count


@dataclass(frozen=True)
class Calibration:
    """Temperature and operating point of one network, fitted on validation subjects; `ValueError` for what cannot be fitted."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012, read by pydantic

    network: str  # digest of the parameters and batch statistics
    synthetic: bool  # the validation subjects are synthetic walkers
    temperature: float | None  # divisor of the logits; None: the validation sequences do not determine one
    threshold: float | None  # probability of "positive or neutral" from which a person is referred; None: undefined
    wanted_sensitivity: float  # for which the threshold was chosen
    sensitivity: float | None  # on the validation subjects; None without a threshold
    specificity: float | None  # likewise; None also where no validation sequence is negative
    sequences: int  # number of validation sequences
    subjects: int  # number of validation subjects
    notes: tuple[str, ...] = ()  # reasons for each None
    # By class id, the margin by which the best other class beats it, in log probability: one sequence of each validation
    # subject of that class, ascending. None in the file of an older version.
    margins: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self):
        low, high = TEMPERATURES
        if self.temperature is not None and not low <= self.temperature <= high:
            raise ValueError(f"temperature={self.temperature} is not from {low} to {high}")
        shares = {name: getattr(self, name) for name in ("threshold", "wanted_sensitivity", "sensitivity", "specificity")}
        for name, share in shares.items():
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name}={share} is no share")
        if self.threshold is not None and self.sensitivity is None:
            raise ValueError("there is a threshold without its sensitivity")
        if self.margins is not None:
            if len(self.margins) != len(CLASSES) or not any(self.margins):
                raise ValueError(f"margins of {len(self.margins)} classes, or of nobody")
            if any(list(one) != sorted(one) for one in self.margins):
                raise ValueError("margins do not ascend")

    def probabilities(self, logits: np.ndarray, scale: float) -> np.ndarray:
        """Calibrated class probabilities `[n, k]` of cosine logits `[n, k]` at the loss's scale."""
        return softmax(logits, scale / (self.temperature or 1.0))

    def referred(self, probabilities: np.ndarray) -> np.ndarray | None:
        """The screening decision, bool `[n]`, of calibrated probabilities `[n, k]`; None without a threshold."""
        return None if self.threshold is None else screening_score(probabilities) >= self.threshold

    @property
    def share(self) -> float | None:
        """Share of the validation subjects of any class but the first, healthy one; None where an older version fitted."""
        if self.margins is None:
            return None
        return sum(map(len, self.margins[1:])) / sum(map(len, self.margins))

    def prediction_set(self, probabilities: np.ndarray, coverage: float) -> tuple[np.ndarray | None, str]:
        """The classes that cannot be excluded, bool `[n, k]`, for calibrated probabilities `[n, k]`, and a note on limits.

        As `conformal.prediction_set`; None, with the remedy as the note, where an older version fitted this calibration.
        """
        if self.margins is None:
            return None, (
                "an older version calibrated this network, without what prediction sets need; evaluate it again "
                "(scoliojax.main --mode eval)"
            )
        return conformal.prediction_set(self.margins, probabilities, coverage)


def screening_score(probabilities: np.ndarray) -> np.ndarray:
    """The probability of any class but the first, healthy one: `[n, k]` to `[n]`."""
    return probabilities[:, 1:].sum(axis=1)  # n


def fit(
    labels: np.ndarray,
    logits: np.ndarray,
    scale: float,
    subjects: list[str],
    wanted_sensitivity: float,
    network: str,
    synthetic: bool = False,
) -> Calibration:
    """Fit temperature and operating point on validation sequences.

    `labels`: int `[n]`, class ids; `logits`: cosines `[n, k]`; `scale`: their inverse temperature in the loss; `subjects`: n
    names; `wanted_sensitivity`: least sensitivity of the operating point, in (0, 1]; `network`: digest of the network.
    """
    notes = []
    temperature = fit_temperature(labels, logits, scale)
    if temperature is None:
        notes.append("no temperature: for these validation sequences the best lies beyond what is searched")
    probabilities = softmax(logits, scale / (temperature or 1.0))  # n k
    score, yes = screening_score(probabilities), labels > 0  # n
    threshold = choose_threshold(score, yes, wanted_sensitivity)
    if threshold is None:
        notes.append("no operating point: no validation sequence is positive or neutral")
    if yes.all():
        notes.append("specificity undefined: no validation sequence is negative")
    called = score >= (math.inf if threshold is None else threshold)  # n
    return Calibration(
        network=network,
        synthetic=synthetic,
        temperature=temperature,
        threshold=threshold,
        wanted_sensitivity=wanted_sensitivity,
        sensitivity=float(np.mean(called[yes])) if yes.any() else None,
        specificity=float(np.mean(~called[~yes])) if threshold is not None and not yes.all() else None,
        sequences=len(labels),
        subjects=len(set(subjects)),
        notes=tuple(notes),
        margins=conformal.class_margins(labels, probabilities, subjects),
    )


def with_margins(kept: Calibration, labels: np.ndarray, logits: np.ndarray, scale: float, subjects: list[str]) -> Calibration:
    """The calibration of an older version with the margins that prediction sets need; arguments as in `fit`."""
    return replace(kept, margins=conformal.class_margins(labels, kept.probabilities(logits, scale), subjects))


def fit_temperature(labels: np.ndarray, logits: np.ndarray, scale: float) -> float | None:
    """The temperature of least cross entropy; None where it lies at a bound of the search (as when all are right)."""
    from scipy.optimize import minimize_scalar  # here: training has to start without it

    def cross_entropy(log_temperature: float) -> float:
        z = scale / math.exp(log_temperature) * logits.astype(np.float64)  # n k
        return float(np.mean(np.asarray(special.logsumexp(z, axis=1)) - z[np.arange(len(labels)), labels]))

    low, high = map(math.log, TEMPERATURES)
    minimum = minimize_scalar(cross_entropy, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    best = float(minimum.x)  # pyright: ignore[reportAttributeAccessIssue]
    inside = low + 0.01 < best < high - 0.01
    curved = cross_entropy(best) < min(cross_entropy(low), cross_entropy(high))  # equal logits have no optimum
    return math.exp(best) if inside and curved else None


def choose_threshold(score: np.ndarray, yes: np.ndarray, wanted_sensitivity: float) -> float | None:
    """The highest threshold that reaches the sensitivity: the share of `yes` with a `score` at or above the threshold.

    It lies half-way to the next lower score, so rounding differences between devices change no decision. None if no `yes`.
    """
    if not yes.any():
        return None
    falling = np.sort(score[yes])[::-1]
    least = falling[max(math.ceil(wanted_sensitivity * len(falling) - 1e-9), 1) - 1]
    below = score[score < least]
    return float(0.5 * (least + (below.max() if len(below) else 0.0)))


def calibration_file(workdir: Path, step: int) -> Path:
    return workdir / "calibration" / f"step-{step:06d}.json"


def write(path: Path, calibration: Calibration) -> None:
    """Write a calibration file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(calibration))


def read(path: Path, network: str) -> Calibration | None:
    """The stored calibration of a network, None without one of this network; `RunError` where the file cannot be read."""
    try:
        stored = read_json(path, Calibration, "delete it, then evaluate again")
    except FileNotFoundError:
        return None
    return stored if stored.network == network else None
