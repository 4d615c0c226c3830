"""Opens what `data.root` points at: a prepared folder, or a released tree that is prepared into a cache on first use."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.schema import FRAME_SIZE, DataError, SilhouetteSet, existing_folder
from data_pipelines.scoliosis1k.builder import SPLIT, Scoliosis1k, metadata_digest
from data_pipelines.scoliosis1k.release_tree import fingerprint, scan


def prepared_folder(root: Path) -> Path:
    """Where `data_pipelines.prepare --output root` puts the finished data set."""
    return root / "scoliosis1k" / str(Scoliosis1k.VERSION)


def is_prepared(root: Path) -> bool:
    """TFDS renames a finished data set into place as a whole, so the folder is there or it is not."""
    return (prepared_folder(root) / "dataset_info.json").is_file()


def prepare(tree: str, output: Path, subjects: str | None = None, skip_bad: bool = False) -> list[str]:
    """Prepare a released tree into `output`; returns what was skipped. An interrupted call leaves no data set behind.

    Raises:
      DataError: for anything wrong with the tree, or an output folder that cannot be written.
    """
    tfds.disable_progress_bar()  # ours counts sequences
    try:
        with tempfile.TemporaryDirectory() as nothing, contextlib.redirect_stdout(io.StringIO()):  # TFDS talks of downloads
            builder = Scoliosis1k(tree=str(tree), subjects=subjects, skip_bad=skip_bad, data_dir=output)
            builder.download_and_prepare(download_dir=nothing)
    except OSError as error:
        raise DataError(f"--output={str(output)!r} cannot be written ({error}); pick another folder") from None
    return json.loads((prepared_folder(output) / "metadata.json").read_text(encoding="utf-8"))["skipped"]


def open_prepared(root: Path) -> SilhouetteSet:
    """Open a prepared folder. Every sequence is checked against its checksum when it is first read; every read is against
    those within the ArrayRecord file.

    Raises:
      DataError: when it is damaged; reading a damaged record later raises it, too, and names the record.
    """
    folder = prepared_folder(root)
    remedy = "delete it and run data_pipelines.prepare again"
    try:
        columns = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        builder = tfds.builder_from_directory(folder)
        records = builder.as_data_source(split=SPLIT)  # pyright: ignore[reportCallIssue]; behind an untyped decorator
        sizes = {name: len(columns[name]) for name in ("sequences", "subjects", "labels", "n_frames", "checksums")}
        if metadata_digest(columns) != columns.get("digest"):
            raise ValueError("metadata.json does not match its digest")
        if set(sizes.values()) != {len(records)}:
            raise ValueError(f"{len(records)} records for {sizes}")
        labels, n_frames = (np.array(columns[name], np.int32) for name in ("labels", "n_frames"))
    except Exception as error:  # TFDS and ArrayRecord raise many kinds for damaged files; all of it means the same here
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); {remedy}") from error

    def read(row: int) -> np.ndarray:
        name = f"{folder}: record {row}, sequence {columns['sequences'][row]}"
        try:
            silhouettes = records[row]["silhouettes"]  # s 64 64
        except Exception as error:
            raise DataError(f"{name}, cannot be read ({type(error).__name__}: {error}); {remedy}") from error
        shape = (n_frames[row], FRAME_SIZE, FRAME_SIZE)
        if silhouettes.shape != shape or (row not in checked and zlib.crc32(silhouettes.data) != columns["checksums"][row]):
            raise DataError(f"{name}, does not match its checksum; {remedy}")
        checked.add(row)
        return silhouettes

    checked: set[int] = set()
    read(0)  # ArrayRecord looks at a file, and notices that it is cut off, at the first read
    return SilhouetteSet(
        name=str(root),
        synthetic=False,
        sequences=tuple(columns["sequences"]),
        subjects=tuple(columns["subjects"]),
        labels=labels,
        n_frames=n_frames,
        read=read,
        content=hashlib.sha256(json.dumps(columns["checksums"]).encode()).hexdigest(),
    )


def cache_folder() -> Path:
    """`$SCOLIOJAX_CACHE`, else the user's cache folder.

    Raises:
      DataError: when the user has no home.
    """
    if chosen := os.environ.get("SCOLIOJAX_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scoliojax"
    except RuntimeError:  # a container's user of whom only the number is known
        raise DataError(
            "no home folder to keep a cache in: neither $HOME nor the list of users names one; set SCOLIOJAX_CACHE to a folder"
        ) from None


def open_root(root: str, report: Callable[[str], None]) -> SilhouetteSet:
    """Open `data.root`.

    Args:
      root: a folder made by `data_pipelines.prepare`, or a released tree.
      report: takes a line for the user.

    Raises:
      DataError: for a root that is missing, empty, of another layout, or damaged.
    """
    folder = existing_folder(root, "data.root")
    if is_prepared(folder):
        return open_prepared(folder)
    sequences, _ = scan(folder, "data.root")
    cached = cache_folder() / f"prepared-{fingerprint(sequences)}"
    if not is_prepared(cached):
        report(f"data.root={root} is a released tree; preparing it once into {cached}")
        prepare(str(folder), cached)
    return open_prepared(cached)
