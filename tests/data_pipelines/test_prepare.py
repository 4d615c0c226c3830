"""From released trees to prepared data sets, and what bad trees get."""

import json
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data_pipelines import masks, sources
from data_pipelines.locks import alone
from data_pipelines.prepare import main
from data_pipelines.schema import DataError, cache_folder
from data_pipelines.scoliosis1k.metadata import fingerprint, metadata_digest
from data_pipelines.scoliosis1k.release_tree import look_through
from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from data_pipelines.sources import LOCK, is_prepared, open_prepared, open_root, prepare, prepared_folder
from tests.conftest import as_silhouettes, assert_one_clear_error, damage, held_preparation, run_module, write_tree


def test_raw_masks_become_the_expected_silhouettes_byte_for_byte(silhouettes, tmp_path):
    result = run_module("data_pipelines.prepare", "--input", silhouettes / "raw", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    data = open_prepared(tmp_path / "out")
    expected = sorted((silhouettes / "expected").glob("*/*/*/*.pkl"))
    assert list(data.sequences) == [path.parts[-4] for path in expected]
    for row, path in enumerate(expected):
        np.testing.assert_array_equal(data.read(row), pickle.loads(path.read_bytes()), err_msg=str(path))
        assert data.labels[row] == ("negative", "neutral", "positive").index(path.parts[-3].lower())
        assert data.n_frames[row] == len(data.read(row))


def test_a_pickle_tree_and_a_raw_tree_of_the_same_walkers_agree(silhouettes, tmp_path):
    for kind in ("raw", "expected"):
        prepare(str(silhouettes / kind), tmp_path / kind)
    raw, released = (open_prepared(tmp_path / kind) for kind in ("raw", "expected"))
    assert raw.digest() == released.digest()
    assert all((raw.read(row) == released.read(row)).all() for row in range(len(raw)))


@pytest.mark.parametrize("case", [str.upper, str.lower, str.capitalize])
def test_class_folders_in_any_case(tmp_path, case):
    tree = write_tree(tmp_path / "tree", per_class=1)
    for folder in list(tree.glob("*/*")):
        folder.rename(folder.with_name(case(folder.name)))
    prepare(str(tree), tmp_path / "out")
    assert open_prepared(tmp_path / "out").labels.tolist() == [0, 1, 2]


def test_records_read_the_same_from_many_threads(tmp_path):
    prepare(str(write_tree(tmp_path / "tree", per_class=4, frames=40)), tmp_path / "out")
    data = open_prepared(tmp_path / "out")
    alone = [data.read(row) for row in range(len(data))]
    with ThreadPoolExecutor(8) as pool:
        for row, frames in enumerate(pool.map(data.read, list(range(len(data))) * 5)):
            np.testing.assert_array_equal(frames, alone[row % len(data)])


def test_root_may_be_a_released_tree_prepared_once_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    tree = write_tree(tmp_path / "tree")
    lines: list[str] = []
    first = open_root(str(tree), lines.append)
    second = open_root(str(tree), lines.append)
    assert first.digest() == second.digest()
    assert len(lines) == 1
    write_tree(tmp_path / "more", per_class=3)
    (tmp_path / "more" / "00008").rename(tree / "00008")  # the tree has grown: prepared anew
    assert len(open_root(str(tree), lines.append)) == 7
    assert len(lines) == 2


def test_a_cache_that_other_rules_have_filled_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    tree, lines = write_tree(tmp_path / "tree"), []
    old = (
        tmp_path / "cache" / f"prepared-{fingerprint(look_through(tree, 'tree').sequences)}"
    )  # as it was named before there were any
    prepare(str(write_tree(tmp_path / "inverted", seed=1)), old)
    first = open_root(str(tree), lines.append)
    assert first.digest() != open_prepared(old).digest()
    monkeypatch.setattr(masks, "VERSION", masks.VERSION + 1)
    assert open_root(str(tree), lines.append).digest() == first.digest()
    assert ["preparing it once into" in line for line in lines] == [True, True]


def test_a_root_whose_preparation_has_only_begun_is_waited_for(tmp_path):
    out, tree = tmp_path / "out", write_tree(tmp_path / "tree")
    folder = prepared_folder(out).parent
    lines: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        with alone(folder / LOCK, print):  # and no file yet
            waiting = pool.submit(open_root, str(out), lines.append)
            while not lines:
                assert not waiting.done()
                time.sleep(0.01)
            prepare(str(tree), tmp_path / "ready")
            prepared_folder(tmp_path / "ready").rename(prepared_folder(out))
        assert len(waiting.result(60)) == 6
    assert lines[0].startswith(f"another preparation is at work in {folder} (process {os.getpid()} on")


def test_a_root_that_is_prepared_while_it_is_looked_at_is_opened(tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(str(write_tree(tmp_path / "tree")), out)
    answers = iter([False, True])  # it ended after the first look, and left no lock
    monkeypatch.setattr(sources, "is_prepared", lambda root: next(answers))
    assert len(open_root(str(out), print)) == 6


def test_without_a_home_the_cache_has_to_be_named(tmp_path, monkeypatch):
    for name in ("SCOLIOJAX_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)  # as of a container's user that has no entry
    with pytest.raises(DataError, match=r"no home folder to keep a cache in.*set SCOLIOJAX_CACHE to a folder"):
        cache_folder()
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_subject_mapping(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=1)
    mapping = tmp_path / "subjects.csv"
    mapping.write_text("sequence,subject\n00000,anna\n00001,anna\n00002,bo\n", encoding="utf-8")
    prepare(str(tree), tmp_path / "out", subjects=str(mapping))
    assert open_prepared(tmp_path / "out").subjects == ("anna", "anna", "bo")
    mapping.write_text("sequence,subject\n00000,anna\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no line for 00001, 00002"):
        prepare(str(tree), tmp_path / "out2", subjects=str(mapping))
    mapping.write_text("id,person\n00000,anna\n", encoding="utf-8")
    with pytest.raises(DataError, match="columns sequence,subject"):
        prepare(str(tree), tmp_path / "out2", subjects=str(mapping))


def test_killed_in_the_middle_leaves_nothing_that_passes_for_a_data_set(tmp_path):
    tree, out = write_tree(tmp_path / "tree", per_class=60), tmp_path / "out"
    process, hold = held_preparation(tree, out)  # caught with most of its work done
    assert list(out.glob("scoliosis1k/incomplete*"))
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    hold.unlink()
    assert not is_prepared(out)
    with pytest.raises(DataError, match=r"data\.root=.* was not prepared to its end"):
        open_root(str(out), print)
    prepare(str(tree), out)  # the same command again
    assert len(open_prepared(out)) == 180


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile-was-here",)


SQUARES = np.zeros((5, 64, 64), np.uint8)
SQUARES[:, 10:50, 20:40] = 255
BAD_PICKLES = {
    "truncated": (lambda good: good[: len(good) // 2], "not a readable pickle"),
    "empty": (lambda good: b"", "not a readable pickle"),
    "text": (lambda good: b"hello", "not a readable pickle"),
    "hostile": (lambda good: pickle.dumps(Hostile()), "no numpy array; refused"),
    "hostile array": (lambda good: pickle.dumps(np.array([Hostile()], dtype=object)), "no numpy array; refused"),
    "huge": (lambda good: good.replace(b"K\x00\x85", b"J\xff\xff\xff\x7f\x85"), "not a readable pickle"),
    "list": (lambda good: pickle.dumps([1, 2]), "holds a list"),
    "unequal arrays": (
        lambda good: pickle.dumps([SQUARES, SQUARES[:3]]),
        "arrays of different shapes",
    ),
    "array and label": (lambda good: pickle.dumps((SQUARES, 1)), "holds a tuple of 2, among them int, not only arrays"),
    "torch.save of old": (
        lambda good: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + good,
        "is a file of torch.save",
    ),
    "joblib": (lambda good: b"\x80\x04\x95\0cjoblib.numpy_pickle\nNumpyArrayWrapper" + b"\1" * 99, "is a file of joblib.dump"),
    "pose": (lambda good: pickle.dumps(np.zeros((5, 17, 3), np.float32)), "pose release"),
    "shape": (lambda good: pickle.dumps(np.full((5, 64, 45), 255, np.uint8)), "shape (5, 64, 45)"),
    "no frames": (lambda good: pickle.dumps(np.zeros((0, 64, 64), np.uint8)), "at least one frame"),
    "dtype": (lambda good: pickle.dumps(np.linspace(0, 1, 4096).reshape(1, 64, 64)), "dtype float64"),
    "range": (lambda good: pickle.dumps(np.ones((5, 64, 64), np.uint8)), "every pixel is 1"),
}


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_bad_pickles_are_refused_by_name(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    spoil, words = BAD_PICKLES[kind]
    tree = write_tree(tmp_path / "tree", per_class=1)
    bad = next(tree.glob("00001/*/*/*.pkl"))
    bad.write_bytes(spoil(bad.read_bytes()))
    before = set(threading.enumerate())
    with pytest.raises(DataError) as caught:
        prepare(str(tree), tmp_path / "out")
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in left if "ThreadPool" in name], "left to the garbage collector, their end may never come"
    assert str(bad) in str(caught.value)
    assert words in str(caught.value)
    assert not is_prepared(tmp_path / "out")
    skipped = prepare(str(tree), tmp_path / "out", skip_bad=True)
    assert len(skipped) == 1
    assert str(bad) in skipped[0]
    assert open_prepared(tmp_path / "out").sequences == ("00000", "00002")
    assert not list(tmp_path.rglob("hostile-was-here"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_good_pickles_of_every_protocol(tmp_path, protocol):
    rng = np.random.default_rng(0)
    frames = as_silhouettes(rng.integers(0, 256, (3, 64, 64), dtype=np.uint8), rng)
    path = tmp_path / "frames.pkl"
    path.write_bytes(pickle.dumps(frames, protocol))
    np.testing.assert_array_equal(load_silhouettes(path), frames)


def spoil_layout(tree: Path, kind: str) -> None:
    view = next(tree.glob("00001/*/*"))
    if kind == "unknown class":
        view.parent.rename(view.parent.with_name("Severe"))
    elif kind == "two classes":
        (tree / "00001" / "Positive" / "000_180").mkdir(parents=True)
    elif kind == "nothing in the view":
        next(view.glob("*.pkl")).unlink()
    elif kind == "two pickles":
        (view / "other.pkl").write_bytes(b"")
    elif kind == "both kinds":
        cv2.imwrite(str(view / "000.png"), np.zeros((9, 9), np.uint8))
    elif kind == "broken png":
        next(view.glob("*.pkl")).unlink()
        (view / "000.png").write_bytes(b"not a picture")
    elif kind == "empty masks":
        next(view.glob("*.pkl")).unlink()
        cv2.imwrite(str(view / "000.png"), np.zeros((9, 9), np.uint8))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unknown class", "unknown class 'Severe'"),
        ("two classes", "2 sequences where one is expected"),
        ("nothing in the view", "0 .pkl and 0 .png"),
        ("two pickles", "2 .pkl and 0 .png"),
        ("both kinds", "1 .pkl and 1 .png"),
        ("broken png", "not a readable PNG"),
        ("empty masks", "none of its 1 masks"),
    ],
)
def test_bad_layouts_are_refused_by_name_or_skipped(tmp_path, kind, words):
    tree = write_tree(tmp_path / "tree", per_class=1)
    spoil_layout(tree, kind)
    with pytest.raises(DataError) as caught:
        prepare(str(tree), tmp_path / "out")
    assert words in str(caught.value)
    assert "00001" in str(caught.value)
    assert len(prepare(str(tree), tmp_path / "out", skip_bad=True)) == 1
    assert len(open_prepared(tmp_path / "out")) == 2


def test_roots_that_are_no_tree(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "other" / "a" / "b").mkdir(parents=True)
    for name, words in (("missing", "does not exist"), ("empty", "is empty"), ("file", "is a file"), ("other", "no sequence")):
        with pytest.raises(DataError, match=words):
            open_root(str(tmp_path / name), print)
        with pytest.raises(DataError, match=words):
            prepare(str(tmp_path / name), tmp_path / "out")
    with pytest.raises(DataError, match="cannot be written"):
        prepare(str(write_tree(tmp_path / "tree")), tmp_path / "file" / "out")


def test_a_damaged_prepared_folder_is_said_to_be_damaged(tmp_path):
    prepare(str(write_tree(tmp_path / "tree")), tmp_path / "out")
    metadata = prepared_folder(tmp_path / "out") / "metadata.json"
    good = metadata.read_text(encoding="utf-8")
    columns = json.loads(good)

    def signed(**changes) -> None:
        changed = columns | changes
        metadata.write_text(json.dumps(changed | {"digest": metadata_digest(changed)}), encoding="utf-8")

    labels = columns["labels"]
    metadata.write_text(json.dumps(columns | {"labels": [*labels[1:], labels[0]]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"metadata\.json does not match its digest.*delete it and"):
        open_prepared(tmp_path / "out")
    signed(labels=labels[:-1])
    with pytest.raises(DataError, match=r"6 records for .*'labels': 5"):
        open_prepared(tmp_path / "out")
    metadata.write_text(good, encoding="utf-8")
    record = next(prepared_folder(tmp_path / "out").glob("*.array_record*"))
    whole = record.read_bytes()
    record.write_bytes(whole[:1000])
    with pytest.raises(DataError, match=r"sequence 00000, cannot be read"):
        open_prepared(tmp_path / "out")
    record.write_bytes(whole)
    signed(checksums=[*columns["checksums"][:-1], 0])
    with pytest.raises(DataError, match=r"record 5, sequence 00005, does not match its checksum"):
        open_prepared(tmp_path / "out").read(5)


def test_the_same_ids_with_other_frames_are_other_data(tmp_path):
    for seed in (0, 1):
        prepare(str(write_tree(tmp_path / f"tree{seed}", seed=seed)), tmp_path / f"out{seed}")
    prepare(str(tmp_path / "tree0"), tmp_path / "again")
    first, other, again = (open_prepared(tmp_path / name) for name in ("out0", "out1", "again"))
    assert first.sequences == other.sequences
    assert first.digest() == again.digest() != other.digest()


def test_damage_after_the_first_read_is_found_too(tmp_path):
    """By then the checksum of the sequence is not looked at again, and that of the ArrayRecord file is."""
    prepare(str(write_tree(tmp_path / "tree", frames=20)), tmp_path / "out")
    data = open_prepared(tmp_path / "out")
    clips = [data.read(row) for row in range(len(data))]
    record = next(prepared_folder(tmp_path / "out").glob("*.array_record*"))
    whole, rng, found = record.read_bytes(), np.random.default_rng(0), 0
    for _ in range(30):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        with record.open("r+b") as file:  # the same file: it is open there
            file.write(spoilt)
        for row, clip in enumerate(clips):
            try:
                np.testing.assert_array_equal(data.read(row), clip)
            except DataError:
                found += 1
                break
    assert found >= 10  # the others hit what nobody reads again


def test_a_hundred_random_damages_are_named_or_harmless(tmp_path):
    """Any file of a prepared folder, every second time the records: cut, flipped, emptied, overwritten, removed."""
    prepare(str(write_tree(tmp_path / "tree")), tmp_path / "whole")
    whole = open_prepared(tmp_path / "whole")
    rng = np.random.default_rng(0)
    found = {"damaged": 0, "harmless": 0}
    for turn in range(100):
        root = tmp_path / f"out{turn}"
        shutil.copytree(tmp_path / "whole", root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        damage(rng, files[rng.integers(len(files))] if turn % 2 else next(root.rglob("*.array_record*")))
        try:
            data = open_prepared(root)
            clips = [data.read(row) for row in range(len(data))]
        except DataError as error:
            assert "delete it and run data_pipelines.prepare again" in str(error)
            found["damaged"] += 1
            continue
        found["harmless"] += 1
        assert data.digest() == whole.digest()
        for row, clip in enumerate(clips):
            np.testing.assert_array_equal(clip, whole.read(row))
    assert found["damaged"] >= 50  # the others hit what nobody reads


def test_command_line_errors_are_one_line(tmp_path, monkeypatch, capsys):
    def command(folder: Path) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["prepare", "--input", str(folder), "--output", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code, stdout=out, stderr=err)

    assert_one_clear_error(command(tmp_path / "nowhere"), "nowhere", "--input")
    tree = write_tree(tmp_path / "tree")
    prepare(str(tree), tmp_path / "out")
    again = command(tree)
    assert_one_clear_error(again, "--output", "already prepared")
    assert again.returncode == 2
