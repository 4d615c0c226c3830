"""How close scoliojax is to PyTorch, measured: the tables of `docs/parity.md`.

    python -m scoliojax.interop.parity recording FOLDER                  against a recorded run of the original
    python -m scoliojax.interop.parity spread FOLDER                     how far PyTorch is from itself on it
    python -m scoliojax.interop.parity live [--seed N]                   against our PyTorch reference, computed now
    python -m scoliojax.interop.parity bfloat16 --workdir DIR [--sequences N]   decisions in bfloat16 against float32

Two float32 programs that add in different orders differ by rounding, and training at learning rate 0.1 multiplies such
differences. So the steps are also computed in float64 on both sides, where a difference cannot be rounding. In float32 a row
passes within its tolerance, or within `SLACK` times what PyTorch's own float32 differs from PyTorch in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from data_pipelines.schema import CLASSES
from data_pipelines.silhouettes import cut_sides
from data_pipelines.synthetic import synthetic_walkers
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.interop.opengait import checkpoint as opengait
from scoliojax.interop.opengait.checkpoint import PUBLISHED_OPTIMIZER
from scoliojax.interop.opengait.commands import open_run
from scoliojax.interop.opengait.names import Sizes
from scoliojax.interop.parity.recording import Recording
from scoliojax.interop.parity.replay import Arrays, Step, ours, random_batches, random_start, theirs
from scoliojax.runs.command import report_errors
from scoliojax.scores.metrics import published_scores
from scoliojax.training.evaluate import Predictions, evaluate, make_eval_step
from scoliojax.training.state import split_model

SLACK = 4.0
CEILING = 0.5  # beyond it nothing is called rounding
EXACT = 1e-6  # float64 against float64; five steps at learning rate 0.1 make 1e-8 of the last digits
FRESH_WALKERS = 1_000  # seed; runs train on seed 0
UNOPTIMISED = {"xla_backend_optimization_level": 0}  # quickly compiled, and otherwise than for training: a second opinion
SHAKE = 1e-7  # relative; about the step from one float32 to the next


class Row(NamedTuple):
    quantity: str
    tolerance: float
    measured: float
    rounding: float = 0.0  # what PyTorch in float32 differs from float64 here

    @property
    def passes(self) -> bool:
        return self.measured <= max(self.tolerance, min(SLACK * self.rounding, CEILING))


def _apart(ours: object, theirs: object) -> float:
    """The largest absolute difference."""
    return float(np.max(np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))))


def _of_norm(ours: Arrays, theirs: Arrays) -> np.ndarray:
    """Each tensor's distance, relative to its norm. Numpy's maximum of them keeps a NaN; Python's `max` may lose it."""
    assert ours.keys() >= theirs.keys(), theirs.keys() - ours.keys()
    return np.array(
        [
            np.linalg.norm(ours[name] - value.astype(np.float64)) / max(np.linalg.norm(value), 1e-12)
            for name, value in theirs.items()
        ]
    )


def compare_steps(found: list[Step], other: list[Step], samples: list[list[Step]], exact: list[Step]) -> Iterator[Row]:
    """Rows for float32 steps here against float32 steps there.

    Args:
      found: ours.
      other: PyTorch's. A tensor that it does not have (a recording leaves most of the later ones out) is not compared.
      samples: PyTorch's, again and again, each rounded differently; what they differ from `exact` is called rounding.
      exact: PyTorch's in float64.
    """

    def rounding(number: int, measure: Callable[[Step, Step], float]) -> float:
        return max(measure(run[number], exact[number]) for run in samples)

    def row(number: int, name: str, tolerance: float) -> Row:
        def measure(a: Step, b: Step) -> float:
            return _apart(getattr(a, name), getattr(b, name))

        measured = measure(found[number], other[number])
        return Row(f"step {number}: {name.replace('_', ' ')}", tolerance, measured, rounding(number, measure))

    def worst(number: int, name: str, tolerance: float) -> Row:
        def measure(a: Step, b: Step) -> float:
            wanted = getattr(other[number], name)
            return float(np.max(_of_norm(getattr(a, name), {key: getattr(b, name)[key] for key in wanted})))

        measured = measure(found[number], other[number])
        return Row(f"step {number}: {name}, worst tensor, of its norm", tolerance, measured, rounding(number, measure))

    for name in ("embeddings", "logits", "triplet", "mean_distance"):
        yield row(0, name, 2e-5)
    yield row(0, "violations", 0.0)
    yield row(0, "cross_entropy", 1e-5)
    yield worst(0, "gradients", 1e-4)
    median = float(np.median(_of_norm(found[0].gradients, other[0].gradients)))
    yield Row("step 0: gradients, median tensor, of its norm", 1e-4, median)
    drift = 0.0  # grows from step to step, with luck in between
    for number, (mine, yours) in enumerate(zip(found, other, strict=True)):
        drift = max(drift, rounding(number, lambda a, b: abs(a.loss / b.loss - 1.0)))
        yield Row(f"step {number}: loss, relative", 1e-3, abs(mine.loss / yours.loss - 1.0), drift)
        for name in ("parameters", "statistics"):
            if getattr(yours, name):
                yield worst(number, name, 1e-5 if number == 0 else 2e-3)


def compare_exactly(found: list[Step], other: list[Step]) -> Iterator[Row]:
    """Rows for float64 steps here against float64 steps there: no rounding to hide behind."""
    for name in ("embeddings", "logits", "mean_distance", "triplet", "violations", "cross_entropy", "loss"):
        measured = [_apart(getattr(a, name), getattr(b, name)) for a, b in zip(found, other, strict=True)]
        yield Row(f"float64: {name.replace('_', ' ')}", EXACT, float(np.max(measured)))
    for name in ("gradients", "parameters", "statistics"):
        measured = [_of_norm(getattr(a, name), getattr(b, name)) for a, b in zip(found, other, strict=True)]
        yield Row(f"float64: {name}, worst tensor, of its norm", EXACT, float(np.max(measured)))


def _shaken(start: Arrays, size: float = SHAKE) -> Arrays:
    """A start whose every value is off by about `size` of itself."""
    rng = np.random.default_rng(0)
    return {name: value * (1.0 + size * rng.standard_normal(value.shape)) for name, value in start.items()}


def compare_live(sizes: Sizes, identities: Sequence[int], frames: int, seed: int, steps: int = 1) -> Iterator[Row]:
    """Training steps on clips of noise against our PyTorch reference: float32, then float64."""
    start, batches = random_start(sizes, seed), random_batches(seed, steps, identities, frames, sizes.classes)
    run = (sizes, batches, PUBLISHED_OPTIMIZER | {"milestones": (2, 4)})
    exact, other = theirs(start, *run, torch.float64), theirs(start, *run, torch.float32)
    samples = [other, theirs(_shaken(start), *run, torch.float32)]
    yield from compare_steps(ours(start, *run, "float32", UNOPTIMISED), other, samples, exact)
    yield from compare_exactly(ours(start, *run, "float64", UNOPTIMISED), exact)


def compare_evaluation(recording: Recording) -> Iterator[Row]:
    """Whole sequences through the recorded checkpoint, one by one and in one padded, masked batch."""
    found = opengait.read(recording.checkpoint)
    model = found.model()
    graph, *_ = split_model(model)
    step = make_eval_step(graph)
    truth = recording.evaluation
    sequences = [np.ascontiguousarray(cut_sides(truth[f"seq{i}"])) for i in range(len(truth["pred"]))]
    longest = max(map(len, sequences))

    def together() -> Arrays:
        clips = np.zeros((len(sequences), longest, 64, 44), np.uint8)  # n s 64 44
        mask = np.zeros((len(sequences), longest), bool)  # n s
        for row, sequence in enumerate(sequences):
            clips[row, : len(sequence)], mask[row, : len(sequence)] = sequence, True
        return jax.device_get(step(found.params, found.batch_stats, jnp.asarray(clips), jnp.asarray(mask)))._asdict()

    def alone(sequence: np.ndarray) -> Arrays:
        return jax.device_get(model(jnp.asarray(sequence[None]), train=False))._asdict()

    ways = {
        "one by one": [alone(sequence) for sequence in sequences],
        "one padded batch": [together()],
    }
    for way, outputs in ways.items():
        whole = {name: np.concatenate([output[name] for output in outputs]).swapaxes(1, 2) for name in outputs[0]}  # n c p
        for name in ("embeddings", "logits"):
            yield Row(f"evaluation, {way}: {name}", 2e-5, _apart(whole[name], truth[name]))
        differing = np.sum(whole["logits"].mean(axis=2).argmax(axis=1) != truth["pred"])
        yield Row(f"evaluation, {way}: predictions that differ", 0.0, float(differing))


def compare_metrics(recording: Recording) -> Iterator[Row]:
    """The four figures that the original's evaluator reports."""
    truth = recording.metrics
    predictions = truth["logits"].mean(axis=2).argmax(axis=1)
    found = published_scores(truth["labels"], predictions, len(CLASSES))
    for mine, yours in (
        ("accuracy", "accuracy"),
        ("macro_precision", "precision"),
        ("macro_recall", "recall"),
        ("macro_f1", "f1"),
    ):
        yield Row(f"metrics: {yours}", 1e-12, _apart(found[mine], truth[yours]))


def compare_recording(folder: Path) -> Iterator[Row]:
    """Everything that a recording of the original holds."""
    recording = Recording(folder)
    yield from compare_evaluation(recording)
    start, run = recording.start, (recording.sizes, recording.batches(), recording.optimizer())
    exact, recorded = theirs(start, *run, torch.float64), recording.steps()
    samples = [recorded, theirs(start, *run, torch.float32), theirs(_shaken(start), *run, torch.float32)]
    yield from compare_steps(ours(start, *run, "float32"), recorded, samples, exact)
    yield from compare_exactly(ours(start, *run, "float64"), exact)
    yield from compare_metrics(recording)


def spread(folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Largest difference of the embeddings from PyTorch in float64, step by step, of several runs of one recording."""
    recording = Recording(folder)
    start, run = recording.start, (recording.sizes, recording.batches(), recording.optimizer())
    exact = theirs(start, *run, torch.float64)

    def distances(found: list[Step]) -> list[float]:
        return [_apart(a.embeddings, b.embeddings) for a, b in zip(found, exact, strict=True)]

    yield "the recording, PyTorch float32", distances(recording.steps())
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        yield f"PyTorch float32, {count} thread(s)", distances(theirs(start, *run, torch.float32))
    torch.set_num_threads(threads)
    for size in (1e-8, 1e-7, 1e-6):
        yield f"PyTorch float64, start off by {size:.0e}", distances(theirs(_shaken(start, size), *run, torch.float64))
    yield "scoliojax float32", distances(ours(start, *run, "float32"))
    yield "scoliojax float64", distances(ours(start, *run, "float64"))


def compare_bfloat16(workdir: Path, sequences: int) -> Iterator[Row]:
    """How many class decisions on fresh synthetic walkers change when a run's network computes in bfloat16."""
    config, sizes, state = open_run(workdir)
    data = synthetic_walkers(sequences, config.data.synthetic.frames, seed=FRESH_WALKERS)
    batcher = build.build_eval_batcher(config, data, np.arange(sequences))

    def predict(precision: str) -> Predictions:
        graph, *_ = split_model(opengait.build_model(sizes, state.params, state.batch_stats, precision))
        batches = ({name: jnp.asarray(value) for name, value in batcher(i).items()} for i in range(len(batcher)))
        return evaluate(make_eval_step(graph), state.params, state.batch_stats, batches)

    wide, narrow = predict("float32"), predict("bfloat16")
    right = np.mean(wide.logits.argmax(axis=1) == data.labels[wide.rows])
    print(f"step {int(state.step)} of {workdir}: accuracy {right:.3f} on {data.name} in float32")
    yield Row("bfloat16: mean logits", 0.1, _apart(narrow.logits, wide.logits))
    changed = np.mean(narrow.logits.argmax(axis=1) != wide.logits.argmax(axis=1))
    yield Row(f"bfloat16: share of {sequences} synthetic sequences decided otherwise", 0.01, float(changed))


def table(rows: Iterable[Row]) -> bool:
    """Print rows as they come, as a Markdown table; True when every one passes."""
    good = True
    for number, row in enumerate(rows):
        if number == 0:
            print("| quantity | tolerance | PyTorch's own rounding | measured | |\n|---|---:|---:|---:|---|")
        good &= row.passes
        verdict = "beyond" if not row.passes else "within" if row.measured <= row.tolerance else "rounding"
        rounding = f"{row.rounding:.1e}" if row.rounding else ""
        tolerance = f"{row.tolerance:.0e}" if row.tolerance else "0"
        print(f"| {row.quantity} | {tolerance} | {rounding} | {row.measured:.1e} | {verdict} |", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scoliojax.interop.parity", description=str(__doc__).splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("recording", help="against a recorded run of the original").add_argument("folder", type=Path)
    commands.add_parser("spread", help="how far PyTorch is from itself on it").add_argument("folder", type=Path)
    commands.add_parser("live", help="against our PyTorch reference").add_argument("--seed", type=int, default=0)
    sub = commands.add_parser("bfloat16", help="decisions in bfloat16 against float32, on synthetic walkers")
    sub.add_argument("--workdir", type=Path, required=True, help="of a trained run")
    sub.add_argument("--sequences", type=int, default=500)
    args = parser.parse_args()
    with report_errors():
        if args.command == "spread":
            for name, steps in spread(args.folder):
                print(f"| {name} | {' | '.join(f'{step:.0e}' for step in steps)} |", flush=True)
            return
        if args.command == "recording":
            rows = compare_recording(args.folder)
        elif args.command == "live":
            rows = compare_live(Sizes((8, 16, 24, 32), 16, (16,), 3), [0, 0, 1, 1, 2, 2], frames=4, seed=args.seed, steps=5)
        else:
            rows = compare_bfloat16(args.workdir.expanduser().absolute(), args.sequences)
        if not table(rows):
            raise RunError("there are differences beyond rounding (marked: beyond)")
