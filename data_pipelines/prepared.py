"""Opening of a folder that `data_pipelines.prepare` made."""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files import read_regular
from data_pipelines.poses.asymmetry import MEASURES
from data_pipelines.poses.joints import JOINTS, PAIRS
from data_pipelines.schema import FRAME_SIZE, POSES, SILHOUETTES, SKELETONS, DataError, SequenceSet, unreadable
from data_pipelines.scoliosis1k.metadata import metadata_digest
from data_pipelines.scoliosis1k.release_tree import SPLIT, VERSION

REMEDY = "delete it and run data_pipelines.prepare again"
KINDS = {SILHOUETTES: SILHOUETTES, SKELETONS: POSES}  # what a set holds for each modality of a network
FRAME = {SILHOUETTES: (FRAME_SIZE, FRAME_SIZE), POSES: (len(JOINTS), 3)}  # axes of a frame as it is stored


def prepared_folder(root: Path) -> Path:
    """Folder of the finished data set after `data_pipelines.prepare --output root`."""
    return root / "scoliosis1k" / VERSION


def is_prepared(root: Path) -> bool:
    """True if `root` holds a complete data set, which TFDS moves into place by a rename; raises `DataError` if unreadable."""
    try:
        return (prepared_folder(root) / "dataset_info.json").is_file()
    except OSError as error:
        raise DataError(f"{root} {unreadable(error)}") from None


def read_metadata(folder: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """Metadata of a prepared folder; raises `DataError`, with the remedy, if they are damaged."""
    try:
        columns = json.loads(read_regular(folder / "metadata.json"))
        if metadata_digest(columns) != columns["digest"]:
            raise ValueError("metadata.json does not match its digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    return columns


def open_prepared(
    root: Path, metadata: dict[str, Any] | None = None, remedy: str = REMEDY, modality: str = SILHOUETTES
) -> SequenceSet:
    """Open a prepared folder. The first read of a sequence verifies its checksum; ArrayRecord verifies its own at every read.

    Args:
      root: that of `data_pipelines.prepare --output`.
      metadata: those of `read_metadata`, if they are read already.
      remedy: what to do about a damaged folder or record, for messages.
      modality: what a network reads. For silhouettes the set has these; for skeletons it has poses, and their asymmetry
        vectors. Sequences that lack it are no part of the set.

    Raises `DataError`, as `read` of the set does, naming the folder or the record that is damaged.
    """
    import tensorflow_datasets as tfds  # imported here: takes a second, not needed for walkers

    folder, kind = prepared_folder(root), KINDS[modality]
    columns = metadata or read_metadata(folder, remedy)
    try:
        builder = tfds.builder_from_directory(folder)
        records = builder.as_data_source(split=SPLIT)  # pyright: ignore[reportCallIssue]; behind an untyped decorator
        of_kind = columns if kind == SILHOUETTES else columns.get(POSES, {"n_frames": [0] * len(records), "checksums": []})
        sizes = {name: len(columns[name]) for name in ("sequences", "subjects", "labels", "n_frames", "checksums")}
        traits = {name: tuple(map(str, values)) for name, values in columns.get("traits", {}).items()}
        sizes |= {f"traits.{name}": len(values) for name, values in traits.items()}
        sizes |= {
            f"{POSES}.{name}": len(columns[POSES][name]) for name in ("n_frames", "checksums", "asymmetry") if POSES in columns
        }
        if set(sizes.values()) != {len(records)}:
            raise ValueError(f"{len(records)} records for {sizes}")
        n_frames = np.array(of_kind["n_frames"], np.int32)  # record
        rows = np.flatnonzero(n_frames)  # n
        labels = np.array(columns["labels"], np.int32)[rows]  # n
        asymmetry = None
        if kind == POSES and len(rows):
            vectors = np.array([of_kind["asymmetry"][row] for row in rows], np.float32)  # n 24
            asymmetry = vectors.reshape(len(rows), len(PAIRS), len(MEASURES))  # n 8 3
        sequences, subjects = (tuple(columns[name][row] for row in rows) for name in ("sequences", "subjects"))
        checksums = [of_kind["checksums"][row] for row in rows]
        traits = {name: tuple(values[row] for row in rows) for name, values in traits.items()}
    except Exception as error:  # TFDS and ArrayRecord raise many kinds of exception for damaged files
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    if not sequences:
        raise DataError(f"{root} holds {' and '.join(held(columns))}, no {kind}")
    n_frames = n_frames[rows]  # n

    def read(row: int) -> np.ndarray:
        name = f"{folder}: record {rows[row]}, sequence {sequences[row]}"
        try:
            frames = records[int(rows[row])][kind]  # s ...
        except Exception as error:
            raise DataError(f"{name}, cannot be read ({type(error).__name__}: {error}); {remedy}") from error
        if frames.shape != (n_frames[row], *FRAME[kind]) or (row not in checked and zlib.crc32(frames.data) != checksums[row]):
            raise DataError(f"{name}, does not match its checksum; {remedy}")
        checked.add(row)
        return frames

    checked: set[int] = set()
    read(0)  # ArrayRecord opens a file, and detects that it is truncated, at the first read
    content = hashlib.sha256(json.dumps(checksums).encode() + (b"" if asymmetry is None else asymmetry.tobytes())).hexdigest()
    synthetic = bool(columns.get("synthetic"))
    return SequenceSet(str(root), synthetic, sequences, subjects, labels, n_frames, read, content, traits, kind, asymmetry)


def held(metadata: dict[str, Any]) -> list[str]:
    """The modalities of which a prepared set has sequences, `SILHOUETTES` or `POSES` or both."""
    columns = {SILHOUETTES: metadata, POSES: metadata.get(POSES, {"n_frames": []})}
    return [name for name, one in columns.items() if any(one["n_frames"])]


def open_each(root: Path, metadata: dict[str, Any] | None = None) -> list[SequenceSet]:
    """A prepared folder as sets of one modality each, silhouettes first, of those that it has; raises as `open_prepared`."""
    columns = metadata or read_metadata(prepared_folder(root))
    return [open_prepared(root, columns, modality=name) for name in (SILHOUETTES, SKELETONS) if KINDS[name] in held(columns)]
