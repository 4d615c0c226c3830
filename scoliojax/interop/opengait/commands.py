"""Import, export and verification of OpenGait checkpoints."""

import shutil
from argparse import Namespace

import optax

from data_pipelines.schema import CLASSES
from data_pipelines.silhouettes import cut_sides
from data_pipelines.sources import open_root
from data_pipelines.synthetic import walk
from scoliojax.errors import RunError
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait import checkpoint as opengait
from scoliojax.interop.opengait.layers import layer_distances
from scoliojax.runs.directory import claim
from scoliojax.runs.environment import read_environment, record_environment
from scoliojax.runs.recipe import read_recipe
from scoliojax.runs.run import open_run
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.model_card import model_card
from scoliojax.training.checkpoint import Checkpoints

PUBLISHED = "configs/sconet_mt.py"
RELATIVE_TOLERANCE = 1e-4  # of a layer's largest value
OUTPUT_TOLERANCE = 2e-5  # of the embeddings and logits, beside it: absolute, and of their largest value where that exceeds 1


def import_checkpoint(args: Namespace) -> None:
    """Make a run directory of an OpenGait checkpoint, from which `scoliojax.main` evaluates and trains on."""
    found = opengait.read(args.checkpoint, args.strips)
    config = read_recipe(args.config or PUBLISHED, args.changes)
    given = {change.split("=")[0] for change in args.changes}
    if args.config is None and "--config.precision" not in given:
        config.precision = "float32"  # the numbers of the original first; a recipe may say otherwise
    sizes = found.sizes._asdict()
    if sizes.pop("classes") != len(CLASSES):
        raise RunError(f"{args.checkpoint} has {found.sizes.classes} classes; a run here has {', '.join(CLASSES)}")
    for key, value in sizes.items():
        if f"--config.model.{key}" in given and config.model[key] != value:
            raise RunError(f"--config.model.{key}={config.model[key]}, but {args.checkpoint} has {value}; leave it out")
    config.model.update(sizes)
    settings = found.optimizer or {}
    config.optimizer.update({key: value for key, value in settings.items() if f"--config.optimizer.{key}" not in given})
    workdir = args.directory
    if workdir.exists() and any(workdir.iterdir()):
        raise RunError(f"--workdir={workdir} is not empty; give a new folder")
    fresh = workdir.with_name(f".{workdir.name}.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    claim(fresh, config.to_dict(), None)
    record_environment(fresh, imported_from=f"{args.checkpoint.name}, step {found.step}")
    checkpoints = Checkpoints(fresh / "checkpoints", 1, print)
    checkpoints.save(found.state())
    checkpoints.close()
    fresh.rename(workdir)
    print(f"step {found.step} of {args.checkpoint} in {workdir}")
    print(f"evaluate: python -m scoliojax.main --mode eval --workdir {workdir}")
    print(f"train on: python -m scoliojax.main --workdir {workdir}")


def export_checkpoint(args: Namespace) -> None:
    """Write a checkpoint of a run directory as an OpenGait checkpoint."""
    network = open_run(args.directory).network(args.step)
    settings = {key: value for key, value in network.config.optimizer.to_dict().items() if key != "name"}
    momentum = optax.tree_utils.tree_get(network.state.opt_state, "trace")
    title, card = args.output.name, args.output.with_name("MODEL_CARD.md")
    if card.exists() and not card.read_text(errors="replace", encoding="utf-8").startswith(f"# {title}\n"):
        raise RunError(f"--output={args.output}: {card} is the card of another model; export into another folder")
    metrics = find_metrics(args.directory, network.step)
    text = model_card(title, network.config.to_dict(), read_environment(args.directory), metrics)
    opengait.save(args.output, network.module(), momentum, network.step, settings)
    card.write_text(text, encoding="utf-8")
    print(f"step {network.step} of {args.directory} in {args.output}, described in {card}")


def verify(args: Namespace) -> None:
    """Print the differences layer by layer; raises `RunError` beyond the tolerance."""
    found = opengait.read(args.checkpoint, args.strips)
    if args.data:
        data = open_root(args.data, print)
        sequences = [data.read(row) for row in range(min(8, len(data)))]
    else:
        print("no --data: comparing on synthetic walkers")
        sequences = [walk(subject, 30, seed=0)[1] for subject in range(3)]
    reference = torch_reference.holding(found.sizes, opengait.read_tensors(args.checkpoint)).eval()
    worst = layer_distances(found.model(), reference, map(cut_sides, sequences))
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
