"""TFDS builder: conversion of a released tree to ArrayRecord, in bounded memory and without TensorFlow."""

import functools
import os
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipelines.poses.asymmetry import asymmetry_vector
from data_pipelines.poses.drawing import read_drawable
from data_pipelines.poses.joints import JOINTS
from data_pipelines.poses.reading import check_same_frames
from data_pipelines.schema import CLASSES, FRAME_SIZE, POSES, SILHOUETTES, DataError, abbreviate
from data_pipelines.scoliosis1k.metadata import metadata_digest
from data_pipelines.scoliosis1k.release_tree import SPLIT, VERSION, refuse
from data_pipelines.scoliosis1k.walks import Trees, Walk
from data_pipelines.tables import Subjects

SHARD_BYTES = 64 * 2**20  # of frames in one file; TFDS holds the file that it writes in memory
AHEAD_BYTES = 64 * 2**20  # of frames that are read in advance
# Lists of the metadata, an entry for each record, and those of poses, which stand under `poses`. Where a record has no
# silhouettes, or no poses, its `n_frames` is 0.
COLUMNS = ("sequences", "subjects", "labels", "views", "n_frames", "checksums", "dropped")
POSE_COLUMNS = ("n_frames", "checksums", "asymmetry", "dropped", "crowded", "never")
NO_SILHOUETTES = np.zeros((0, FRAME_SIZE, FRAME_SIZE), np.uint8)
NO_JOINTS = np.zeros((0, len(JOINTS), 3), np.float32)


class Result(NamedTuple):
    """What was read of a walk, and why something of it cannot be used."""

    silhouettes: np.ndarray  # uint8 [s, 64, 64]; without frames where there are none
    checksum: int  # CRC-32 of them
    joints: np.ndarray  # float32 [s, 17, 3]; likewise
    of_poses: tuple  # an entry for each of `POSE_COLUMNS`
    problems: list[str]


def _read(walk: Walk) -> Result:
    """Runs in a thread: reading, decoding and CRC-32 release the interpreter lock."""
    silhouettes, poses, problems = NO_SILHOUETTES, None, []
    if walk.silhouettes:
        with _noting(problems):
            silhouettes = walk.silhouettes.silhouettes()  # s 64 64
    if walk.poses:
        with _noting(problems):
            poses = read_drawable(walk.poses)
    if walk.silhouettes and len(silhouettes) and poses:
        with _noting(problems):
            given = len(silhouettes) + walk.silhouettes.dropped(len(silhouettes))
            check_same_frames(given, poses.given, walk.sequence)
        if problems:
            silhouettes, poses = NO_SILHOUETTES, None
    joints, of_poses = NO_JOINTS, (0, 0, [], 0, 0, [])  # s 17 3
    if poses:
        joints = poses.joints  # s 17 3
        vector = asymmetry_vector(joints).ravel().tolist()  # 24
        lost = poses.given - len(joints)
        of_poses = (len(joints), zlib.crc32(joints.data), vector, lost, poses.crowded, poses.never)
    return Result(silhouettes, zlib.crc32(silhouettes.data), joints, of_poses, problems)


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """A mistake in the body becomes a problem."""
    try:
        yield
    except DataError as error:
        problems.append(str(error))


def _read_ahead(sequences: Iterable[Walk]) -> Generator[tuple[Walk, Result], None, None]:
    """All walks in order, read by all cores, at most `AHEAD_BYTES` (or one walk) in advance."""
    waiting: deque[tuple[Walk, Future[Result]]] = deque()
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


def _shards(sequences: list[Walk]) -> list[list[Walk]]:
    """The walks of each file, in order: at most `SHARD_BYTES` of frames, but at least one walk."""
    shards: list[list[Walk]] = []
    room = 0
    for sequence in sequences:
        if not shards or sequence.nbytes > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(sequence)
        room -= sequence.nbytes
    return shards


class Scoliosis1k(tfds.core.ShardBasedBuilder):
    """Scoliosis1K: 1,493 walks of 1,050 adolescents, labelled negative, neutral or positive by the Cobb angle.

    Zhou et al., "Gait Patterns as Biomarkers: A Video-Based Approach for Classifying Scoliosis", MICCAI 2024, arXiv 2407.05726.

    One record is one sequence: `sequence` (id), `label`, and of each tree that was given its usable frames, `silhouettes` uint8
    `[s, 64, 64]` and `poses` float32 `[s, 17, 3]`, of which a sequence may lack one. Records are sorted by id. The metadata
    list them, so that a run can draw clips without opening a record and verify each record that it opens.

    Records are written file by file as they are read. A builder that shuffles would collect the whole split first, and would
    need TensorFlow for more than 1 GB.
    `trees` and `subjects` are what the trees and the subjects file hold, `skip_bad` is that of `sources.prepare`, and `names`
    has that of the tree of each modality in messages; other arguments, such as `data_dir`, go to TFDS.
    """

    VERSION = tfds.core.Version(VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "The authors give Scoliosis1K out against a signed agreement (see arXiv 2407.05726). Unpack the silhouettes, then run "
        "python -m data_pipelines.prepare --input TREE --output DIR"
    )

    def __init__(
        self,
        *,
        trees: Trees,
        subjects: Subjects,
        skip_bad: bool,
        names: Mapping[str, str],
        **kwargs,
    ):
        self._trees, self._subjects, self._skip_bad, self._names = trees, subjects, skip_bad, names
        self._columns: dict[str, list] = {name: [] for name in COLUMNS}
        self._poses: dict[str, list] = {name: [] for name in POSE_COLUMNS}
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        kinds = {
            SILHOUETTES: tfds.features.Tensor(shape=(None, FRAME_SIZE, FRAME_SIZE), dtype=np.uint8, encoding="bytes"),
            POSES: tfds.features.Tensor(shape=(None, len(JOINTS), 3), dtype=np.float32, encoding="bytes"),
        }
        features = {"sequence": tfds.features.Text(), "label": tfds.features.ClassLabel(names=list(CLASSES))}
        features |= {name: kinds[name] for name in self._names}
        what = " and ".join(self._names).capitalize()
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{what} of walking adolescents, by scoliosis class. Not to be passed on.",
            homepage="https://arxiv.org/abs/2407.05726",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Write the records, then the metadata."""
        trees, subjects = self._trees, self._subjects
        self._problems = [*trees.problems]
        # Closed here, also after an error: left to the garbage collector, the end of its threads would be waited for wherever
        # that happens to run, such as in a thread that is just being started, for ever.
        with (
            closing(_read_ahead(trees.walks)) as self._results,
            tqdm(desc="preparing sequences", total=len(trees.walks)) as self._bar,
        ):
            super()._download_and_prepare(dl_manager, download_config)
        for modality, name in self._names.items():
            if not any((self._columns if modality == SILHOUETTES else self._poses)["n_frames"]):
                raise DataError(f"{name}: no sequence is left; {abbreviate(self._problems, 2)}")
        metadata = cast(tfds.core.MetadataDict, self.info.metadata)
        metadata.update(self._columns)
        metadata.update(skipped=self._problems, unused=trees.silhouettes.unused.as_json() if trees.silhouettes else {})
        if trees.poses:
            metadata["poses"] = self._poses | {"unused": trees.poses.unused.as_json()}
        if any(tree and tree.synthetic for tree in (trees.silhouettes, trees.poses)):
            metadata["synthetic"] = True
        metadata.update(source=trees.source(subjects.settings()))
        if subjects.traits:
            kept = self._columns["sequences"]
            metadata["traits"] = {name: [values[one] for one in kept] for name, values in subjects.traits.items()}
        metadata["digest"] = metadata_digest(metadata)

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[int, dict]]]]]:
        del dl_manager  # nothing to download: the user brings the tree
        return {SPLIT: [functools.partial(self._examples, shard, self._results) for shard in _shards(self._trees.walks)]}

    def _examples(self, shard: list[Walk], results: Iterator[tuple[Walk, Result]]) -> Iterator[tuple[int, dict]]:
        """The records of one file: the next ones of `results`, an iterator that all files share."""
        for _, (walk, result) in zip(shard, results):  # noqa: B905, `shard` ends first and leaves the rest of `results`
            self._bar.update()
            self._problems.extend(result.problems)
            if not self._skip_bad:
                refuse(result.problems)
            frames = {SILHOUETTES: result.silhouettes, POSES: result.joints}
            if not any(map(len, frames.values())):
                continue
            count, subject = len(result.silhouettes), self._subjects.get(walk.sequence, walk.sequence)
            dropped = walk.silhouettes.dropped(count) if walk.silhouettes and count else 0
            row = (walk.sequence, subject, walk.label, walk.view, count, result.checksum, dropped)
            for columns, values in ((self._columns, row), (self._poses, result.of_poses)):
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
            example = {"sequence": walk.sequence, "label": walk.label} | {name: frames[name] for name in self._names}
            yield len(self._columns["labels"]) - 1, example
