"""Batches a second: our loader, and a stand-in for the PyTorch original's, which works clip by clip and frame by frame."""

from __future__ import annotations

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
from data_pipelines.schema import CLASSES, SilhouetteSet
from data_pipelines.silhouettes import cut_sides
from data_pipelines.sources import open_prepared, prepare
from data_pipelines.synthetic import synthetic_walkers
from scoliojax.benchmark.timing import Row, interleave

SEQUENCES, FRAMES = 40, 300  # of Scoliosis1K's length
SUBJECTS, CLIPS, LENGTH = 8, 8, 30  # the published batch


class PickleReader:
    """The original's worker: every clip opens its pickle anew (or finds it in memory) and takes its frames out one by one."""

    def __init__(self, files: list[Path], keep: bool):
        self._files, self._keep = files, keep
        self._kept: dict[Path, np.ndarray] = {}

    def _read(self, path: Path) -> np.ndarray:
        if path not in self._kept:
            silhouettes = pickle.loads(path.read_bytes())  # s 64 64
            if not self._keep:
                return silhouettes
            self._kept[path] = silhouettes
        return self._kept[path]

    def __call__(self, seed: int) -> list[list[np.ndarray]]:
        rng = np.random.default_rng(seed)
        clips = []
        for file in rng.choice(len(self._files), SUBJECTS, replace=False):
            for _ in range(CLIPS):
                silhouettes = self._read(self._files[file])  # s 64 64
                clips.append([silhouettes[frame] for frame in rng.choice(len(silhouettes), LENGTH, replace=False)])
        return clips


_worker: PickleReader | None = None


def _begin_work(files: list[Path], keep: bool) -> None:
    global _worker
    _worker = PickleReader(files, keep)


def _work(seed: int) -> list[list[np.ndarray]]:
    assert _worker is not None
    return _worker(seed)


@contextmanager
def original(files: list[Path], keep: bool, batches: int) -> Iterator[Callable[[], None]]:
    """A stand-in for the original's loader: one worker process reads and sends frames, two batches ahead, and the main process
    cuts the sides of every clip, divides by 255 in numpy's double precision, and stacks floats. Draws so many batches a call.
    """
    seeds = itertools.count()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _begin_work, (files, keep)) as worker:
        ahead = deque(worker.submit(_work, next(seeds)) for _ in range(2))

        def draw() -> None:
            for _ in range(batches):
                clips = ahead.popleft().result()
                ahead.append(worker.submit(_work, next(seeds)))
                cut = [cut_sides(np.asarray(clip)) / 255.0 for clip in clips]  # each s 64 44
                np.asarray(cut).astype(np.float32)  # n s 64 44
            wait(ahead)  # so that the worker rests while ours has its turn

        yield draw


@contextmanager
def one_core() -> Iterator[None]:
    """Hold this thread, and those that it starts, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _ours(data: SilhouetteSet, gigabytes: float, batches: int) -> Callable[[], object]:
    """Draw so many batches through the loader of a run; a thread for every core."""
    cache = SequenceCache(data, int(gigabytes * 1e9))
    sampler = TrainSampler(data, np.arange(len(data)), 0, SUBJECTS, CLIPS, LENGTH, cache=cache, clips_together=CLIPS)
    start = iter(range(0, 10**9, batches))

    def draw() -> None:
        first = next(start)
        for _ in train_batches(sampler, first, first + batches, len(os.sched_getaffinity(0))):
            pass

    return draw


def measure(rounds: int) -> list[Row]:
    """The loader on one core against the stand-in, and by itself on all cores."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        walkers = synthetic_walkers(SEQUENCES, FRAMES)
        files = []
        for row, sequence in enumerate(walkers.sequences):
            view = folder / "tree" / sequence / CLASSES[walkers.labels[row]].capitalize() / "000_180"
            view.mkdir(parents=True)
            files.append(view / "000_180.pkl")
            files[-1].write_bytes(pickle.dumps(walkers.read(row)))
        prepare(str(folder / "tree"), folder / "prepared")
        prepared = open_prepared(folder / "prepared")
        rows = []
        for name, gigabytes, batches in (("from files", 0.0, 20), ("in memory", 2.0, 60)):
            with one_core(), original(files, gigabytes > 0, 2) as theirs:
                seconds = interleave({"ours": _ours(prepared, gigabytes, batches), "theirs": theirs}, rounds)
            rows.append(_row(f"loader, {name}, one core", seconds["ours"], batches, seconds["theirs"], 2))
            seconds = interleave({"ours": _ours(prepared, gigabytes, batches)}, rounds)
            rows.append(_row(f"loader, {name}, {len(os.sched_getaffinity(0))} cores", seconds["ours"], batches))
    return rows


def _row(what: str, ours: list[float], count: int, theirs: list[float] | None = None, their_count: int = 0) -> Row:
    speeds = [count / second for second in ours]
    return Row(what, "batches/s", speeds, [their_count / second for second in theirs or []])
