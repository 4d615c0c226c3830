from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.pipelines import EvalBatcher, SequenceCache, TrainSampler, eval_batches, train_batches
from data_pipelines.schema import SKELETONS, DataError, SequenceSet
from tests.conftest import make_set


def sampler(data=None, **changes) -> TrainSampler:
    data = data or make_set(per_class=3, frames=12)
    settings = dict(rows=np.arange(len(data)), seed=5, subjects_per_batch=4, clips_per_subject=2, frames_per_clip=6)
    return TrainSampler(data=data, **settings | changes)


def test_a_batch_is_what_its_draw_says():
    one = sampler()
    chosen, frames = one.draw(7)
    batch = one(7)
    assert batch["frames"].shape == (8, 6, 64, 44)
    assert batch["frames"].dtype == np.uint8
    for clip in range(8):
        row = chosen[clip // 2]
        np.testing.assert_array_equal(batch["frames"][clip], one.data.read(int(row))[frames[clip // 2, clip % 2]][:, :, 10:54])
        assert batch["identities"][clip] == row
        assert batch["labels"][clip] == one.data.labels[row]


def test_a_batch_is_a_function_of_seed_and_step():
    first, again = sampler()(3), sampler()(3)
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["frames"] != sampler()(4)["frames"]).any()
    assert (first["frames"] != sampler(seed=6)(3)["frames"]).any()


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 10**9), subjects=st.integers(1, 9), clips=st.integers(1, 4), count=st.sampled_from([1, 2, 3, 4]))
def test_the_shares_of_all_processes_are_the_global_batch(step, subjects, clips, count):
    one = sampler(subjects_per_batch=subjects, clips_per_subject=clips)
    if subjects * clips % count:
        with pytest.raises(DataError, match="cannot be shared equally"):
            replace(one, process_count=count)
        return
    shares = [replace(one, process_index=index, process_count=count)(step) for index in range(count)]
    whole = one(step)
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), whole[name])


def skeletons(per_class: int = 3, frames: int = 12) -> SequenceSet:
    """Random maps of two channels, with random vectors."""
    data, rng = make_set(per_class, frames), np.random.default_rng(1)
    maps = rng.integers(0, 256, (len(data), frames, 2, 64, 64), dtype=np.uint8)  # n s 2 64 64
    vectors = rng.normal(size=(len(data), 8, 3)).astype(np.float32)  # n 8 3
    return replace(data, read=maps.__getitem__, modality=SKELETONS, asymmetry=vectors)


@settings(max_examples=20, deadline=None)
@given(step=st.integers(0, 10**9), clips=st.sampled_from([1, 2]), count=st.sampled_from([1, 2, 3, 6]))
def test_a_batch_by_class_has_as_many_of_each_and_is_the_same_for_any_number_of_processes(step, clips, count):
    data = skeletons()
    settings = dict(subjects_per_batch=12, clips_per_subject=clips, balanced=True)  # more than the part has
    one = sampler(data, **settings)
    whole = one(step)
    assert whole["frames"].shape == (12 * clips, 6, 2, 64, 44)
    assert np.bincount(whole["labels"]).tolist() == [4 * clips] * 3
    np.testing.assert_array_equal(whole["asymmetry"], data.asymmetry[whole["identities"]])
    shares = [replace(one, process_index=index, process_count=count)(step) for index in range(count)]
    again = [replace(sampler(data, **settings), process_index=index, process_count=count)(step) for index in range(count)]
    for name in ("frames", "labels", "identities", "asymmetry"):
        np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), whole[name])
        np.testing.assert_array_equal(np.concatenate([share[name] for share in again]), whole[name])
    chosen, frames = one.draw(step)
    clip, row = data.read(int(chosen[-1])), frames[-1, -1]
    np.testing.assert_array_equal(whole["frames"][-1], clip[row][..., 10:54])


def test_drawing_by_class_reaches_every_sequence_of_the_part_and_no_other():
    data = skeletons()
    rows = np.array([0, 1, 2, 3, 5, 8])  # of the classes 0, 1, 2, 0, 2, 2
    one = sampler(data, rows=rows, subjects_per_batch=3, balanced=True)
    drawn = [one.draw(step)[0] for step in range(60)]
    assert {int(row) for batch in drawn for row in batch} == set(rows.tolist())
    assert all(data.labels[batch].tolist() == [0, 1, 2] for batch in drawn)
    assert any((one.draw(step)[0] != replace(one, seed=6).draw(step)[0]).any() for step in range(5))


def test_sequences_and_frames_are_drawn_without_replacement_from_the_given_rows():
    rows = np.array([1, 2, 4, 7, 8])
    one = sampler(rows=rows)
    for step in range(40):
        chosen, frames = one.draw(step)
        assert len(set(chosen)) == 4
        assert set(chosen) <= set(rows)
        assert all(len(set(clip)) == 6 for clip in frames.reshape(-1, 6))
    seen = np.unique(np.concatenate([one.draw(step)[1].ravel() for step in range(40)]))
    assert seen.tolist() == list(range(12))


def test_short_sequences_are_drawn_with_replacement():
    data = make_set(per_class=3, frames=4)
    one = sampler(data)
    assert one.short_sequences == 9
    _, frames = one.draw(0)
    assert frames.max() < 4
    assert one(0)["frames"].shape == (8, 6, 64, 44)
    assert sampler().short_sequences == 0


def test_each_sequence_is_decoded_once_a_batch():
    data = make_set(per_class=3, frames=12)
    reads: list[int] = []
    counting = replace(data, read=lambda row: reads.append(row) or data.read(row))
    sampler(counting)(0)
    assert len(reads) == 4
    reads.clear()
    replace(sampler(counting), process_index=1, process_count=4)(0)
    assert len(reads) == 1  # a process decodes its own share alone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subjects_per_batch": 10}, "data.subjects_per_batch=10 but the training part has 9 sequences"),
        ({"clips_per_subject": 0}, "data.clips_per_subject=0"),
        ({"frames_per_clip": -1}, "data.frames_per_clip=-1"),
        ({"balanced": True}, "data.subjects_per_batch=4 must be a multiple of the 3 classes where data.balanced=True"),
        (
            {"balanced": True, "subjects_per_batch": 3, "rows": np.array([0, 2, 3, 5])},
            "data.balanced=True, but the training part has no neutral sequence; pick another partition",
        ),
    ],
)
def test_impossible_batches(changes, words):
    with pytest.raises(DataError, match=words):
        sampler(**changes)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9), st.integers(3, 40), st.sampled_from([1, 2, 4]), st.sampled_from([2, 4]))
def test_clips_that_share_frames_are_the_same_clips(step, frames, count, together):
    data = make_set(per_class=3, frames=frames)
    plain = sampler(data, clips_per_subject=4, frames_per_clip=8)(step)
    one = sampler(data, clips_per_subject=4, frames_per_clip=8, clips_together=together)
    shares = [replace(one, process_index=index, process_count=count)(step) for index in range(count)]
    batch = {name: np.concatenate([share[name] for share in shares]) for name in shares[0]}
    for name in ("labels", "identities"):
        np.testing.assert_array_equal(batch[name], plain[name])
    if "clip_frames" not in batch:
        np.testing.assert_array_equal(batch["frames"], plain["frames"])
        return
    shared = batch["frames"].shape[1]
    assert shared <= 7 / 8 * together * 8
    assert batch["clip_frames"].dtype == np.int32
    drawn = [group[numbers] for group, numbers in zip(batch["frames"], batch["clip_frames"], strict=True)]
    np.testing.assert_array_equal(np.concatenate(drawn), plain["frames"])


def test_frames_are_shared_where_it_saves_some():
    long, short = (make_set(per_class=3, frames=frames) for frames in (400, 30))
    few = dict(clips_per_subject=8, frames_per_clip=10, clips_together=8)
    assert "clip_frames" not in sampler(long, **few)(0)
    one = sampler(short, **few)
    assert {one(step)["frames"].shape for step in range(50)} == {(4, 32, 64, 44)}  # 80 drawn from 30, in eights
    middle = sampler(make_set(per_class=3, frames=100), **few)
    shapes = [middle(step)["frames"].shape for step in range(300)]
    assert set(shapes) <= {(4, 64, 64, 44), (32, 10, 64, 44)}  # about 57 of 80 differ; a batch with more goes without
    assert shapes.count((4, 64, 64, 44)) > 270
    assert "clip_frames" not in sampler(short, **few | {"clips_together": 1})(0)
    with pytest.raises(DataError, match="clips_together=3"):
        sampler(short, **few | {"clips_together": 3})


def test_the_cache_reads_a_sequence_once_and_changes_nothing():
    data = make_set(per_class=3, frames=12)
    reads: list[int] = []
    counting = replace(data, read=lambda row: reads.append(row) or data.read(row))
    size = 12 * 64 * 44
    one = sampler(counting, cache=SequenceCache(counting, 9 * size))
    plain = sampler(data)
    for step in range(30):
        for name, array in one(step).items():
            np.testing.assert_array_equal(array, plain(step)[name])
    assert sorted(reads) == list(range(9))
    reads.clear()
    small = SequenceCache(counting, 2 * size + 5)
    for _ in range(3):
        for row in range(9):
            np.testing.assert_array_equal(small(row), data.read(row)[:, :, 10:54])
    assert sorted(reads) == sorted([0, 1, *range(2, 9), *range(2, 9), *range(2, 9)])  # two fit
    with pytest.raises(DataError, match=r"data\.cache_gigabytes=-1 must not be negative"):
        SequenceCache(data, -(10**9))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_loader_hands_out_the_steps_in_order(threads):
    one = sampler()
    for step, batch in zip(range(2, 9), train_batches(one, 2, 9, threads), strict=True):
        np.testing.assert_array_equal(batch["frames"], one(step)["frames"])


def test_evaluation_sees_every_sequence_once_beside_its_like_padded_and_masked():
    data = make_set(per_class=4, frames=70)
    lengths = np.array([70, 1, 60, 61, 59, 3, 70, 70, 8, 9, 10, 2], np.int32)
    data = replace(data, n_frames=lengths, read=lambda row, read=data.read: read(row)[: lengths[row]])
    rows = np.array([0, 1, 2, 3, 5, 8, 9, 10, 11])
    batches = list(eval_batches(EvalBatcher(data, rows, batch_size=4, max_frames=65)))
    assert [batch["frames"].shape[:2] for batch in batches] == [(4, 60), (4, 60), (4, 120)]
    assert np.concatenate([batch["rows"] for batch in batches]).tolist() == [1, 2, 5, 8, 9, 10, 11, -1, 0, 3, -1, -1]
    for batch in batches:
        assert batch["frame_mask"].any(axis=1).all()
        for position, row in enumerate(batch["rows"]):
            if row < 0:
                assert not batch["frames"][position].any()
                continue
            length = min(lengths[row], 65)
            assert batch["frame_mask"][position].tolist() == [True] * length + [False] * (len(batch["frame_mask"][0]) - length)
            np.testing.assert_array_equal(batch["frames"][position, :length], data.read(row)[:length, :, 10:54])


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"rows": []}, "data.partition"), ({"max_frames": 0}, "max_eval_frames"), ({"batch_size": 0}, "eval_batch")],
)
def test_impossible_evaluation(changes, words):
    with pytest.raises(DataError, match=words):
        EvalBatcher(**dict(data=make_set(), rows=np.arange(3), batch_size=2, max_frames=9) | changes)
