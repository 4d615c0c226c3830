"""Distances between scoliojax and PyTorch: the tables of `docs/parity.md`.

Training steps are computed in float64 on both sides, where a difference at the first step cannot be rounding, and in float32,
where each row is bounded by PyTorch's own rounding of its statistic (`scoliojax.interop.parity.rows`).
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from data_pipelines.poses.drawing import drawn
from data_pipelines.poses.synthetic import synthetic_poses
from data_pipelines.schema import CLASSES, SILHOUETTES, SequenceSet, frame_shape
from data_pipelines.silhouettes import cut_sides
from data_pipelines.synthetic import synthetic_walkers
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.interop import torch_reference
from scoliojax.interop.opengait import checkpoint as opengait
from scoliojax.interop.opengait.checkpoint import PUBLISHED_OPTIMIZER, make_graph
from scoliojax.interop.opengait.names import Sizes, with_ranges
from scoliojax.interop.parity.recording import AGAIN, Recording
from scoliojax.interop.parity.replay import Arrays, Run, Step, ours, random_batches, random_start, shaken, theirs
from scoliojax.interop.parity.rows import SAMPLES, SLACK, TOLERANCE, Row, apart, compare_exactly, compare_steps
from scoliojax.models.drf import MEASURES, PAIRS
from scoliojax.runs.run import open_run
from scoliojax.scores.metrics import published_scores
from scoliojax.training.evaluate import Predictions, evaluate, make_eval_step

Outputs = tuple[np.ndarray, np.ndarray]  # embeddings n c p, logits n k p
FRESH_WALKERS = 1_000  # seed; runs train on seed 0
UNOPTIMISED = {"xla_backend_optimization_level": 0}  # quickly compiled, and otherwise than for training: a second opinion
SHAKE = 4e-7  # relative; some steps from one float32 to the next, to meet the jumps that near
SHAKE_EXACT = 1e-12  # relative; in 15 drawn recordings later steps in float64 differed by up to 0.6 of what this makes of them


def compare_training(
    start: Arrays, run: Run, recorded: list[Step] | None, options: dict | None = None, exactly: bool = True
) -> Iterator[Row]:
    """Rows for training steps of a run from `start`, in float32 and, where `exactly`, in float64.

    Float32 is compared with `recorded` steps of PyTorch, or with those of our PyTorch reference, and is compiled with `options`
    (None: as training is); float64 with our reference.
    """
    exact, plain = theirs(start, *run, torch.float64), theirs(start, *run, torch.float32)

    def sample(number: int) -> list[Step]:
        return plain if recorded and number == 0 else theirs(shaken(start, SHAKE, number), *run, torch.float32)

    found = ours(start, *run, "float32", options)
    sizes, batches, _ = run
    yield from compare_steps(found, recorded or plain, exact, batches[0], sizes, sample)
    if exactly:
        moved = theirs(shaken(start, SHAKE_EXACT), *run, torch.float64)
        yield from compare_exactly(ours(start, *run, "float64", options), exact, moved)


def compare_live(
    sizes: Sizes, identities: Sequence[int], frames: int, seed: int, steps: int = 1, exactly: bool = True
) -> Iterator[Row]:
    """Rows for training steps on clips of noise against our PyTorch reference: float32, then float64 where `exactly`."""
    batches = random_batches(seed, steps, identities, frames, sizes)
    run = (sizes, batches, PUBLISHED_OPTIMIZER | {"milestones": (2, 4)})
    yield from compare_training(random_start(sizes, seed), run, None, UNOPTIMISED, exactly)


@functools.lru_cache(maxsize=8)
def _evaluation(sizes: Sizes, options: tuple) -> Any:
    """The compiled evaluation; kept, so that other numbers of the same sizes compile nothing."""
    step: Any = make_eval_step(make_graph(sizes, "float32"))
    return jax.jit(step, compiler_options=dict(options)) if options else step


def compare_evaluation(recording: Recording, options: dict | None = None) -> Iterator[Row]:
    """Rows for whole sequences through the recorded checkpoint, one by one and in one padded, masked batch.

    `options` are the compiler's for the batch, None compiles as evaluation does; single sequences, each of a length of its own,
    are compiled quickly.
    """
    found = opengait.read(recording.checkpoint)
    if found.sizes != recording.sizes:
        raise RunError(f"{recording.checkpoint} has {found.sizes}, train.npz beside it {recording.sizes}; {AGAIN}")
    whole, alone = (_evaluation(found.sizes, tuple((chosen or {}).items())) for chosen in (options, UNOPTIMISED))
    truth, statistics, vectors = recording.evaluation, found.batch_stats, None
    if found.sizes.gates:  # the recorded vectors are in 0..1
        statistics = with_ranges(statistics, np.zeros((PAIRS, MEASURES)), np.ones((PAIRS, MEASURES)))
        vectors = truth["pav"].astype(np.float32)  # n 8 3
    sequences = [np.ascontiguousarray(cut_sides(truth[f"seq{i}"])) for i in range(len(truth["pred"]))]  # each s (2) 64 44
    clips = np.zeros((len(sequences), max(map(len, sequences)), *frame_shape(found.sizes.modality)), np.uint8)  # n s (2) 64 44
    mask = np.zeros(clips.shape[:2], bool)  # n s
    for row, sequence in enumerate(sequences):
        clips[row, : len(sequence)], mask[row, : len(sequence)] = sequence, True

    def vector(row: int) -> np.ndarray | None:
        return None if vectors is None else vectors[row : row + 1]  # 1 8 3

    def evaluate_ours(step: Any, clips: np.ndarray, mask: np.ndarray | None, vectors: np.ndarray | None) -> Outputs:
        output = jax.device_get(step(found.params, statistics, clips, mask, vectors))
        return output.embeddings.swapaxes(1, 2), output.logits.swapaxes(1, 2)  # n c p, n k p

    def evaluate_theirs(tensors: Mapping, dtype: torch.dtype) -> Outputs:
        net = torch_reference.holding(found.sizes, tensors, dtype).eval()

        def outputs(row: int) -> Iterable[np.ndarray]:
            given = vector(row)
            both = net(torch.from_numpy(sequences[row])[None], None if given is None else torch.from_numpy(given))
            return map(torch.Tensor.numpy, both)

        with torch.no_grad():
            return _joined(outputs(row) for row in range(len(sequences)))

    exact = evaluate_theirs(found.tensors, torch.float64)
    starts = [found.tensors, *(shaken(found.tensors, SHAKE, seed) for seed in range(1, SAMPLES))]
    samples = [evaluate_theirs(start, torch.float32) for start in starts]
    scores = exact[1].mean(axis=2)  # n k
    second, first = np.sort(scores, axis=1)[:, -2:].T  # n each
    noise = np.max([np.abs(logits.mean(axis=2) - scores) for _, logits in samples])
    decided = first - second > 2.0 * SLACK * noise  # n
    ways = {
        "one by one": _joined(evaluate_ours(alone, one[None], None, vector(row)) for row, one in enumerate(sequences)),
        "one padded batch": evaluate_ours(whole, clips, mask, vectors),
    }
    for way, outputs in ways.items():
        for place, name in enumerate(("embeddings", "logits")):
            rounding = float(np.max([apart(sample[place], exact[place]) for sample in samples]))
            yield Row(f"evaluation, {way}: {name}", TOLERANCE, apart(outputs[place], truth[name]), rounding)
        differing = (outputs[1].mean(axis=2).argmax(axis=1) != truth["pred"]) & decided  # n
        yield Row(f"evaluation, {way}: share of predictions that differ, no ties", 0.0, float(np.mean(differing)))


def _joined(outputs: Iterable[Iterable[np.ndarray]]) -> Outputs:
    embeddings, logits = map(np.concatenate, zip(*outputs, strict=True))
    return embeddings, logits


def compare_metrics(recording: Recording) -> Iterator[Row]:
    """Rows for the four figures that the original's evaluator reports, where the recording holds them."""
    truth = recording.metrics
    if truth is None:
        return
    predictions = truth["logits"].mean(axis=2).argmax(axis=1)
    found = published_scores(truth["labels"], predictions, len(CLASSES))
    for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1"):
        theirs = name.removeprefix("macro_")
        yield Row(f"metrics: {theirs}", 1e-12, apart(found[name], truth[theirs]))


def compare_recording(folder: Path, options: dict | None = None, exactly: bool = True) -> Iterator[Row]:
    """Rows for everything that a recording of the original holds.

    `options` are the compiler's, None compiles as training and evaluation do. `exactly`: also the training steps in float64,
    which no recording holds: both sides are computed.
    """
    recording = Recording(folder)
    yield from compare_evaluation(recording, options)
    yield from compare_training(recording.start, recording.run(), recording.steps(), options, exactly)
    yield from compare_metrics(recording)


def spread(folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Largest difference of the embeddings from PyTorch in float64, step by step, of several runs of one recording."""
    recording = Recording(folder)
    start, run = recording.start, recording.run()
    exact = theirs(start, *run, torch.float64)

    def distances(found: list[Step]) -> list[float]:
        return [float(np.max(np.abs(a.embeddings - b.embeddings))) for a, b in zip(found, exact, strict=True)]

    yield "the recording, PyTorch float32", distances(recording.steps())
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        yield f"PyTorch float32, {count} thread(s)", distances(theirs(start, *run, torch.float32))
    torch.set_num_threads(threads)
    for size in (1e-8, 1e-7, 1e-6):
        yield f"PyTorch float64, start off by {size:.0e}", distances(theirs(shaken(start, size), *run, torch.float64))
    for precision in ("float32", "float64"):
        yield f"scoliojax {precision}", distances(ours(start, *run, precision))


def compare_bfloat16(workdir: Path, sequences: int) -> Iterator[Row]:
    """Rows for the class decisions on fresh synthetic walkers that change when a run's network computes in bfloat16."""
    network = open_run(workdir).network("newest")
    state, config = network.state, network.config
    data = _fresh_walkers(config, sequences)
    batcher = build.build_eval_batcher(config, data, np.arange(sequences))

    def predict(precision: str) -> Predictions:
        config.precision = precision
        graph, *_ = build.build_model(config)
        batches = ({name: jnp.asarray(value) for name, value in batcher(i).items()} for i in range(len(batcher)))
        return evaluate(make_eval_step(graph), state.params, state.batch_stats, batches)

    wide, narrow = predict("float32"), predict("bfloat16")
    right = np.mean(wide.logits.argmax(axis=1) == data.labels[wide.rows])
    print(f"step {network.step} of {workdir}: accuracy {right:.3f} on {data.name} in float32")
    yield Row("bfloat16: mean logits", 0.1, apart(narrow.logits, wide.logits))
    changed = np.mean(narrow.logits.argmax(axis=1) != wide.logits.argmax(axis=1))
    yield Row(f"bfloat16: share of {sequences} synthetic sequences decided otherwise", 0.01, float(changed))


def _fresh_walkers(config: build.Config, sequences: int) -> SequenceSet:
    """Synthetic walkers that no run has seen, as the network of a config reads them."""
    drawn_by = sequences, config.data.synthetic.frames, FRESH_WALKERS
    if config.data.modality == SILHOUETTES:
        return synthetic_walkers(*drawn_by)
    maps = drawn(synthetic_poses(*drawn_by), **config.data.maps)
    return maps if build.reads_asymmetry(config) else dataclasses.replace(maps, asymmetry=None)


def table(rows: Iterable[Row]) -> bool:
    """Print rows as they come, as a Markdown table; True when every one passes."""
    good = True
    for number, row in enumerate(rows):
        if number == 0:
            print("| quantity | tolerance | PyTorch's own rounding | measured | |\n|---|---:|---:|---:|---|")
        good &= row.passes
        rounding = f"{row.rounding:.1e}" if row.rounding else ""
        tolerance = f"{row.tolerance:.0e}" if row.tolerance else "0"
        print(f"| {row.quantity} | {tolerance} | {rounding} | {row.measured:.1e} | {row.verdict} |", flush=True)
    return good
