"""Import, export and verification of OpenGait checkpoints."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from data_pipelines.command import unwritable
from data_pipelines.locks import alone, wait_for_holder
from data_pipelines.schema import CLASSES, SILHOUETTES, SKELETONS, SequenceSet
from data_pipelines.silhouettes import cut_sides
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.files import whole_file, whole_folder
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait import checkpoint as opengait
from scoliojax.interop.opengait.archive import opened
from scoliojax.interop.opengait.classes import (
    CLEAR,
    DRAWS,
    FEWEST_PER_CLASS,
    OLD_CLASSES,
    OLD_FILES,
    chosen_rows,
    fits,
    from_ours,
)
from scoliojax.interop.opengait.layers import layer_distances
from scoliojax.models.drf import knows_ranges
from scoliojax.runs.cohort import Cohort, fit_ranges
from scoliojax.runs.directory import claim
from scoliojax.runs.environment import read_environment, record_environment
from scoliojax.runs.recipe import read_recipe
from scoliojax.runs.run import open_run
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.metrics import refuse_not_finite
from scoliojax.scores.model_card import model_card
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.evaluate import make_eval_step

RECIPES = {  # by `model.name` and `data.modality`
    ("sconet", SILHOUETTES): "configs/sconet_mt.py",
    ("sconet", SKELETONS): "configs/sconet_mt_ske.py",
    ("drf", SKELETONS): "configs/drf.py",
}
RELATIVE_TOLERANCE = 1e-4  # of a layer's largest value
OUTPUT_TOLERANCE = 2e-5  # of the embeddings and logits, beside it: absolute, and of their largest value where that exceeds 1

MOST_SEQUENCES = 8  # that layers are compared on
ORDER_FRAMES = 30  # of each sequence that the order of the classes is judged by, as many as a clip of training has
HINT = f"{OLD_FILES} have {','.join(OLD_CLASSES)}; verify --data DIR tells them apart"


def import_checkpoint(args: Namespace) -> None:
    """Make a run directory of an OpenGait checkpoint, from which `scoliojax.main` evaluates and trains on."""
    order = args.classes or CLASSES
    found = opengait.read(args.checkpoint, args.strips, order, args.weights_only)
    kind = found.sizes.network, found.sizes.modality
    config = read_recipe(args.config or RECIPES[kind], args.changes)
    given = {change.split("=")[0] for change in args.changes}
    for key, value, wanted in zip(
        ("model.name", "data.modality"), (config.model.name, config.data.modality), kind, strict=True
    ):
        if value != wanted:
            option = f"--config.{key}={value}" if f"--config.{key}" in given else f"--config={args.config} has {key}={value!r}"
            raise RunError(
                f"{option}, but {args.checkpoint} is of a network {kind[0]!r} that reads {kind[1]}; leave it out, or give "
                f"--config {RECIPES[kind]}"
            )
    if args.config is None and "--config.precision" not in given:
        config.precision = "float32"  # the numbers of the original first; a recipe may say otherwise
    sizes = {name: value for name, value in found.sizes._asdict().items() if name in ("classes", *config.model)}
    if sizes.pop("classes") != len(CLASSES):
        raise RunError(
            f"{args.checkpoint} has {found.sizes.classes} classes; a run here has {', '.join(CLASSES)} (a network that tells "
            "people apart, such as GaitBase, has one class for each of them)"
        )
    for key, value in sizes.items():
        if f"--config.model.{key}" in given and config.model[key] != value:
            raise RunError(f"--config.model.{key}={config.model[key]}, but {args.checkpoint} has {value}; leave it out")
    config.model.update(sizes)
    settings = found.optimizer or {}
    config.optimizer.update({key: value for key, value in settings.items() if f"--config.optimizer.{key}" not in given})
    workdir, record, state = args.directory, _taken(args.classes), found.state()
    _refuse_old(workdir)
    if config.data.root or config.data.name == "synthetic":
        if not knows_ranges(state.batch_stats):
            cohort = Cohort(config)
            state = fit_ranges(state, cohort)
            print(
                "the ranges of asymmetry vectors, which are not in the file, are those of the training part of "
                f"{cohort.data.name}"
            )
    elif not knows_ranges(state.batch_stats):
        print(
            "the ranges of asymmetry vectors are not in the file, and no data were given to fit them on: import with "
            "--config.data.root=DATA to evaluate; training on fits them, too"
        )
    try:
        with whole_folder(workdir, replace=False) as fresh:
            _refuse_old(workdir)  # another import may have been under way
            claim(fresh, config.to_dict(), None)
            record_environment(fresh, imported_from=f"{args.checkpoint.name}, step {found.step}, class order {record}")
            checkpoints = Checkpoints(fresh / "checkpoints", 1, print)
            checkpoints.save(state)
            checkpoints.close()
    except OSError as error:
        raise RunError(f"--workdir={workdir} {unwritable(error)}") from None
    for note in found.notes:
        print(note)
    print(f"class order of the file: {record}" + (f"; {HINT}" if args.classes is None else ""))
    print(f"step {found.step} of {args.checkpoint} in {workdir}")
    if knows_ranges(state.batch_stats):
        print(f"evaluate: python -m scoliojax.main --mode eval --workdir {workdir}")
    print(f"train on: python -m scoliojax.main --workdir {workdir}")


def _refuse_old(workdir: Path) -> None:
    """Raise `RunError` where something is: an import replaces nothing."""
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise RunError(f"--workdir={workdir} is {'not empty' if workdir.is_dir() else 'a file'}; give a new folder")
    if file := next((parent for parent in workdir.parents if parent.is_file()), None):
        raise RunError(f"--workdir={workdir} cannot be written ({file} is a file); give a new folder")


def export_checkpoint(args: Namespace) -> None:
    """Write a checkpoint of a run directory as an OpenGait checkpoint."""
    title, order, card = args.output.name, args.classes or CLASSES, _card_beside(args.output, args.directory)
    network = open_run(args.directory).network(args.step, unfitted=True)  # the ranges are in no file
    settings = {key: value for key, value in network.config.optimizer.to_dict().items() if key != "name"}
    momentum = optax.tree_utils.tree_get(network.state.opt_state, "trace")
    metrics, written = find_metrics(args.directory, network.step), f"{', '.join(order)} ({_when(order)})"
    note = f"The last axis of `{opengait.CLASS_TENSOR}` in {title} has the classes in the order {written}."
    text = model_card(title, network.config.to_dict(), read_environment(args.directory), metrics, [note])
    try:
        with alone(card.with_name(f".{card.name}.lock"), wait_for_holder(str(card.parent))), whole_file(card) as fresh:
            fresh.write_text(text, encoding="utf-8")
            _card_beside(args.output, args.directory)  # another export may have come first
            opengait.save(args.output, network.module(), momentum, network.step, settings, order)
    except OSError as error:
        raise RunError(f"--output={args.output}: {card} {unwritable(error)}") from None
    print(f"class order in the file: {','.join(order)} ({_when(order)}); --classes writes another")
    print(f"step {network.step} of {args.directory} in {args.output}, described in {card}")


def _card_beside(output: Path, workdir: Path) -> Path:
    """The card of an export; `RunError` where the two cannot be files of these names, before anything is computed."""
    if output.resolve().is_relative_to(workdir.resolve()):
        raise RunError(f"--output={output} is in the run directory, where every file is the run's; give another place")
    if output.is_dir():
        raise RunError(f"--output={output} is a folder; give the name of a file in it, e.g. {output / 'ScoNet.pt'}")
    if not output.parent.is_dir():
        raise RunError(f"--output={output}: the folder {output.parent} does not exist; make it, or give another place")
    card = output.with_name("MODEL_CARD.md")
    if output == card:
        raise RunError(f"--output={output} is the name of the card beside the checkpoint; give another, e.g. ScoNet.pt")
    for path in (output, card):
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise RunError(f"--output={output}: {path} is {kind}; give the name of a file in another place")
    if output.exists():
        try:
            with opened(output):
                pass
        except RunError:
            raise RunError(f"--output={output} is a file that is no checkpoint, and would be replaced; give another") from None
    if card.exists() and not card.read_text(errors="replace", encoding="utf-8").startswith(f"# {output.name}\n"):
        raise RunError(f"--output={output}: {card} is the card of another model; export into another folder")
    return card


def _when(order: Sequence[str]) -> str:
    """Whose order of the classes this is."""
    return {CLASSES: "OpenGait's present order", OLD_CLASSES: f"that of {OLD_FILES}"}.get(tuple(order), "not one of OpenGait's")


def _taken(given: Sequence[str] | None) -> str:
    """The order that a file is read in."""
    return f"{','.join(given or CLASSES)} ({'given' if given else 'assumed'})"


def verify(args: Namespace) -> None:
    """Print the differences layer by layer; raises `RunError` beyond the tolerance."""
    found = opengait.read(args.checkpoint, args.strips, args.classes or CLASSES, args.weights_only)
    config = read_recipe(RECIPES[found.sizes.network, found.sizes.modality])
    if args.data:
        config.data.root = args.data
    else:
        print("no --data: comparing on synthetic walkers")
        config.data.name = "synthetic"
        config.data.synthetic.update({"subjects": 3, "frames": 30})
    data = build.build_data(config, print)
    sequences = [data.read(row) for row in range(min(MOST_SEQUENCES, len(data)))]
    for note in found.notes:
        print(note)
    if data.asymmetry is not None:
        found = found.fitted(data.asymmetry)
        print("asymmetry vectors are normalised by their ranges in these data, for the file holds none")
    reference = torch_reference.holding(found.sizes, found.tensors).eval()
    worst = layer_distances(found.model(), reference, map(cut_sides, sequences), data.asymmetry)
    print(f"{'layer':<12} {'largest difference':>20} {'of largest value':>18}")
    for name, (absolute, relative, _) in worst.items():
        print(f"{name:<12} {absolute:>20.2e} {relative:>18.2e}")
    within = [name for name, (_, relative, _) in worst.items() if relative <= RELATIVE_TOLERANCE]
    within = [name for name in within if name not in ("embeddings", "logits") or worst[name][2] <= OUTPUT_TOLERANCE]
    if beyond := [name for name in worst if name not in within]:
        raise RunError(
            f"{', '.join(beyond)} differ by more than {RELATIVE_TOLERANCE:g} of the largest value, or embeddings or logits by "
            f"more than {OUTPUT_TOLERANCE:g}"
        )
    print(f"{len(sequences)} sequences agree within {RELATIVE_TOLERANCE:g} of the largest value")
    if found.sizes.classes == len(CLASSES) and args.data:
        judge_order(found, data, args.classes)
    elif found.sizes.classes == len(CLASSES):
        print(f"class order of the file: {_taken(args.classes)}, not judged without --data; {HINT}")


def judge_order(found: opengait.Checkpoint, data: SequenceSet, given: tuple[str, ...] | None) -> None:
    """Print which order of the classes of the file fits labelled data, of what its network reads.

    `found` was read in the order `given`, None for OpenGait's present one; a DRF is fitted. Raises `RunError` where the data
    clearly say another one than was given.
    """
    rows, assumed = chosen_rows(data), given or CLASSES
    counts = [int(np.sum(data.labels[rows] == label)) for label in range(len(CLASSES))]
    if min(counts) < FEWEST_PER_CLASS:
        few = ", ".join(f"{count} {name}" for name, count in zip(CLASSES, counts, strict=True))
        print(
            f"class order of the file: {_taken(given)}; {data.name} cannot tell, with {few} subjects; "
            f"{FEWEST_PER_CLASS} of each are needed"
        )
        return
    step = make_eval_step(opengait.make_graph(found.sizes, "float32"))
    logits = []
    for row in tqdm(rows, desc="class order", disable=None, leave=False):
        frames = cut_sides(data.read(row))  # s (2) 64 44
        chosen = frames[np.linspace(0, len(frames) - 1, ORDER_FRAMES).astype(int)][None]  # 1 s (2) 64 44
        vector = None if data.asymmetry is None else data.asymmetry[[row]]  # 1 8 3
        output = step(found.params, found.batch_stats, jnp.asarray(chosen), jnp.ones((1, ORDER_FRAMES), bool), vector)
        logits.append(np.asarray(output.logits)[0].mean(axis=0)[from_ours(assumed)])  # k
    refuse_not_finite(np.array(logits), [data.sequences[row] for row in rows])
    ranking = fits(np.array(logits), data.labels[rows])
    print(f"class order by {', '.join(f'{count} {name}' for name, count in zip(CLASSES, counts, strict=True))} sequences:")
    print(f"{'order in the file':<28} {'pairs ranked right':>18} {'accuracy':>10}")
    for fit in ranking:
        if fit in ranking[:2] or fit.order in (CLASSES, OLD_CLASSES, assumed):
            print(f"{','.join(fit.order):<28} {fit.ranked:>18.1%} {fit.accuracy:>10.1%}")
    best, text = ranking[0], ",".join(ranking[0].order)
    share = f"best in {best.best:.1%} of {DRAWS:,} draws of these sequences"
    if best.best < CLEAR:
        print(f"class order of the file: {_taken(given)}; cannot tell; {text} is {share}, {CLEAR:.0%} are needed")
    elif best.order == assumed:
        print(f"class order of the file: {text}, as {'given' if given else 'assumed'} ({share})")
    elif given:
        raise RunError(f"--classes={','.join(assumed)}, but {data.name} says {text} ({share}); give --classes {text}")
    else:
        print(f"class order of the file: {text} ({share}); import it with --classes {text}")
