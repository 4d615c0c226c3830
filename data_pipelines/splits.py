"""Partitions: the official JSON files, and random partitions with a given class ratio that never divide a subject.

The official files are named after the positive : neutral : negative ratio of the training part, and are used unchanged,
because the release does not say which sequences belong to one adolescent (`data_pipelines.prepare --subjects` does).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from data_pipelines.partitions import FIELDS, PartitionFile, read_partition
from data_pipelines.schema import RATIO_ORDER, DataError, SequenceSet, abbreviate, class_id
from data_pipelines.texts import shown

MIN_TEST_SHARE = Fraction(1, 20)  # of each class; the official 1:1:2 leaves 14 of 200 neutral sequences
LACKING = {  # what follows where a part has no sequence of a class
    "train": "the network cannot learn to call it",
    "validation": "what is chosen on this part leaves it out of account",
    "test": "its scores are undefined",
}
FIELD = "data.partition"  # the key of a config that gives a partition
RATIO = re.compile(r"\d+(:\d+){2}")


@dataclass(frozen=True)
class Partition:
    """Sorted row indices of a `SequenceSet`. `validation` is taken from the training part and may be empty."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def describe(self, data: SequenceSet) -> str:
        """Number of sequences and class counts, one line per part."""
        return "\n".join(
            f"{part:<10} {len(rows):5d} sequences: "
            + " / ".join(f"{count} {name}" for name, count in data.class_counts(rows).items())
            for part, rows in vars(self).items()
        )


def make_partition(
    data: SequenceSet,
    partition: str,
    validation_fraction: float,
    seed: int = 0,
    allow_missing: bool = False,
    report: Callable[[str], None] | None = None,
    field: str = FIELD,
) -> Partition:
    """Divide a set into a training, a validation and a test part; the same arguments give the same partition.

    `partition` is the path of an official JSON file, or a positive : neutral : negative ratio of the training part.
    `validation_fraction`, in [0, 1), is the share of each class in the training part that becomes validation, by subject.
    `allow_missing`: go on without sequences that the file names and the data lack. `report` receives warnings: about those,
    about sequences in neither part, and about parts without one of the classes. `field` is the option that gave `partition`.
    """
    name = f"{field}={partition!r}"
    if not 0 <= validation_fraction < 1:
        raise DataError(f"data.validation_fraction={validation_fraction} must be in [0, 1)")
    report = report or (lambda line: None)
    if RATIO.fullmatch(partition):
        if allow_missing:
            raise DataError(f"data.allow_missing=True belongs to a partition file; {name} is a ratio, so leave it out")
        train, test = _by_ratio(data, partition, seed, name)
    else:
        train, test = _from_file(data, partition, field, allow_missing, report)
    quota = {label: round(validation_fraction * np.sum(data.labels[train] == label)) for label in np.unique(data.labels)}
    validation = _take_subjects(data, train, quota, seed + 1)
    divided = Partition(np.setdiff1d(train, validation), validation, test)
    for part, rows in vars(divided).items():
        if len(rows) and (without := lacking(data, rows)):
            counts = ", ".join(f"{count} {name}" for name, count in data.class_counts(rows).items())
            classes = " and no ".join(without)
            report(f"warning: {name}: the {part} part has no {classes} ({counts}), so {LACKING[part]}")
    return divided


def lacking(data: SequenceSet, rows: np.ndarray) -> list[str]:
    """Names of the classes without a sequence among `rows`."""
    return [name for name, count in data.class_counts(rows).items() if not count]


def refuse_single_class(data: SequenceSet, partition: Partition, name: str, field: str = FIELD) -> None:
    """Raise `DataError` where the training part has one class only; `name` is what `field` gave, for the message."""
    if len(without := lacking(data, partition.train)) == 2:
        only = next(iter({*RATIO_ORDER} - {*without}))
        raise DataError(
            f"{field}={name!r}: all {len(partition.train)} training sequences are {only}, so there is nothing to learn; "
            "use a partition with two classes or more"
        )


def _by_ratio(data: SequenceSet, ratio: str, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    parts = dict(zip(RATIO_ORDER, map(int, ratio.split(":")), strict=True))
    available = data.class_counts()
    if min(available.values()) < 2 or min(parts.values()) == 0:
        raise DataError(f"{name} needs two sequences of every class and no zero in the ratio; the data has {available}")
    # The unit of the ratio is the largest for which the training part holds at most half of the data and leaves sequences of
    # every class for the test part.
    unit = Fraction(len(data) // 2, sum(parts.values()))
    for kind, part in parts.items():
        left_for_test = max(1, -(-available[kind] * MIN_TEST_SHARE // 1))
        unit = min(unit, Fraction(available[kind] - left_for_test, part))
    quota = {class_id(kind): round(unit * part) for kind, part in parts.items()}
    if min(quota.values()) < 1:
        raise DataError(
            f"{name} would leave a class without training sequences; the data has {available}; pick a flatter ratio"
        )
    train = _take_subjects(data, np.arange(len(data)), quota, seed)
    return train, np.setdiff1d(np.arange(len(data)), train)


def _take_subjects(data: SequenceSet, rows: np.ndarray, quota: dict[int, int], seed: int) -> np.ndarray:
    """Sorted rows of subjects in random order; a subject is taken if all its sequences still fit the class quotas."""
    by_subject: dict[str, list[int]] = {}
    for row in rows:
        by_subject.setdefault(data.subjects[row], []).append(int(row))
    left = Counter(quota)
    taken: list[int] = []
    for subject in np.random.default_rng(seed).permutation(sorted(by_subject)):
        counts = Counter(data.labels[by_subject[subject]].tolist())
        if counts <= left:
            taken += by_subject[subject]
            left -= counts
    return np.array(sorted(taken), np.int64)


def read_listed(partition: str, sequences: Iterable[str], report: Callable[[str], None], field: str = FIELD) -> PartitionFile:
    """The file of a partition that is no ratio, as `read_partition`; raises `DataError` also where there is none."""
    try:
        return read_partition(partition, field, sequences, report)
    except FileNotFoundError:
        ratio = 'a ratio such as "1:1:8" (positive:neutral:negative)'
        raise DataError(f"{field}={partition!r} is neither a file nor {ratio}") from None


def _from_file(
    data: SequenceSet, partition: str, field: str, allow_missing: bool, report: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    name = f"{field}={partition!r}"
    content = read_listed(partition, data.sequences, report, field)
    parts = [content.train, content.test]
    if overlap := sorted(set(parts[0]) & set(parts[1])):
        raise DataError(f"{name}: {abbreviate(overlap)} stand in both TRAIN_SET and TEST_SET; keep one")
    row_of = {sequence: row for row, sequence in enumerate(data.sequences)}
    named = {*parts[0], *parts[1]}
    if missing := sorted(named - row_of.keys()):
        what = f"{name} names {len(named)} sequences, of which the data lack {len(missing)}: {abbreviate(missing, 3)}"
        if not allow_missing:
            raise DataError(
                f"{what}; use the partition that belongs to this data, or prepare the missing sequences, or train without "
                "them (--allow-missing)"
            )
        report(f"warning: {what}; going on without them, as data.allow_missing says")
    train, test = (np.array(sorted(row_of[item] for item in ids if item in row_of), np.int64) for ids in parts)  # rows
    for field, rows in zip(FIELDS, (train, test), strict=True):
        if not len(rows):
            raise DataError(f"{name}: none of the sequences of {field} is in the data; prepare them, or use another partition")
    if shared := sorted({data.subjects[row] for row in train} & {data.subjects[row] for row in test}):
        raise DataError(f"{name}: subjects {abbreviate(shared)} have sequences in both parts")
    if len(idle := np.setdiff1d(np.arange(len(data)), np.concatenate([train, test]))):
        counts = ", ".join(f"{count} {label}" for label, count in data.class_counts(idle).items())
        ids = abbreviate([data.sequences[row] for row in idle], 3)
        report(f"warning: {name}: {len(idle)} of {len(data)} sequences are in neither part ({counts}): {ids}")
    if content.unused:
        report(f"warning: {name}: nothing reads {abbreviate(map(shown, content.unused), 3)}, only {' and '.join(FIELDS)}")
    return train, test
