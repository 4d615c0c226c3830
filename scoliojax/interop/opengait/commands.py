"""`python -m scoliojax.interop.opengait import | export | verify`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

import configs
from data_pipelines.schema import CLASSES
from data_pipelines.silhouettes import cut_sides
from data_pipelines.sources import open_root
from data_pipelines.synthetic import walk
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.interop.opengait import checkpoint as opengait
from scoliojax.interop.opengait.names import Sizes
from scoliojax.interop.torch_reference import TorchScoNet
from scoliojax.models.layers import convolve_normalise
from scoliojax.models.sconet import ScoNet, horizontal_pyramid_pooling, set_pooling
from scoliojax.runs import directory as run_directory
from scoliojax.runs.command import report_errors
from scoliojax.runs.environment import read_environment, record_environment
from scoliojax.runs.recipe import read_recipe
from scoliojax.runs.run import open_run as open_trained
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.model_card import model_card
from scoliojax.training.checkpoint import Checkpoints
from scoliojax.training.state import TrainState

RELATIVE_TOLERANCE = 1e-4  # of a layer's largest value
OUTPUT_TOLERANCE = 2e-5  # of the embeddings and logits, beside it: absolute, and of their largest value where that exceeds 1


def _recipe(args: argparse.Namespace) -> build.Config:
    """The recipe to go on with, and what the command line changes in it, as `scoliojax.main` reads them."""
    published = str(Path(configs.__file__).with_name("sconet_mt.py"))
    config = read_recipe(args.config or published, args.rest)
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
    record_environment(fresh, imported_from=f"{Path(args.checkpoint).name}, step {found.step}")
    checkpoints = Checkpoints(fresh / "checkpoints", 1, print)
    checkpoints.save(found.state())
    checkpoints.close()
    fresh.rename(workdir)
    print(f"step {found.step} of {args.checkpoint} in {workdir}")
    print(f"evaluate: python -m scoliojax.main --mode eval --workdir {args.workdir}")
    print(f"train on: python -m scoliojax.main --workdir {args.workdir}")


def open_run(workdir: Path, which: str = "newest") -> tuple[build.Config, Sizes, TrainState]:
    """A run directory's config, its network's sizes, and a checkpoint."""
    network = open_trained(workdir).network(which)
    section = network.config.model
    sizes = Sizes(tuple(section.channels), section.embedding_dim, tuple(section.strips), len(CLASSES))
    return network.config, sizes, network.state


def take_back(args: argparse.Namespace) -> None:
    """Write the newest (or a given) checkpoint of a run directory as an OpenGait checkpoint."""
    workdir = Path(args.workdir).expanduser().absolute()
    config, sizes, state = open_run(workdir, "newest" if args.step is None else str(args.step))
    model = opengait.build_model(sizes, state.params, state.batch_stats)
    settings = {key: value for key, value in config.optimizer.to_dict().items() if key != "name"}
    momentum = optax.tree_utils.tree_get(state.opt_state, "trace")
    card = Path(args.output).expanduser().absolute().with_name("MODEL_CARD.md")
    title = Path(args.output).name
    if card.exists() and not card.read_text(errors="replace", encoding="utf-8").startswith(f"# {title}\n"):
        raise RunError(f"--output={args.output}: {card} is the card of another model; export into another folder")
    environment = read_environment(workdir)
    text = model_card(title, config.to_dict(), environment, find_metrics(workdir, int(state.step)))
    opengait.save(args.output, model, momentum, int(state.step), settings)
    card.write_text(text, encoding="utf-8")
    print(f"step {int(state.step)} of {workdir} in {args.output}, described in {card}")


def our_layers(net: ScoNet, clips: jax.Array) -> dict[str, jax.Array]:
    """What each layer makes of clips `[n, s, 64, 44]`, in PyTorch's order of axes."""
    n, s, h, w = clips.shape
    backbone = net.backbone
    x = (clips.astype(jnp.float32) / 255.0).reshape(n * s, h, w, 1)  # b h w 1
    x = nnx.relu(convolve_normalise(backbone.stem_conv, backbone.stem_norm, x, train=False))  # b h w c
    found = {"stem": x}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(backbone, name)(x, train=False)  # b h w c
        found[name] = x
    found = {name: jnp.moveaxis(value, -1, 1) for name, value in found.items()}  # b c h w
    pooled = horizontal_pyramid_pooling(set_pooling(x.reshape(n, s, *x.shape[1:])), net.strips)  # n p c
    heads = {"pooling": pooled, **net(clips, train=False)._asdict()}  # n p c; the last two by the network's own call
    return found | {name: jnp.swapaxes(value, 1, 2) for name, value in heads.items()}  # n c p


def their_layers(net: TorchScoNet, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same in PyTorch."""
    x = net.backbone.stem(net.frames(clips))  # b c h w
    found = {"stem": x}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(net.backbone, name)(x)  # b c h w
        found[name] = x
    embeddings, logits = net(clips)  # n c p, n k p
    return found | {"pooling": net.pool(x.unflatten(0, clips.shape[:2])), "embeddings": embeddings, "logits": logits}


def torch_model(found: opengait.Checkpoint, path: str | Path) -> TorchScoNet:
    """Our PyTorch reference with the checkpoint's tensors, loaded strictly."""
    reference = TorchScoNet(**found.sizes._asdict())
    content = torch.load(path, map_location="cpu", weights_only=True)
    reference.load_state_dict({name.removeprefix("module."): value for name, value in content["model"].items()}, strict=True)
    return reference.eval()


def verify(args: argparse.Namespace) -> None:
    """Print the differences layer by layer; raises `RunError` beyond the tolerance."""
    found = opengait.read(args.checkpoint, args.strips)
    if args.data:
        data = open_root(args.data, print)
        sequences = [data.read(row) for row in range(min(8, len(data)))]
    else:
        print("no --data: comparing on synthetic walkers")
        sequences = [walk(subject, 30, seed=0)[1] for subject in range(3)]
    reference, model = torch_model(found, args.checkpoint), found.model()
    found_apart: dict[str, list[tuple[float, float, float]]] = {}
    for sequence in sequences:
        clips = np.ascontiguousarray(cut_sides(sequence))[None]  # 1 s 64 44
        with torch.no_grad():
            theirs = their_layers(reference, torch.from_numpy(clips))
        for name, ours in our_layers(model, jnp.asarray(clips)).items():
            expected = theirs[name].numpy()
            absolute = float(np.max(np.abs(np.asarray(ours) - expected)))
            largest = float(np.max(np.abs(expected)))
            found_apart.setdefault(name, []).append((absolute, absolute / max(largest, 1e-30), absolute / max(largest, 1.0)))
    worst = {name: np.max(pairs, axis=0) for name, pairs in found_apart.items()}  # numpy's maximum keeps a NaN
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
    sub.add_argument("--step", type=int, help="which checkpoint; the newest by default")
    sub = command("verify", verify, takes_checkpoint=True)
    sub.add_argument("--data", help="prepared folder or released tree")
    args, args.rest = parser.parse_known_args(argv)
    if args.rest and args.function is not bring:
        parser.error(f"unexpected argument {args.rest[0]!r}")
    if getattr(args, "strips", None):
        args.strips = tuple(args.strips)
    with report_errors():
        args.function(args)
