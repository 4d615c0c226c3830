"""The sentences of a report, from the content of `result.json`: for a reader who knows people, and no code."""

from typing import Any

from scoliojax.scores.bootstrap import Estimate

NEUTRAL = "Neutral is the borderline class of Scoliosis1K, between negative and positive; the labels come from the Cobb angle."
OPERATING_POINT = (
    "The operating point is a threshold for the probability of positive or neutral, chosen on validation subjects; a "
    "probability that equals it counts as above."
)
TOO_SHORT = "too short to tell"


def share(value: float | None) -> str:
    """A probability or share with the two digits that some hundred people can support."""
    if value is None:
        return "undefined"
    return "under 0.01" if value < 0.005 else "over 0.99" if value > 0.995 else f"{value:.2f}"


def given_share(value: float) -> str:
    """A share that the user gave, as a percentage with all its digits."""
    return f"{100 * value:.6g} %"


def per_cent(value: float) -> str:
    """A share as a percentage, with a digit more near 0 and 1, which only a count gives."""
    if 0.9995 <= value < 1:
        return "over 99.9 %"
    if 0 < value < 1e-4:
        return "under 0.01 %"
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.{int(0.99 < value < 1)}f} %"


def estimate(score: Estimate) -> str:
    """A score of an evaluation and its interval, with two digits."""
    if score.value is None:
        return score.note or "undefined"
    bounds = "" if score.low is None or score.high is None else f" ({score.low:.2f} to {score.high:.2f})"
    return f"{score.value:.2f}{bounds}"


def threshold(result: dict[str, Any]) -> float | None:
    """The threshold of the operating point; None without one."""
    point = result["answer"] and result["answer"]["operating_point"]
    return point["threshold"] if point else None


def side(reading: dict[str, Any], limit: float | None) -> str:
    """Where a reading lies: "above the threshold of 0.62"; `reading` is the answer, a window or a perturbed reading."""
    if reading["referred"] is None or limit is None:
        return "no threshold"
    where = "above" if reading["referred"] else "below"
    near = "just " if share(reading["positive_or_neutral"]) == share(limit) else ""
    return f"{near}{where} the threshold of {share(limit)}"


def summary(result: dict[str, Any]) -> str:
    """The answer in one sentence, or that there is none and why; with a mark if the network knows synthetic walkers only.

    `result`: the whole, or its part `beside`, the answer of another network.
    """
    mark, answer = " (synthetic)" if result["synthetic"] else "", result["answer"]
    if answer is None:
        return f"No answer, because {'; '.join(reason['message'] for reason in result['no_answer'])}."
    sides = side(answer, threshold(result))
    decision = "there is no operating point to compare it with" if sides == "no threshold" else sides
    name = answer["class"]
    probable = f"most probable class: {name}, probability {share(answer['probabilities'][name])}"
    return f"Positive or neutral with probability {share(answer['positive_or_neutral'])}, {decision}; {probable}{mark}."


def quality(result: dict[str, Any]) -> str:
    """How many frames are damaged, and by what; gait cycles and cadence where they were found."""
    found = result["quality"]
    damage = ", ".join(f"{count} {kind}" for kind, count in found["damage"].items() if count)
    of = f"{found['frames']} {result['network']['modality']}"
    bad = f"{found['bad_frames'] or 'None'} of {of} damaged{f' ({damage})' if damage else ''}"
    cycles, cadence = found["gait_cycles"], found["cadence"]
    if cycles is None:
        return f"{bad}; no gait cycle found."
    few = ", fewer than the two that a judgement of gait needs" if cycles < 2 else ""
    steps = "; cadence unknown without times" if cadence is None else f"; cadence {cadence:.0f} steps a minute"
    return f"{bad}; {cycles:.1f} gait cycles{few}{steps}."


def difference(result: dict[str, Any]) -> str:
    """Why the most probable class and the side of the threshold are not the same answer; empty where they are."""
    answer, limit = result["answer"], threshold(result)
    if limit is None or answer["referred"] is None or answer["referred"] == (answer["class"] != "negative"):
        return ""
    name, together = answer["class"], share(answer["positive_or_neutral"])
    alone = share(answer["probabilities"][name])
    wanted = given_share(answer["operating_point"]["wanted_sensitivity"])
    chosen = f"The threshold was chosen so that at least {wanted} of the positive or neutral validation subjects lie above it"
    above, below = "so it also takes in people whose class is negative", "which leaves room for people like this one below it"
    yet = f"yet positive and neutral together ({together}) are {side(answer, limit)}"
    because = f"{name} is the most probable single class ({alone}), {yet}"
    return f"Class and decision differ: {because}. {chosen}, {above if answer['referred'] else below}."


def mix(result: dict[str, Any]) -> str:
    """For which people the probabilities hold."""
    answer = result["answer"]
    if not answer["calibrated"]:
        return "These are no calibrated probabilities: it is not known for which mix of people they would hold."
    point, given = answer["operating_point"], answer["prevalence"]
    among = f"the {point['validation_subjects']} validation subjects" if point else "the validation subjects"
    known = given and given["validation_share"] is not None
    much = f", of whom {per_cent(given['validation_share'])} are positive or neutral" if known else ""
    people = f"a mix of people like {among}{much}"
    return f"These probabilities hold for {people}; where fewer people are positive or neutral, they are too high."


def at_prevalence(result: dict[str, Any]) -> list[str]:
    """What the answer is where as many people are positive or neutral as the user said; empty if the user said nothing."""
    answer = result["answer"]
    given = answer["prevalence"]
    if given is None:
        return []
    among = f"Where {given_share(given['prevalence'])} of the people are positive or neutral"
    if given["positive_or_neutral"] is None:
        lines = [f"{among}, this probability cannot be told: it was not calibrated on validation subjects of both kinds."]
    else:
        lines = [f"{among}, this person's probability of positive or neutral is {share(given['positive_or_neutral'])}."]
    by = f", by sensitivity and specificity on the {given['measured_on']} subjects"
    if given["ppv"] is not None:
        lines.append(
            f"Of the people above the threshold, {per_cent(given['ppv'])} would be positive or neutral there (PPV{by})."
        )
    if given["npv"] is not None:
        lines.append(f"Of the people below the threshold, {per_cent(given['npv'])} would be negative there (NPV{by}).")
    if given["ppv"] is None and given["npv"] is None:
        lines.append("Predictive values cannot be told: no sensitivity and specificity of this network are known.")
    return lines


def prediction_set(result: dict[str, Any]) -> str:
    """The classes that cannot be excluded; empty if the user did not ask."""
    found = result["answer"]["prediction_set"]
    if found is None:
        return ""
    note = f" {found['note'][0].upper()}{found['note'][1:]}." if found["note"] else ""
    if found["classes"] is None:
        return f"There is no set with a coverage of {given_share(found['coverage'])}.{note}"
    names, promise = found["classes"], f"a coverage of {given_share(found['coverage'])} in every class"
    if len(names) == 3:
        return f"No class can be excluded, with {promise}.{note}"
    which = " and ".join(names).capitalize()
    return f"{which} cannot be excluded, the other class{'es' * (len(names) == 1)} can, with {promise}.{note}"


def steadiness(result: dict[str, Any]) -> str:
    """Whether the answer holds over the walk."""
    if result["too_short"]:
        return TOO_SHORT
    return f"{result['windows_agreeing']} of {len(result['windows'])} windows"
