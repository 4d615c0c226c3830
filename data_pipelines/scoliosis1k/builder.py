"""The TFDS builder: a released tree to ArrayRecord, in bounded memory and without TensorFlow."""

from __future__ import annotations

import functools
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipelines.schema import CLASSES, FRAME_SIZE, DataError, abbreviate
from data_pipelines.scoliosis1k.release_tree import (
    SPLIT,
    VERSION,
    ReleasedSequence,
    fingerprint,
    metadata_digest,
    read_subjects,
    scan,
)

SHARD_BYTES = 64 * 2**20  # of silhouettes in one file: TFDS keeps those of the file that it writes in memory
AHEAD_BYTES = 64 * 2**20  # of silhouettes that are read before the file before theirs is written


class _Read(NamedTuple):
    """A sequence as it was read, or what is wrong with it."""

    silhouettes: np.ndarray | None  # s 64 64
    checksum: int
    problem: str = ""


def _read(sequence: ReleasedSequence) -> _Read:
    """Runs in a thread: reading, decoding and summing let go of the interpreter."""
    try:
        silhouettes = sequence.silhouettes()  # s 64 64
    except DataError as error:
        return _Read(None, 0, str(error))
    return _Read(silhouettes, zlib.crc32(silhouettes.data))


def _read_ahead(sequences: Iterable[ReleasedSequence]) -> Iterator[tuple[ReleasedSequence, _Read]]:
    """All sequences in order, read by all cores, never more than `AHEAD_BYTES` (or one sequence) before they are asked for."""
    waiting: deque[tuple[ReleasedSequence, Future[_Read]]] = deque()
    pool = ThreadPoolExecutor(os.cpu_count())
    held = 0
    try:
        for sequence in sequences:
            while waiting and held + sequence.nbytes > AHEAD_BYTES:
                first, result = waiting.popleft()
                held -= first.nbytes
                yield first, result.result()
            waiting.append((sequence, pool.submit(_read, sequence)))
            held += sequence.nbytes
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _shards(sequences: list[ReleasedSequence]) -> list[list[ReleasedSequence]]:
    """The sequences of each file, in order: as many as stay within `SHARD_BYTES`, at least one."""
    shards: list[list[ReleasedSequence]] = []
    room = 0
    for sequence in sequences:
        if not shards or sequence.nbytes > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(sequence)
        room -= sequence.nbytes
    return shards


class Scoliosis1k(tfds.core.ShardBasedBuilder):
    """Scoliosis1K silhouettes: 1,493 walks of 1,050 adolescents, labelled negative, neutral or positive by the Cobb angle.

    Zhou et al., "Gait Patterns as Biomarkers: A Video-Based Approach for Classifying Scoliosis", MICCAI 2024, arXiv 2407.05726.

    One record is one sequence: `sequence` (id), `label` (0 negative, 1 neutral, 2 positive) and `silhouettes`, uint8
    `[s, 64, 64]`. Records keep the order of the ids. The metadata lists ids, subjects, labels, views, frame counts and CRC-32
    checksums of the frames in that order, so that a run can sample without opening a record and trust what it opens, and a
    digest of themselves.

    Records are written file by file as they are read. A builder that shuffles would collect the whole split first, and beyond
    1 GB would need TensorFlow for it.

    Args:
      tree: the released tree, or the raw tree of PNG masks.
      subjects: optional CSV file `sequence,subject`.
      skip_bad: leave out what cannot be used, and list it in the metadata, instead of refusing the tree.
      **kwargs: of the TFDS base class, `data_dir` above all.
    """

    VERSION = tfds.core.Version(VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Scoliosis1K is given out by its authors against a signed agreement (see the project page of arXiv 2407.05726). "
        "Unpack the silhouette release, and run: python -m data_pipelines.prepare --input TREE --output DIR"
    )

    def __init__(self, *, tree: str, subjects: str | None = None, skip_bad: bool = False, **kwargs):
        self._tree = tree
        self._subjects = subjects
        self._skip_bad = skip_bad
        self._columns: dict[str, list] = {
            name: [] for name in ("sequences", "subjects", "labels", "views", "n_frames", "checksums")
        }
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Silhouettes of walking adolescents, by scoliosis class. Not to be passed on.",
            homepage="https://arxiv.org/abs/2407.05726",
            features=tfds.features.FeaturesDict(
                {
                    "sequence": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                    "silhouettes": tfds.features.Tensor(shape=(None, FRAME_SIZE, FRAME_SIZE), dtype=np.uint8, encoding="bytes"),
                }
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager: tfds.download.DownloadManager, download_config: Any = None) -> None:
        """Write the records, then what the metadata say of them."""
        sequences, problems = scan(self._tree, "--input")
        self._complain(problems)
        subject_of = read_subjects(self._subjects)
        if subject_of:
            unknown = [one.sequence for one in sequences if one.sequence not in subject_of]
            if unknown:
                raise DataError(
                    f"--subjects={self._subjects!r} has no line for {abbreviate(unknown)}; every sequence needs one"
                )
        self._sequences, self._problems, self._subject_of = sequences, problems, subject_of
        with tqdm(desc="preparing sequences", total=len(sequences)) as self._bar:
            super()._download_and_prepare(dl_manager, download_config)
        if not self._columns["labels"]:
            raise DataError(f"--input={self._tree!r}: no sequence is left; {abbreviate(problems, 2)}")
        metadata = cast(tfds.core.MetadataDict, self.info.metadata)
        metadata.update(self._columns)
        metadata.update(skipped=problems, source=fingerprint(sequences, str(sorted(subject_of.items()))))
        metadata["digest"] = metadata_digest(metadata)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict]]]]]:
        del dl_manager  # nothing to download: the user brings the tree
        results = _read_ahead(self._sequences)
        return {SPLIT: [functools.partial(self._examples, shard, results) for shard in _shards(self._sequences)]}

    def _examples(
        self, shard: list[ReleasedSequence], results: Iterator[tuple[ReleasedSequence, _Read]]
    ) -> Iterator[tuple[int, dict]]:
        """The records of one file: the next of `results`, which the files share."""
        for _, (sequence, result) in zip(shard, results):  # noqa: B905, the shorter one first: results go on
            self._bar.update()
            if result.silhouettes is None:
                self._problems.append(result.problem)
                self._complain([result.problem])
                continue
            subject = self._subject_of.get(sequence.sequence, sequence.sequence)
            frames = len(result.silhouettes)
            row = (sequence.sequence, subject, sequence.label, sequence.view, frames, result.checksum)
            for column, value in zip(self._columns.values(), row, strict=True):
                column.append(value)
            example = {"sequence": sequence.sequence, "label": sequence.label, "silhouettes": result.silhouettes}
            yield len(self._columns["labels"]) - 1, example

    def _complain(self, problems: list[str]) -> None:
        if problems and not self._skip_bad:
            raise DataError(f"{abbreviate(problems, 3)}; mend the data, or go on without with --skip-bad")
