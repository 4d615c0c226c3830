"""An answer in the lines of a terminal."""

from typing import Any

from scoliojax.screen import wording


def lines_of(result: dict[str, Any]) -> list[str]:
    """The lines of one answer, from the content of `result.json`."""
    used = result["silhouettes"]
    how = f", found by {used['backend']}" if used["backend"] else ""
    lines = [f"{result['input']['name']}: {used['used']} frames of one person{how}", *_sentences(result)]
    for flag in result["flags"]:
        count = "" if flag["frames"] is None else f" ({flag['frames']} frame{'s' * (flag['frames'] != 1)})"
        lines.append(f"note: {flag['name']}{count}: {flag['message']}")
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def _sentences(result: dict[str, Any]) -> list[str]:
    lines = [wording.quality(result)]
    if result["answer"] is None:
        return lines + _reasons(result) + _beside(result)
    mark = " (synthetic)" if result["synthetic"] else ""
    lines += [wording.summary(result), f"same class over the walk: {wording.steadiness(result)}{mark}"]
    optional = wording.difference(result), *wording.at_prevalence(result), wording.prediction_set(result)
    return lines + [f"{line}{mark}" for line in optional if line] + _beside(result)


def _reasons(result: dict[str, Any]) -> list[str]:
    return [f"no answer ({reason['name']}): {reason['message']}" for reason in result["no_answer"]]


def _beside(result: dict[str, Any]) -> list[str]:
    """What the network beside says, if there is one."""
    if (other := result["beside"]) is None:
        return []
    says = _reasons(other) if other["answer"] is None else [wording.summary(other)]
    return [f"beside it, {other['network']['name']} ({other['network']['run']}, {other['network']['modality']}):", *says]
