"""Time of training steps and evaluation passes, beside the PyTorch reference if PyTorch is installed."""

import copy
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.pipelines import TrainSampler
from data_pipelines.schema import CLASSES, FRAME_SIZE, SILHOUETTES, SKELETONS, SequenceSet, frame_shape
from scoliojax import build
from scoliojax.benchmark.timing import Row, Work, interleave
from scoliojax.devices.mesh import data_mesh, replicated, to_devices
from scoliojax.devices.targets import machine_of
from scoliojax.models.cost import train_flops_per_step
from scoliojax.training.evaluate import make_eval_step
from scoliojax.training.state import TrainState, create_state
from scoliojax.training.step import make_train_step

FRAMES = 300  # length of a Scoliosis1K sequence


def random_batch(
    sequences: int, clips: int, frames: int, clips_together: int = 1, modality: str = SILHOUETTES
) -> dict[str, np.ndarray]:
    """A batch as a run draws it from sequences of Scoliosis1K's length, with random pixels."""
    names = tuple(map(str, range(sequences)))
    frame = *frame_shape(modality)[:-1], FRAME_SIZE
    pixels = np.random.default_rng(0).integers(0, 256, (FRAMES, *frame), dtype=np.uint8)  # s (2) 64 64
    labels = np.arange(sequences, dtype=np.int32) % len(CLASSES)
    n_frames = np.full(sequences, FRAMES, np.int32)
    data = SequenceSet("random", True, names, names, labels, n_frames, lambda row: pixels, modality=modality)
    return TrainSampler(data, np.arange(sequences), 0, sequences, clips, frames, clips_together=clips_together)(0)


class Ours:
    """Compiled training step and evaluation of a run with this config."""

    def __init__(self, config: build.Config):
        self.mesh = data_mesh()
        optimizer, schedule = build.build_optimizer(config)
        graph, params, batch_stats = build.build_model(config)
        self.state: TrainState = jax.device_put(create_state(params, batch_stats, optimizer), replicated(self.mesh))
        self._train = make_train_step(graph, build.build_loss(config, self.mesh), optimizer, schedule, replicated(self.mesh))
        self._evaluate = make_eval_step(graph, replicated(self.mesh))

    def step(self, batch: dict[str, np.ndarray]) -> Work:
        """A training step on `batch`, which is moved to the devices beforehand, until its metrics are computed."""
        placed = to_devices(batch, self.mesh)
        compiled = self._train.lower(self.state, placed).compile()
        used = compiled.memory_analysis()
        self.step_mebibytes = (used.argument_size_in_bytes + used.temp_size_in_bytes) / 2**20

        def work() -> None:
            self.state, metrics = compiled(self.state, placed)
            jax.block_until_ready((self.state, metrics))

        return work

    def evaluation(self, silhouettes: np.ndarray) -> Work:
        """An evaluation of whole sequences, `[n, s, 64, 44]`."""
        placed = to_devices({"frames": silhouettes, "frame_mask": np.ones(silhouettes.shape[:2], bool)}, self.mesh)
        return lambda: jax.block_until_ready(
            self._evaluate(self.state.params, self.state.batch_stats, placed["frames"], placed["frame_mask"])
        )


def ceiling(precision: str, rounds: int) -> float:
    """Floating-point operations per second of a large matrix product on one device, an upper limit for a step."""
    size = 1536 if jax.default_backend() == "cpu" else 8192
    factor = jnp.ones((size, size), precision)
    product = jax.jit(lambda x: x @ x)
    seconds = interleave({"product": lambda: jax.block_until_ready(product(factor))}, max(rounds, 5))
    return 2.0 * size**3 / float(np.median(seconds["product"]))


def measure(config: build.Config, what: str, shapes: list[tuple[int, int, int]], rounds: int) -> list[Row]:
    """A training step and an evaluation pass for each (sequences, clips of each, frames)."""
    ours = Ours(config)
    theirs = None
    if importlib.util.find_spec("torch"):
        from scoliojax.benchmark.original import Theirs

        theirs = Theirs(config)
    top = ceiling(config.precision, rounds) * jax.device_count()
    rows = []
    for sequences, clips, frames in shapes:
        plain = random_batch(sequences, clips, frames)
        shared = random_batch(sequences, clips, frames, math.gcd(clips, sequences * clips // jax.device_count()))
        label = f"{what}, {sequences} x {clips} clips x {frames} frames, {config.precision}"
        flops = train_flops_per_step(config.model.channels, sequences * clips, frames)

        ways = theirs.steps(plain) if theirs else {}
        if "clip_frames" in shared:
            ways["plain"] = ours.step(plain)
        ways["ours"] = ours.step(shared)
        seconds = interleave(ways, rounds)
        done = train_flops_per_step(config.model.channels, 1, math.prod(shared["frames"].shape[:2]))
        rows.append(_row(f"training step, {label}", seconds, flops, done, top))
        if "plain" in seconds:
            other = seconds | {"ours": seconds["plain"]}
            rows.append(_row(f"training step without share_frames, {label}", other, flops, flops, top))
        peak = theirs.peak_mebibytes() if theirs else []
        rows.append(Row(f"memory of a training step, {label}", "MiB", [ours.step_mebibytes], peak))

        silhouettes = plain["frames"]
        ways = theirs.evaluations(silhouettes) if theirs else {}
        ways["ours"] = ours.evaluation(silhouettes)
        rows.append(_row(f"evaluation, {label}", interleave(ways, rounds), flops // 3, flops // 3, top))
    return rows


def channels(config: build.Config, what: str, shape: tuple[int, int, int], rounds: int) -> list[Row]:
    """A training step on frames of two channels, in turn with one on frames of one; `shape` as in `measure`."""
    sequences, clips, frames = shape
    together = math.gcd(clips, sequences * clips // jax.device_count())
    ways = {}
    for modality in (SILHOUETTES, SKELETONS):
        of_modality = copy.deepcopy(config)
        of_modality.data.modality = modality
        ways[modality] = Ours(of_modality).step(random_batch(sequences, clips, frames, together, modality))
    seconds = interleave(ways, rounds)
    one, two = ([1e3 * second for second in seconds[name]] for name in (SILHOUETTES, SKELETONS))
    note = f"{np.median(two) / np.median(one):.3f} of the {np.median(one):.4g} ms of one channel"
    label = f"{what}, {sequences} x {clips} clips x {frames} frames, {config.precision}"
    return [Row(f"training step of two channels, {label}", "ms", two, [], note)]


def _row(what: str, seconds: dict[str, list[float]], flops: int, done: int, top: float) -> Row:
    """A row with the faster PyTorch variant.

    `flops` are the operations without shared frames, `done` those computed, and `top` is the limit per second.
    """
    others = [name for name in seconds if name.startswith("PyTorch")]
    best = min(others, key=lambda name: np.median(seconds[name]), default="")
    ours, theirs = ([1e3 * second for second in seconds.get(name, [])] for name in ("ours", best))
    speed = done / float(np.median(seconds["ours"]))
    note = f"{flops / 1e12:.3g} TFLOP, {speed / 1e9:.4g} GFLOP/s computed, {100 * speed / top:.0f} % of a matrix product"
    if machine := machine_of(jax.devices()[0].device_kind):
        note += f", {100 * speed / jax.device_count() / machine.peak:.0f} % of the device's bfloat16 peak"
    return Row(what, "ms", ours, theirs, note + (f"; against {best}" if len(others) > 1 else ""))


def growth(config: build.Config, what: str, rounds: int) -> list[Row]:
    """Time per frame of a step, by numbers of clips and frames, and of an evaluation, by number of sequences."""
    ours = Ours(config)
    ways, frames = {}, {}
    for clips, length in ((4, 6), (8, 6), (16, 6), (32, 6), (64, 6), (8, 12), (8, 24), (8, 48)):
        label = f"step, {what}, {clips} clips x {length} frames"
        ways[label], frames[label] = ours.step(random_batch(clips // 2, 2, length)), clips * length
    for sequences in (2, 4, 8, 16, 32):
        label = f"evaluation, {what}, {sequences} sequences x 60 frames"
        ways[label] = ours.evaluation(random_batch(sequences, 1, 60)["frames"])
        frames[label] = sequences * 60
    seconds = interleave(ways, rounds)
    return [Row(label, "ms a frame", [1e3 * taken / frames[label] for taken in times], []) for label, times in seconds.items()]
