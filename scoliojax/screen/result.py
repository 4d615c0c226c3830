"""An answer as the content of `result.json`, as a row of `screening.csv`, and as lines on the terminal."""

from typing import Any

import numpy as np

from data_pipelines.schema import CLASSES
from data_pipelines.video.walk import Flag, Walk
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.model_card import network
from scoliojax.scores.strips import strip_bounds
from scoliojax.screen.answer import Answer, Reading

SCHEMA = "scoliojax.screening/1"  # with its version; described in docs/screening.md
DISCLAIMER = "Research software: not a medical device and not a diagnosis."
STEADY = 2 / 3  # least share of windows with the class of the whole walk
COLUMNS = (
    "input", "class", *(f"p_{name}" for name in CLASSES), "referred", "windows", "windows_agreeing", "usable_frames",
    "flags", "synthetic", "error",
)  # fmt: skip


def flags_of(answer: Answer) -> list[Flag]:
    """All limits of an answer: those of the walk, of the network, and of both together."""
    flags, usable = list(answer.walk.flags), len(answer.walk.silhouettes)
    if answer.network.synthetic:
        message = "this network was trained on synthetic walkers, not people: its answer says nothing about anybody"
        flags.insert(0, Flag("synthetic network", None, message))
    if usable > answer.frames_used:
        message = f"only the first {answer.frames_used} of {usable} usable frames count, as in evaluation"
        flags.append(Flag("long", usable - answer.frames_used, message))
    calibration = answer.network.calibration
    if calibration is None or calibration.temperature is None:
        message = "the probabilities are not calibrated: nothing was fitted on validation subjects for this network"
        flags.append(Flag("not calibrated", None, message))
    if calibration is None or calibration.threshold is None:
        message = "there is no operating point for this network, so nobody is referred or not (train with validation subjects)"
        flags.append(Flag("no operating point", None, message))
    if len(answer.windows) > 1 and answer.agreeing < STEADY * len(answer.windows):
        frames = sum(window.last - window.first + 1 for window in answer.windows if window.called != answer.whole.called)
        flags.append(Flag("unsteady", frames, "the answer does not hold over the walk: see its windows"))
    return flags


def as_dict(answer: Answer, backend: str | None, models: dict[str, str], person: list[int] | None) -> dict[str, Any]:
    """The content of `result.json`.

    `backend`: name of the segmenter, None for an input of silhouettes; `models`: SHA-256 of its model files by name;
    `person`: numbers of the candidates that the user chose, if any.
    """
    walk, trained, calibration = answer.walk, answer.network, answer.network.calibration
    point = calibration and {
        "threshold": calibration.threshold,
        "wanted_sensitivity": calibration.wanted_sensitivity,
        "validation_sensitivity": calibration.sensitivity,
        "validation_specificity": calibration.specificity,
        "validation_subjects": calibration.subjects,
    }
    strips = [
        {"level": level, "first_row": top, "last_row": bottom - 1, "contribution": _by_class(centred, 6)}
        for (level, top, bottom), centred in zip(strip_bounds(trained.config.model.strips), answer.whole.centred, strict=True)
    ]
    config, used = trained.config.to_dict(), answer.frames_used
    silhouettes = {"backend": backend, "models": models, "person": person, "candidates": len(walk.people)}
    frames = {"usable": len(walk.silhouettes), "used": used, "frames": walk.frames[:used].tolist()}
    run = {"name": network(config), "run": trained.directory.name, "step": trained.step, "digest": trained.digest}
    calibrated = bool(calibration and calibration.temperature)
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "synthetic": answer.network.synthetic,
        "input": {"name": walk.name, "kind": walk.kind, **walk.source},
        "silhouettes": silhouettes | frames,
        "network": run | {"evaluation": _evaluation(answer)},
        "answer": {**_reading(answer.whole), "calibrated": calibrated, "operating_point": point},
        "windows": [_window(walk, window) for window in answer.windows],
        "windows_agreeing": answer.agreeing,
        "strips": strips,
        "flags": [flag._asdict() for flag in flags_of(answer)],
    }


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
    """A row of `screening.csv`, with an answer or with the error."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"input": name, "error": error}
    if result is None:
        return row
    answer = result["answer"]
    return row | {
        "class": answer["class"],
        **{f"p_{name}": f"{value:.6f}" for name, value in answer["probabilities"].items()},
        "referred": {True: "yes", False: "no", None: "no operating point"}[answer["referred"]],
        "windows": len(result["windows"]),
        "windows_agreeing": result["windows_agreeing"],
        "usable_frames": result["silhouettes"]["usable"],
        "flags": "; ".join(flag["name"] for flag in result["flags"]),
        "synthetic": "yes" if result["synthetic"] else "no",
    }


def verdict(result: dict[str, Any]) -> tuple[str, str, str]:
    """The answer in three sentences: class, decision, agreement of the windows."""
    answer, mark = result["answer"], " (synthetic)" if result["synthetic"] else ""
    name = answer["class"]
    called = f"called {name}, probability {answer['probabilities'][name]:.2f}{mark}"
    point = answer["operating_point"]
    if answer["referred"] is None or point is None:
        decision = f"no operating point; positive or neutral with probability {answer['positive_or_neutral']:.2f}{mark}"
    else:
        side, word = (">=", "referred") if answer["referred"] else ("<", "not referred")
        shown = f"{answer['positive_or_neutral']:.2f} {side} {point['threshold']:.2f}"
        decision = f"{word} at the operating point: positive or neutral {shown}{mark}"
    steady = f"{result['windows_agreeing']} of {len(result['windows'])} windows say {name}{mark}"
    return called, decision, steady


def lines_of(result: dict[str, Any]) -> list[str]:
    """The lines of one answer on the terminal."""
    used = result["silhouettes"]
    how = f", found by {used['backend']}" if used["backend"] else ""
    lines = [f"{result['input']['name']}: {used['used']} frames of one person{how}"]
    lines += [f"  {sentence}" for sentence in verdict(result)]
    for flag in result["flags"]:
        count = "" if flag["frames"] is None else f" ({flag['frames']} frame{'s' * (flag['frames'] != 1)})"
        lines.append(f"  note: {flag['name']}{count}: {flag['message']}")
    return lines
