"""`python -m scoliojax.interop.opengait import | export | verify`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import optax

import configs
from data_pipelines.schema import CLASSES
from data_pipelines.silhouettes import cut_sides
from data_pipelines.sources import open_root
from data_pipelines.synthetic import walk
from scoliojax import build
from scoliojax import main as job
from scoliojax.errors import RunError
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait import checkpoint as opengait
from scoliojax.interop.opengait.layers import layer_distances
from scoliojax.runs import directory as run_directory
from scoliojax.runs.command import told
from scoliojax.runs.network import open_network
from scoliojax.scores.model_card import find_metrics, model_card
from scoliojax.training.checkpoint import Checkpoints

RELATIVE_TOLERANCE = 1e-4  # of a layer's largest value
OUTPUT_TOLERANCE = 2e-5  # of the embeddings and logits, beside it: absolute, and of their largest value where that exceeds 1


def _recipe(args: argparse.Namespace) -> build.Config:
    """The recipe to go on with, and what the command line changes in it, as `scoliojax.main` reads them."""
    published = str(Path(configs.__file__).with_name("sconet_mt.py"))
    config = job.read_recipe(args.config or published, args.rest)
    if args.config is None and not any(argument.startswith("--config.precision") for argument in args.rest):
        config.precision = "float32"  # the numbers of the original first; a recipe may say otherwise
    return config


def bring(args: argparse.Namespace) -> None:
    """Make a run directory of an OpenGait checkpoint, from which `scoliojax.main` evaluates and trains on."""
    found = opengait.read(args.checkpoint, args.strips)
    config = _recipe(args)
    given = {argument.split("=")[0] for argument in args.rest}
    sizes = found.sizes._asdict()
    if sizes.pop("classes") != len(CLASSES):
        raise RunError(f"{args.checkpoint} has {found.sizes.classes} classes; a run here has {', '.join(CLASSES)}")
    for key, value in sizes.items():
        if f"--config.model.{key}" in given and config.model[key] != value:
            raise RunError(f"--config.model.{key}={config.model[key]}, but {args.checkpoint} has {value}; leave it out")
    config.model.update(sizes)
    settings = found.optimizer or {}
    config.optimizer.update({key: value for key, value in settings.items() if f"--config.optimizer.{key}" not in given})
    workdir = Path(args.workdir).expanduser().absolute()
    if workdir.exists() and any(workdir.iterdir()):
        raise RunError(f"--workdir={workdir} is not empty; give a new folder")
    fresh = workdir.with_name(f".{workdir.name}.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    run_directory.claim(fresh, config.to_dict(), None)
    run_directory.record_environment(fresh, imported_from=f"{Path(args.checkpoint).name}, step {found.step}")
    checkpoints = Checkpoints(fresh / "checkpoints", 1, print)
    checkpoints.save(found.state())
    checkpoints.close()
    fresh.rename(workdir)
    print(f"step {found.step} of {args.checkpoint} in {workdir}")
    print(f"evaluate: python -m scoliojax.main --mode eval --workdir {args.workdir}")
    print(f"train on: python -m scoliojax.main --workdir {args.workdir}")


def take_back(args: argparse.Namespace) -> None:
    """Write a checkpoint of a run directory as an OpenGait checkpoint."""
    workdir = Path(args.workdir).expanduser().absolute()
    network = open_network(workdir, args.step)
    step = network.step
    settings = {key: value for key, value in network.config.optimizer.to_dict().items() if key != "name"}
    momentum = optax.tree_utils.tree_get(network.state.opt_state, "trace")
    card = Path(args.output).expanduser().absolute().with_name("MODEL_CARD.md")
    title = Path(args.output).name
    if card.exists() and not card.read_text(errors="replace", encoding="utf-8").startswith(f"# {title}\n"):
        raise RunError(f"--output={args.output}: {card} is the card of another model; export into another folder")
    environment = run_directory.read_environment(workdir)
    text = model_card(title, network.config.to_dict(), environment, find_metrics(workdir, step))
    opengait.save(args.output, network.merged(), momentum, step, settings)
    card.write_text(text, encoding="utf-8")
    print(f"step {step} of {workdir} in {args.output}, described in {card}")


def verify(args: argparse.Namespace) -> None:
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
    beyond = [
        name
        for name, (_, relative, scaled) in worst.items()
        if not relative <= RELATIVE_TOLERANCE or (name in ("embeddings", "logits") and not scaled <= OUTPUT_TOLERANCE)
    ]
    if beyond:
        raise RunError(
            f"{', '.join(beyond)} differ by more than {RELATIVE_TOLERANCE:g} of the largest value, or embeddings or logits by "
            f"more than {OUTPUT_TOLERANCE:g}"
        )
    print(f"{len(sequences)} sequences agree within {RELATIVE_TOLERANCE:g} of the largest value")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m scoliojax.interop.opengait", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, function: Callable, takes_checkpoint: bool) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=str(function.__doc__).splitlines()[0])
        sub.set_defaults(function=function)
        if takes_checkpoint:
            sub.add_argument("checkpoint", metavar="CKPT.pt")
            sub.add_argument("--strips", type=int, nargs="+", help="of the horizontal pyramid, where the sum does not tell")
        return sub

    sub = command("import", bring, takes_checkpoint=True)
    sub.add_argument("--workdir", required=True)
    sub.add_argument(
        "--config", metavar="FILE", help="recipe to go on with, the published one by default; --config.KEY=VALUE, too"
    )
    sub = command("export", take_back, takes_checkpoint=False)
    sub.add_argument("--workdir", required=True)
    sub.add_argument("--output", required=True, metavar="CKPT.pt")
    sub.add_argument("--step", default="newest", help="which checkpoint: its step, newest or best (by validation)")
    sub = command("verify", verify, takes_checkpoint=True)
    sub.add_argument("--data", help="prepared folder or released tree")
    args, args.rest = parser.parse_known_args(argv)
    if args.rest and args.function is not bring:
        parser.error(f"unexpected argument {args.rest[0]!r}")
    if getattr(args, "strips", None):
        args.strips = tuple(args.strips)
    with told():
        args.function(args)
