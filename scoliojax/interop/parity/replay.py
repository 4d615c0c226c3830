"""The same training steps, here and in PyTorch, with everything they compute, under PyTorch's names and axes."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from scoliojax.interop import torch_reference
from scoliojax.interop.opengait.checkpoint import make_graph
from scoliojax.interop.opengait.names import Sizes, from_tree, to_tree
from scoliojax.kernels.triplet import triplet_loss
from scoliojax.models.sconet import ScoNetOutput
from scoliojax.training.losses import ScoNetLoss
from scoliojax.training.optim import sgd
from scoliojax.training.state import TrainState, Tree, create_state
from scoliojax.training.step import make_train_step

Arrays = dict[str, np.ndarray]
Run = tuple[Sizes, "list[Batch]", dict[str, Any]]  # network sizes, batches, arguments of `scoliojax.training.optim.sgd`
LOSS = ScoNetLoss(triplet_weight=1.0, class_weight=1.0, margin=0.2, scale=16.0, label_smoothing=0.1)  # as published


@dataclass(frozen=True)
class Batch:
    silhouettes: np.ndarray  # n s 64 44, uint8
    labels: np.ndarray  # n
    identities: np.ndarray  # n


@dataclass(frozen=True)
class Step:
    """Results of one training step."""

    embeddings: np.ndarray  # n c p
    logits: np.ndarray  # n k p
    triplet: np.ndarray  # p
    violations: np.ndarray  # p
    mean_distance: np.ndarray  # p
    cross_entropy: float
    loss: float
    gradients: Arrays
    parameters: Arrays  # after the step
    statistics: Arrays  # after the step


def _telling_loss(output: ScoNetOutput, labels: jax.Array, identities: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """The loss, which also tells the network's output and the identity loss strip by strip."""
    total, terms = LOSS(output, labels, identities)
    return total, terms | {"output": output, "triplet": triplet_loss(output.embeddings, identities, LOSS.margin)}


@functools.lru_cache(maxsize=8)
def _program(sizes: Sizes, optimizer: tuple, precision: str, options: tuple) -> tuple[Any, optax.GradientTransformation]:
    """The compiled step that training uses, and its rule; kept, so that other numbers of the same sizes compile nothing."""
    rule, schedule = sgd(**dict(optimizer))
    step = make_train_step(make_graph(sizes, precision), _telling_loss, rule, schedule)
    return jax.jit(step, compiler_options=dict(options)) if options else step, rule


def ours(
    start: Arrays, sizes: Sizes, batches: Iterable[Batch], optimizer: dict, precision: str, options: dict | None = None
) -> list[Step]:
    """Steps of scoliojax from the tensors `start`, by the compiled step that training uses; batches are all of one shape.

    `precision` is "float32" or "float64"; `options` are the compiler's, None compiles as training does.
    """

    def by_name(tree: Tree) -> Arrays:
        return from_tree(sizes, "params", tree)

    def momentum(state: TrainState) -> Arrays:
        return by_name(optax.tree_utils.tree_get(state.opt_state, "trace"))

    with jax.enable_x64(precision == "float64"):
        step, rule = _program(sizes, tuple(sorted(optimizer.items())), precision, tuple((options or {}).items()))
        wide = {name: value.astype(precision) for name, value in start.items()}
        state = create_state(to_tree(sizes, "params", wide), to_tree(sizes, "batch_stats", wide), rule)
        found = []
        for batch in batches:
            before, moved = by_name(state.params), momentum(state)
            state, told = step(state, {name: jnp.asarray(value) for name, value in vars(batch).items()})
            told, after = jax.device_get(told), momentum(state)
            # m = momentum * m + (g + decay * w), solved for g
            gradients = {
                name: value - optimizer["momentum"] * moved[name] - optimizer["weight_decay"] * before[name]
                for name, value in after.items()
            }
            embeddings, logits = (value.swapaxes(1, 2) for value in told["output"])  # n c p, n k p
            triplet, statistics = told["triplet"], from_tree(sizes, "batch_stats", state.batch_stats)
            numbers = (
                triplet.loss,
                triplet.violations,
                triplet.mean_distance,
                float(told["cross_entropy"]),
                float(told["loss"]),
            )
            found.append(Step(embeddings, logits, *numbers, gradients, by_name(state.params), statistics))
        return found


def theirs(start: Arrays, sizes: Sizes, batches: Iterable[Batch], optimizer: dict, dtype: torch.dtype) -> list[Step]:
    """The same steps of our PyTorch reference; arguments as of `ours`."""
    net = torch_reference.holding(sizes, start, dtype).train()
    rule, schedule = torch_reference.sgd(net, optimizer)
    found = []
    for batch in batches:
        silhouettes, labels, identities = (torch.from_numpy(np.asarray(value)) for value in vars(batch).values())
        embeddings, logits = net(silhouettes)
        triplet, violations, mean_distance = torch_reference.triplet_loss(embeddings, identities, LOSS.margin)
        cross_entropy = torch_reference.cross_entropy(logits, labels.long(), LOSS.scale, LOSS.label_smoothing)
        loss = triplet.mean() + cross_entropy
        rule.zero_grad()
        loss.backward()
        gradients = {name: _numpy(value.grad) for name, value in net.named_parameters() if value.grad is not None}
        rule.step()
        schedule.step()
        after = {name: _numpy(value) for name, value in net.state_dict().items()}
        arrays = (_numpy(embeddings), _numpy(logits), _numpy(triplet), _numpy(violations), _numpy(mean_distance))
        parameters, statistics = {name: after[name] for name in gradients}, only_statistics(after)
        found.append(Step(*arrays, cross_entropy.item(), loss.item(), gradients, parameters, statistics))
    return found


def only_statistics(tensors: Arrays) -> Arrays:
    """The running means and variances among tensors by PyTorch's names."""
    return {name: value for name, value in tensors.items() if name.endswith(("running_mean", "running_var"))}


def shaken(tensors: Arrays, size: float, seed: int = 0) -> Arrays:
    """Tensors of which every value is off by about `size` of itself, in float64."""
    rng = np.random.default_rng(seed)
    return {name: value * (1.0 + size * rng.standard_normal(value.shape)) for name, value in tensors.items()}


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


def random_start(sizes: Sizes, seed: int) -> Arrays:
    """A freshly drawn network of these sizes: PyTorch's own draws."""
    torch.manual_seed(seed)
    state = torch_reference.TorchScoNet(*sizes).state_dict()
    return {name: _numpy(value) for name, value in state.items() if not name.endswith("num_batches_tracked")}


def random_batches(seed: int, steps: int, identities: Sequence[int], frames: int, classes: int) -> list[Batch]:
    """Clips of noise: hard on every comparison, for nothing in them is smooth."""
    rng = np.random.default_rng(seed)
    return [
        Batch(
            silhouettes=rng.integers(0, 256, (len(identities), frames, 64, 44), dtype=np.uint8),
            labels=rng.integers(0, classes, len(identities), dtype=np.int32),
            identities=np.asarray(identities, np.int32),
        )
        for _ in range(steps)
    ]
