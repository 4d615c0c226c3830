import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.schema import DataError, SequenceSet
from data_pipelines.splits import make_partition, refuse_single_class
from tests.conftest import make_set


def labelled(labels, subjects=None) -> SequenceSet:
    labels = np.asarray(labels, np.int32)
    names = tuple(f"{row:05d}" for row in range(len(labels)))
    return SequenceSet(
        name="labels only",
        synthetic=True,
        sequences=names,
        subjects=tuple(subjects) if subjects is not None else names,
        labels=labels,
        n_frames=np.full(len(labels), 300, np.int32),
        read=lambda row: pytest.fail("a partition reads no frames"),
    )


RELEASE = np.repeat([0, 1, 2], [800, 200, 493])  # the release: negative, neutral, positive


@pytest.mark.parametrize(
    ("ratio", "train"),
    [("1:1:2", (187, 187, 373)), ("1:1:4", (124, 124, 497)), ("1:1:8", (75, 75, 597)), ("1:1:16", (41, 41, 663))],
)
def test_ratios_on_the_release_come_out_as_the_official_ones_do(ratio, train):
    data = labelled(RELEASE)
    partition = make_partition(data, ratio, 0.0)
    assert tuple(data.class_counts(partition.train).values()) == pytest.approx(train, abs=1)
    assert len(partition.train) + len(partition.test) == 1493
    assert min(data.class_counts(partition.test).values()) > 0


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=12, max_size=120),
    people=st.integers(1, 60),
    ratio=st.tuples(*[st.integers(1, 16)] * 3),
    validation=st.floats(0.0, 0.5),
    seed=st.integers(0, 1000),
)
def test_partitions_cover_everything_once_and_never_cut_a_subject(labels, people, ratio, validation, seed):
    rng = np.random.default_rng(seed)
    subjects = [f"s{person}" for person in rng.integers(0, people, len(labels))]
    data = labelled(labels, subjects)
    try:
        partition = make_partition(data, ":".join(map(str, ratio)), validation, seed)
    except DataError as error:
        assert "data.partition" in str(error)
        return
    parts = [partition.train, partition.validation, partition.test]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    people_of = [{subjects[row] for row in part} for part in parts]
    assert not people_of[0] & people_of[1]
    assert not people_of[0] & people_of[2]
    assert not people_of[1] & people_of[2]
    again = make_partition(data, ":".join(map(str, ratio)), validation, seed)
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(partition, name), getattr(again, name))


def test_validation_is_stratified_and_leaves_the_test_part_alone():
    data = labelled(RELEASE)
    plain, carved = make_partition(data, "1:1:2", 0.0), make_partition(data, "1:1:2", 0.2)
    np.testing.assert_array_equal(plain.test, carved.test)
    np.testing.assert_array_equal(plain.train, np.union1d(carved.train, carved.validation))
    train, validation = data.class_counts(plain.train), data.class_counts(carved.validation)
    assert all(abs(validation[name] - 0.2 * train[name]) <= 1 for name in train)
    assert "validation" in carved.describe(data)


@pytest.fixture
def official(tmp_path):
    def write(**parts) -> str:
        path = tmp_path / "partition.json"
        path.write_text(json.dumps(parts), encoding="utf-8")
        return str(path)

    return write


def test_official_file(official):
    data = make_set(per_class=2)
    partition = make_partition(data, official(TRAIN_SET=["00003", "00001"], TEST_SET=["00000", 5]), 0.0)
    assert partition.train.tolist() == [1, 3]
    assert partition.test.tolist() == [0, 5]


def test_bad_official_files(official, tmp_path):
    data = make_set(per_class=2, subjects=["a", "b", "c", "a", "e", "f"])
    with pytest.raises(DataError, match="neither a file nor a ratio"):
        make_partition(data, str(tmp_path / "none.json"), 0.0)
    contents = [
        (dict(TRAIN_SET=["00001"], TEST_SET=["00001", "00002"]), "00001 stand in both"),
        (dict(TRAIN_SET=["00001"] * 2, TEST_SET=["00002"]), "00001 more than once"),
        (dict(TRAIN_SET=[], TEST_SET=["00002"]), "TRAIN_SET is empty"),
        (
            dict(TRAIN_SET=["00001"], TEST_SET=[f"9000{i}" for i in range(8)]),
            "names 9 sequences, of which the data lack 8: 90000, 90001, 90002 and 5 more;.*--allow-missing",
        ),
        (dict(TRAIN_SET=["00000"], TEST_SET=["00003"]), "subjects a have sequences in both"),
        (dict(TRAIN_SET=["00001"]), "is not a partition file"),
    ]
    for content, words in contents:
        with pytest.raises(DataError, match=words):
            make_partition(data, official(**content), 0.0)


@pytest.mark.parametrize(
    ("ratio", "words"), [("1:0:2", "no zero"), ("1:1:1000", "without training"), ("1:1", "neither a file")]
)
def test_bad_ratios(ratio, words):
    with pytest.raises(DataError, match=words):
        make_partition(make_set(per_class=4), ratio, 0.0)


def test_bad_validation_fraction():
    with pytest.raises(DataError, match=r"data\.validation_fraction=1"):
        make_partition(make_set(), "1:1:1", 1.0)


@pytest.fixture
def said() -> list[str]:
    """What `make_partition` reports."""
    return []


def test_what_the_data_lack_is_counted_and_left_out_knowingly(official, said):
    data = make_set(per_class=2)
    path = official(TRAIN_SET=[1, 3, 2, *range(90000, 90004)], TEST_SET=["00000", "00004", 5])
    with pytest.raises(DataError, match=r"names 10 sequences, of which the data lack 4: 90000, 90001, 90002 and 1 more; .*"):
        make_partition(data, path, 0.0)
    partition = make_partition(data, path, 0.0, allow_missing=True, report=said.append)
    assert partition.train.tolist() == [1, 2, 3]
    assert partition.test.tolist() == [0, 4, 5]
    assert len(said) == 1
    assert "names 10 sequences, of which the data lack 4: 90000, 90001, 90002 and 1 more; going on without" in said[0]
    with pytest.raises(DataError, match="none of the sequences of TEST_SET is in the data"):
        make_partition(data, official(TRAIN_SET=[1, 3], TEST_SET=[90000]), 0.0, allow_missing=True)
    with pytest.raises(
        DataError, match=r"data\.allow_missing=True belongs to a partition file; data\.partition='1:1:1' is a ratio"
    ):
        make_partition(data, "1:1:1", 0.0, allow_missing=True)


WARNED = {  # sequences 0, 3, 6, ... are negative, 1, 4, 7, ... neutral, 2, 5, 8, ... positive
    "nothing to say": ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], 0.0, []),
    "neither part": (
        [0, 1, 2],
        [3, 4, 5],
        0.0,
        ["6 of 12 sequences are in neither part (2 positive, 2 neutral, 2 negative): 00006, 00007, 00008 and 3 more"],
    ),
    "a class missing in training": (
        [0, 2, 3, 5],
        [1, 4, 6, 7, 8, 9, 10, 11],
        0.0,
        ["the train part has no neutral (2 positive, 0 neutral, 2 negative), so the network cannot learn to call it"],
    ),
    "two classes missing in training": (
        [2, 5],
        [0, 1, 3, 4, 6, 7, 8, 9, 10, 11],
        0.0,
        ["the train part has no neutral and no negative (2 positive, 0 neutral, 0 negative), so the network cannot learn"],
    ),
    "a class missing in the test part": (
        [0, 1, 2, 3, 4, 5, 6, 9],
        [7, 8, 10, 11],
        0.0,
        ["the test part has no negative (2 positive, 2 neutral, 0 negative), so its scores are undefined"],
    ),
    "a class missing in validation": (
        [0, 1, 2, 3, 6, 9, 4],
        [5, 7, 8, 10, 11],
        0.4,
        ["the validation part has no positive", "the test part has no negative"],
    ),
}


@pytest.mark.parametrize("kind", WARNED)
def test_parts_that_lack_something_are_said_to_in_one_line_each(kind, official, said):
    train, test, fraction, lines = WARNED[kind]
    make_partition(make_set(per_class=4), official(TRAIN_SET=train, TEST_SET=test), fraction, report=said.append)
    assert len(said) == len(lines)
    for line, words in zip(said, lines, strict=True):
        assert line.startswith("warning: data.partition=")
        assert words in line
        assert "\n" not in line


def test_keys_that_nothing_reads_are_named(official, said):
    path = official(TRAIN_SET=[0, 1, 2], TEST_SET=[3, 4, 5], VAL_SET=[1])
    make_partition(make_set(per_class=2), path, 0.0, report=said.append)
    assert [line.split(": ", 2)[2] for line in said] == ["nothing reads 'VAL_SET', only TRAIN_SET and TEST_SET"]


def test_a_training_part_of_one_class_is_refused_where_it_is_to_be_learnt_from(official):
    data = make_set(per_class=2)
    one, two = (make_partition(data, official(TRAIN_SET=ids, TEST_SET=[0, 1]), 0.0) for ids in ([2, 5], [2, 4]))
    with pytest.raises(
        DataError, match=r"data\.partition='one\.json': all 2 training sequences are positive, so there is nothing"
    ):
        refuse_single_class(data, one, "one.json")
    refuse_single_class(data, two, "two.json")
