"""An answer in sentences, for the terminal and the report."""

from typing import Any


def verdict(result: dict[str, Any]) -> tuple[str, str, str]:
    """An answer in three sentences: class, decision, agreement of the windows."""
    answer, mark = result["answer"], " (synthetic)" if result["synthetic"] else ""
    name = answer["class"]
    called = f"called {name}, probability {answer['probabilities'][name]:.2f}{mark}"
    point = answer["operating_point"]
    if answer["referred"] is None or point is None:
        decision = f"no operating point; positive or neutral with probability {answer['positive_or_neutral']:.2f}{mark}"
    else:
        side = "above" if answer["referred"] else "below"
        shown = f"positive or neutral with probability {answer['positive_or_neutral']:.2f}"
        decision = f"{side} the threshold of {point['threshold']:.2f}: {shown}{mark}"
    if result["too_short"]:
        steady = f"too short to tell whether the answer holds over the walk{mark}"
    else:
        steady = f"{result['windows_agreeing']} of {len(result['windows'])} windows say {name}{mark}"
    return called, decision, steady


def quality_line(result: dict[str, Any]) -> str:
    """How good the silhouettes are, and how much of a gait they show."""
    quality = result["quality"]
    line = f"{quality['bad_frames']} of {quality['frames']} silhouettes are damaged"
    if quality["gait_cycles"] is not None:
        line += f"; {quality['gait_cycles']:.1f} gait cycles"
    if quality["cadence"] is not None:
        line += f", {quality['cadence']:.0f} steps a minute"
    return line


def lines_of(result: dict[str, Any]) -> list[str]:
    """The lines of one answer on the terminal."""
    used, answer = result["silhouettes"], result["answer"]
    how = f", found by {used['backend']}" if used["backend"] else ""
    lines = [f"{result['input']['name']}: {used['used']} frames of one person{how}", f"  {quality_line(result)}"]
    lines += [f"  no answer, because of {reason['name']}: {reason['message']}" for reason in result["no_answer"]]
    if answer is not None:
        lines += [f"  {sentence}" for sentence in (*verdict(result), *_wanted_lines(answer))]
    for flag in result["flags"]:
        count = "" if flag["frames"] is None else f" ({flag['frames']} frame{'s' * (flag['frames'] != 1)})"
        lines.append(f"  note: {flag['name']}{count}: {flag['message']}")
    return lines


def _wanted_lines(answer: dict[str, Any]) -> list[str]:
    """What was asked for with `--coverage` and `--prevalence`, as sentences."""
    lines, chosen, other = [], answer["prediction_set"], answer["prevalence"]
    if chosen:
        classes = f"cannot exclude {', '.join(chosen['classes']) or 'any class'}" if chosen["classes"] is not None else "no set"
        lines.append(f"at a coverage of {chosen['coverage']:g}: {classes}" + (f" ({chosen['note']})" if chosen["note"] else ""))
    if other:
        shown = {"positive or neutral": other["positive_or_neutral"], "PPV": other["ppv"], "NPV": other["npv"]}
        values = ", ".join(f"{name} {'unknown' if value is None else f'{value:.2f}'}" for name, value in shown.items())
        lines.append(f"at a prevalence of {other['prevalence']:g}: {values}")
    return lines
