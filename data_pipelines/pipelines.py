"""grain pipelines: endless P x K training batches as a function of (seed, step), and finite, ordered evaluation batches.

Both hand out numpy batches of one process's share. Frames stay uint8; they become floats on the device.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import grain
import numpy as np

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH, DataError, SilhouetteSet
from data_pipelines.silhouettes import cut_sides

SHARED_MOST = 7 / 8  # of the frames drawn; where more of them differ, each clip has its own
SHARED_STEPS = 32  # steps whose draws tell how many frames a batch will need
EVAL_LENGTH_STEP = 60  # evaluation pads to a multiple of this many frames, so that few lengths are compiled
Batch = dict[str, np.ndarray]


class SequenceCache:
    """Reads sequences with their sides cut, and keeps those that came first in memory, as many as fit: all come alike often.

    Callable from several threads.

    Args:
      data: the set.
      limit: bytes to keep at most; 0 keeps none.

    Raises:
      DataError: for a negative limit.
    """

    def __init__(self, data: SilhouetteSet, limit: int = 0):
        if limit < 0:
            raise DataError(f"data.cache_gigabytes={limit / 1e9:g} must not be negative; 0 keeps nothing in memory")
        self.limit = limit
        self._data, self._free = data, limit
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def read_once(self, row: int) -> np.ndarray:
        """uint8 `[s, 64, 44]`, contiguous, not to be written to; not kept, for whoever needs it once."""
        if row in self._kept:
            return self._kept[row]
        clip = np.ascontiguousarray(cut_sides(self._data.read(row)))  # s 64 44
        if len(clip) != self._data.n_frames[row]:  # frame numbers are drawn by that
            raise DataError(f"{self._data.sequences[row]} has {len(clip)} frames and should have {self._data.n_frames[row]}")
        return clip

    def __call__(self, row: int) -> np.ndarray:
        """As `read_once`, and keeps the sequence if there is room."""
        if row in self._kept:  # most of the time; no thread waits for another then
            return self._kept[row]
        clip = self.read_once(row)
        with self._lock:
            if row not in self._kept and clip.nbytes <= self._free:
                self._kept[row] = clip
                self._free -= clip.nbytes
        return clip


@dataclass(frozen=True)
class TrainSampler:
    """The published P x K sampling (Hermans et al. 2017, section 2): P sequences, K clips of each, frames at random.

    Sequences are drawn without replacement from those of the training part. A clip's frames are drawn without order and
    without replacement; with replacement where the sequence is shorter than the clip.

    Attributes:
      data: the whole set.
      rows: indices into `data` of the sequences to train on.
      seed: with the step, determines the batch.
      subjects_per_batch: P.
      clips_per_subject: K.
      frames_per_clip: S.
      process_index: which equal share of the P x K clips to load.
      process_count: how many processes share the batch.
      cache: reads `data`; None reads it anew every time.
      clips_together: neighbouring clips of one sequence that share their frames, so that one drawn by several of them is
        handed out once; divides K and the process's share.

    Raises:
      DataError: when `rows` holds fewer than P sequences, or the clips cannot be shared out equally.
    """

    data: SilhouetteSet
    rows: np.ndarray
    seed: int
    subjects_per_batch: int
    clips_per_subject: int
    frames_per_clip: int
    process_index: int = 0
    process_count: int = 1
    cache: SequenceCache | None = None
    clips_together: int = 1

    def __post_init__(self):
        for field in ("subjects_per_batch", "clips_per_subject", "frames_per_clip"):
            if getattr(self, field) < 1:
                raise DataError(f"data.{field}={getattr(self, field)} must be at least 1")
        if self.subjects_per_batch > len(self.rows):
            raise DataError(
                f"data.subjects_per_batch={self.subjects_per_batch} but the training part has {len(self.rows)} sequences; "
                "lower it or pick another partition"
            )
        if self.clips % self.process_count:
            raise DataError(
                f"data.subjects_per_batch={self.subjects_per_batch} x data.clips_per_subject={self.clips_per_subject} = "
                f"{self.clips} clips cannot be shared equally by {self.process_count} processes; change either"
            )
        if math.gcd(self.clips_per_subject, self.clips // self.process_count) % self.clips_together:
            raise DataError(f"clips_together={self.clips_together} must divide a sequence's clips and a process's")

    @property
    def clips(self) -> int:
        """Clips of the global batch, P x K."""
        return self.subjects_per_batch * self.clips_per_subject

    @property
    def short_sequences(self) -> int:
        """How many sequences have fewer frames than a clip, so that theirs are drawn with replacement."""
        return int(np.sum(self.data.n_frames[self.rows] < self.frames_per_clip))

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What the global batch of a step is made of: sequence rows `[P]` and frame numbers `[P, K, S]`."""
        rng = np.random.default_rng((self.seed, step))
        chosen = rng.choice(self.rows, self.subjects_per_batch, replace=False)  # P
        clips, length = self.clips_per_subject, self.frames_per_clip
        frames = np.empty((self.subjects_per_batch, clips, length), np.int64)
        for subject, available in enumerate(self.data.n_frames[chosen]):
            if available < length:
                frames[subject] = rng.integers(available, size=(clips, length))
            else:
                frames[subject] = rng.permuted(np.tile(np.arange(available), (clips, 1)), axis=1)[:, :length]
        return chosen, frames

    def __call__(self, step: int) -> Batch:
        """This process's share of the batch.

        `silhouettes` uint8 `[n, s, 64, 44]`, `labels` and `identities` int32 `[n]`. Where it saves frames, `silhouettes` are
        `[g, u, 64, 44]`, and `clip_frames` int32 `[g, m, s]` say which of them each of the n = g m clips is made of.
        """
        chosen, frames = self.draw(step)
        groups, clip_frames = self._share_frames(frames)
        share = self.clips // self.process_count
        first, together = self.process_index * share, self.clips // len(groups)
        mine = slice(first // together, (first + share) // together)
        subjects = np.arange(len(groups))[mine] * together // self.clips_per_subject  # g
        read = self.cache or SequenceCache(self.data)
        decoded = {subject: read(int(chosen[subject])) for subject in np.unique(subjects)}  # s 64 44; once, whatever K is
        silhouettes = np.empty((len(subjects), groups.shape[1], FRAME_SIZE, FRAME_WIDTH), np.uint8)
        for out, subject, numbers in zip(silhouettes, subjects, groups[mine], strict=True):
            np.take(decoded[subject], numbers, axis=0, out=out, mode="clip")  # u 64 44
        identities = np.repeat(chosen, self.clips_per_subject)[first : first + share].astype(np.int32)  # n
        batch = {"silhouettes": silhouettes, "labels": self.data.labels[identities], "identities": identities}
        return batch if clip_frames is None else batch | {"clip_frames": clip_frames[mine]}

    def _share_frames(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Of the frame numbers `[P, K, S]` drawn: those to hand out `[g, u]`, and of which of these clips are made `[g, m, s]`.

        The second is None where each clip has its own. All processes agree, since all draw the whole batch.
        """
        own = frames.reshape(-1, self.frames_per_clip)  # n s
        length = self._shared_length
        if not length:
            return own, None
        drawn, has = self._drawn(frames)
        if np.sum(has, axis=1).max() > length:
            return own, None
        shared = np.argsort(~has, axis=1, kind="stable")[:, :length]  # g u; filled up with frames that no clip has
        places = np.take_along_axis(np.cumsum(has, axis=1, dtype=np.int32) - 1, drawn, axis=1)  # g ms
        return shared, places.reshape(len(drawn), self.clips_together, -1)

    def _drawn(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of `[P, K, S]`: the numbers that clips together drew, `[g, m s]`, and whether they did so, by number, `[g, ...]`."""
        drawn = frames.reshape(-1, self.clips_together * self.frames_per_clip)  # g ms
        has = np.zeros((len(drawn), max(frames.max() + 1, drawn.shape[1])), bool)  # g numbers
        np.put_along_axis(has, drawn, True, axis=1)
        return drawn, has

    @functools.cached_property
    def _shared_length(self) -> int:
        """How many frames clips together share: one length, so that one is compiled, and a batch that needs more has none.

        0 where it would save too little.
        """
        if self.clips_together == 1:
            return 0
        most = max(np.sum(self._drawn(self.draw(step)[1])[1], axis=1).max() for step in range(SHARED_STEPS))
        length = -(-int(most) // 8) * 8
        return length if length <= SHARED_MOST * self.clips_together * self.frames_per_clip else 0


def train_batches(sampler: TrainSampler, start: int, stop: int, threads: int = 2) -> grain.IterDataset:
    """Training batches of steps `start` to `stop - 1`, prepared ahead of time by `threads` threads."""
    steps = grain.MapDataset.range(start, stop).map(sampler)
    return steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


@dataclass(frozen=True)
class EvalBatcher:
    """Whole sequences, padded: each of `rows` once, those of one padded length together, batches filled up with masked rows.

    So the shape that a device sees depends on the sequence alone, not on how many devices and processes there are, and neither
    do the last digits of its result.

    Attributes:
      data: the whole set.
      rows: indices into `data` of the sequences to evaluate.
      batch_size: of the global batch, of which a process loads its equal share.
      max_frames: of a sequence; later ones are left out.
      process_index: which share.
      process_count: how many processes share the batch.
      read: row to uint8 `[s, 64, 44]`, such as a `SequenceCache` or its `read_once`; None reads `data` and keeps nothing.

    Raises:
      DataError: when there is nothing to evaluate, a size is not positive, or the batch cannot be shared out equally.
    """

    data: SilhouetteSet
    rows: np.ndarray
    batch_size: int
    max_frames: int
    process_index: int = 0
    process_count: int = 1
    read: Callable[[int], np.ndarray] | None = None

    def __post_init__(self):
        if self.batch_size % self.process_count:
            raise DataError(
                f"data.sequences_per_eval_batch={self.batch_size} cannot be shared equally by {self.process_count} processes"
            )
        if len(self.rows) == 0:
            raise DataError("data.partition leaves no sequence to evaluate; pick another partition")
        if self.max_frames < 1:
            raise DataError(f"data.max_eval_frames={self.max_frames} must be at least 1")
        if self.batch_size < 1:
            raise DataError(f"data.sequences_per_eval_batch={self.batch_size} must be at least 1")

    @functools.cached_property
    def _batches(self) -> list[tuple[int, np.ndarray]]:
        """Padded length and rows of every global batch."""
        rows = np.asarray(self.rows)
        steps = -(-np.minimum(self.data.n_frames[rows], self.max_frames) // EVAL_LENGTH_STEP)
        return [
            (int(step) * EVAL_LENGTH_STEP, alike[start : start + self.batch_size])
            for step in np.unique(steps)
            for alike in [rows[steps == step]]
            for start in range(0, len(alike), self.batch_size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __call__(self, index: int) -> Batch:
        """One share: `silhouettes` uint8 `[n, s, 64, 44]`, `frame_mask` bool `[n, s]`; and `rows` int32 of the *global* batch.

        Padding has row -1. Every process knows all rows, so that it can read results of all.
        """
        length, rows = self._batches[index]
        share = self.batch_size // self.process_count
        mine = rows[self.process_index * share : (self.process_index + 1) * share]
        read = self.read or SequenceCache(self.data)
        clips = [read(int(row))[: self.max_frames] for row in mine]  # each s 64 44
        batch = {
            "silhouettes": np.zeros((share, length, FRAME_SIZE, FRAME_WIDTH), np.uint8),
            "frame_mask": np.zeros((share, length), bool),
            "rows": np.full(self.batch_size, -1, np.int32),
        }
        batch["frame_mask"][:, 0] = True  # a padded row still needs one frame to take a maximum over
        for position, clip in enumerate(clips):
            batch["silhouettes"][position, : len(clip)] = clip
            batch["frame_mask"][position, : len(clip)] = True
        batch["rows"][: len(rows)] = rows
        return batch


def eval_batches(batcher: EvalBatcher, threads: int = 2) -> grain.IterDataset:
    """All evaluation batches, in order."""
    indices = grain.MapDataset.range(len(batcher)).map(batcher)
    return indices.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
