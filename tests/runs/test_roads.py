"""Beyond some size, libraries and we take another road. Here every such limit is lowered, so that it is taken in seconds.

The roads at their real size: `python -m tests.scripts.full_size`.
"""

import errno
import fcntl
import json
import re
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils
from tensorflow_datasets.core import shuffle

from data_pipelines.locks import alone
from data_pipelines.schema import DataError, cache_folder
from data_pipelines.scoliosis1k import builder, release_tree
from data_pipelines.sources import open_prepared, open_root, prepare, prepared_folder
from scoliojax.runs.run import open_run
from scoliojax.runs.training import run_training
from scoliojax.scores import bootstrap
from scoliojax.training.checkpoint import digest
from tests.conftest import OPEN, held_preparation, start_held, write_tree
from tests.runs.test_run import digests, history


@pytest.fixture
def small_limits(monkeypatch):
    """TFDS spills to disk at once, every sequence has a file of its own, and none is read before it is asked for."""
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    monkeypatch.setattr(builder, "SHARD_BYTES", 1)
    monkeypatch.setattr(builder, "AHEAD_BYTES", 1)


def pieces(workdir: Path) -> int:
    """Into how many pieces the largest array of the newest checkpoint is cut."""
    text = (workdir / "checkpoints" / "2" / "state" / "array_metadatas" / "process_0").read_text(encoding="utf-8")
    arrays = [one["array_metadata"] for one in json.loads(text)["array_metadatas"]]
    shapes = [(one["write_shape"], one["chunk_shape"]) for one in arrays]
    return max(int(np.prod(whole)) // int(np.prod(chunk)) for whole, chunk in shapes)


def records(root: Path) -> list[Path]:
    return sorted(prepared_folder(root).glob("*.array_record*"))


@pytest.mark.parametrize(
    "program",
    [
        "import tensorflow",
        "import tensorflow.io",
        "import importlib; importlib.import_module('tensorflow')",
        "import importlib.util; importlib.util.find_spec('tensorflow.io')",  # which imports what it is in
    ],
)
def test_tensorflow_is_refused_in_this_session_and_in_what_it_starts(program):
    with pytest.raises(AssertionError, match="asks for TensorFlow"):
        exec(program, {})
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert "asks for TensorFlow" in result.stderr


def test_a_set_of_many_files_is_the_set_of_one(tmp_path, small_limits, monkeypatch):
    tree = write_tree(tmp_path / "tree", per_class=3, frames=12)
    prepare(str(tree), tmp_path / "many")
    monkeypatch.undo()
    prepare(str(tree), tmp_path / "one")
    assert (len(records(tmp_path / "one")), len(records(tmp_path / "many"))) == (1, 9)
    one, many = open_prepared(tmp_path / "one"), open_prepared(tmp_path / "many")
    assert one.digest() == many.digest()
    for row in (8, 0, 4, *range(9)):
        np.testing.assert_array_equal(one.read(row), many.read(row))


def test_files_whose_sequences_were_all_left_out_are_no_trouble(tmp_path, small_limits):
    tree = write_tree(tmp_path / "tree", per_class=3, frames=12)
    bad = [0, 3, 4, 8]
    for row in bad:
        next(tree.glob(f"{row:05d}/*/*/*.pkl")).write_bytes(b"broken")
    assert len(prepare(str(tree), tmp_path / "out", skip_bad=True)) == len(bad)
    data = open_prepared(tmp_path / "out")
    assert data.sequences == tuple(f"{row:05d}" for row in range(9) if row not in bad)
    assert [len(data.read(row)) for row in range(5)] == [12] * 5


def test_so_much_is_read_ahead_and_no_more(tmp_path, monkeypatch):
    sequences = release_tree.look_through(write_tree(tmp_path / "tree", per_class=10, frames=9), "tree").sequences
    size, read = sequences[0].nbytes, []
    monkeypatch.setattr(builder, "AHEAD_BYTES", 4 * size)
    monkeypatch.setattr(builder, "_read", lambda sequence: read.append(sequence))
    taken = 0
    for sequence, _ in builder._read_ahead(sequences):
        assert sequence is sequences[taken]
        assert len(read) <= taken + 5  # the one that is handed out, and four
        taken += 1
    assert taken == len(read) == 30
    assert builder._shards(sequences) == [sequences]
    monkeypatch.setattr(builder, "SHARD_BYTES", 4 * size)
    assert [len(shard) for shard in builder._shards(sequences)] == [4] * 7 + [2]


@pytest.mark.long
def test_a_run_is_the_same_whatever_the_limits(tiny_config, tmp_path, small_limits, monkeypatch):
    """Many files of data, nothing kept in memory, checkpoints cut into pieces of 64 bytes, resamplings drawn one by one."""
    tree = write_tree(tmp_path / "tree", per_class=8, frames=12)
    tiny_config.data.name, tiny_config.train.steps = "scoliosis1k", 2

    def train(name: str) -> Path:
        prepare(str(tree), tmp_path / f"{name}-data")
        tiny_config.data.root = str(tmp_path / f"{name}-data")
        run_training(tiny_config, tmp_path / name)
        return tmp_path / name

    monkeypatch.setattr(tensorstore_utils, "_DEFAULT_OCDBT_TARGET_DATA_FILE_SIZE", 64)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 1)
    tiny_config.data.cache_gigabytes, tiny_config.data.loader_threads = 0.0, 1
    small = train("small")
    monkeypatch.undo()
    tiny_config.data.cache_gigabytes, tiny_config.data.loader_threads = 2.0, 2
    usual = train("usual")
    assert len(records(tmp_path / "small-data")) == 24
    assert digests(small) == digests(usual)
    assert history(small) == history(usual)
    assert pieces(small) > pieces(usual) == 1
    folders = [folder / "evaluation" / "test-step-000002" for folder in (small, usual)]
    assert len({(folder / "predictions.csv").read_text(encoding="utf-8") for folder in folders}) == 1
    scores, expected = (json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["scores"] for folder in folders)
    for name, estimate in scores.items():
        for end in ("value", "low", "high"):  # sums in another order
            found, usually = (one if one is None else float(f"{one:.12g}") for one in (estimate[end], expected[name][end]))
            assert found == usually, name
    assert digest(open_run(small).network("newest").state) == digests(usual)[2]


@pytest.mark.parametrize("end", ["finishes", "is killed"])
def test_a_preparation_waits_for_another_and_takes_what_that_made_or_does_it_itself(tmp_path, end):
    tree, out = write_tree(tmp_path / "tree", per_class=2), tmp_path / "out"
    other, hold = held_preparation(tree, out)
    lines: list[str] = []

    def tell(line: str) -> None:  # from within the waiting
        lines.append(line)
        if end == "finishes":
            hold.unlink()
        else:
            other.kill()
            other.wait()

    prepare(str(tree), out, report=tell)
    status = other.wait()
    (line,) = lines
    place = re.escape(str(out / "scoliosis1k"))
    holder = rf"process {other.pid} on host {re.escape(socket.gethostname())}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\S+"
    assert re.fullmatch(rf"another preparation is at work in {place} \({holder}\); waiting for it", line), line
    assert status == (0 if end == "finishes" else -9)
    assert [path.name for path in (out / "scoliosis1k").iterdir()] == ["1.0.0"]
    assert len(open_prepared(out)) == 6
    with pytest.raises(DataError, match="already prepared, from other files"):
        prepare(str(write_tree(tmp_path / "another", per_class=1)), out)


@pytest.mark.long
def test_eight_starts_on_one_raw_tree_prepare_it_once_also_when_the_first_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    tree = write_tree(tmp_path / "tree", per_class=2)
    tree.with_suffix(".hold").touch()  # the first is caught with its work half done
    first, hold = start_held(tree, work=OPEN, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert "preparing it once" in first.stdout.readline()
    deadline = time.monotonic() + 60
    while not (left := list((tmp_path / "cache").glob("prepared-*/scoliosis1k/incomplete.*"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    others = [start_held(tree, work=OPEN, stdout=subprocess.PIPE, stderr=subprocess.PIPE)[0] for _ in range(8)]
    for other in others:
        assert "preparing it once" in other.stdout.readline()
        assert f"another preparation is at work in {left[0].parent} (process {first.pid} on" in other.stdout.readline()
    first.kill()
    first.communicate()
    hold.unlink()
    ends = [(*other.communicate(timeout=200), other.returncode) for other in others]
    assert [status for *_, status in ends] == [0] * 8, ends
    (digest,) = {printed for printed, *_ in ends}
    assert digest == f"6 {open_root(str(tree), print).digest()}\n"
    assert [path.name for path in left[0].parent.iterdir()] == ["1.0.0"]


def test_a_root_that_is_being_prepared_is_waited_for(tmp_path):
    tree, out = write_tree(tmp_path / "tree", per_class=2), tmp_path / "out"
    other, hold = held_preparation(tree, out)
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        hold.unlink()

    assert len(open_root(str(out), tell)) == 6
    assert other.wait() == 0
    assert len(lines) == 1
    assert f"(process {other.pid} on host" in lines[0]


def test_input_cache_and_output_are_told_apart(tmp_path, monkeypatch):
    """By the option or key that the user knows, and with the remedy that belongs to the error."""
    tree = write_tree(tmp_path / "tree", per_class=1)
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tree / "cache"))
    with pytest.raises(DataError, match=r"the cache \(SCOLIOJAX_CACHE\)=.* and data\.root=.* contain one another"):
        open_root(str(tree), print)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"the cache \(SCOLIOJAX_CACHE\)=.* cannot be written .*a part of the path is a file"):
        open_root(str(tree), print)
    with pytest.raises(DataError, match=r"--output=.* cannot be written .*a part of the path is a file"):
        prepare(str(tree), tmp_path / "file" / "out")

    def unreadable(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(next(tree.glob("*/*/*/*.pkl"))))

    monkeypatch.setattr(builder.Scoliosis1k, "download_and_prepare", unreadable)
    with pytest.raises(DataError, match=r"--input=.* cannot be read .*Permission denied.*; change its permissions"):
        prepare(str(tree), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(DataError, match="contain one another"):
        prepare(str(tmp_path / "link"), tree / "out")


def test_the_cache_may_be_relative_and_below_a_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCOLIOJAX_CACHE", "here")
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCOLIOJAX_CACHE", "~/there")
    assert cache_folder() == tmp_path / "there"
    monkeypatch.setenv("SCOLIOJAX_CACHE", "~nobody-of-this-name/x")
    with pytest.raises(DataError, match="set SCOLIOJAX_CACHE to a folder"):
        cache_folder()
    with pytest.raises(DataError, match=r"data\.root='~nobody-of-this-name/x' names no folder"):
        open_root("~nobody-of-this-name/x", print)


def test_a_lock_on_what_another_has_removed_is_none(tmp_path):
    """The second of three waits for a first that leaves nothing; meanwhile the third must not take the place for its own."""
    inside: list[str] = []

    def enter(name: str, wait: float) -> None:
        with alone(tmp_path / "deep" / "down" / ".lock", lambda holder: None, clear=True) as locked:
            assert locked
            inside.append(name)
            time.sleep(wait)
            assert inside[-1] == name
            inside.append("")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, "abcdefgh", [0.05] * 8))
    assert sorted(inside) == [""] * 8 + list("abcdefgh")
    assert not (tmp_path / "deep" / "down").exists()


@pytest.mark.parametrize("first", [errno.ENOLCK, errno.EAGAIN])  # EAGAIN: the lock is held, and waiting for it is not offered
def test_without_locks_nobody_s_work_is_removed(first, tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(first if operation & fcntl.LOCK_NB else errno.ENOLCK, "no lock")

    tree = write_tree(tmp_path / "tree", per_class=2)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    theirs = tmp_path / "out" / "scoliosis1k" / "incomplete.ABCDEF_1.0.0"
    theirs.mkdir(parents=True)
    lines: list[str] = []
    prepare(str(tree), tmp_path / "out", report=lines.append)
    assert "has no locks; see to it that no other process writes there" in lines[-1]
    assert theirs.exists()
    assert len(open_prepared(tmp_path / "out")) == 6


def test_what_a_killed_preparation_left_is_removed_and_a_failed_one_leaves_nothing(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=2)
    leftover = tmp_path / "out" / "scoliosis1k" / "incomplete.ABCDEF_1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "scoliosis1k-sequences.array_record-00000-of-00001").write_bytes(b"half")
    prepare(str(tree), tmp_path / "out")
    assert not leftover.exists()
    next(tree.glob("00005/*/*/*.pkl")).write_bytes(b"broken")
    with pytest.raises(DataError, match="00005"):
        prepare(str(tree), tmp_path / "deep" / "down")
    assert not (tmp_path / "deep").exists()
    prepare(str(tree), tmp_path / "rest", skip_bad=True)
    with pytest.raises(DataError, match="already prepared, with --skip-bad"):
        prepare(str(tree), tmp_path / "rest")


def test_input_and_output_are_not_taken_for_each_other(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=1)
    for output in (tree, tree / "out", tmp_path):
        with pytest.raises(DataError, match="contain one another"):
            prepare(str(tree), output)
    assert sorted(path.name for path in tree.iterdir()) == ["00000", "00001", "00002"]
    (tmp_path / "broken" / "scoliosis1k" / "1.0.0").mkdir(parents=True)  # a copy that was cut short
    with pytest.raises(DataError, match=r"is damaged .* delete it and run data_pipelines\.prepare again"):
        prepare(str(tree), tmp_path / "broken")
    bomb = tree / "00001" / "Neutral" / "000_180"
    next(bomb.glob("*.pkl")).unlink()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (bomb / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + b"IHDR" + header + checksum)
    with pytest.raises(DataError, match=r"000\.png: not a readable PNG"):
        prepare(str(tree), tmp_path / "out")
    (tmp_path / "scoliosis1k").mkdir()
    (tmp_path / "scoliosis1k" / "00000").symlink_to(tree / "00000")  # a released tree of this name, and its parent as the root
    with pytest.raises(DataError, match="has no sequence"):
        open_root(str(tmp_path), print)
