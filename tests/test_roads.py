"""Beyond some size, libraries and we take another road. Here every such limit is lowered, so that it is taken in seconds.

The roads at their real size: `python -m tests.scripts.full_size`.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils
from tensorflow_datasets.core import shuffle

from data_pipelines.schema import DataError
from data_pipelines.scoliosis1k import builder, release_tree
from data_pipelines.sources import open_prepared, prepare, prepared_folder
from scoliojax import bootstrap
from scoliojax.checkpoint import digest
from scoliojax.job import open_job
from scoliojax.main import run_training
from tests.conftest import write_tree
from tests.test_run import digests, history


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
    "program", ["import tensorflow", "import tensorflow.io", "import importlib; importlib.import_module('tensorflow')"]
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
    sequences, _ = release_tree.scan(write_tree(tmp_path / "tree", per_class=10, frames=9), "tree")
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
    _, state = open_job(small, "newest")
    assert digest(state) == digests(usual)[2]


def test_a_preparation_waits_for_another_and_takes_what_that_made(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=40, frames=60)
    lines: list[str] = []
    command = [sys.executable, "-m", "data_pipelines.prepare", "--input", str(tree), "--output", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as other:
        while not list(tmp_path.glob("out/scoliosis1k/incomplete*")):
            assert other.poll() is None, other.stdout.read() if other.stdout else ""
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/scoliosis1k/*")}
        prepare(str(tree), tmp_path / "out", report=lines.append)
        assert other.wait() == 0
    assert len(lines) == 1
    assert "another preparation is at work" in lines[0]
    assert before
    assert [path.name for path in (tmp_path / "out" / "scoliosis1k").iterdir()] == ["1.0.0"]
    assert len(open_prepared(tmp_path / "out")) == 120
    with pytest.raises(DataError, match="already prepared, from other files"):
        prepare(str(write_tree(tmp_path / "other", per_class=1)), tmp_path / "out")


def test_what_a_killed_preparation_left_is_removed_and_a_failed_one_leaves_nothing(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=2)
    leftover = tmp_path / "out" / "scoliosis1k" / "incomplete.ABCDEF_1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "scoliosis1k-sequences.array_record-00000-of-00001").write_bytes(b"half")
    prepare(str(tree), tmp_path / "out")
    assert not leftover.exists()
    next(tree.glob("00005/*/*/*.pkl")).write_bytes(b"broken")
    with pytest.raises(DataError, match="00005"):
        prepare(str(tree), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(DataError, match="00005"):
        prepare(str(tree), tmp_path / "deep" / "down")
    assert not (tmp_path / "deep").exists()
