"""Opens what `data.root` points at: a prepared folder, or a released tree that is prepared into a cache on first use."""

from __future__ import annotations

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

from data_pipelines.schema import FRAME_SIZE, DataError, SilhouetteSet, cache_folder, existing_folder
from data_pipelines.scoliosis1k.release_tree import SPLIT, VERSION, fingerprint, metadata_digest, read_subjects, scan

UNFINISHED = "incomplete."  # how TFDS begins the names of folders that it writes in, before it renames them
REMEDY = "delete it and run data_pipelines.prepare again"


def prepared_folder(root: Path) -> Path:
    """Where `data_pipelines.prepare --output root` puts the finished data set."""
    return root / "scoliosis1k" / VERSION


def is_prepared(root: Path) -> bool:
    """TFDS renames a finished data set into place as a whole, so the folder is there or it is not.

    Raises:
      DataError: where that cannot be told.
    """
    try:
        return (prepared_folder(root) / "dataset_info.json").is_file()
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}); mend its rights or pick another folder") from None


def prepare(
    tree: str,
    output: Path,
    subjects: str | None = None,
    skip_bad: bool = False,
    report: Callable[[str], None] = print,
) -> list[str]:
    """Prepare a released tree into `output`, in memory that hardly grows with its size.

    A call that fails or is interrupted leaves nothing behind, one that is killed leaves what the next removes. Of two calls
    for one folder the second waits for the first, and takes what that made of the same tree.

    Args:
      tree: the released tree, of pickles or of PNG masks.
      output: folder for the prepared data set; made when missing.
      subjects: CSV file `sequence,subject`.
      skip_bad: leave out what cannot be used.
      report: takes a line for the user.

    Returns:
      One line for each sequence that was left out.

    Raises:
      DataError: for anything wrong with the tree, or an output folder that cannot be written.
    """
    import tensorflow_datasets as tfds  # here, and in `open_prepared`: a second, which synthetic walkers do without

    from data_pipelines.scoliosis1k.builder import Scoliosis1k

    tfds.disable_progress_bar()  # ours counts sequences
    output = output.expanduser()
    source, target = Path(tree).expanduser().absolute(), prepared_folder(output)
    if source in (output.absolute(), *output.absolute().parents) or output.absolute() in source.parents:
        raise DataError(f"--output={str(output)!r} and --input={tree!r} lie in each other; pick another folder")
    downloads = target.parent / f"{UNFINISHED}downloads"  # there are none, but TFDS wants a place for them
    try:
        with _one_at_a_time(target.parent, report) as alone:
            if alone:
                for leftover in target.parent.glob(f"{UNFINISHED}*"):
                    shutil.rmtree(leftover)
            if not target.exists():
                try:
                    with contextlib.redirect_stdout(io.StringIO()):  # TFDS talks of downloads
                        builder = Scoliosis1k(tree=str(tree), subjects=subjects, skip_bad=skip_bad, data_dir=output)
                        builder.download_and_prepare(download_dir=downloads)
                finally:
                    shutil.rmtree(downloads, ignore_errors=True)
                return _metadata(target)["skipped"]
    except (OSError, RuntimeError) as error:  # ArrayRecord meets a full disk with the second, and names the file
        if isinstance(error, RuntimeError) and str(target.parent) not in str(error):
            raise
        if not is_prepared(output):  # otherwise another was faster, on a file system without locks
            raise DataError(f"--output={str(output)!r} cannot be written ({error}); make room or pick another folder") from None
    return _take(tree, output, subjects, skip_bad)


def _take(tree: str, output: Path, subjects: str | None, skip_bad: bool) -> list[str]:
    """What was skipped in a set that is there already; raises `DataError` where it is not the one that is asked for."""
    sequences, _ = scan(tree, "--input")
    metadata = _metadata(prepared_folder(output))
    if metadata["source"] != fingerprint(sequences, str(sorted(read_subjects(subjects).items()))):
        raise DataError(f"--output={str(output)!r} is already prepared, from other files; delete it or pick another folder")
    if metadata["skipped"] and not skip_bad:
        raise DataError(f"--output={str(output)!r} is already prepared, with --skip-bad; delete it or pick another folder")
    return metadata["skipped"]


def _metadata(folder: Path) -> dict[str, Any]:
    """What a prepared folder says of itself; raises `DataError` where that is damaged."""
    try:
        columns = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        if metadata_digest(columns) != columns["digest"]:
            raise ValueError("metadata.json does not match its digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); {REMEDY}") from error
    return columns


@contextlib.contextmanager
def _one_at_a_time(folder: Path, report: Callable[[str], None]) -> Iterator[bool]:
    """Make a folder, and lock it against other preparations by a file in it. With nothing in it, it goes again at the end.

    Gives False on a file system that has no locks.
    """
    path, locked = folder / ".preparing", False
    made = [folder, *(parent for parent in folder.parents if not parent.exists())]
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a", encoding="utf-8")
        except FileNotFoundError:  # whoever had the folder has just removed it
            continue
        try:
            locked = _lock(file, folder, report)
            if not locked or os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        except FileNotFoundError:  # the file that was waited for is gone
            pass
        except BaseException:
            file.close()
            raise
        file.close()
    try:
        yield locked
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something is in it
            for parent in made:
                parent.rmdir()
        file.close()


def _lock(file: TextIO, folder: Path, report: Callable[[str], None]) -> bool:
    """Lock a file, after whoever has it; False where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        pass
    except OSError:
        return False
    report(f"another preparation is at work in {folder}; waiting for it")
    fcntl.flock(file, fcntl.LOCK_EX)
    return True


def open_prepared(root: Path) -> SilhouetteSet:
    """Open a prepared folder. Every sequence is checked against its checksum when it is first read; every read is against
    those within the ArrayRecord file.

    Raises:
      DataError: when it is damaged; reading a damaged record later raises it, too, and names the record.
    """
    import tensorflow_datasets as tfds

    folder = prepared_folder(root)
    columns = _metadata(folder)
    try:
        builder = tfds.builder_from_directory(folder)
        records = builder.as_data_source(split=SPLIT)  # pyright: ignore[reportCallIssue]; behind an untyped decorator
        sizes = {name: len(columns[name]) for name in ("sequences", "subjects", "labels", "n_frames", "checksums")}
        if set(sizes.values()) != {len(records)}:
            raise ValueError(f"{len(records)} records for {sizes}")
        labels, n_frames = (np.array(columns[name], np.int32) for name in ("labels", "n_frames"))
    except Exception as error:  # TFDS and ArrayRecord raise many kinds for damaged files; all of it means the same here
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
    if any(prepared_folder(folder).parent.glob(f"{UNFINISHED}*")):
        raise DataError(f"data.root={root!r} was not prepared to its end; run data_pipelines.prepare again")
    sequences, _ = scan(folder, "data.root")
    cached = cache_folder() / f"prepared-{fingerprint(sequences)}"
    if not is_prepared(cached):
        report(f"data.root={root} is a released tree; preparing it once into {cached}")
        prepare(str(folder), cached, report=report)
    return open_prepared(cached)
