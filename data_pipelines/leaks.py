"""Leaks between the parts of a partition: a subject on both sides, or a sequence that is nearly another one.

A score on a test part that training has seen says nothing. Subjects are compared by name; where the release does not tell who
walked what, sequences are compared by a cheap hash of their silhouettes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import numpy as np

from data_pipelines.schema import DataError, SilhouetteSet, abbreviate
from data_pipelines.splits import Partition

BLOCK = 4  # pixels; the hash sees blocks of so many rows and columns
ALIKE = 1.5  # grey levels of 255: different synthetic walkers are 2.3 or more apart, real ones 6; see `near_duplicates`

COARSE = 8  # neighbouring numbers of a hash, whose mean is compared first
ROUNDING = 1e-3  # of float32 means, in grey levels
BLOCK_OF_SEQUENCES = 256  # compared at a time


class NearDuplicate(NamedTuple):
    sequence: str  # of the part that is evaluated
    twin: str  # of the part that was trained on
    distance: float  # grey levels


def refuse_shared_subjects(data: SilhouetteSet, partition: Partition) -> None:
    """Raise `DataError` naming the subjects who stand in two parts."""
    subjects = {part: {data.subjects[row] for row in rows} for part, rows in vars(partition).items()}
    for first, second in combinations(subjects, 2):
        if shared := subjects[first] & subjects[second]:
            raise DataError(
                f"data.partition: subjects {abbreviate(sorted(shared))} stand in both the {first} and the {second} part, "
                "so a score would be that of people already seen; mend the partition"
            )


def silhouette_hash(silhouettes: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over the frames, by blocks of 4 x 4 pixels: `[s, h, w]` to float32 `[hw / 8]`.

    Which frames of a walk were kept hardly moves it, and neither does how they were stored.
    """
    s, h, w = silhouettes.shape
    blocks = silhouettes.reshape(s, h // BLOCK, BLOCK, w // BLOCK, BLOCK).mean((2, 4), dtype=np.float32)  # s h/4 w/4
    return np.stack([blocks.mean(0), blocks.std(0)]).ravel()


def near_duplicates(data: SilhouetteSet, partition: Partition, read: Callable[[int], np.ndarray]) -> list[NearDuplicate]:
    """Held-out sequences that are nearly ones trained on, and test sequences that are nearly ones of validation.

    Each is named with its nearest twin. Found are a copy under another id, a copy at half the frame rate or without its first
    or last tenth, and often another walk of a person who walks very regularly. A mirrored copy is not found, nor one that was
    cut much shorter.

    Every sequence is read once and let go of. The comparison grows with the square of their number: 3 s for 7,465 held-out
    sequences against as many trained on.

    Args:
      data: the whole set.
      partition: of it.
      read: row to uint8 `[s, h, w]`, from several threads.
    """
    rows = np.concatenate([partition.train, partition.validation, partition.test])
    if not len(rows):
        return []
    with ThreadPoolExecutor() as pool:  # decoding and numpy let go of the interpreter
        hashes = np.stack(list(pool.map(lambda row: silhouette_hash(read(int(row))), rows)))  # n hw/8
    train, validation, test = np.split(np.arange(len(rows)), np.cumsum([len(partition.train), len(partition.validation)]))
    found = [*_alike(hashes, train, np.concatenate([validation, test])), *_alike(hashes, validation, test)]
    names = [data.sequences[row] for row in rows]
    return [NearDuplicate(names[place], names[twin], distance) for place, twin, distance in found]


def _alike(hashes: np.ndarray, known: np.ndarray, asked: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Of the hashes `asked` those that have one of `known` within `ALIKE`, with the nearest, and how far away it is.

    Means over `COARSE` numbers are never further apart than the numbers themselves, so they rule out most pairs first.
    """
    from scipy.spatial.distance import cdist

    if not len(known) or not len(asked):
        return
    coarse = hashes.reshape(len(hashes), -1, COARSE).mean(axis=2)  # n hw/8/COARSE
    for block in np.array_split(asked, -(-len(asked) // BLOCK_OF_SEQUENCES)):
        apart = cdist(coarse[block], coarse[known], "cityblock") / coarse.shape[1]  # block known
        for place, near in zip(block, apart < ALIKE + ROUNDING, strict=True):
            candidates = known[near]
            if len(candidates):
                distances = _distances(hashes[place], hashes[candidates])  # candidates
                nearest = int(np.argmin(distances))
                if distances[nearest] < ALIKE:
                    yield int(place), int(candidates[nearest]), float(distances[nearest])


def _distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean differences of a hash `[hw / 8]` from others `[n, hw / 8]`, in grey levels: `[n]`."""
    return np.abs(others - one).mean(axis=1)  # n
