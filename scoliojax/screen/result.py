"""An answer as `result.json` holds it, as a row of `screening.csv`, and as lines on the terminal."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipelines.schema import CLASSES
from data_pipelines.video.walk import Flag
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.model_card import network
from scoliojax.scores.strips import strip_bounds
from scoliojax.screen.answer import Answer, Reading

SCHEMA = "scoliojax.screening/1"  # a reader of another number must not guess; docs/screening.md describes it
DISCLAIMER = "Research software: not a medical device and not a diagnosis."
STEADY = 2 / 3  # of the windows that say what the whole walk says
COLUMNS = (
    "input", "class", *(f"p_{name}" for name in CLASSES), "referred", "windows", "windows_agreeing", "usable_frames",
    "flags", "synthetic", "error",
)  # fmt: skip


def flags_of(answer: Answer) -> list[Flag]:
    """Everything that a reader has to know: of the walk, of the network, and of how they fit."""
    flags, found = list(answer.walk.flags), len(answer.walk.silhouettes)
    if answer.synthetic:
        message = "this network was trained on synthetic walkers, not people: its answer says nothing about anybody"
        flags.insert(0, Flag("synthetic network", None, message))
    if found > answer.frames_used:
        message = f"only the first {answer.frames_used} of {found} usable frames count, as in evaluation"
        flags.append(Flag("long", found - answer.frames_used, message))
    calibration = answer.network.calibration
    if calibration is None or calibration.temperature is None:
        message = "the probabilities are not calibrated: nothing was fitted on validation subjects for this network"
        flags.append(Flag("not calibrated", None, message))
    if calibration is None or calibration.threshold is None:
        message = "there is no operating point for this network, so nobody is referred or not (train with validation subjects)"
        flags.append(Flag("no operating point", None, message))
    if len(answer.windows) > 1 and answer.agreeing < STEADY * len(answer.windows):
        odd = sum(one.last - one.first + 1 for one in answer.windows if one.called != answer.whole.called)
        flags.append(Flag("unsteady", odd, "the answer does not hold over the walk: see its windows"))
    return flags


def as_dict(answer: Answer, backend: str | None, models: dict[str, str], person: list[int] | None) -> dict[str, Any]:
    """The content of `result.json`.

    Args:
      answer: to write down.
      backend: that found the person; None where the input was silhouettes.
      models: SHA-256 of its model files by name.
      person: candidates that the user chose; None where nobody had to be chosen.
    """
    walk, trained = answer.walk, answer.network
    strips = strip_bounds(trained.config.model.strips)
    centred = answer.whole.strip_logits - answer.whole.strip_logits.mean(axis=1, keepdims=True)  # p k
    calibration = trained.calibration
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "synthetic": answer.synthetic,
        "input": {"name": walk.name, "kind": walk.kind, **walk.source},
        "silhouettes": {
            "backend": backend,
            "models": models,
            "person": person,
            "candidates": len(walk.people),
            "usable": len(walk.silhouettes),
            "used": answer.frames_used,
            "frames": walk.frames[: answer.frames_used].tolist(),
        },
        "network": {
            "name": network(trained.config.to_dict()),
            "run": trained.directory.name,
            "step": trained.step,
            "digest": trained.digest,
            "evaluation": _evaluation(answer),
        },
        "answer": {
            **_reading(answer.whole),
            "calibrated": bool(calibration and calibration.temperature),
            "operating_point": calibration
            and {
                "threshold": calibration.threshold,
                "wanted_sensitivity": calibration.wanted_sensitivity,
                "validation_sensitivity": calibration.sensitivity,
                "validation_specificity": calibration.specificity,
                "validation_subjects": calibration.subjects,
            },
        },
        "windows": [_window(answer, one) for one in answer.windows],
        "windows_agreeing": answer.agreeing,
        "strips": [
            {
                "level": level,
                "first_row": top,
                "last_row": bottom - 1,
                "contribution": dict(zip(CLASSES, centred[index].round(6).tolist(), strict=True)),
            }
            for index, (level, top, bottom) in enumerate(strips)
        ],
        "flags": [flag._asdict() for flag in flags_of(answer)],
    }


def _reading(one: Reading) -> dict[str, Any]:
    return {
        "class": one.called,
        "probabilities": dict(zip(CLASSES, one.probabilities.round(6).tolist(), strict=True)),
        "positive_or_neutral": round(one.screening, 6),
        "referred": one.referred,
        "logits": dict(zip(CLASSES, one.strip_logits.mean(axis=0).astype(np.float64).round(7).tolist(), strict=True)),
    }


def _window(answer: Answer, one: Reading) -> dict[str, Any]:
    walk = answer.walk
    where = {"first_frame": int(walk.frames[one.first]), "last_frame": int(walk.frames[one.last])}
    if walk.times is not None:
        where |= {"start": round(float(walk.times[one.first]), 3), "end": round(float(walk.times[one.last]), 3)}
    return where | {"frames": one.last - one.first + 1} | _reading(one)


def _evaluation(answer: Answer) -> dict[str, Any] | None:
    """What this network reached on its test part at the operating point; None where it was never evaluated."""
    metrics = find_metrics(answer.network.directory, answer.network.step)
    if metrics is None or "operating_point/sensitivity" not in metrics.scores:
        return None
    scores = {name: metrics.scores[f"operating_point/{name}"]._asdict() for name in ("sensitivity", "specificity")}
    return {"data": metrics.data, "synthetic": metrics.synthetic, "subjects": metrics.subjects, **scores}


def as_row(name: str, result: dict[str, Any] | None, error: str = "") -> dict[str, Any]:
    """A row of `screening.csv`, of an answer or of why there is none."""
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
    """The answer in three sentences: the class, the decision, whether it holds."""
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
    """What the terminal says of one answer."""
    used = result["silhouettes"]
    how = f", found by {used['backend']}" if used["backend"] else ""
    lines = [f"{result['input']['name']}: {used['used']} frames of one person{how}"]
    lines += [f"  {sentence}" for sentence in verdict(result)]
    for flag in result["flags"]:
        count = "" if flag["frames"] is None else f" ({flag['frames']} frame{'s' * (flag['frames'] != 1)})"
        lines.append(f"  note: {flag['name']}{count}: {flag['message']}")
    return lines
