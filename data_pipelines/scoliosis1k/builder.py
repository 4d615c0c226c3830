"""TFDS builder: conversion of a released tree to ArrayRecord, in bounded memory and without TensorFlow."""

import functools
import os
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipelines.schema import CLASSES, FRAME_SIZE, DataError, abbreviate
from data_pipelines.scoliosis1k.metadata import fingerprint, metadata_digest
from data_pipelines.scoliosis1k.release_tree import SPLIT, VERSION, ReleasedSequence, Survey, refuse
from data_pipelines.tables import Subjects

SHARD_BYTES = 64 * 2**20  # of silhouettes in one file; TFDS holds the file that it writes in memory
AHEAD_BYTES = 64 * 2**20  # of silhouettes that are read in advance
COLUMNS = ("sequences", "subjects", "labels", "views", "n_frames", "checksums", "dropped")  # lists of the metadata
Result = tuple[np.ndarray, int] | DataError  # silhouettes [s, 64, 64] and their CRC-32, or why they cannot be used


def _read(sequence: ReleasedSequence) -> Result:
    """Runs in a thread: reading, decoding and CRC-32 release the interpreter lock."""
    try:
        silhouettes = sequence.silhouettes()  # s 64 64
        return silhouettes, zlib.crc32(silhouettes.data)
    except DataError as error:
        return error


def _read_ahead(sequences: Iterable[ReleasedSequence]) -> Generator[tuple[ReleasedSequence, Result], None, None]:
    """All sequences in order, read by all cores, at most `AHEAD_BYTES` (or one sequence) in advance."""
    waiting: deque[tuple[ReleasedSequence, Future[Result]]] = deque()
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
    """The sequences of each file, in order: at most `SHARD_BYTES` of silhouettes, but at least one sequence."""
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

    One record is one sequence: `sequence` (id), `label` and `silhouettes`, uint8 `[s, 64, 64]`. Records are sorted by id. The
    metadata list them, so that a run can draw clips without opening a record and verify each record that it opens.

    Records are written file by file as they are read. A builder that shuffles would collect the whole split first, and would
    need TensorFlow for more than 1 GB.
    `survey` and `subjects` are what the tree and the subjects file hold, `skip_bad` is that of `sources.prepare`, and `name`
    that of the tree in messages; other arguments, such as `data_dir`, go to TFDS.
    """

    VERSION = tfds.core.Version(VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "The authors give Scoliosis1K out against a signed agreement (see arXiv 2407.05726). Unpack the silhouettes, then run "
        "python -m data_pipelines.prepare --input TREE --output DIR"
    )

    def __init__(
        self,
        *,
        survey: Survey,
        subjects: Subjects,
        skip_bad: bool,
        name: str,
        **kwargs,
    ):
        self._survey, self._subjects, self._skip_bad, self._name = survey, subjects, skip_bad, name
        self._columns: dict[str, list] = {name: [] for name in COLUMNS}
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "sequence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
            "silhouettes": tfds.features.Tensor(shape=(None, FRAME_SIZE, FRAME_SIZE), dtype=np.uint8, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Silhouettes of walking adolescents, by scoliosis class. Not to be passed on.",
            homepage="https://arxiv.org/abs/2407.05726",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Write the records, then the metadata."""
        sequences, subjects = self._survey.sequences, self._subjects
        self._problems = [*self._survey.problems]
        # Closed here, also after an error: left to the garbage collector, the end of its threads would be waited for wherever
        # that happens to run, such as in a thread that is just being started, for ever.
        with (
            closing(_read_ahead(sequences)) as self._results,
            tqdm(desc="preparing sequences", total=len(sequences)) as self._bar,
        ):
            super()._download_and_prepare(dl_manager, download_config)
        if not self._columns["labels"]:
            raise DataError(f"{self._name}: no sequence is left; {abbreviate(self._problems, 2)}")
        metadata = cast(tfds.core.MetadataDict, self.info.metadata)
        metadata.update(self._columns)
        metadata.update(skipped=self._problems, unused=self._survey.unused.as_json())
        metadata.update(source=fingerprint(sequences, subjects.settings()))
        if subjects.traits:
            kept = self._columns["sequences"]
            metadata["traits"] = {name: [values[one] for one in kept] for name, values in subjects.traits.items()}
        metadata["digest"] = metadata_digest(metadata)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict]]]]]:
        del dl_manager  # nothing to download: the user brings the tree
        return {SPLIT: [functools.partial(self._examples, shard, self._results) for shard in _shards(self._survey.sequences)]}

    def _examples(
        self, shard: list[ReleasedSequence], results: Iterator[tuple[ReleasedSequence, Result]]
    ) -> Iterator[tuple[int, dict]]:
        """The records of one file: the next ones of `results`, an iterator that all files share."""
        for _, (sequence, result) in zip(shard, results):  # noqa: B905, `shard` ends first and leaves the rest of `results`
            self._bar.update()
            if isinstance(result, DataError):
                self._problems.append(str(result))
                if not self._skip_bad:
                    refuse([str(result)])
                continue
            silhouettes, checksum = result  # s 64 64
            subject = self._subjects.get(sequence.sequence, sequence.sequence)
            frames = len(silhouettes)
            dropped = sequence.dropped(frames)
            row = (sequence.sequence, subject, sequence.label, sequence.folder.name, frames, checksum, dropped)
            for column, value in zip(self._columns.values(), row, strict=True):
                column.append(value)
            example = {"sequence": sequence.sequence, "label": sequence.label, "silhouettes": silhouettes}
            yield len(self._columns["labels"]) - 1, example
