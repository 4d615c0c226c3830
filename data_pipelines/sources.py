"""Opening of `data.root`: a prepared folder, or a released tree that is prepared into a cache on first use."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from data_pipelines.schema import (
    FRAME_SIZE,
    DataError,
    SilhouetteSet,
    abbreviate,
    cache_folder,
    existing_folder,
    read_regular,
)
from data_pipelines.scoliosis1k.release_tree import SPLIT, VERSION, fingerprint, metadata_digest, prepared_remarks, scan
from data_pipelines.tables import read_subjects

UNFINISHED = "incomplete."  # prefix of the folders that TFDS writes to before it renames them
REMEDY = "delete it and run data_pipelines.prepare again"


def prepared_folder(root: Path) -> Path:
    """Folder of the finished data set after `data_pipelines.prepare --output root`."""
    return root / "scoliosis1k" / VERSION


def is_prepared(root: Path) -> bool:
    """True if `root` holds a complete data set, which TFDS moves into place by a rename; raises `DataError` if unreadable."""
    try:
        return (prepared_folder(root) / "dataset_info.json").is_file()
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}); change its permissions or pick another folder") from None


def prepare(
    tree: str, output: Path, subjects: str | None = None, skip_bad: bool = False, report: Callable[[str], None] = print
) -> list[str]:
    """Prepare a released tree into `output`. The memory needed hardly depends on the size of the tree.

    A call that fails or is interrupted removes its files; the files of a killed call are removed by the next call. Of two calls
    for one folder the second waits for the first, and uses its result if the tree is the same.

    `subjects` is a CSV file with the columns `sequence,subject`, and further ones, which are kept. With `skip_bad`, unusable
    sequences are left out instead of raising `DataError`. `report` receives messages for the user. Returns one line for each
    sequence that was left out.
    """
    import tensorflow_datasets as tfds  # imported here and in `open_prepared`: takes a second, not needed for walkers

    from data_pipelines.scoliosis1k.builder import Scoliosis1k

    tfds.disable_progress_bar()  # the builder shows its own, which counts sequences
    output = output.expanduser()
    source, target = Path(tree).expanduser().absolute(), prepared_folder(output)
    if source in (output.absolute(), *output.absolute().parents) or output.absolute() in source.parents:
        raise DataError(f"--output={str(output)!r} and --input={tree!r} contain one another; pick another folder")
    downloads = target.parent / f"{UNFINISHED}downloads"  # nothing is downloaded, but TFDS needs a folder
    try:
        with _one_at_a_time(target.parent, report) as alone:
            if alone:
                for leftover in target.parent.glob(f"{UNFINISHED}*"):
                    shutil.rmtree(leftover)
            if not target.exists():
                with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as later:  # TFDS prints about downloads
                    later.callback(shutil.rmtree, downloads, ignore_errors=True)
                    builder = Scoliosis1k(tree=str(tree), subjects=subjects, skip_bad=skip_bad, data_dir=output)
                    builder.download_and_prepare(download_dir=downloads)
                if unused := builder.unused_subjects:
                    named = f"--subjects={subjects!r}: {len(unused)} of its lines are of sequences that are not in the data"
                    report(f"warning: {named}: {abbreviate(unused, 3)}")
                metadata = _metadata(target)
                for line in prepared_remarks(metadata):
                    report(line)
                return metadata["skipped"]
    except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError, naming the file, if the disk is full
        if isinstance(error, RuntimeError) and str(target.parent) not in str(error):
            raise
        if not is_prepared(output):  # otherwise another process finished first, on a file system without locks
            raise DataError(f"--output={str(output)!r} cannot be written ({error}); make room or pick another folder") from None
    # Another process has prepared the folder.
    sequences, _ = scan(tree, "--input")
    metadata = _metadata(prepared_folder(output))
    if metadata["source"] != fingerprint(sequences, read_subjects(subjects, [one.sequence for one in sequences]).settings()):
        raise DataError(f"--output={str(output)!r} is already prepared, from other files; delete it or pick another folder")
    if metadata["skipped"] and not skip_bad:
        raise DataError(f"--output={str(output)!r} is already prepared, with --skip-bad; delete it or pick another folder")
    return metadata["skipped"]


def _metadata(folder: Path) -> dict[str, Any]:
    """Metadata of a prepared folder; raises `DataError` if they are damaged."""
    try:
        columns = json.loads(read_regular(folder / "metadata.json"))
        if metadata_digest(columns) != columns["digest"]:
            raise ValueError("metadata.json does not match its digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error
    return columns


@contextlib.contextmanager
def _one_at_a_time(folder: Path, report: Callable[[str], None]) -> Iterator[bool]:
    """Create a folder and hold a lock file in it; remove both at the end, the folder only if it is empty.

    Yields False on a file system without locks.
    """
    path, locked = folder / ".preparing", False
    made = [folder, *(parent for parent in folder.parents if not parent.exists())]
    with contextlib.ExitStack() as held:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the previous holder has removed the folder or the file: try again
                file = held.enter_context(path.open("a", encoding="utf-8"))
                locked = _lock(file, folder, report)
                if not locked or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
            held.close()
        try:
            yield locked
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder is not empty
                for parent in made:
                    parent.rmdir()


def _lock(file: TextIO, folder: Path, report: Callable[[str], None]) -> bool:
    """Lock a file, waiting for the process that holds it; False on a file system without locks."""
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"another preparation is at work in {folder}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def open_prepared(root: Path) -> SilhouetteSet:
    """Open a prepared folder. The first read of a sequence verifies its checksum; ArrayRecord verifies its own at every read.

    `DataError` names the folder or, from `read`, the record that is damaged.
    """
    import tensorflow_datasets as tfds

    folder = prepared_folder(root)
    columns = _metadata(folder)
    try:
        builder = tfds.builder_from_directory(folder)
        records = builder.as_data_source(split=SPLIT)  # pyright: ignore[reportCallIssue]; behind an untyped decorator
        sizes = {name: len(columns[name]) for name in ("sequences", "subjects", "labels", "n_frames", "checksums")}
        traits = {name: tuple(map(str, values)) for name, values in columns.get("traits", {}).items()}
        sizes |= {f"traits.{name}": len(values) for name, values in traits.items()}
        if set(sizes.values()) != {len(records)}:
            raise ValueError(f"{len(records)} records for {sizes}")
        labels, n_frames = (np.array(columns[name], np.int32) for name in ("labels", "n_frames"))
    except Exception as error:  # TFDS and ArrayRecord raise many kinds of exception for damaged files
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error

    def read(row: int) -> np.ndarray:
        name = f"{folder}: record {row}, sequence {columns['sequences'][row]}"
        try:
            silhouettes = records[row]["silhouettes"]  # s 64 64
        except Exception as error:
            raise DataError(f"{name}, cannot be read ({type(error).__name__}: {error}); {REMEDY}") from error
        shape = (n_frames[row], FRAME_SIZE, FRAME_SIZE)
        if silhouettes.shape != shape or (row not in checked and zlib.crc32(silhouettes.data) != columns["checksums"][row]):
            raise DataError(f"{name}, does not match its checksum; {REMEDY}")
        checked.add(row)
        return silhouettes

    checked: set[int] = set()
    read(0)  # ArrayRecord opens a file, and detects that it is truncated, at the first read
    sequences, subjects = tuple(columns["sequences"]), tuple(columns["subjects"])
    content = hashlib.sha256(json.dumps(columns["checksums"]).encode()).hexdigest()
    return SilhouetteSet(str(root), False, sequences, subjects, labels, n_frames, read, content, traits)


def open_root(root: str, report: Callable[[str], None]) -> SilhouetteSet:
    """Open `data.root`, a folder made by `data_pipelines.prepare` or a released tree; `report` gets messages for the user."""
    folder = existing_folder(root, "data.root")
    if is_prepared(folder):
        return open_prepared(folder)
    if any(prepared_folder(folder).parent.glob(f"{UNFINISHED}*")):
        raise DataError(f"data.root={root!r} was not prepared to its end; run data_pipelines.prepare again")
    sequences, _ = scan(folder, "data.root")
    cached = cache_folder() / f"prepared-{fingerprint(sequences)}"
    if not is_prepared(cached):
        report(f"data.root={root} is a released tree; preparing it once into {cached}")
        prepare(str(folder), cached, report=report)
    return open_prepared(cached)
