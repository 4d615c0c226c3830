"""Batches per second of our loader, and of a stand-in for the loader of the PyTorch original (clip by clip, frame by frame)."""

import functools
import itertools
import multiprocessing
import os
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data_pipelines.pipelines import SequenceCache, TrainSampler, train_batches
from data_pipelines.poses.drawing import drawn
from data_pipelines.poses.synthetic import synthetic_poses
from data_pipelines.schema import SequenceSet
from data_pipelines.silhouettes import cut_sides
from data_pipelines.sources import open_prepared, prepare
from data_pipelines.synthetic import synthetic_walkers, write_tree
from scoliojax.benchmark.timing import Row, interleave

SEQUENCES, FRAMES = 40, 300  # frames of a Scoliosis1K sequence
SUBJECTS, CLIPS, LENGTH = 8, 8, 30  # the published batch; other numbers of sequences with --subjects


@functools.cache
def _load(path: Path) -> np.ndarray:
    return pickle.loads(path.read_bytes())  # s 64 64


def _read_batch(files: list[Path], subjects: int, keep: bool, seed: int) -> list[list[np.ndarray]]:
    """Frames of each clip as the original's worker reads them: one pickle per clip, kept in memory or not, frame by frame."""
    rng = np.random.default_rng(seed)
    load = _load if keep else _load.__wrapped__  # without the cache
    clips = []
    for file in np.repeat(rng.choice(len(files), subjects, replace=False), CLIPS):
        silhouettes = load(files[file])  # s 64 64
        clips.append([silhouettes[frame] for frame in rng.choice(len(silhouettes), LENGTH, replace=False)])
    return clips


@contextmanager
def original(files: list[Path], subjects: int, keep: bool, batches: int) -> Iterator[Callable[[], None]]:
    """A stand-in for the original's loader, as a function that draws `batches` batches of so many sequences.

    One worker process reads and sends frames, two batches in advance. The main process removes the sides of every clip, divides
    by 255 in numpy's double precision, and stacks floats.
    """
    seeds = itertools.count()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
        ahead = deque(worker.submit(_read_batch, files, subjects, keep, next(seeds)) for _ in range(2))

        def draw() -> None:
            for _ in range(batches):
                clips = ahead.popleft().result()
                ahead.append(worker.submit(_read_batch, files, subjects, keep, next(seeds)))
                cut = [cut_sides(np.asarray(clip)) / 255.0 for clip in clips]  # each s 64 44
                np.asarray(cut).astype(np.float32)  # n s 64 44
            wait(ahead)  # the worker is idle while our loader is timed

        yield draw


@contextmanager
def one_core() -> Iterator[None]:
    """Restrict this thread, and the threads it starts, to one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _ours(data: SequenceSet, subjects: int, gigabytes: float, batches: int) -> Callable[[], object]:
    """A function that draws `batches` batches with our loader, with one thread per core."""
    cache = SequenceCache(data, int(gigabytes * 1e9))
    for row in range(len(data) if gigabytes else 0):
        cache(row)
    sampler = TrainSampler(data, np.arange(len(data)), 0, subjects, CLIPS, LENGTH, cache=cache, clips_together=CLIPS)
    starts = itertools.count(0, batches)

    def draw() -> None:
        start = next(starts)
        deque(train_batches(sampler, start, start + batches, len(os.sched_getaffinity(0))), maxlen=0)  # reads all

    return draw


def measure(rounds: int, subjects: int = SUBJECTS) -> list[Row]:
    """Our loader on one core beside the stand-in, and alone on all cores; `subjects`: sequences of a batch."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        write_tree(synthetic_walkers(SEQUENCES, FRAMES), folder / "tree")
        files = sorted((folder / "tree").rglob("*.pkl"))
        prepare(str(folder / "tree"), folder / "prepared")
        prepared = open_prepared(folder / "prepared")
        rows = []
        for name, gigabytes, batches in (("from files", 0.0, 20), ("in memory", 2.0, 60)):
            name += f", {subjects} x {CLIPS} clips" * (subjects != SUBJECTS)
            with one_core(), original(files, subjects, gigabytes > 0, 2) as theirs:
                seconds = interleave({"ours": _ours(prepared, subjects, gigabytes, batches), "theirs": theirs}, rounds)
            speeds = [batches / taken for taken in seconds["ours"]]
            rows.append(Row(f"loader, {name}, one core", "batches/s", speeds, [2 / taken for taken in seconds["theirs"]]))
            seconds = interleave({"ours": _ours(prepared, subjects, gigabytes, batches)}, rounds)
            speeds = [batches / taken for taken in seconds["ours"]]
            rows.append(Row(f"loader, {name}, {len(os.sched_getaffinity(0))} cores", "batches/s", speeds, []))
        maps = _ours(drawn(synthetic_poses(SEQUENCES, FRAMES)), subjects, 2.0, batches)
        speeds = [batches / taken for taken in interleave({"ours": maps}, rounds)["ours"]]
        rows.append(Row(f"loader, skeleton maps {name}, {len(os.sched_getaffinity(0))} cores", "batches/s", speeds, []))
    return rows
