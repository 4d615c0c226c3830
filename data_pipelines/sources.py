"""Opening of `data.root`: a prepared folder, or a released tree that is prepared into a cache on first use."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import masks
from data_pipelines.files import read_regular
from data_pipelines.locks import alone
from data_pipelines.remote import copied
from data_pipelines.schema import (
    FRAME_SIZE,
    DataError,
    SequenceSet,
    abbreviate,
    cache_folder,
    existing_folder,
    is_url,
    nested,
    printable,
    remedy,
    unreadable,
)
from data_pipelines.scoliosis1k.metadata import fingerprint, is_of, metadata_digest, prepared_remarks
from data_pipelines.scoliosis1k.release_tree import SPLIT, VERSION, refuse, survey
from data_pipelines.tables import read_subjects

LOCK = ".preparing"  # beside the prepared folder while a preparation is at work
UNFINISHED = "incomplete."  # prefix of the folders that TFDS writes to before it renames them
REMEDY = "delete it and run data_pipelines.prepare again"
COPY_AGAIN = "delete it, and the same command copies it again"


def prepared_folder(root: Path) -> Path:
    """Folder of the finished data set after `data_pipelines.prepare --output root`."""
    return root / "scoliosis1k" / VERSION


def is_prepared(root: Path) -> bool:
    """True if `root` holds a complete data set, which TFDS moves into place by a rename; raises `DataError` if unreadable."""
    try:
        return (prepared_folder(root) / "dataset_info.json").is_file()
    except OSError as error:
        raise DataError(f"{root} {unreadable(error)}") from None


def prepare(
    tree: str,
    output: Path,
    subjects: str | None = None,
    skip_bad: bool = False,
    report: Callable[[str], None] = print,
    names: tuple[str, str] = ("--input", "--output"),
) -> list[str]:
    """Prepare a released tree into `output`. The memory needed hardly depends on the size of the tree.

    A call that fails or is interrupted removes its files; the files of a killed call are removed by the next call. Of two calls
    for one folder the second waits for the first, and uses its result if the tree is the same.

    `subjects` is a CSV file with the columns `sequence,subject`, and further ones, which are kept. With `skip_bad`, unusable
    sequences are left out instead of raising `DataError`. `report` receives messages for the user, who knows the two folders by
    `names`. Returns one line for each sequence that was left out.
    """
    import tensorflow_datasets as tfds  # imported here and in `open_prepared`: takes a second, not needed for walkers

    from data_pipelines.scoliosis1k.builder import Scoliosis1k

    say = _printing(report)
    tfds.disable_progress_bar()  # the builder shows its own, which counts sequences
    output = output.expanduser()
    input_name, output_name = f"{names[0]}={tree!r}", f"{names[1]}={str(output)!r}"
    target = prepared_folder(output)
    if nested(Path(tree).expanduser(), output):
        raise DataError(f"{output_name} and {input_name} contain one another; pick another folder")
    found = survey(tree, names[0])
    if not skip_bad:
        refuse(found.problems)
    people = read_subjects(subjects, ids := [one.sequence for one in found.sequences], say)
    if people and (unknown := [sequence for sequence in ids if sequence not in people]):
        raise DataError(f"--subjects={subjects!r} has no line for {abbreviate(unknown)}; every sequence needs one")
    downloads = target.parent / f"{UNFINISHED}downloads"  # nothing is downloaded, but TFDS needs a folder
    try:
        with _preparing(output, say) as only_one:
            if only_one:
                for leftover in target.parent.glob(f"{UNFINISHED}*"):
                    shutil.rmtree(leftover)
            if not target.exists():
                with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as later:  # TFDS prints about downloads
                    later.callback(shutil.rmtree, downloads, ignore_errors=True)
                    builder = Scoliosis1k(survey=found, subjects=people, skip_bad=skip_bad, name=input_name, data_dir=output)
                    builder.download_and_prepare(download_dir=downloads)
                for line in [*found.remarks, *people.remarks]:
                    say(f"warning: {line}")
                if unused := sorted(people.keys() - {*ids}):
                    say(unused_lines(subjects, unused))
                metadata = read_metadata(target)
                for line in prepared_remarks(metadata):
                    say(line)
                return metadata["skipped"]
    except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError, naming the file, if the disk is full
        if isinstance(error, BrokenPipeError) or (isinstance(error, RuntimeError) and str(target.parent) not in str(error)):
            raise
        if isinstance(error, OSError) and _is_of(error, tree):
            raise DataError(f"{input_name} cannot be read ({error}); {remedy(error)}") from None
        if not is_prepared(output):  # otherwise another process finished first, on a file system without locks
            what = remedy(error) if isinstance(error, OSError) else "make room on the disk"
            raise DataError(f"{output_name} cannot be written ({error}); {what}, or pick another folder") from None
    # Another process has prepared the folder.
    metadata = read_metadata(prepared_folder(output))
    if not is_of(metadata, found.sequences, people.settings()):
        raise DataError(f"{output_name} is already prepared, from other files; delete it or pick another folder")
    if metadata["skipped"] and not skip_bad:
        raise DataError(f"{output_name} is already prepared, with --skip-bad; delete it or pick another folder")
    return metadata["skipped"]


def _printing(report: Callable[[str], None]) -> Callable[[str], None]:
    """`report`, for lines with names that anybody gave."""
    return lambda line: report(printable(line))


def unused_lines(subjects: str | None, unused: Sequence[str]) -> str:
    """The warning about sequences in a subjects file that the data lack."""
    named = f"--subjects={subjects!r}: {len(unused)} of its lines are of sequences that are not in the data"
    return f"warning: {named}: {abbreviate(unused, 3)}"


def _is_of(error: OSError, tree: str) -> bool:
    """True where an error is about a file or folder of a released tree."""
    if not isinstance(error.filename, (str, bytes)):
        return False
    place, folder = Path(os.fsdecode(error.filename)).absolute(), Path(tree).expanduser().absolute()
    return folder in (place, *place.parents)


def _preparing(output: Path, report: Callable[[str], None]) -> contextlib.AbstractContextManager[bool]:
    """The lock of a preparation into `output`; see `locks.alone`."""
    folder = prepared_folder(output).parent

    def wait(holder: str) -> None:
        report(f"another preparation is at work in {folder} ({holder}); waiting for it")

    return alone(folder / LOCK, wait, report, clear=True)


def read_metadata(folder: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """Metadata of a prepared folder; raises `DataError`, with the remedy, if they are damaged."""
    try:
        columns = json.loads(read_regular(folder / "metadata.json"))
        if metadata_digest(columns) != columns["digest"]:
            raise ValueError("metadata.json does not match its digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); {remedy}") from error
    return columns


def open_prepared(root: Path, metadata: dict[str, Any] | None = None, remedy: str = REMEDY) -> SequenceSet:
    """Open a prepared folder. The first read of a sequence verifies its checksum; ArrayRecord verifies its own at every read.

    `metadata` are those of `read_metadata`, if they are read already. `DataError` names the folder or, from `read`, the record
    that is damaged, and the `remedy`.
    """
    import tensorflow_datasets as tfds

    folder = prepared_folder(root)
    columns = metadata or read_metadata(folder, remedy)
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
    read(0)  # ArrayRecord opens a file, and detects that it is truncated, at the first read
    sequences, subjects = tuple(columns["sequences"]), tuple(columns["subjects"])
    content = hashlib.sha256(json.dumps(columns["checksums"]).encode()).hexdigest()
    return SequenceSet(str(root), False, sequences, subjects, labels, n_frames, read, content, traits)


def _unfinished(root: Path) -> bool:
    """True where a preparation is at work, perhaps before its first file, or was killed."""
    folder = prepared_folder(root).parent
    return (folder / LOCK).exists() or any(folder.glob(f"{UNFINISHED}*"))


def _waited_for(root: Path, report: Callable[[str], None]) -> bool:
    """Wait for a preparation that is at work in `root`, if there is one; True if the folder is prepared then."""
    try:
        with _preparing(root, report):
            return is_prepared(root)
    except OSError:  # a read-only folder: nobody is at work there
        return False


def _read_all(root: Path) -> None:
    """Raise `DataError` where a record of a prepared folder does not match its checksum."""
    data = open_prepared(root)
    for row in range(len(data)):
        data.read(row)


def open_root(root: str, report: Callable[[str], None]) -> SequenceSet:
    """Open `data.root`: a folder made by `data_pipelines.prepare`, also behind a URL, or a released tree.

    `report` gets messages for the user.
    """
    say = _printing(report)
    if is_url(root):
        copy = copied(root, "data.root", ("scoliosis1k", VERSION), say, _read_all)
        return dataclasses.replace(open_prepared(copy, remedy=COPY_AGAIN), name=root)
    folder = existing_folder(root, "data.root")
    # Asked for again in the end: a preparation may have ended in between.
    if is_prepared(folder) or (_unfinished(folder) and _waited_for(folder, say)) or is_prepared(folder):
        return open_prepared(folder)
    if _unfinished(folder):
        raise DataError(f"data.root={root!r} was not prepared to its end; run data_pipelines.prepare again")
    sequences, problems = survey(folder, "data.root")[:2]
    refuse(problems)  # of a tree in the cache as well: it may have grown
    cached = cache_folder() / f"prepared-{fingerprint(sequences)}-{masks.VERSION}"
    if not is_prepared(cached):
        say(f"data.root={root} is a released tree; preparing it once into {cached}")
        prepare(str(folder), cached, report=report, names=("data.root", "the cache (SCOLIOJAX_CACHE)"))
    return open_prepared(cached)
