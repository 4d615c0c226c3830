"""`MODEL_CARD.md` (Mitchell et al. 2019): a trained network, its data and metrics, and its limits."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from data_pipelines.schema import CLASSES, SILHOUETTES, SKELETONS
from scoliojax.scores.assurance import coverage_rows, distance_lines, set_lines
from scoliojax.scores.evaluation import Metrics
from scoliojax.scores.results import QUESTIONS, cell, subgroup_headlines
from scoliojax.scores.robustness import HEADER

BINARY = ("sensitivity", "specificity", "ppv", "npv", "auroc")


FRAMES = {SILHOUETTES: "silhouettes", SKELETONS: "skeleton maps"}  # what a network reads, in words
SCONET, DRF = "Zhou et al., MICCAI 2024, arXiv 2407.05726", "MICCAI 2025, arXiv 2509.00872"


def network(config: dict[str, Any]) -> str:
    """The name of a run's network in the papers."""
    if config["model"].get("name") == "drf":
        return "DRF"
    name = "ScoNet-MT" if config["loss"]["triplet_weight"] else "ScoNet"
    return f"{name}-ske" if modality_of(config) == SKELETONS else name


def modality_of(config: dict[str, Any]) -> str:
    """What a run's network reads."""
    return config["data"].get("modality", SILHOUETTES)


def _model(config: dict[str, Any]) -> list[str]:
    """What the network is, reads and was trained with."""
    model, loss, data = config["model"], config["loss"], config["data"]
    name, modality = network(config), modality_of(config)
    posture = " and the postural asymmetry vector of its poses" * (name == "DRF")
    reads = f"{FRAMES[modality]} of a walk{posture}"
    lines = [
        f"- {name} ({DRF if name == 'DRF' else SCONET}): {reads} to {', '.join(CLASSES)}.",
        f"- Channels {tuple(model['channels'])}, embedding {model['embedding_dim']} x {sum(model['strips'])} strips, trained "
        f"in {config['precision']}, {config['train']['steps']} steps planned, seed {config['seed']}.",
    ]
    weights = loss.get("weights_by_class", ())
    if len(set(weights)) > 1:
        given = ", ".join(f"{label} {weight:g}" for label, weight in zip(CLASSES, weights, strict=True))
        lines.append(f"- Weights of the classes in the classification loss: {given}.")
    if data.get("balanced"):
        lines.append("- Every training batch has as many sequences of each class, drawn with replacement.")
    if loss.get("triplet_label") == "class" and loss["triplet_weight"]:
        lines.append("- In the triplet loss two clips of one class are a positive pair.")
    if posture:
        lines.append(
            "- The ranges that bring the vector to 0..1 are those of the training part and part of the checkpoint; they hold "
            "for poses of the same detector."
        )
    return lines


def _input(config: dict[str, Any]) -> str:
    """What a user gives the network."""
    if modality_of(config) == SILHOUETTES:
        return (
            "Input: binary silhouettes of one person walking towards or away from a camera, 64 x 64 as "
            "`data_pipelines.prepare` makes them."
        )
    maps = config["data"]["maps"]
    joints = "the joints below the head" if maps["body_only"] else "all joints"
    return (
        "Input: skeleton maps of one person walking towards or away from a camera, limbs and joints, 2 x 64 x 64, drawn from "
        f"poses of COCO's 17 joints as `data_pipelines.poses.maps` does (align={maps['align']!r}, sigma={maps['sigma']:g}, "
        f"{joints})."
    )


def model_card(
    title: str, config: dict[str, Any], environment: dict[str, Any], metrics: Metrics | None, notes: Sequence[str] = ()
) -> str:
    """The card as Markdown: `environment` from `read_environment`, `metrics` of the test part, None if never evaluated.

    `notes` are sentences about the file that the card describes.
    """
    lines = [
        f"# {title}",
        "",
        "**Research software, not a medical device and not a diagnosis.**",
        "",
        "## Model",
        *_model(config),
        f"- {_origin(environment)}",
        *(
            f"- The learning rate was lowered from {change['old']:g} to {change['new']:g} after step {change['step']}."
            for change in environment.get("learning_rates", [])
        ),
        *(f"- {note}" for note in notes),
        "",
        "## Intended use",
        "- Research on gait as a marker of scoliosis: comparing methods, and studying who is missed and why.",
        f"- {_input(config)}",
        "",
        "## Out of scope",
        "- Diagnosis, or any decision about a person. It does not measure a Cobb angle.",
        "- Other ages, clothes, cameras, views and walking aids than those of the data below.",
        *(
            [
                "- Poses of another detector than those of the data below: its errors, its confidences and the joints that it "
                "misses are part of what the network has learnt."
            ]
            if modality_of(config) == SKELETONS
            else []
        ),
        "",
        "## Data",
    ]
    imported = "imported_from" in environment  # its training data are unknown
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
    if metrics.subgroups:
        names = subgroup_headlines(metrics)
        titles = [name.replace("_", " ").replace("/", " ") for name in names]
        lines += [
            "",
            f"| subgroup{mark} | sequences | subjects | " + " | ".join(titles) + " |",
            "|---" * (len(names) + 3) + "|",
        ]
        for column, groups in metrics.subgroups.items():
            for name, group in groups.items():
                cells = [cell(group.scores[score], reason=True) for score in names]
                title = f"{column}: {name}".replace("|", "\\|")
                lines.append(f"| {title} | {group.n} | {group.subjects} | " + " | ".join(cells) + " |")
    if table := metrics.perturbations:
        titles = HEADER[: len(table.rows()[0][1])]
        lines += ["", f"| {table.walks} walks, read as{mark} | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in table.rows()]
    lines += ["", f"## Operating point{mark}", "", *(f"- {line}" for line in operating_point(metrics)), ""]
    lines += _assurance(metrics)
    return "\n".join(lines)


def _assurance(metrics: Metrics) -> list[str]:
    """The sections on prediction sets and on distances."""
    show, mark, lines = partial(cell, reason=True), metrics.mark, []
    if sets := metrics.prediction_sets:
        lines += [f"## Classes that cannot be excluded{mark}", "", *(f"- {line}" for line in set_lines(sets, show)), ""]
        lines += [f"| class{mark} | sets that have it, of its walks |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value, _ in coverage_rows(sets, show)] + [""]
    lines += [f"## Unlike training{mark}", ""]
    if unlike := metrics.distances:
        lines += [f"- {line}" for line in distance_lines(unlike, show)]
    else:
        lines.append(
            "- Nothing says which walks are unlike those that this network has learnt from: it was not evaluated with ten "
            "validation subjects by a version that measures it."
        )
    return [*lines, ""]


def _origin(environment: dict[str, Any]) -> str:
    packages, commit = environment.get("packages", {}), environment.get("git_commit", "unknown")
    made = f"scoliojax {packages.get('scoliojax', 'unknown')}, commit {commit}, jax {packages.get('jax', 'unknown')}"
    if source := environment.get("imported_from"):
        return f"Came from {source}, of another implementation: what it was trained on there is not known here. Then {made}."
    return f"Made by {made}."


def operating_point(metrics: Metrics) -> list[str]:
    """Calibration and threshold in sentences."""
    fit = metrics.calibration
    if not fit:
        return ["No temperature and no threshold: the run had no validation subjects."]
    lines, mark = [], ", synthetic" if fit.synthetic else ""
    if fit.temperature:
        size = f"{fit.sequences} validation sequences of {fit.subjects} subjects"
        lines.append(f"Temperature {fit.temperature:.4g}, fitted on {size}.")
    if fit.threshold is not None:
        specificity = "undefined" if fit.specificity is None else f"{fit.specificity:.3f}"
        lines.append(
            f"Refer from a probability of {fit.threshold:.4g} for {' or '.join(CLASSES[1:])}: the highest threshold with "
            f"a sensitivity of at least {fit.wanted_sensitivity:g} on the validation subjects (there: sensitivity "
            f"{fit.sensitivity:.3f}, specificity {specificity}{mark})."
        )
    return lines or ["Neither temperature nor threshold could be found; see the notes."]
