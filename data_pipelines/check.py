"""What released trees or a prepared set hold, everything at once: for `python -m data_pipelines.prepare --check`.

Every sequence is read and judged as `prepare` does it, and nothing is kept of it but a hash.
"""

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_pipelines.checked import SET, TREE, Check, Counts, PoseCheck
from data_pipelines.files import MASKS
from data_pipelines.leaks import alike_sequences, silhouette_hash
from data_pipelines.names import missing_numbers
from data_pipelines.poses.drawing import read_drawable
from data_pipelines.poses.reading import Poses, check_same_frames
from data_pipelines.prepared import is_prepared, open_each, prepared_folder, read_metadata
from data_pipelines.schema import (
    FEWEST_FRAMES,
    POSES,
    RATIO_ORDER,
    SILHOUETTES,
    DataError,
    SequenceSet,
    abbreviate,
    class_id,
    existing_folder,
)
from data_pipelines.scoliosis1k.metadata import by_sequence
from data_pipelines.scoliosis1k.release_tree import look_through, why_empty
from data_pipelines.scoliosis1k.walks import FRAMES, Names, other_modality, side_by_side
from data_pipelines.silhouettes import cut_sides
from data_pipelines.sources import unused_lines
from data_pipelines.splits import RATIO, make_partition, read_listed, refuse_single_class
from data_pipelines.tables import read_subjects

OPTION = "--partition"  # as messages name it
NAMES = Names()


class Item(NamedTuple):
    """A walk that is there, and how what there is of it is read."""

    sequence: str
    person: str
    label: int
    masks: int  # number of masks that were given; 0 of a pickle
    silhouettes: Callable[[], np.ndarray] | None
    poses: Callable[[], Poses] | None


def check(
    root: str | Path | None, subjects: str | None = None, partition: str | None = None, poses: str | Path | None = None
) -> Check:
    """Read everything below `root` and `poses`, and write nothing.

    Args:
      root: a released tree of silhouettes, or a folder made by `data_pipelines.prepare`; None for poses alone.
      subjects: CSV file with the columns `sequence,subject`; without it a prepared set has its own.
      partition: official JSON file, or a ratio such as "1:1:8".
      poses: a released tree of poses.

    Raises `DataError` where there is no such folder; whatever is in it becomes a line of the result.
    """
    found = Check(str(root or poses), TREE)
    items = list(_items(root, poses, found))
    persons = _persons(subjects, items, found)
    used, hashes = [], {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = tqdm(pool.map(_read, items), desc="checking sequences", total=len(items), disable=not items)
        for item, (frames, number, seen, problems) in zip(items, results, strict=True):
            name = item.sequence
            found.problems += problems
            found.skippable += len(problems) * (found.kind == TREE)
            if number is not None:
                hashes[name] = number
                if item.masks > frames:
                    found.dropped[name] = item.masks - frames
            if seen and found.poses:
                found.poses.add(name, seen)
            if frames:
                found.frames[name] = frames
                used.append(item)
    if found.poses and hashes:
        found.poses.without_poses = [name for name in hashes if name not in found.poses.frames]
        found.poses.without_silhouettes = [name for name in found.poses.frames if name not in hashes]
    found.short = {name: count for name, count in found.frames.items() if count < FEWEST_FRAMES}
    if not used:  # a partition file can be read, and no more
        if partition is not None and not RATIO.fullmatch(partition):
            with _noting(found):
                read_listed(partition, [item.sequence for item in items], found.remarks.append, OPTION)
        return found
    data = SequenceSet(
        name=found.root,
        synthetic=False,
        sequences=tuple(item.sequence for item in used),
        subjects=tuple(str(persons.get(item.sequence, item.person)) for item in used),
        labels=np.array([item.label for item in used], np.int32),  # sequence
        n_frames=np.array([*found.frames.values()], np.int32),  # sequence
        read=functools.partial(_frames, used),
        modality=SILHOUETTES if hashes else POSES,
    )
    found.classes = _counts(data, np.arange(len(data)))
    if hashes:
        found.near_duplicates = [pair._asdict() for pair in alike_sequences((*hashes,), np.stack([*hashes.values()]))]
    if found.poses:
        found.remarks.append("near-duplicates are looked for among silhouettes, not among poses")
    if partition is not None:
        with _noting(found):
            parts = make_partition(data, partition, 0.0, report=found.remarks.append, field=OPTION)
            if found.poses and (
                lacking := set(found.poses.without_poses)
                & {data.sequences[row] for rows in vars(parts).values() for row in rows}
            ):
                names = abbreviate(sorted(lacking), 3)
                found.remarks.append(
                    f"{OPTION}: {len(lacking)} of its sequences have no poses, for a network of skeletons: {names}"
                )
            found.parts = {name: _counts(data, rows) for name, rows in vars(parts).items() if name != "validation"}
            refuse_single_class(data, parts, partition, OPTION)
    return found


def _frames(items: list[Item], row: int) -> np.ndarray:
    """Silhouettes `[s, 64, 64]` of a walk, or poses `[s, 17, 3]` of one that has none."""
    item = items[row]
    if item.silhouettes:
        return item.silhouettes()  # s 64 64
    assert item.poses is not None  # as one of both is there
    return item.poses().joints  # s 17 3


@contextmanager
def _noting(found: Check) -> Iterator[None]:
    """A mistake in the body becomes a problem."""
    try:
        yield
    except DataError as error:
        found.problems.append(str(error))


def _items(root: str | Path | None, poses: str | Path | None, found: Check) -> Iterator[Item]:
    """What is there, of trees or of a prepared set."""
    for name, given in zip((NAMES.input, NAMES.poses), (root, poses), strict=True):
        if given and is_prepared(folder := existing_folder(given, name)):
            if poses:
                rest = (
                    "give it as --input"
                    if given == poses
                    else "leave out --poses, and prepare both trees anew for a set of both"
                )
                raise DataError(f"{name}={str(given)!r} is a prepared set; {rest}")
            found.kind = SET
            return _of_set(folder, found)
    return _of_trees({SILHOUETTES: root, POSES: poses}, found)


def _of_trees(given: dict[str, str | Path | None], found: Check) -> Iterator[Item]:
    fields, surveys, empty = {SILHOUETTES: NAMES.input, POSES: NAMES.poses}, {}, []
    for modality, root in given.items():
        if root:
            name, folder = fields[modality], existing_folder(root, fields[modality])
            survey = look_through(folder, name, shown=None, frames=FRAMES[modality])
            if other := other_modality(survey, folder, name):
                empty.append(f"{name}={str(root)!r} holds {other}, no {modality}; give it as {fields[other]}")
                continue
            surveys[modality] = survey
            if not survey.sequences:
                empty.append(f"{name}={str(root)!r} {why_empty(folder, survey)}")
    trees = side_by_side(surveys.get(SILHOUETTES), surveys.get(POSES))
    found.problems += trees.problems
    found.skippable += len(trees.problems) * bool(trees.walks)
    found.problems += filter(None, [*empty, trees.strangers(NAMES)])
    found.remarks += trees.remarks
    if trees.silhouettes:
        found.unused = trees.silhouettes.unused.as_json()
    if trees.poses:
        found.poses = PoseCheck(str(given[POSES]), unused=trees.poses.unused.as_json())
    for walk in trees.walks:
        one, other = walk.silhouettes, walk.poses
        names = one.names if one and not one.pickled else ()
        if missing := missing_numbers(names, *MASKS):
            found.gaps[walk.sequence] = missing
        read_poses = functools.partial(read_drawable, other) if other else None
        yield Item(walk.sequence, walk.sequence, walk.label, len(names), one.silhouettes if one else None, read_poses)


def _of_set(folder: Path, found: Check) -> Iterator[Item]:
    try:
        metadata = read_metadata(prepared_folder(folder))
        sets = {data.modality: data for data in open_each(folder, metadata)}
    except DataError as error:
        found.problems.append(str(error))
        return
    found.left_out = metadata["skipped"]
    found.unused = metadata.get("unused", {})
    if of_poses := metadata.get(POSES):
        found.poses = PoseCheck(found.root, unused=of_poses["unused"])
    dropped, lost, crowded = (
        by_sequence(metadata, column.get(name, ()))  # sets of old do not say
        for column, name in ((metadata, "dropped"), (of_poses or {}, "dropped"), (of_poses or {}, "crowded"))
    )
    rows = {modality: {name: row for row, name in enumerate(data.sequences)} for modality, data in sets.items()}

    def poses_of(name: str) -> Poses:
        joints = sets[POSES].read(rows[POSES][name])  # s 17 3
        given = len(joints) + lost.get(name, 0)
        return Poses(joints, np.arange(len(joints)), given, (), crowded=crowded.get(name, 0))

    for number, name in enumerate(metadata["sequences"]):
        silhouettes = poses = None
        masks = 0
        if name in rows.get(SILHOUETTES, ()):
            row = rows[SILHOUETTES][name]
            masks = int(sets[SILHOUETTES].n_frames[row]) + dropped.get(name, 0)
            silhouettes = functools.partial(sets[SILHOUETTES].read, row)
        if name in rows.get(POSES, ()):
            poses = functools.partial(poses_of, name)
        yield Item(name, metadata["subjects"][number], metadata["labels"][number], masks, silhouettes, poses)


def _persons(subjects: str | None, items: list[Item], found: Check) -> dict[str, str]:
    """The person of each sequence in a subjects file; empty without one, or where it cannot be used."""
    names = [item.sequence for item in items]
    try:
        persons = read_subjects(subjects, names, found.remarks.append)
    except DataError as error:
        found.problems.append(str(error))
        return {}
    found.remarks += persons.remarks
    if persons and (unknown := [name for name in names if name not in persons]):
        found.problems.append(f"--subjects={subjects!r} has no line for {abbreviate(unknown, 3)}; every sequence needs one")
    if unused := sorted(persons.keys() - {*names}):
        found.remarks.append(unused_lines(subjects, unused))
    return persons


def _read(item: Item) -> tuple[int, np.ndarray | None, Poses | None, list[str]]:
    """What a sequence holds, and why something of it cannot be used; runs in a thread.

    Returns the number of its frames, the hash of its silhouettes, and its poses.
    """
    frames, number, poses, problems = 0, None, None, []
    try:
        if item.silhouettes:
            silhouettes = item.silhouettes()  # s 64 64
            frames, number = len(silhouettes), silhouette_hash(cut_sides(silhouettes))
    except DataError as error:
        problems.append(str(error))
    try:
        poses = item.poses() if item.poses else None
        if poses and number is not None:
            check_same_frames(max(item.masks, frames), poses.given, item.sequence)
    except DataError as error:
        problems.append(str(error))
        if poses:
            return 0, None, None, problems
    return frames or (len(poses.joints) if poses else 0), number, poses, problems


def _counts(data: SequenceSet, rows: np.ndarray) -> Counts:
    """By class: number of sequences, of people and of frames among the rows."""
    found: Counts = {}
    for name in RATIO_ORDER:
        these = rows[data.labels[rows] == class_id(name)]
        people = len({data.subjects[row] for row in these})
        found[name] = {"sequences": len(these), "people": people, "frames": int(data.n_frames[these].sum())}
    return found
