"""grain pipelines: endless P x K training batches as a function of (seed, step), and finite, ordered evaluation batches.

Both hand out numpy batches of one process's share. Frames stay uint8 `[n, s, 64, 44]`; they become floats on the device.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import grain
import numpy as np

from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH, SIDE_CUT, DataError, SilhouetteSet

EVAL_LENGTH_STEP = 60  # evaluation pads to a multiple of this many frames, so that few lengths are compiled
Batch = dict[str, np.ndarray]


def cut_sides(silhouettes: np.ndarray) -> np.ndarray:
    """Cut the empty columns on both sides: `[..., 64, 64]` to `[..., 64, 44]`, a view."""
    return silhouettes[..., SIDE_CUT : FRAME_SIZE - SIDE_CUT]


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
        """This process's share of the batch: `silhouettes` uint8 `[n, s, 64, 44]`, `labels` and `identities` int32 `[n]`."""
        chosen, frames = self.draw(step)
        share = self.clips // self.process_count
        first = self.process_index * share
        mine = range(first, first + share)
        decoded = {
            subject: cut_sides(self.data.read(int(chosen[subject])))  # s 64 44; once a batch, whatever K is
            for subject in {clip // self.clips_per_subject for clip in mine}
        }
        silhouettes = np.empty((share, self.frames_per_clip, FRAME_SIZE, FRAME_WIDTH), np.uint8)
        for position, clip in enumerate(mine):
            subject, turn = divmod(clip, self.clips_per_subject)
            silhouettes[position] = decoded[subject][frames[subject, turn]]  # s 64 44
        identities = np.repeat(chosen, self.clips_per_subject)[mine.start : mine.stop].astype(np.int32)  # n
        return {"silhouettes": silhouettes, "labels": self.data.labels[identities], "identities": identities}


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

    Raises:
      DataError: when there is nothing to evaluate, a size is not positive, or the batch cannot be shared out equally.
    """

    data: SilhouetteSet
    rows: np.ndarray
    batch_size: int
    max_frames: int
    process_index: int = 0
    process_count: int = 1

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
        clips = [cut_sides(self.data.read(int(row))[: self.max_frames]) for row in mine]  # each s 64 44
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
