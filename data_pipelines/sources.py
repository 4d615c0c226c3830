"""Opening of `data.root`: a prepared folder, or a released tree that is prepared into a cache on first use."""

import contextlib
import dataclasses
import io
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from data_pipelines import masks
from data_pipelines.locks import alone
from data_pipelines.poses import reading
from data_pipelines.prepared import (
    KINDS,
    REMEDY,
    held,
    is_prepared,
    open_each,
    open_prepared,
    prepared_folder,
    read_metadata,
)
from data_pipelines.remote import copied
from data_pipelines.schema import (
    POSES,
    SILHOUETTES,
    SKELETONS,
    DataError,
    SequenceSet,
    abbreviate,
    cache_folder,
    existing_folder,
    is_url,
    nested,
    printable,
    remedy,
)
from data_pipelines.scoliosis1k.metadata import absent, fingerprint, prepared_remarks
from data_pipelines.scoliosis1k.release_tree import VERSION, refuse
from data_pipelines.scoliosis1k.walks import Names, look_at, survey_of
from data_pipelines.tables import read_subjects

LOCK = ".preparing"  # beside the prepared folder while a preparation is at work
UNFINISHED = "incomplete."  # prefix of the folders that TFDS writes to before it renames them
COPY_AGAIN = "delete it, and the same command copies it again"
OTHERWISE = {  # what to do with data of the other kind
    SILHOUETTES: "train a network that reads these: --config configs/sconet_mt_ske.py or configs/drf.py",
    SKELETONS: "give the pose release, or a set with poses (data_pipelines.prepare --poses), or train a network that reads "
    "silhouettes: --config configs/sconet_mt.py",
}


def prepare(
    tree: str | None,
    output: Path,
    subjects: str | None = None,
    skip_bad: bool = False,
    report: Callable[[str], None] = print,
    names: Names = Names(),  # noqa: B008, nobody can change it
    poses: str | None = None,
) -> list[str]:
    """Prepare a released tree of silhouettes, one of poses, or both into `output`, in memory that hardly depends on their size.

    A sequence that both trees have needs one class and the same number of frames in both. Each modality keeps its own usable
    frames, so silhouettes are the same with poses beside them and without.

    A call that fails or is interrupted removes its files; the files of a killed call are removed by the next call. Of two calls
    for one folder the second waits for the first, and uses its result if the tree is the same.

    `subjects` is a CSV file with the columns `sequence,subject`, and further ones, which are kept. With `skip_bad`, whatever is
    unusable, a sequence or what one tree has of it, is left out instead of raising `DataError`. `report` receives messages for
    the user, who knows the folders by `names`. Returns one line for each thing that was left out.
    """
    import tensorflow_datasets as tfds  # imported here and in `open_prepared`: takes a second, not needed for walkers

    from data_pipelines.scoliosis1k.builder import Scoliosis1k

    say = _printing(report)
    tfds.disable_progress_bar()  # the builder shows its own, which counts sequences
    output = output.expanduser()
    target, output_name = prepared_folder(output), f"{names.output}={str(output)!r}"
    trees = {modality: folder for modality, folder in ((SILHOUETTES, tree), (POSES, poses)) if folder}
    if not trees:
        raise ValueError("no tree to prepare; give one of silhouettes, of poses, or both")
    options = {SILHOUETTES: names.input, POSES: names.poses}
    tree_names = {modality: f"{options[modality]}={folder!r}" for modality, folder in trees.items()}
    places = {output_name: output} | {tree_names[one]: Path(folder).expanduser() for one, folder in trees.items()}
    for one, other in itertools.combinations(places, 2):
        if nested(places[one], places[other]):
            raise DataError(f"{one} and {other} contain one another; pick another folder")
    found = look_at(tree, poses, names)
    if not skip_bad:
        refuse(found.problems)
    people = read_subjects(subjects, ids := found.sequences, say)
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
                    builder = Scoliosis1k(trees=found, subjects=people, skip_bad=skip_bad, names=tree_names, data_dir=output)
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
        for modality, folder in trees.items():
            if isinstance(error, OSError) and _is_of(error, folder):
                raise DataError(f"{tree_names[modality]} cannot be read ({error}); {remedy(error)}") from None
        if not is_prepared(output):  # otherwise another process finished first, on a file system without locks
            what = remedy(error) if isinstance(error, OSError) else "make room on the disk"
            raise DataError(f"{output_name} cannot be written ({error}); {what}, or pick another folder") from None
    # Another process has prepared the folder.
    metadata = read_metadata(prepared_folder(output))
    if not found.made(metadata, people.settings()):
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
    for data in open_each(root):
        for row in range(len(data)):
            data.read(row)


def open_root(root: str, report: Callable[[str], None], modality: str = SILHOUETTES) -> SequenceSet:
    """Open `data.root`: a folder made by `data_pipelines.prepare`, also behind a URL, or a released tree.

    `report` gets messages for the user. `modality` is what a network reads: for silhouettes the set has these, and for
    skeletons it has poses and their asymmetry vectors. Raises `DataError` for data of the other kind.
    """
    say = _printing(report)
    if is_url(root):
        copy = copied(root, "data.root", ("scoliosis1k", VERSION), say, _read_all)
        return dataclasses.replace(_opened(copy, root, modality, say, COPY_AGAIN), name=root)
    folder = existing_folder(root, "data.root")
    # Asked for again in the end: a preparation may have ended in between.
    if is_prepared(folder) or (_unfinished(folder) and _waited_for(folder, say)) or is_prepared(folder):
        return _opened(folder, root, modality, say)
    if _unfinished(folder):
        raise DataError(f"data.root={root!r} was not prepared to its end; run data_pipelines.prepare again")
    kind, names = KINDS[modality], Names("data.root", "the cache (SCOLIOJAX_CACHE)", "data.root")
    found = survey_of(folder, "data.root", kind, OTHERWISE[modality])
    refuse(found.problems)  # of a tree in the cache as well: it may have grown
    rules = masks.VERSION if kind == SILHOUETTES else f"{POSES}-{reading.VERSION}"
    cached = cache_folder() / f"prepared-{fingerprint(found.sequences)}-{rules}"
    if not is_prepared(cached):
        say(f"data.root={root} is a released tree; preparing it once into {cached}")
        tree, poses = (str(folder), None) if kind == SILHOUETTES else (None, str(folder))
        prepare(tree, cached, report=report, names=names, poses=poses)
    return open_prepared(cached, modality=modality)


def _opened(folder: Path, root: str, modality: str, report: Callable[[str], None], remedy: str = REMEDY) -> SequenceSet:
    """A prepared folder, the place `root` of the user's; a line says which of its sequences lack the modality."""
    metadata, kind = read_metadata(prepared_folder(folder), remedy), KINDS[modality]
    if kind not in (found := held(metadata)):
        raise DataError(f"data.root={root!r} holds {' and '.join(found)}, no {kind}; {OTHERWISE[modality]}")
    data = open_prepared(folder, metadata, remedy, modality)
    if lacking := absent(metadata, kind):
        report(f"data.root={root}: sequences without {kind}, left out ({len(lacking)}): {abbreviate(lacking, 3)}")
    return data
