"""An answer as the content of `result.json` and as a row of `screening.csv`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.quality import Quality
from data_pipelines.schema import CLASSES
from data_pipelines.video.walk import Walk
from scoliojax.runs.posture import DISCLAIMER, section
from scoliojax.scores.calibration import Calibration
from scoliojax.scores.conformal import check_coverage
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.metrics import check_prevalence, predictive_values
from scoliojax.scores.model_card import network
from scoliojax.scores.strips import strip_bounds
from scoliojax.screen.answer import Answer, Reading
from scoliojax.screen.limits import disagreement, flags_of, reasons_of

SCHEMA = "scoliojax.screening/2"  # with its version; described in docs/screening.md
COLUMNS = (
    "input", "class", *(f"p_{name}" for name in CLASSES), "referred", "prediction_set", "windows", "windows_agreeing",
    "usable_frames", "bad_frames", "fragile", "distance", "flags", "no_answer", "synthetic", "error", "beside_class",
    "beside_referred", "beside_no_answer",
)  # fmt: skip
SAID = {True: "yes", False: "no", None: "no operating point"}  # of a decision at the operating point


@dataclass(frozen=True)
class Wanted:
    """What the user wants to know beside the answer; raises `RunError` for a share out of range."""

    coverage: float | None = None  # of the prediction set; None for no set
    prevalence: float | None = None  # share of positive or neutral people where the answer is used; None for no such figures

    def __post_init__(self):
        check_prevalence(self.prevalence)
        if self.coverage is not None:
            check_coverage(self.coverage)


NOTHING_MORE = Wanted()


def as_dict(
    answer: Answer,
    backend: str | None,
    models: dict[str, str],
    person: list[int] | None,
    wanted: Wanted,
    beside: Answer | None = None,
) -> dict[str, Any]:
    """The content of `result.json`; without `answer`, `windows` and `strips` where `reasons_of` gives a reason.

    `backend`: name of the segmenter, None for an input that needs none; `models`: SHA-256 of its model files by name;
    `person`: numbers of the candidates that the user chose, if any; `beside`: the answer of another network for the same walk.
    """
    walk, used = answer.walk, answer.frames_used
    silhouettes = {"backend": backend, "models": models, "person": person, "candidates": len(walk.people)}
    frames = {"usable": len(walk.frames), "used": used, "frames": walk.frames[:used].tolist()}
    flags, apart = flags_of(answer), beside and disagreement(answer, beside)
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "synthetic": answer.network.synthetic,
        "input": {"name": walk.name, "kind": walk.kind, **walk.source},
        "silhouettes": silhouettes | frames,
        "quality": _quality(answer.qualities[-1]),
        "people": walk.choice,
        **_judged(answer, wanted),
        "posture": None if answer.posture is None else section(answer.posture),
        "flags": [flag._asdict() for flag in [*flags, *([apart] if apart else [])]],
        "beside": beside
        and {
            "synthetic": beside.network.synthetic,
            **_judged(beside, wanted),
            "flags": [flag._asdict() for flag in flags_of(beside) if flag not in flags],
        },
    }


def _judged(answer: Answer, wanted: Wanted) -> dict[str, Any]:
    """What one network says of a walk."""
    walk, trained = answer.walk, answer.network
    strips = [
        {"level": level, "first_row": top, "last_row": bottom - 1, "contribution": _by_class(centred, 6)}
        for (level, top, bottom), centred in zip(strip_bounds(trained.config.model.strips), answer.whole.centred, strict=True)
    ]
    reasons, typicality, evaluation = reasons_of(answer), answer.typicality, _evaluation(answer)
    run = {"name": network(trained.config.to_dict()), "run": trained.directory.name, "step": trained.step}
    known = not reasons
    return {
        "network": run | {"digest": trained.digest, "modality": trained.modality, "evaluation": evaluation},
        "typicality": typicality and typicality._asdict(),
        "no_answer": [reason._asdict() for reason in reasons],
        "answer": _answer(answer, wanted, evaluation) if known else None,
        "windows": [_window(walk, window) for window in answer.windows] if known else [],
        "windows_agreeing": answer.agreeing if known else 0,
        "too_short": len(answer.windows) == 1,
        "strips": strips if known else [],
    }


def _quality(quality: Quality) -> dict[str, Any]:
    gait = {name: value and round(value, 3) for name, value in vars(quality.gait).items()}
    return {
        "frames": len(next(iter(quality.bad.values()))),
        "bad_frames": quality.bad_frames,
        "damage": {kind: int(frames.sum()) for kind, frames in quality.bad.items()},
        "gait_cycles": gait["cycles"],
        "frames_per_cycle": gait["frames_per_cycle"],
        "cadence": gait["cadence"],
    }


def _answer(answer: Answer, wanted: Wanted, evaluation: dict[str, Any] | None) -> dict[str, Any]:
    calibration, whole = answer.network.calibration, answer.whole
    point = calibration and {
        "threshold": calibration.threshold,
        "wanted_sensitivity": calibration.wanted_sensitivity,
        "validation_sensitivity": calibration.sensitivity,
        "validation_specificity": calibration.specificity,
        "validation_subjects": calibration.subjects,
    }
    return _reading(whole) | {
        "calibrated": bool(calibration and calibration.temperature),
        "operating_point": point,
        "fragile": bool(answer.fragile),
        "perturbed": [{"name": name} | _reading(reading) for name, reading in answer.perturbed.items()],
        "prediction_set": wanted.coverage and _prediction_set(calibration, whole, wanted.coverage),
        "prevalence": wanted.prevalence and _at_prevalence(answer, wanted.prevalence, evaluation),
    }


def _prediction_set(calibration: Calibration | None, whole: Reading, coverage: float) -> dict[str, Any]:
    """The classes that cannot be excluded; without them where nothing was kept to tell."""
    if calibration is None:
        chosen, note = (
            None,
            "nothing was fitted on validation subjects for this network, so no class is excluded; evaluate it (--mode eval)",
        )
    else:
        chosen, note = calibration.prediction_set(whole.probabilities[None], coverage)
    classes = None if chosen is None else [name for name, kept in zip(CLASSES, chosen[0], strict=True) if kept]
    return {"coverage": coverage, "classes": classes, "note": note}


def _at_prevalence(answer: Answer, prevalence: float, evaluation: dict[str, Any] | None) -> dict[str, Any]:
    """The answer where another share of people is positive or neutral than among the validation walks (Bayes).

    Predictive values are those of the decision at the operating point, by its sensitivity and specificity on the test part
    or, where the network was not evaluated, on the validation subjects.
    """
    calibration = answer.network.calibration
    share = calibration and calibration.share
    screening, at = answer.whole.screening, None
    if calibration and calibration.temperature and share and 0 < share < 1:
        yes, no = screening * prevalence / share, (1 - screening) * (1 - prevalence) / (1 - share)
        at = round(yes / (yes + no), 6)
    sensitivity, specificity = (calibration.sensitivity, calibration.specificity) if calibration else (None, None)
    if evaluation:
        sensitivity, specificity = (evaluation[name]["value"] for name in ("sensitivity", "specificity"))
    values: dict[str, float | None] = {"ppv": None, "npv": None}
    if sensitivity is not None and specificity is not None:
        found = predictive_values(np.array(sensitivity), np.array(specificity), prevalence)
        values = {name: None if np.isnan(value) else round(float(value), 6) for name, value in zip(values, found, strict=True)}
    measured_on = None if set(values.values()) == {None} else "test" if evaluation else "validation"
    adjusted = {"prevalence": prevalence, "positive_or_neutral": at, "validation_share": share}
    return adjusted | values | {"measured_on": measured_on}


def _by_class(values: np.ndarray, digits: int) -> dict[str, float]:
    return dict(zip(CLASSES, values.round(digits).tolist(), strict=True))


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "class": reading.called,
        "probabilities": _by_class(reading.probabilities, 6),
        "positive_or_neutral": round(reading.screening, 6),
        "referred": reading.referred,
        "logits": _by_class(reading.strip_logits.mean(axis=0).astype(np.float64), 7),
    }


def _window(walk: Walk, window: Reading) -> dict[str, Any]:
    first, last = window.first, window.last
    bounds = {"first_frame": int(walk.frames[first]), "last_frame": int(walk.frames[last])}
    if walk.times is not None:
        bounds |= {"start": round(float(walk.times[first]), 3), "end": round(float(walk.times[last]), 3)}
    return bounds | {"frames": last - first + 1} | _reading(window)


def _evaluation(answer: Answer) -> dict[str, Any] | None:
    """Scores of the network on its test part at the operating point; None where it was never evaluated."""
    metrics = find_metrics(answer.network.directory, answer.network.step)
    if metrics is None or "operating_point/sensitivity" not in metrics.scores:
        return None
    scores = {name: metrics.scores[f"operating_point/{name}"]._asdict() for name in ("sensitivity", "specificity")}
    return {"data": metrics.data, "synthetic": metrics.synthetic, "subjects": metrics.subjects, **scores}


def as_row(name: str, result: dict[str, Any] | None, error: str = "") -> dict[str, Any]:
    """A row of `screening.csv`, with an answer, with the reasons why there is none, or with the error."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"input": name, "error": error}
    if result is None:
        return row
    row |= {
        "usable_frames": result["silhouettes"]["usable"],
        "bad_frames": result["quality"]["bad_frames"],
        "distance": "" if result["typicality"] is None else f"{result['typicality']['distance']:.6g}",
        "flags": "; ".join(flag["name"] for flag in result["flags"]),
        "no_answer": "; ".join(reason["name"] for reason in result["no_answer"]),
        "synthetic": "yes" if result["synthetic"] else "no",
    }
    if (beside := result["beside"]) is not None:
        row["beside_no_answer"] = "; ".join(reason["name"] for reason in beside["no_answer"])
        if beside["answer"] is not None:
            row |= {"beside_class": beside["answer"]["class"], "beside_referred": SAID[beside["answer"]["referred"]]}
    answer = result["answer"]
    if answer is None:
        return row
    chosen = answer["prediction_set"] or {"classes": []}
    return row | {
        "class": answer["class"],
        **{f"p_{name}": f"{value:.6f}" for name, value in answer["probabilities"].items()},
        "referred": SAID[answer["referred"]],
        "prediction_set": "unknown" if chosen["classes"] is None else " ".join(chosen["classes"]),
        "windows": len(result["windows"]),
        "windows_agreeing": result["windows_agreeing"],
        "fragile": "yes" if answer["fragile"] else "no",
    }
