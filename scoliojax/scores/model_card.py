"""`MODEL_CARD.md` (Mitchell et al. 2019): what a trained network is, what it was measured on, and what it is not for."""

from __future__ import annotations

from typing import Any

from data_pipelines.schema import CLASSES
from scoliojax.scores.evaluation import Metrics
from scoliojax.scores.results import QUESTIONS, cell

BINARY = ("sensitivity", "specificity", "ppv", "npv", "auroc")


def network(config: dict[str, Any]) -> str:
    """What a run's network is called in the papers."""
    return "ScoNet-MT" if config["loss"]["triplet_weight"] else "ScoNet"


def model_card(title: str, config: dict[str, Any], environment: dict[str, Any], metrics: Metrics | None) -> str:
    """The card as Markdown.

    Args:
      title: of the model, such as its file's name.
      config: of the run.
      environment: of the training run, from `environment.json`.
      metrics: of the test part, as `metrics.json` holds them; None where it was never evaluated.
    """
    model = config["model"]
    lines = [
        f"# {title}",
        "",
        "**Research software, not a medical device and not a diagnosis.**",
        "",
        "## Model",
        f"- {network(config)} (Zhou et al., MICCAI 2024, arXiv 2407.05726): silhouettes of a walk to {', '.join(CLASSES)}.",
        f"- Channels {tuple(model['channels'])}, embedding {model['embedding_dim']} x {sum(model['strips'])} strips, trained "
        f"in {config['precision']}, {config['train']['steps']} steps planned, seed {config['seed']}.",
        f"- {_origin(environment)}",
        "",
        "## Intended use",
        "- Research on gait as a marker of scoliosis: comparing methods, and studying who is missed and why.",
        "- Input: binary silhouettes of one person walking towards or away from a camera, 64 x 64 as `data_pipelines.prepare` "
        "makes them.",
        "",
        "## Out of scope",
        "- Diagnosis, or any decision about a person. It does not measure a Cobb angle.",
        "- Other ages, clothes, cameras, views and walking aids than those of the data below.",
        "",
        "## Data",
    ]
    imported = "imported_from" in environment  # trained on what nobody knows here
    if metrics.synthetic if metrics else not config["data"]["root"] and not imported:
        lines.append("- **Synthetic walkers, not people: no figure here says anything about patients.**")
    if metrics is None:
        lines += ["- This checkpoint was never evaluated, so nothing is known of how well it works.", ""]
        return "\n".join(lines)
    lines += [f"- {metrics.data}, partition {metrics.partition}, step {metrics.step}."]
    for part, counts in metrics.parts.items():
        classes = ", ".join(f"{counts[name]} {name}" for name in CLASSES)
        lines.append(f"- {part}: {counts['sequences']} sequences of {counts['subjects']} subjects ({classes}).")
    lines += [f"- {note[0].upper()}{note[1:]}." for note in metrics.notes]
    if metrics.near_duplicates:
        lines.append(f"- {len(metrics.near_duplicates)} held-out sequences are nearly ones trained on (see metrics.json).")
    mark, scores = metrics.mark, metrics.scores
    lines += ["", f"## Metrics on the {metrics.part} part{mark}", "", f"Intervals: {metrics.intervals}.", ""]
    lines += [f"| score{mark} | value (95 % interval) |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {cell(scores[key], reason=True)} |" for key in scores if "/" not in key]
    lines += ["", f"| question{mark} | " + " | ".join(BINARY) + " |", "|---|" + "---|" * len(BINARY)]
    for question, meaning in QUESTIONS.items():
        if f"{question}/sensitivity" in scores:
            cells = [cell(scores[f"{question}/{key}"], reason=True) if f"{question}/{key}" in scores else "" for key in BINARY]
            lines.append(f"| {meaning} | " + " | ".join(cells) + " |")
    lines += ["", f"## Operating point{mark}", "", *(f"- {line}" for line in operating_point(metrics)), ""]
    return "\n".join(lines)


def _origin(environment: dict[str, Any]) -> str:
    packages, commit = environment.get("packages", {}), environment.get("git_commit", "unknown")
    made = f"scoliojax {packages.get('scoliojax', 'unknown')}, commit {commit}, jax {packages.get('jax', 'unknown')}"
    if source := environment.get("imported_from"):
        return f"Came from {source}, of another implementation: what it was trained on there is not known here. Then {made}."
    return f"Made by {made}."


def operating_point(metrics: Metrics) -> list[str]:
    """Calibration and threshold in sentences."""
    found = metrics.calibration
    if not found:
        return ["No temperature and no threshold: the run had no validation subjects."]
    lines, mark = [], ", synthetic" if found.synthetic else ""
    if found.temperature:
        lines.append(
            f"Temperature {found.temperature:.4g}, fitted on {found.sequences} validation sequences of "
            f"{found.subjects} subjects."
        )
    if found.threshold is not None:
        specificity = "undefined" if found.specificity is None else f"{found.specificity:.3f}"
        lines.append(
            f"Refer from a probability of {found.threshold:.4g} for {' or '.join(CLASSES[1:])}: the highest threshold with "
            f"a sensitivity of at least {found.wanted_sensitivity:g} on the validation subjects (there: sensitivity "
            f"{found.sensitivity:.3f}, specificity {specificity}{mark})."
        )
    return lines or ["Neither temperature nor threshold could be found; see the notes."]
