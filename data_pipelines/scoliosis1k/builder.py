"""The TFDS builder: a released tree to ArrayRecord, without TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipelines.schema import CLASSES, FRAME_SIZE, DataError, few
from data_pipelines.scoliosis1k.release_tree import ReleasedSequence, fingerprint, read_subjects, scan

WINDOW = 64  # sequences in memory at a time
SPLIT = "sequences"  # one split; what is trained on and what is tested on is the run's business


def metadata_digest(metadata: Mapping) -> str:
    """SHA-256 of all that the metadata say, `digest` itself left out."""
    content = {name: value for name, value in metadata.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(sequence: ReleasedSequence) -> np.ndarray | str:
    """Runs in a thread: the silhouettes, or what is wrong with them."""
    try:
        return sequence.silhouettes()
    except DataError as error:
        return str(error)


class Scoliosis1k(tfds.core.GeneratorBasedBuilder):
    """Scoliosis1K silhouettes: 1,493 walks of 1,050 adolescents, labelled negative, neutral or positive by the Cobb angle.

    Zhou et al., "Gait Patterns as Biomarkers: A Video-Based Approach for Classifying Scoliosis", MICCAI 2024, arXiv 2407.05726.

    One record is one sequence: `sequence` (id), `label` (0 negative, 1 neutral, 2 positive) and `silhouettes`, uint8
    `[s, 64, 64]`. Records keep the order of the ids. The metadata lists ids, subjects, labels, views, frame counts and CRC-32
    checksums of the frames in that order, so that a run can sample without opening a record and trust what it opens, and a
    digest of themselves.

    Args:
      tree: the released tree, or the raw tree of PNG masks.
      subjects: optional CSV file `sequence,subject`.
      skip_bad: leave out what cannot be used, and list it in the metadata, instead of refusing the tree.
      **kwargs: of the TFDS base class, `data_dir` above all.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Scoliosis1K is given out by its authors against a signed agreement (see the project page of arXiv 2407.05726). "
        "Unpack the silhouette release, and run: python -m data_pipelines.prepare --input TREE --output DIR"
    )

    def __init__(self, *, tree: str, subjects: str | None = None, skip_bad: bool = False, **kwargs):
        self._tree = tree
        self._subjects = subjects
        self._skip_bad = skip_bad
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

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # nothing to download: the user brings the tree
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        sequences, problems = scan(self._tree, "--input")
        self._complain(problems)
        subject_of = read_subjects(self._subjects)
        if subject_of:
            unknown = [one.sequence for one in sequences if one.sequence not in subject_of]
            if unknown:
                raise DataError(f"--subjects={self._subjects!r} has no line for {few(unknown)}; every sequence needs one")
        columns: dict[str, list] = {name: [] for name in ("sequences", "subjects", "labels", "views", "n_frames", "checksums")}
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: OpenCV lets go of the interpreter while it decodes
            windows = (sequences[first : first + WINDOW] for first in range(0, len(sequences), WINDOW))
            results = (result for window in windows for result in pool.map(_read, window))
            bar = tqdm(results, "preparing sequences", len(sequences))
            for one, result in zip(sequences, bar, strict=True):
                if isinstance(result, str):
                    problems.append(result)
                    self._complain([result])
                    continue
                subject = subject_of.get(one.sequence, one.sequence)
                row = (one.sequence, subject, one.label, one.view, len(result), zlib.crc32(result.data))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
                yield (
                    len(columns["labels"]) - 1,
                    {"sequence": one.sequence, "label": one.label, "silhouettes": result},
                )
        if not columns["labels"]:
            raise DataError(f"--input={self._tree!r}: no sequence is left; {few(problems, 2)}")
        metadata = cast(tfds.core.MetadataDict, self.info.metadata)
        metadata.update(columns)
        metadata.update(skipped=problems, source=fingerprint(sequences, str(sorted(subject_of.items()))))
        metadata["digest"] = metadata_digest(metadata)

    def _complain(self, problems: list[str]) -> None:
        if problems and not self._skip_bad:
            raise DataError(f"{few(problems, 3)}; mend the data, or go on without with --skip-bad")
