"""What a released tree or a prepared set holds, everything at once: for `python -m data_pipelines.prepare --check`.

Every sequence is read and judged as `prepare` does it, and nothing is kept of it but a hash.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines.files import MASKS, remarks
from data_pipelines.leaks import alike_sequences, silhouette_hash
from data_pipelines.names import missing_numbers
from data_pipelines.schema import FEWEST_FRAMES, RATIO_ORDER, DataError, SequenceSet, abbreviate, class_id, existing_folder
from data_pipelines.scoliosis1k.release_tree import look_through, why_empty
from data_pipelines.silhouettes import cut_sides
from data_pipelines.sources import is_prepared, open_prepared, prepared_folder, read_metadata, unused_lines
from data_pipelines.splits import RATIO, make_partition, read_listed, refuse_single_class
from data_pipelines.tables import read_subjects

OPTION = "--partition"  # as messages name it
TREE, SET = "released tree", "prepared set"
Counts = dict[str, dict[str, int]]  # by class: number of sequences, of people and of frames
Item = tuple[str, str, int, int, Callable[[], np.ndarray]]  # id, person, label, number of masks or 0, and how it is read


@dataclass
class Check:
    """What was found; every list is complete, but of what a prepared set does not hold, three names are known."""

    root: str
    kind: str  # `TREE` or `SET`
    problems: list[str] = field(default_factory=list)  # why something cannot be used, one line each, with the remedy
    skippable: int = 0  # number of problems without which --skip-bad goes on
    left_out: list[str] = field(default_factory=list)  # of a prepared set: what --skip-bad left out, and why
    remarks: list[str] = field(default_factory=list)  # about the partition and the subjects file; what training would say, too
    unused: dict[str, Any] = field(default_factory=dict)  # number and paths by the reason why they are not used; harmless
    classes: Counts = field(default_factory=dict)
    parts: dict[str, Counts] = field(default_factory=dict)  # of a partition; empty without one
    frames: dict[str, int] = field(default_factory=dict)  # number of frames by sequence
    dropped: dict[str, int] = field(default_factory=dict)  # number of masks with (almost) nobody in them, by sequence
    gaps: dict[str, int] = field(default_factory=dict)  # number of masks missing between others by their numbers, by sequence
    short: dict[str, int] = field(default_factory=dict)  # sequences of fewer than `FEWEST_FRAMES` frames
    near_duplicates: list[dict[str, Any]] = field(default_factory=list)  # sequence, twin, distance in grey levels

    def as_json(self) -> str:
        content = {"schema": "scoliojax.check/1", "usable": not self.problems, **asdict(self), "distribution": self.spread()}
        return json.dumps(content, indent=2) + "\n"

    def spread(self) -> dict[str, float]:
        """Distribution of the number of frames of a sequence."""
        if not self.frames:
            return {}
        names = ("minimum", "lower quartile", "median", "upper quartile", "maximum")
        values = np.percentile(list(self.frames.values()), [0, 25, 50, 75, 100])
        return {name: float(value) for name, value in zip(names, values, strict=True)}

    def lines(self) -> Iterator[str]:
        """The table for a terminal: names are abbreviated where they are harmless, problems are all there."""
        total = {unit: sum(one[unit] for one in self.classes.values()) for unit in ("sequences", "frames")}
        yield f"{self.root}: a {self.kind}, {total['sequences']} sequences that can be used, {total['frames']} frames"
        columns = {"all": self.classes, **self.parts}
        yield f"  {'':<10}" + "".join(f"{f'{name}: sequences':>22}{'people':>8}" for name in columns)
        for name in RATIO_ORDER:
            cells = [counts.get(name, {"sequences": 0, "people": 0}) for counts in columns.values()]
            yield f"  {name:<10}" + "".join(f"{cell['sequences']:>22}{cell['people']:>8}" for cell in cells)
        if spread := self.spread():
            yield "  frames of a sequence: " + ", ".join(f"{name} {value:g}" for name, value in spread.items())
        for title, names in (
            (f"sequences under {FEWEST_FRAMES} frames", [f"{name} ({count})" for name, count in self.short.items()]),
            ("sequences with masks of (almost) nobody", [f"{name} ({count})" for name, count in self.dropped.items()]),
            ("sequences with gaps in the numbers of their masks", [f"{name} ({count})" for name, count in self.gaps.items()]),
        ):
            if names:
                yield f"  {title} ({len(names)}): {abbreviate(names, 3)}"
        for line in [*remarks(self.unused), *self.remarks]:
            yield f"  {line}"
        for pair in self.near_duplicates:
            yield f"  near-duplicates: {pair['sequence']} and {pair['twin']}, {pair['distance']:.2f} grey levels apart"
        for line in self.left_out:
            yield f"  left out when it was prepared: {line}"
        for line in self.problems:
            yield f"  problem: {line}"
        count = len(self.problems)
        left = f"; with --skip-bad prepare goes on without what {self.skippable} of them are about"
        yield f"{count} problem{'s' * (count != 1)}" + (left if self.skippable and self.frames else "")


def check(root: str | Path, subjects: str | None = None, partition: str | None = None) -> Check:
    """Read everything below `root`, and write nothing.

    Args:
      root: a released tree, or a folder made by `data_pipelines.prepare`.
      subjects: CSV file with the columns `sequence,subject`; without it a prepared set has its own.
      partition: official JSON file, or a ratio such as "1:1:8".

    Raises `DataError` where there is no such folder; whatever is in it becomes a line of the result.
    """
    folder = existing_folder(root, "--input")
    found = Check(str(root), SET if is_prepared(folder) else TREE)
    items = list((_of_set if is_prepared(folder) else _of_tree)(folder, found))
    persons = _persons(subjects, items, found)
    used, hashes = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = tqdm(pool.map(_read, items), desc="checking sequences", total=len(items), disable=not items)
        for item, result in zip(items, results, strict=True):
            if isinstance(result, str):
                found.problems.append(result)
                found.skippable += found.kind == TREE
                continue
            frames, number = result
            used.append(item)
            hashes.append(number)
            found.frames[item[0]] = frames
            if item[3] > frames:
                found.dropped[item[0]] = item[3] - frames
    found.short = {name: count for name, count in found.frames.items() if count < FEWEST_FRAMES}
    if not used:  # a partition file can be read, and no more
        if partition is not None and not RATIO.fullmatch(partition):
            with _noting(found):
                read_listed(partition, [item[0] for item in items], found.remarks.append, OPTION)
        return found
    names = tuple(item[0] for item in used)
    data = SequenceSet(
        name=str(root),
        synthetic=False,
        sequences=names,
        subjects=tuple(str(persons.get(item[0], item[1])) for item in used),
        labels=np.array([item[2] for item in used], np.int32),  # sequence
        n_frames=np.array([*found.frames.values()], np.int32),  # sequence
        read=lambda row: used[row][4](),
    )
    found.classes = _counts(data, np.arange(len(data)))
    found.near_duplicates = [pair._asdict() for pair in alike_sequences(names, np.stack(hashes))]
    if partition is not None:
        with _noting(found):
            parts = make_partition(data, partition, 0.0, report=found.remarks.append, field=OPTION)
            found.parts = {name: _counts(data, rows) for name, rows in vars(parts).items() if name != "validation"}
            refuse_single_class(data, parts, partition, OPTION)
    return found


@contextmanager
def _noting(found: Check) -> Iterator[None]:
    """A mistake in the body becomes a problem."""
    try:
        yield
    except DataError as error:
        found.problems.append(str(error))


def _of_tree(folder: Path, found: Check) -> Iterator[Item]:
    survey = look_through(folder, "--input", shown=None)
    found.problems += survey.problems
    found.skippable += len(survey.problems) * bool(survey.sequences)
    found.unused = survey.unused.as_json()
    found.remarks += survey.remarks
    if not survey.sequences:
        found.problems.append(f"--input={found.root!r} {why_empty(folder, survey)}")
    for one in survey.sequences:
        if missing := 0 if one.pickled else missing_numbers(one.names, *MASKS):
            found.gaps[one.sequence] = missing
        yield one.sequence, one.sequence, one.label, 0 if one.pickled else len(one.names), one.silhouettes


def _of_set(folder: Path, found: Check) -> Iterator[Item]:
    try:
        metadata = read_metadata(prepared_folder(folder))
        data = open_prepared(folder, metadata)
    except DataError as error:
        found.problems.append(str(error))
        return
    found.left_out = metadata["skipped"]
    found.unused = metadata.get("unused", {})
    dropped = metadata.get("dropped", [0] * len(data))  # sets of old do not say
    for row, name in enumerate(data.sequences):
        masks = int(data.n_frames[row]) + dropped[row]
        yield name, data.subjects[row], int(data.labels[row]), masks, lambda row=row: data.read(row)


def _persons(subjects: str | None, items: list[Item], found: Check) -> dict[str, str]:
    """The person of each sequence in a subjects file; empty without one, or where it cannot be used."""
    try:
        persons = read_subjects(subjects, [item[0] for item in items], found.remarks.append)
    except DataError as error:
        found.problems.append(str(error))
        return {}
    found.remarks += persons.remarks
    if persons and (unknown := [item[0] for item in items if item[0] not in persons]):
        found.problems.append(f"--subjects={subjects!r} has no line for {abbreviate(unknown, 3)}; every sequence needs one")
    if unused := sorted(persons.keys() - {item[0] for item in items}):
        found.remarks.append(unused_lines(subjects, unused))
    return persons


def _read(item: Item) -> tuple[int, np.ndarray] | str:
    """Number of frames and hash of a sequence, or why it cannot be used; runs in a thread."""
    try:
        silhouettes = item[4]()  # s 64 64
        return len(silhouettes), silhouette_hash(cut_sides(silhouettes))
    except DataError as error:
        return str(error)


def _counts(data: SequenceSet, rows: np.ndarray) -> Counts:
    """By class: number of sequences, of people and of frames among the rows."""
    found: Counts = {}
    for name in RATIO_ORDER:
        these = rows[data.labels[rows] == class_id(name)]
        people = len({data.subjects[row] for row in these})
        found[name] = {"sequences": len(these), "people": people, "frames": int(data.n_frames[these].sum())}
    return found
