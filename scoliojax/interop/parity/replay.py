"""The same training steps, here and in PyTorch, with everything they compute, under PyTorch's names and axes."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from data_pipelines.schema import frame_shape
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait.checkpoint import make_graph
from scoliojax.interop.opengait.names import Sizes, from_tree, to_tree, with_ranges
from scoliojax.kernels.triplet import TripletTerms, triplet_loss
from scoliojax.models.drf import MEASURES, PAIRS
from scoliojax.models.sconet import ScoNetOutput
from scoliojax.training.losses import CLASS, ScoNetLoss
from scoliojax.training.optim import sgd
from scoliojax.training.state import TrainState, Tree, create_state
from scoliojax.training.step import make_train_step

Arrays = dict[str, np.ndarray]
Run = tuple[Sizes, "list[Batch]", dict[str, Any]]  # network sizes, batches, arguments of `scoliojax.training.optim.sgd`
LOSS = ScoNetLoss(triplet_weight=1.0, class_weight=1.0, margin=0.2, scale=16.0, label_smoothing=0.1)  # as published
DRF_LOSS = dataclasses.replace(LOSS, triplet_label=CLASS, weights_by_class=(0.174, 1.413, 1.413))  # as published for 1:1:8


@dataclass(frozen=True)
class Batch:
    frames: np.ndarray  # n s 64 44 of silhouettes, n s 2 64 44 of skeleton maps; uint8
    labels: np.ndarray  # n
    identities: np.ndarray  # n
    asymmetry: np.ndarray | None = None  # n 8 3, float32, in 0..1; of a DRF

    def arrays(self) -> dict[str, np.ndarray]:
        """What a step takes, by its names."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def alike(self, sizes: Sizes) -> np.ndarray:
        """What makes two clips a positive pair, `[n]`: their sequence, or their class."""
        return self.labels if loss_of(sizes).triplet_label == CLASS else self.identities

    def mixed(self, sizes: Sizes) -> bool:
        """Whether the original's triplets are others than all: positive pairs by class, of classes that are not as frequent."""
        return sizes.gates and len(set(np.unique(self.labels, return_counts=True)[1])) > 1


@dataclass(frozen=True)
class Step:
    """Results of one training step."""

    embeddings: np.ndarray  # n c p
    logits: np.ndarray  # n k p
    triplet: np.ndarray  # p
    violations: np.ndarray  # p
    mean_distance: np.ndarray | None  # p; None where a recording has none
    cross_entropy: float
    loss: float
    gradients: Arrays
    parameters: Arrays  # after the step
    statistics: Arrays  # after the step


def loss_of(sizes: Sizes) -> ScoNetLoss:
    """The published loss of a network."""
    return DRF_LOSS if sizes.gates else LOSS


def _telling(loss: ScoNetLoss, mixed: bool) -> Callable:
    """The loss, which also tells the network's output and the identity loss strip by strip; `mixed`: with its triplets so."""

    def tell(output: ScoNetOutput, labels: jax.Array, identities: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        alike = labels if loss.triplet_label == CLASS else identities  # n
        if mixed:
            total, terms = dataclasses.replace(loss, triplet_weight=0.0)(output, labels, identities)
            triplet = mixed_triplet_loss(output.embeddings, alike, loss.margin)
            total += loss.triplet_weight * jnp.mean(triplet.loss)
        else:
            total, terms = loss(output, labels, identities)
            triplet = triplet_loss(output.embeddings, alike, loss.margin)
        return total, terms | {"loss": total, "output": output, "triplet": triplet}

    return tell


def mixed_triplet_loss(embeddings: jax.Array, alike: jax.Array, margin: float) -> TripletTerms:
    """The original's identity loss of a batch whose classes are not equally frequent, for recordings of such.

    It cuts the list of all positive pairs, and that of all negative ones, into n equal rows, and takes each row for the pairs
    of one anchor. With equally frequent classes that is so. Training takes every true triplet whatever the batch.
    """
    x = jnp.swapaxes(embeddings, 0, 1)  # p n c
    square = jnp.sum(jnp.square(x[:, :, None] - x[:, None]), axis=-1)  # p n n
    distances = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)  # p n n
    same = alike[:, None] == alike[None]  # n n

    def rows(chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The chosen pairs in n rows, `[p, a, n]`, filled up, and which are no filling, `[n]`."""
        width, place = jnp.sum(chosen) // len(chosen), jnp.arange(len(chosen))  # n
        order = jnp.argsort(~chosen.reshape(-1), stable=True)  # nn; the chosen ones first
        return distances.reshape(len(x), -1)[:, order[place[:, None] * width + place]], place < width  # p a n, n

    (positives, these), (negatives, those) = rows(same), rows(~same)
    hinge = jax.nn.relu(margin + positives[..., None] - negatives[:, :, None]) * (these[:, None] & those)  # p a i j
    total, violations = (jnp.sum(terms, axis=(1, 2, 3)) for terms in (hinge, (hinge > 0).astype(x.dtype)))  # p each
    return TripletTerms(total / jnp.maximum(violations, 1.0), violations, jnp.mean(distances, axis=(1, 2)))


@functools.lru_cache(maxsize=8)
def _program(
    sizes: Sizes, mixed: bool, optimizer: tuple, precision: str, options: tuple
) -> tuple[Any, optax.GradientTransformation]:
    """The compiled step that training uses, and its rule; kept, so that other numbers of the same sizes compile nothing."""
    rule, schedule = sgd(**dict(optimizer))
    step = make_train_step(make_graph(sizes, precision), _telling(loss_of(sizes), mixed), rule, schedule)
    return jax.jit(step, compiler_options=dict(options)) if options else step, rule


def ours(
    start: Arrays, sizes: Sizes, batches: Sequence[Batch], optimizer: dict, precision: str, options: dict | None = None
) -> list[Step]:
    """Steps of scoliojax from the tensors `start`, by the compiled step that training uses; batches are all of one shape.

    `precision` is "float32" or "float64"; `options` are the compiler's, None compiles as training does.
    """

    def by_name(tree: Tree) -> Arrays:
        return from_tree(sizes, "params", tree)

    def momentum(state: TrainState) -> Arrays:
        return by_name(optax.tree_utils.tree_get(state.opt_state, "trace"))

    with jax.enable_x64(precision == "float64"):
        settings, mixed = tuple(sorted(optimizer.items())), any(batch.mixed(sizes) for batch in batches)
        step, rule = _program(sizes, mixed, settings, precision, tuple((options or {}).items()))
        wide = {name: value.astype(precision) for name, value in start.items()}
        statistics = to_tree(sizes, "batch_stats", wide)
        if sizes.gates:  # a batch's vectors are in 0..1
            statistics = with_ranges(statistics, np.zeros((PAIRS, MEASURES)), np.ones((PAIRS, MEASURES)))
        state = create_state(to_tree(sizes, "params", wide), statistics, rule)
        found = []
        for batch in batches:
            before, moved = by_name(state.params), momentum(state)
            state, told = step(state, {name: jnp.asarray(value) for name, value in batch.arrays().items()})
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
    net, terms = torch_reference.holding(sizes, start, dtype).train(), loss_of(sizes)
    rule, schedule = torch_reference.sgd(net, optimizer)
    found = []
    for batch in batches:
        given = {name: torch.from_numpy(np.asarray(value)) for name, value in batch.arrays().items()}
        embeddings, logits = net(given["frames"], given.get("asymmetry"))
        alike = torch.from_numpy(np.asarray(batch.alike(sizes)))  # n
        triplet, violations, mean_distance = torch_reference.triplet_loss(embeddings, alike, terms.margin, batch.mixed(sizes))
        entropy = terms.scale, terms.label_smoothing, terms.weights_by_class
        cross_entropy = torch_reference.cross_entropy(logits, given["labels"].long(), *entropy)
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


def random_batches(seed: int, steps: int, identities: Sequence[int], frames: int, sizes: Sizes) -> list[Batch]:
    """Clips of noise: hard on every comparison, for nothing in them is smooth. For a DRF classes are equally frequent."""
    rng, count = np.random.default_rng(seed), len(identities)

    def labels() -> np.ndarray:
        if sizes.gates:
            return rng.permutation(np.arange(count, dtype=np.int32) % sizes.classes)  # n
        return rng.integers(0, sizes.classes, count, dtype=np.int32)  # n

    return [
        Batch(
            frames=rng.integers(0, 256, (count, frames, *frame_shape(sizes.modality)), dtype=np.uint8),
            labels=labels(),
            identities=np.asarray(identities, np.int32),
            asymmetry=rng.random((count, PAIRS, MEASURES), np.float32) if sizes.gates else None,
        )
        for _ in range(steps)
    ]
