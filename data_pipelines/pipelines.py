"""grain pipelines: endless P x K training batches as a function of (seed, step), and finite, ordered evaluation batches.

Both hand out numpy batches of one process's share. Frames stay uint8 `[n, s, 64, 44]`; they become floats on the device.
"""

from __future__ import annotations

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
        frames = np.empty((self.subjects_per_batch, self.clips_per_subject, self.frames_per_clip), np.int64)
        for subject, row in enumerate(chosen):
            available = int(self.data.n_frames[row])
            for clip in range(self.clips_per_subject):
                replace = available < self.frames_per_clip
                frames[subject, clip] = rng.choice(available, self.frames_per_clip, replace=replace)
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
    """Whole sequences in order, padded: every sequence of `rows` once, the last batch filled up with masked rows.

    Raises:
      DataError: when there is nothing to evaluate or a size is not positive.
    """

    data: SilhouetteSet
    rows: np.ndarray
    batch_size: int
    max_frames: int

    def __post_init__(self):
        if len(self.rows) == 0:
            raise DataError("data.partition leaves no sequence to evaluate; pick another partition")
        if self.max_frames < 1:
            raise DataError(f"data.max_eval_frames={self.max_frames} must be at least 1")
        if self.batch_size < 1:
            raise DataError(f"data.sequences_per_eval_batch={self.batch_size} must be at least 1")

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __call__(self, index: int) -> Batch:
        """One batch: `silhouettes` uint8 `[n, s, 64, 44]`, `frame_mask` bool `[n, s]`, `rows` int32 `[n]`, -1 for padding."""
        rows = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        clips = [cut_sides(self.data.read(int(row))[: self.max_frames]) for row in rows]  # each s 64 44
        longest = max(len(clip) for clip in clips)
        length = -(-longest // EVAL_LENGTH_STEP) * EVAL_LENGTH_STEP
        batch = {
            "silhouettes": np.zeros((self.batch_size, length, FRAME_SIZE, FRAME_WIDTH), np.uint8),
            "frame_mask": np.zeros((self.batch_size, length), bool),
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
