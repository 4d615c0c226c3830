"""Leaks between the parts of a partition: a subject in two parts, or a sequence that nearly equals one of another part.

A score on a test part that shares people or sequences with the training part is too high. Subjects are compared by name. For
releases without subject names, sequences are compared by a cheap hash of their silhouettes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import numpy as np

from data_pipelines.schema import DataError, SequenceSet, abbreviate
from data_pipelines.splits import Partition

BLOCK = 4  # pixels; edge of the square blocks that the hash averages
ALIKE = 1.5  # grey levels of 255: different synthetic walkers differ by 2.3 or more, real ones by 6; see `near_duplicates`
COARSE = 8  # neighbouring numbers of a hash, whose mean is compared first
ROUNDING = 1e-3  # grey levels; rounding error of float32 means


class NearDuplicate(NamedTuple):
    sequence: str  # id, of two parts that in the evaluated one
    twin: str  # id, of two parts that in the one trained on
    distance: float  # grey levels


def refuse_shared_subjects(data: SequenceSet, partition: Partition) -> None:
    """Raise `DataError` naming the subjects with sequences in two parts."""
    subjects = {part: {data.subjects[row] for row in rows} for part, rows in vars(partition).items()}
    for first, second in combinations(subjects, 2):
        if shared := subjects[first] & subjects[second]:
            raise DataError(
                f"data.partition: subjects {abbreviate(sorted(shared))} stand in both the {first} and the {second} part, "
                "so a score would be that of people already seen; fix the partition"
            )


def silhouette_hash(silhouettes: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over the frames, in blocks of 4 x 4 pixels: `[s, h, w]` to float32 `[hw / 8]`.

    The two channels of a skeleton map, `[s, 2, h, w]`, count as one picture of 2h rows.

    The hash hardly changes if some frames of a walk are left out or the frames are compressed differently.
    """
    s, w = len(silhouettes), silhouettes.shape[-1]
    silhouettes = silhouettes.reshape(s, -1, w)  # s h w
    h = silhouettes.shape[1]
    blocks = silhouettes.reshape(s, h // BLOCK, BLOCK, w // BLOCK, BLOCK).mean((2, 4), dtype=np.float32)  # s h/4 w/4
    return np.stack([blocks.mean(0), blocks.std(0)]).ravel()  # hw/8


def near_duplicates(data: SequenceSet, partition: Partition, read: Callable[[int], np.ndarray]) -> list[NearDuplicate]:
    """Held-out sequences that nearly equal a training sequence, and test sequences that nearly equal a validation sequence.

    Each is returned with its nearest twin. The method detects a copy under another id, a copy at half the frame rate or without
    its first or last tenth, and often a second walk of a person with a very regular gait. It does not detect a mirrored copy
    or a copy that was cut much shorter.

    Every sequence is read once and not kept. The time of the comparison grows with the square of the number of sequences: 3 s
    for 7,465 held-out and as many training sequences. `read` returns uint8 `[s, h, w]` for a row of `data`, and is called from
    several threads.
    """
    rows = np.concatenate([partition.train, partition.validation, partition.test])  # n
    if not len(rows):
        return []
    with ThreadPoolExecutor() as pool:  # decoding and numpy release the interpreter lock
        hashes = np.stack(list(pool.map(lambda row: silhouette_hash(read(int(row))), rows)))  # n hw/8
    train, validation, test = np.split(np.arange(len(rows)), np.cumsum([len(partition.train), len(partition.validation)]))
    pairs = [*_alike(hashes, train, np.concatenate([validation, test])), *_alike(hashes, validation, test)]
    names = [data.sequences[row] for row in rows]
    return [NearDuplicate(names[place], names[twin], distance) for place, twin, distance in pairs]


def alike_sequences(names: Sequence[str], hashes: np.ndarray) -> list[NearDuplicate]:
    """Sequences, whichever part they are in, that nearly equal another one, with their nearest twin; each pair once.

    `hashes` has the `silhouette_hash` of each name, float32 `[n, hw / 8]`.
    """
    rows = np.arange(len(names))
    pairs = {frozenset((one, twin)): distance for one, twin, distance in _alike(hashes, rows, rows)}
    return [NearDuplicate(names[max(pair)], names[min(pair)], distance) for pair, distance in pairs.items()]


def _alike(hashes: np.ndarray, known: np.ndarray, asked: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Pairs of hashes closer than `ALIKE`: index from `asked`, index of the nearest one from `known`, and their distance.

    Means over `COARSE` numbers never differ by more than the numbers themselves, so they exclude most pairs cheaply.
    """
    from scipy.spatial.distance import cdist

    coarse = hashes.reshape(len(hashes), -1, COARSE).mean(axis=2, dtype=np.float64)  # n hw/8/COARSE
    coarse_known = coarse[known]  # known hw/8/COARSE
    for place in asked:
        apart = cdist(coarse[[place]], coarse_known, "cityblock")[0] / coarse.shape[1]  # known
        candidates = known[(apart < ALIKE + ROUNDING) & (known != place)]
        distances = np.abs(hashes[candidates] - hashes[place]).mean(axis=1)  # candidates
        if distances.min(initial=np.inf) < ALIKE:
            nearest = int(np.argmin(distances))
            yield int(place), int(candidates[nearest]), float(distances[nearest])
