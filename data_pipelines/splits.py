"""Partitions: the official JSON files, and random partitions with a given class ratio that never divide a subject.

The official files are named after the positive : neutral : negative ratio of the training part, and are used unchanged,
because the release does not say which sequences belong to one adolescent (`data_pipelines.prepare --subjects` does).
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_pipelines.schema import RATIO_ORDER, DataError, SilhouetteSet, abbreviate, class_id

MIN_TEST_SHARE = Fraction(1, 20)  # of each class; the official 1:1:2 leaves 14 of 200 neutral sequences
RATIO = re.compile(r"\d+(:\d+){2}")
FIELDS = ("TRAIN_SET", "TEST_SET")  # lists of ids in an official file: strings of five digits; numbers are accepted too


@dataclass(frozen=True)
class Partition:
    """Sorted row indices of a `SilhouetteSet`. `validation` is taken from the training part and may be empty."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def describe(self, data: SilhouetteSet) -> str:
        """Number of sequences and class counts, one line per part."""
        return "\n".join(
            f"{part:<10} {len(rows):5d} sequences: "
            + " / ".join(f"{count} {name}" for name, count in data.class_counts(rows).items())
            for part, rows in vars(self).items()
        )


def make_partition(data: SilhouetteSet, partition: str, validation_fraction: float, seed: int = 0) -> Partition:
    """Divide a set into a training, a validation and a test part; the same arguments give the same partition.

    `partition` is the path of an official JSON file, or a positive : neutral : negative ratio of the training part.
    `validation_fraction`, in [0, 1), is the share of each class in the training part that becomes validation, by subject.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"data.validation_fraction={validation_fraction} must be in [0, 1)")
    if RATIO.fullmatch(partition):
        train, test = _by_ratio(data, partition, seed)
    else:
        train, test = _from_file(data, partition)
    quota = {label: round(validation_fraction * np.sum(data.labels[train] == label)) for label in np.unique(data.labels)}
    validation = _take_subjects(data, train, quota, seed + 1)
    return Partition(np.setdiff1d(train, validation), validation, test)


def _by_ratio(data: SilhouetteSet, ratio: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    parts = dict(zip(RATIO_ORDER, map(int, ratio.split(":")), strict=True))
    available = data.class_counts()
    if min(available.values()) < 2 or min(parts.values()) == 0:
        raise DataError(
            f"data.partition={ratio!r} needs two sequences of every class and no zero in the ratio; the data has {available}"
        )
    # The unit of the ratio is the largest for which the training part holds at most half of the data and leaves sequences of
    # every class for the test part.
    unit = Fraction(len(data) // 2, sum(parts.values()))
    for name, part in parts.items():
        left_for_test = max(1, -(-available[name] * MIN_TEST_SHARE // 1))
        unit = min(unit, Fraction(available[name] - left_for_test, part))
    quota = {class_id(name): round(unit * part) for name, part in parts.items()}
    if min(quota.values()) < 1:
        raise DataError(
            f"data.partition={ratio!r} would leave a class without training sequences; the data has {available}; "
            "pick a flatter ratio"
        )
    train = _take_subjects(data, np.arange(len(data)), quota, seed)
    return train, np.setdiff1d(np.arange(len(data)), train)


def _take_subjects(data: SilhouetteSet, rows: np.ndarray, quota: dict[int, int], seed: int) -> np.ndarray:
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


def _from_file(data: SilhouetteSet, partition: str) -> tuple[np.ndarray, np.ndarray]:
    path = Path(partition).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        parts = [[f"{item:05d}" if isinstance(item, int) else str(item) for item in content[field]] for field in FIELDS]
    except FileNotFoundError:
        raise DataError(
            f'data.partition={partition!r} is neither a file nor a ratio such as "1:1:8" (positive:neutral:negative)'
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"data.partition={partition!r} is not a partition file ({error!r}); "
            'expected {"TRAIN_SET": [ids], "TEST_SET": [ids]}'
        ) from None
    for field, ids in zip(FIELDS, parts, strict=True):
        if twice := sorted(item for item, count in Counter(ids).items() if count > 1):
            raise DataError(f"data.partition={partition!r}: {field} lists {abbreviate(twice)} more than once")
        if not ids:
            raise DataError(f"data.partition={partition!r}: {field} is empty")
    if overlap := sorted(set(parts[0]) & set(parts[1])):
        raise DataError(f"data.partition={partition!r}: {abbreviate(overlap)} stand in both TRAIN_SET and TEST_SET; keep one")
    row_of = {sequence: row for row, sequence in enumerate(data.sequences)}
    if missing := sorted({*parts[0], *parts[1]} - row_of.keys()):
        raise DataError(
            f"data.partition={partition!r} names sequences that are not in the data: {abbreviate(missing)}; "
            "use the partition that belongs to this data, or prepare the missing sequences"
        )
    train, test = (np.array(sorted(row_of[item] for item in ids), np.int64) for ids in parts)
    if shared := sorted({data.subjects[row] for row in train} & {data.subjects[row] for row in test}):
        raise DataError(f"data.partition={partition!r}: subjects {abbreviate(shared)} have sequences in both parts")
    return train, test
