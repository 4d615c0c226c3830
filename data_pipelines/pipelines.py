"""grain pipelines: P x K training batches as a function of (seed, step), and evaluation batches in a fixed order.

Both give numpy batches with the share of one process. Frames stay uint8; the device converts them to floats.
"""

import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import grain
import numpy as np

from data_pipelines.augment import UNCHANGED, Augmentation, augment
from data_pipelines.schema import CLASSES, DataError, SequenceSet
from data_pipelines.silhouettes import cut_sides

SHARED_MOST = 7 / 8  # largest fraction of distinct frames among those drawn for which clips share frames
SHARED_STEPS = 32  # number of steps from whose draws the number of shared frames is estimated
EVAL_LENGTH_STEP = 60  # evaluation pads to a multiple of this number of frames, so that few lengths are compiled
Batch = dict[str, np.ndarray]


class SequenceCache:
    """Reads sequences with their sides removed, and keeps the first ones in memory until it is full.

    `limit` is in bytes; 0 keeps nothing. Nothing is evicted, because training reads all sequences equally often. Callable
    from several threads. A negative limit raises `DataError`.
    """

    def __init__(self, data: SequenceSet, limit: int = 0):
        if limit < 0:
            raise DataError(f"data.cache_gigabytes={limit / 1e9:g} must not be negative; 0 keeps nothing in memory")
        self.limit = limit
        self._data, self._free = data, limit
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def read_once(self, row: int) -> np.ndarray:
        """uint8 `[s, 64, 44]` or `[s, 2, 64, 44]`, contiguous, read-only; does not add the sequence to the cache."""
        if row in self._kept:
            return self._kept[row]
        clip = np.ascontiguousarray(cut_sides(self._data.read(row)))  # s (2) 64 44
        if len(clip) != self._data.n_frames[row]:  # the sampler draws frame numbers below n_frames
            raise DataError(f"{self._data.sequences[row]} has {len(clip)} frames and should have {self._data.n_frames[row]}")
        return clip

    def __call__(self, row: int) -> np.ndarray:
        """As `read_once`, but keeps the sequence if there is room."""
        if row in self._kept:  # the common case, without waiting for the lock
            return self._kept[row]
        clip = self.read_once(row)
        with self._lock:
            if row not in self._kept and clip.nbytes <= self._free:
                self._kept[row] = clip
                self._free -= clip.nbytes
        return clip


@dataclass(frozen=True)
class TrainSampler:
    """P x K sampling (Hermans et al. 2017, arXiv 1703.07737, section 2): P sequences, K clips of each, random frames.

    Sequences are drawn without replacement from the training part; if `balanced`, the same number of each class, with
    replacement, as DRF is trained. The frames of a clip are drawn without replacement and in
    random order; with replacement if the sequence is shorter than the clip.
    """

    data: SequenceSet  # the whole set
    rows: np.ndarray  # rows of `data` to train on
    seed: int  # seed and step determine the batch
    subjects_per_batch: int  # P
    clips_per_subject: int  # K
    frames_per_clip: int  # S
    process_index: int = 0  # index of this process's share of the P x K clips
    process_count: int = 1  # number of equal shares
    cache: SequenceCache | None = None  # None reads every sequence anew
    clips_together: int = 1  # clips of one sequence that share their distinct frames; divides K and the process's share
    balanced: bool = False  # the same number of sequences of each class
    augmentation: Augmentation = UNCHANGED  # what happens to each clip; clips share no frames then, because these would differ

    def __post_init__(self):
        for field in ("subjects_per_batch", "clips_per_subject", "frames_per_clip"):
            if getattr(self, field) < 1:
                raise DataError(f"data.{field}={getattr(self, field)} must be at least 1")
        if self.balanced and self.subjects_per_batch % len(CLASSES):
            raise DataError(
                f"data.subjects_per_batch={self.subjects_per_batch} must be a multiple of the {len(CLASSES)} classes where "
                "data.balanced=True"
            )
        if self.balanced and (absent := [name for name, rows in zip(CLASSES, self._by_class, strict=True) if not len(rows)]):
            raise DataError(f"data.balanced=True, but the training part has no {absent[0]} sequence; pick another partition")
        if not self.balanced and self.subjects_per_batch > len(self.rows):
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

    @functools.cached_property
    def _by_class(self) -> list[np.ndarray]:
        """Rows of the training part, class by class."""
        return [self.rows[self.data.labels[self.rows] == label] for label in range(len(CLASSES))]

    @property
    def clips(self) -> int:
        """Clips of the global batch, P x K."""
        return self.subjects_per_batch * self.clips_per_subject

    @property
    def short_sequences(self) -> int:
        """Number of sequences with fewer frames than a clip, so that their frames are drawn with replacement."""
        return int(np.sum(self.data.n_frames[self.rows] < self.frames_per_clip))

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Sequence rows `[P]` and frame numbers `[P, K, S]` of the global batch of a step."""
        rng = np.random.default_rng((self.seed, step))
        if self.balanced:
            each = self.subjects_per_batch // len(CLASSES)
            chosen = np.concatenate([rng.choice(rows, each) for rows in self._by_class])  # P
        else:
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

        `frames` uint8 `[n, s, 64, 44]`, or `[n, s, 2, 64, 44]` of skeleton maps, `labels` and `identities` int32 `[n]`, and
        where the set has them `asymmetry` float32 `[n, 8, 3]`. If sharing saves frames, `frames` is `[g, u, ...]`, and
        `clip_frames` int32 `[g, m, s]` has the positions in u of the frames of the n = g m clips.
        """
        chosen, frames = self.draw(step)
        groups, clip_frames = self._share_frames(frames)
        share = self.clips // self.process_count
        first, together = self.process_index * share, self.clips // len(groups)
        mine = slice(first // together, (first + share) // together)
        subjects = np.arange(len(groups))[mine] * together // self.clips_per_subject  # g
        read = self.cache or SequenceCache(self.data)
        decoded = {subject: read(int(chosen[subject])) for subject in np.unique(subjects)}  # s ...; once for all K clips
        drawn = np.empty((len(subjects), groups.shape[1], *self.data.frame_shape), np.uint8)  # g u ...
        for out, subject, numbers in zip(drawn, subjects, groups[mine], strict=True):
            np.take(decoded[subject], numbers, axis=0, out=out, mode="clip")  # u ...
        if self.augmentation:
            draws = self.augmentation.draw(self.seed, step, self.clips)
            for position, clip in enumerate(drawn):  # s ...
                clip[:] = augment(clip, draws, first + position)
        identities = np.repeat(chosen, self.clips_per_subject)[first : first + share].astype(np.int32)  # n
        batch = {"frames": drawn, "labels": self.data.labels[identities], "identities": identities}
        if self.data.asymmetry is not None:
            batch["asymmetry"] = self.data.asymmetry[identities]  # n 8 3
        return batch if clip_frames is None else batch | {"clip_frames": clip_frames[mine]}

    def _share_frames(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Distinct frame numbers `[g, u]` among the drawn `[P, K, S]`, and the positions of the drawn ones in u, `[g, m, s]`.

        The second is None if no frames are shared. All processes decide alike, because each draws the whole batch.
        """
        length = self.shared_length
        own = frames.reshape(-1, self.frames_per_clip)  # n s
        if not length:
            return own, None
        drawn, has = self._drawn(frames)
        if np.sum(has, axis=1).max() > length:
            return own, None
        shared = np.argsort(~has, axis=1, kind="stable")[:, :length]  # g u; padded with frames that no clip uses
        places = np.take_along_axis(np.cumsum(has, axis=1, dtype=np.int32) - 1, drawn, axis=1)  # g ms
        return shared, places.reshape(len(drawn), self.clips_together, -1)

    def _drawn(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frame numbers `[P, K, S]` by group `[g, m s]`, and which numbers each group drew, bool `[g, number]`."""
        drawn = frames.reshape(-1, self.clips_together * self.frames_per_clip)  # g ms
        has = np.zeros((len(drawn), max(frames.max() + 1, drawn.shape[1])), bool)  # g number
        np.put_along_axis(has, drawn, True, axis=1)
        return drawn, has

    @functools.cached_property
    def shared_length(self) -> int:
        """Number of frames u that a group shares, constant so that one shape is compiled; 0 if sharing would save too little.

        A batch with a group that needs more frames does not share any.
        """
        if self.clips_together == 1 or self.augmentation:
            return 0
        most = max(np.sum(self._drawn(self.draw(step)[1])[1], axis=1).max() for step in range(SHARED_STEPS))
        length = -(-int(most) // 8) * 8
        return length if length <= SHARED_MOST * self.clips_together * self.frames_per_clip else 0


def train_batches(sampler: TrainSampler, start: int, stop: int, threads: int = 2) -> grain.IterDataset:
    """Training batches of the steps `start` to `stop - 1`, prefetched by `threads` threads."""
    steps = grain.MapDataset.range(start, stop).map(sampler)
    return steps.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


@dataclass(frozen=True)
class EvalBatcher:
    """Whole padded sequences: each of `rows` once, batched by padded length; the last batch of a length has masked rows.

    The padded length of a sequence, and with it the rounding of its result, depends only on the sequence, not on the number of
    devices and processes.
    """

    data: SequenceSet  # the whole set
    rows: np.ndarray  # rows of `data` to evaluate
    batch_size: int  # sequences of the global batch
    max_frames: int  # frames of a sequence; later ones are left out
    process_index: int = 0  # index of this process's share of the batch
    process_count: int = 1  # number of equal shares
    read: Callable[[int], np.ndarray] | None = None  # row to uint8 [s, 64, 44], e.g. a `SequenceCache`; None does not cache

    def __post_init__(self):
        if self.batch_size % self.process_count:
            raise DataError(
                f"data.sequences_per_eval_batch={self.batch_size} cannot be shared equally by {self.process_count} processes"
            )
        if len(self.rows) == 0:
            raise DataError("data.partition leaves no sequence to evaluate; pick another partition")
        for field, size in (("max_eval_frames", self.max_frames), ("sequences_per_eval_batch", self.batch_size)):
            if size < 1:
                raise DataError(f"data.{field}={size} must be at least 1")

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
        """This process's `frames`, `frame_mask` bool `[n, s]` and, where the set has them, `asymmetry`; `rows` int32 of all.

        `frames` and `asymmetry` as in `TrainSampler`. Padding has row -1. Every process gets all rows, because it also gets the
        results of all processes.
        """
        length, rows = self._batches[index]
        share = self.batch_size // self.process_count
        mine = rows[self.process_index * share : (self.process_index + 1) * share]
        read = self.read or SequenceCache(self.data)
        frames = np.zeros((share, length, *self.data.frame_shape), np.uint8)  # n s ...
        frame_mask = np.zeros((share, length), bool)  # n s
        frame_mask[:, 0] = True  # set pooling takes a maximum, which needs at least one frame
        for position, row in enumerate(mine):
            clip = read(int(row))[: self.max_frames]  # s ...
            frames[position, : len(clip)] = clip
            frame_mask[position, : len(clip)] = True
        padded = np.pad(rows.astype(np.int32), (0, self.batch_size - len(rows)), constant_values=-1)  # n
        batch = {"frames": frames, "frame_mask": frame_mask, "rows": padded}
        if self.data.asymmetry is not None:
            batch["asymmetry"] = np.zeros((share, *self.data.asymmetry.shape[1:]), np.float32)  # n 8 3
            batch["asymmetry"][: len(mine)] = self.data.asymmetry[mine]
        return batch


def eval_batches(batcher: EvalBatcher, threads: int = 2) -> grain.IterDataset:
    """All evaluation batches, in order."""
    indices = grain.MapDataset.range(len(batcher)).map(batcher)
    return indices.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
