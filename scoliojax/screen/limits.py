"""The limits of an answer: what a reader has to know of it, and what leaves a walk without one."""

from typing import NamedTuple

from data_pipelines.schema import abbreviate
from data_pipelines.video.walk import Flag
from scoliojax.scores.reference import Typicality
from scoliojax.screen.answer import Answer

REFERRED = {True: ", above its threshold", False: ", below its threshold", None: ""}
STEADY = 2 / 3  # least share of windows with the class of the whole walk


class Reason(NamedTuple):
    """What leaves a walk without an answer."""

    name: str
    message: str  # meaning and remedy


def reasons_of(answer: Answer) -> list[Reason]:
    """Why there is no answer for this walk; empty where there is one."""
    *others, read = answer.qualities
    found = {finding.name: f"its silhouettes: {finding.message}" for quality in others for finding in quality.grave}
    found |= {finding.name: finding.message for finding in read.grave}
    reasons = [Reason(name, message) for name, message in found.items()]
    if lost := answer.never_placed:
        message = (
            f"seen in no frame: {abbreviate(lost, 3)}; the skeleton is then drawn as published, much too small, unlike any "
            "that the network knows; record the whole body"
        )
        reasons.append(Reason("joints never seen", message))
    typicality = answer.typicality
    if typicality is not None and typicality.beyond:
        message = f"unlike anything this network has learnt from ({_far(typicality)}), so what it says means nothing"
        reasons.append(Reason("unlike training", message))
    return reasons


def _far(typicality: Typicality) -> str:
    return (
        f"distance {typicality.distance:.3g}; 99 % of validation walks of about {typicality.frames} frames lie within "
        f"{typicality.usual:.3g}, and there is no answer beyond {typicality.bound:.3g}"
    )


def flags_of(answer: Answer) -> list[Flag]:
    """All remarks about an answer: those of the walk, of the network, and, where there is an answer, of both together."""
    flags, usable = list(answer.walk.flags), len(answer.walk.frames)
    known = {flag.name for flag in flags}
    findings = [finding for quality in answer.qualities for finding in quality.findings if not finding.grave]
    flags += [Flag(one.name, one.frames, one.message) for one in findings if one.name not in known]
    if answer.network.synthetic:
        message = "this network was trained on synthetic walkers, not people: its answer says nothing about anybody"
        flags.insert(0, Flag("synthetic network", None, message))
    if usable > answer.frames_used:
        message = f"only the first {answer.frames_used} of {usable} usable frames count, as in evaluation"
        flags.append(Flag("long", usable - answer.frames_used, message))
    calibration = answer.network.calibration
    if calibration is None or calibration.temperature is None:
        why = "; ".join(calibration.notes) if calibration else "nothing was fitted on validation subjects for this network"
        message = f"the probabilities are not calibrated: {why}"
        flags.append(Flag("not calibrated", None, message))
    if calibration is None or calibration.threshold is None:
        message = "there is no operating point: train with validation subjects, or evaluate this step"
        flags.append(Flag("no operating point", None, message))
    if answer.network.reference is None:
        message = (
            "nothing is kept of what this network learnt from, so a walk unlike it goes unnoticed: evaluate the network "
            "once, on a run with ten validation subjects or more"
        )
        flags.append(Flag("no reference", None, message))
    if reasons_of(answer):
        return flags
    if len(answer.windows) > 1 and answer.agreeing < STEADY * len(answer.windows):
        frames = sum(window.last - window.first + 1 for window in answer.windows if window.called != answer.whole.called)
        flags.append(Flag("unsteady", frames, "the answer does not hold over the walk: see its windows"))
    if answer.fragile:
        message = f"the answer changes when the walk is read {' or '.join(answer.fragile)}, which a camera may do"
        flags.append(Flag("fragile", None, message))
    typicality = answer.typicality
    if typicality is not None and typicality.unlike:
        message = f"unlike anything this network has learnt from ({_far(typicality)}): trust the answer less"
        flags.append(Flag("unlike training", None, message))
    return flags


def disagreement(answer: Answer, beside: Answer) -> Flag | None:
    """The remark that two networks do not give one answer for a walk; None where they do."""
    names = [f"{one.network.directory.name} ({one.network.modality})" for one in (answer, beside)]
    known = [not reasons_of(one) for one in (answer, beside)]
    if known == [True, True]:
        decided = [(one.whole.called, one.whole.referred) for one in (answer, beside)]
        if decided[0] == decided[1]:
            return None
        says = [
            f"{name} calls it {called}{REFERRED[referred]}" for name, (called, referred) in zip(names, decided, strict=True)
        ]
        return Flag("networks disagree", None, f"{' and '.join(says)}: trust neither by itself")
    if any(known):
        without = names[known.index(False)]
        return Flag("networks disagree", None, f"{without} has no answer for this walk: trust the other one less")
    return None
