import dataclasses

import numpy as np
import pytest

from data_pipelines import leaks
from data_pipelines.leaks import near_duplicates, refuse_shared_subjects, silhouette_hash
from data_pipelines.schema import DataError
from data_pipelines.scoliosis1k.release_tree import look_through
from data_pipelines.silhouettes import cut_sides
from data_pipelines.splits import Partition, make_partition
from data_pipelines.synthetic import synthetic_walkers
from tests.conftest import make_set


def test_a_subject_in_two_parts_is_refused_by_name():
    data = make_set(per_class=2, subjects=["a", "b", "c", "d", "b", "f"])
    rows = np.arange(6)
    refuse_shared_subjects(data, Partition(rows[[0, 1, 4]], rows[[2]], rows[[3, 5]]))
    for parts in ((rows[:2], rows[[2]], rows[3:]), (rows[[0]], rows[[1]], rows[2:]), (rows[[1]], rows[[4]], rows[[5]])):
        with pytest.raises(DataError, match=r"subjects b stand in both the .* fix the partition"):
            refuse_shared_subjects(data, Partition(*parts))
    refuse_shared_subjects(data, make_partition(data, "1:1:1", 0.0))


def found(clips: dict[int, np.ndarray]) -> list:
    """Near-duplicates among 24 walkers of whom the last twelve are evaluated, with some clips put in the place of others."""
    data = synthetic_walkers(24, 30)
    read = {row: clips.get(row, data.read(row)) for row in range(24)}
    partition = Partition(np.arange(12), np.arange(0), np.arange(12, 24))
    duplicates = near_duplicates(data, partition, lambda row: cut_sides(read[row]))
    return [(one.sequence, one.twin) for one in duplicates]


def test_near_duplicates_are_found_and_different_walkers_are_not():
    clip = synthetic_walkers(24, 30).read(5)
    assert found({}) == []
    rng = np.random.default_rng(0)
    stored_again = np.clip(clip + rng.normal(0.0, 4.0, clip.shape), 0, 255).astype(np.uint8)
    for copy in (clip, clip[:27], clip[3:], clip[::2], stored_again, ((clip > 127) * 255).astype(np.uint8)):
        assert found({20: copy}) == [("00020", "00005")]


def test_real_walkers_are_told_apart(silhouettes):
    sequences = look_through(silhouettes / "expected", "tree").sequences
    hashes = [silhouette_hash(cut_sides(one.silhouettes())) for one in sequences]
    apart = [np.abs(a - b).mean() for index, a in enumerate(hashes) for b in hashes[:index]]
    assert min(apart) > 4.0


def test_without_training_rows_there_is_nothing_to_compare():
    data = dataclasses.replace(make_set(), name="x")
    assert near_duplicates(data, Partition(np.arange(0), np.arange(0), np.arange(3)), data.read) == []
    assert near_duplicates(data, Partition(np.arange(0), np.arange(0), np.arange(0)), data.read) == []
    assert near_duplicates(data, Partition(np.arange(3), np.arange(0), np.arange(0)), data.read) == []


def test_every_sequence_is_read_once_and_the_test_part_is_compared_with_validation_too():
    data, reads = make_set(per_class=4), []
    clips = {row: data.read(row) for row in range(12)}
    clips[11], clips[5] = clips[7], clips[2]

    def read(row: int) -> np.ndarray:
        reads.append(row)
        return clips[row]

    partition = Partition(np.arange(4), np.arange(4, 8), np.arange(8, 12))
    found = near_duplicates(data, partition, read)
    assert found == [("00005", "00002", 0.0), ("00011", "00007", 0.0)]
    assert sorted(reads) == list(range(12))


def test_what_is_ruled_out_by_means_would_not_have_been_found():
    """Hashes of all distances around the limit, against the nearest of all pairs."""
    rng = np.random.default_rng(0)
    known = rng.uniform(0.0, 255.0, (40, 352)).astype(np.float32)
    steps = rng.normal(0.0, 1.0, (30, 352)) * np.linspace(0.5, 3.0, 30)[:, None] + rng.normal(0.0, 0.4, (30, 1))
    hashes = np.concatenate([known, known[:30] + steps]).astype(np.float32)
    found = list(leaks._alike(hashes, np.arange(40), np.arange(40, 70)))
    apart = np.abs(hashes[40:, None] - hashes[None, :40]).mean(axis=2)
    expected = [(40 + row, int(np.argmin(one)), one.min()) for row, one in enumerate(apart) if one.min() < leaks.ALIKE]
    assert 5 < len(found) < 25
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    np.testing.assert_allclose([one[2] for one in found], [one[2] for one in expected], rtol=1e-6)
