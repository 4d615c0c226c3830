"""Leaks between the parts of a partition: a subject on both sides, or a sequence that is nearly another one.

A score on a test part that training has seen says nothing. Subjects are compared by name; where the release does not tell who
walked what, sequences are compared by a cheap hash of their silhouettes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import numpy as np

from data_pipelines.schema import DataError, SilhouetteSet, few
from data_pipelines.splits import Partition

BLOCK = 4  # pixels; the hash sees blocks of so many rows and columns
ALIKE = 1.5  # grey levels of 255: different synthetic walkers are 2.3 or more apart, real ones 6; see `near_duplicates`


class NearDuplicate(NamedTuple):
    sequence: str  # of the part that is evaluated
    twin: str  # of the part that was trained on
    distance: float  # grey levels


def refuse_shared_subjects(data: SilhouetteSet, partition: Partition) -> None:
    """Raise `DataError` naming the subjects who stand in two parts."""
    for one, other in combinations(vars(partition), 2):
        shared = {data.subjects[row] for row in getattr(partition, one)} & {
            data.subjects[row] for row in getattr(partition, other)
        }
        if shared:
            raise DataError(
                f"data.partition: subjects {few(sorted(shared))} stand in both the {one} and the {other} part, so a score "
                "would be that of people already seen; mend the partition"
            )


def silhouette_hash(silhouettes: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over the frames, by blocks of 4 x 4 pixels: `[s, h, w]` to float32 `[hw / 8]`.

    Which frames of a walk were kept hardly moves it, and neither does how they were stored.
    """
    s, h, w = silhouettes.shape
    blocks = silhouettes.reshape(s, h // BLOCK, BLOCK, w // BLOCK, BLOCK).mean((2, 4), dtype=np.float32)  # s h/4 w/4
    return np.stack([blocks.mean(0), blocks.std(0)]).ravel()


def near_duplicates(
    data: SilhouetteSet, trained: np.ndarray, evaluated: np.ndarray, read: Callable[[int], np.ndarray]
) -> list[NearDuplicate]:
    """Evaluated sequences whose silhouettes are nearly those of a sequence trained on, each with its nearest twin.

    Found are a copy under another id, a copy at half the frame rate or without its first or last tenth, and often another
    walk of a person who walks very regularly. A mirrored copy is not found, nor one that was cut much shorter.

    Args:
      data: the whole set.
      trained: rows of the parts that training has seen.
      evaluated: rows of the part to be scored.
      read: row to uint8 `[s, h, w]`.
    """
    if not len(trained) or not len(evaluated):
        return []
    with ThreadPoolExecutor() as pool:  # decoding and numpy let go of the interpreter
        known, hashes = (
            np.stack(list(pool.map(lambda row: silhouette_hash(read(int(row))), rows))) for rows in (trained, evaluated)
        )  # n' hw/8, n hw/8
    found = []
    for row, own in zip(evaluated, hashes, strict=True):
        distances = np.abs(known - own).mean(axis=1)  # n'
        nearest = int(np.argmin(distances))
        if distances[nearest] < ALIKE:
            twin = data.sequences[trained[nearest]]
            found.append(NearDuplicate(data.sequences[row], twin, float(distances[nearest])))
    return found
