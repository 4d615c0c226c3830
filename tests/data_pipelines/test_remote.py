"""Data behind URLs: what is copied, when, and what a store that fails leaves. The stores are simulated in memory."""

import json
import logging
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from data_pipelines import remote
from data_pipelines.schema import DataError, cache_folder, is_url, local_path
from data_pipelines.scoliosis1k.metadata import metadata_digest
from data_pipelines.sources import open_prepared, open_root, prepare
from data_pipelines.splits import make_partition
from data_pipelines.texts import LARGEST, text_of
from scoliojax.runs import directory
from scoliojax.runs.recipe import read_recipe
from tests.conftest import ROOT, assert_one_clear_error, run_here, write_tree

SET = "scoliosis1k/1.0.0"
RECORDS = f"{SET}/scoliosis1k-sequences.array_record-00000-of-00001"


class Bucket(MemoryFileSystem):
    """A store of this process, in the place of Google's and Amazon's."""

    protocol = ("gs", "gcs", "s3")
    store, pseudo_dirs = {}, [""]
    fault = None  # raised when records are read

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(re.sub(r"^(gs|gcs|s3)://", "", os.fspath(path)))

    def _open(self, path, *args, **kwargs):
        if self.fault and "array_record" in path:
            logging.getLogger("gcsfs").error("out of retries")  # with a traceback
            raise self.fault
        return super()._open(path, *args, **kwargs)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    prepare(str(write_tree(folder / "tree")), folder / "prepared")
    return folder / "prepared"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bucket(prepared, monkeypatch):
    """The prepared set in both stores under `walks/set`."""
    monkeypatch.setattr(fsspec, "filesystem", lambda name, **options: Bucket())
    monkeypatch.setattr(Bucket, "fault", None)
    backend.fsspec_backend._get_filesystem.cache_clear()
    Bucket.clear_instance_cache()
    Bucket.store.clear()
    bucket = Bucket()
    for path in prepared.rglob("*.*"):
        if path.is_file():
            bucket.pipe_file(f"walks/set/{path.relative_to(prepared)}", path.read_bytes())
    yield bucket
    backend.fsspec_backend._get_filesystem.cache_clear()


def stored(name: str) -> str:
    return f"/walks/set/{name}"


@pytest.mark.parametrize("scheme", remote.STORES)
def test_a_set_behind_a_url_is_copied_once_and_is_the_same_set(scheme, prepared, cache, bucket):
    url = f"file://{prepared}" if scheme == "file" else f"{scheme}://walks/set"
    lines: list[str] = []
    there, here, again = open_prepared(prepared), open_root(url, lines.append), open_root(url, lines.append)
    (copy,) = cache.iterdir()
    assert lines == [f"data.root={url} is copied once into {copy} (4 files, {lines[0].split()[-2]} MB)"]
    assert here.name == again.name == url
    assert there.digest() == here.digest() == again.digest()
    for row in range(len(there)):
        np.testing.assert_array_equal(there.read(row), here.read(row))
    assert not (copy / SET / "label.labels.txt").exists()  # which nothing reads


def test_another_set_at_the_same_place_is_copied_anew_and_the_same_at_another_is_not(cache, bucket, tmp_path):
    lines: list[str] = []
    first = open_root("gs://walks/set", lines.append)
    bucket.cp("walks/set", "elsewhere/set", recursive=True)
    assert open_root("s3://elsewhere/set/", lines.append).digest() == first.digest()
    assert len(lines) == len(list(cache.iterdir())) == 1
    prepare(str(write_tree(tmp_path / "tree", seed=1)), tmp_path / "other")
    bucket.put(str(tmp_path / "other" / SET), "walks/set/scoliosis1k/", recursive=True)
    assert open_root("gs://walks/set", lines.append).digest() != first.digest()
    assert len(lines) == len(list(cache.iterdir())) == 2


def exchange(bucket: Bucket) -> None:
    """The records are no longer those of the metadata."""
    metadata = json.loads(bucket.cat_file(stored(f"{SET}/metadata.json")))
    metadata["checksums"][-1] ^= 1
    metadata["digest"] = metadata_digest(metadata)
    bucket.pipe_file(stored(f"{SET}/metadata.json"), json.dumps(metadata).encode())


FAULTS = [  # what is wrong, what the one line says, and in which place of the store or of this machine
    (lambda bucket: bucket.rm("/walks", recursive=True), ["holds no prepared set", "data_pipelines.prepare"]),
    (lambda bucket: bucket.pipe_file(stored(f"{SET}/metadata.json"), b"<html>"), ["holds no prepared set"]),
    (lambda bucket: bucket.pipe_file(stored(f"{SET}/metadata.json"), b"\xff{}"), ["holds no prepared set"]),
    (lambda bucket: bucket.pipe_file(stored(f"{SET}/metadata.json"), b"[" * 200_000), ["holds no prepared set"]),
    (lambda bucket: bucket.pipe_file(stored(f"{SET}/metadata.json"), b"{}"), ["is damaged", "KeyError"]),
    (lambda bucket: bucket.rm(stored(f"{SET}/dataset_info.json")), ["is damaged"]),
    (lambda bucket: bucket.rm(stored(RECORDS)), ["is damaged"]),
    (lambda bucket: bucket.pipe_file(stored(RECORDS), bucket.cat_file(stored(RECORDS))[:-9000]), ["is damaged"]),
    (exchange, ["is damaged", "does not match its checksum", "copy the prepared set there again"]),
    (lambda bucket: setattr(Bucket, "fault", TimeoutError("no\nanswer")), ["TimeoutError: no answer", "and the network"]),
    (lambda bucket: setattr(Bucket, "fault", PermissionError(13, "Forbidden")), ["Forbidden", "your credentials"]),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), FAULTS, ids=[" ".join(words) for _, words in FAULTS])
def test_a_store_that_fails_gets_one_line_and_leaves_nothing(spoil, words, cache, bucket, caplog):
    spoil(bucket)
    with pytest.raises(DataError) as caught:
        open_root("gs://walks/set", lambda line: None)
    said = str(caught.value)
    assert said.startswith("data.root='gs://walks/set'")
    assert "\n" not in said
    for word in words:
        assert word in said
    assert not caplog.records
    assert not cache.exists() or not list(cache.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_copied(cache, bucket, monkeypatch):
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DataError, match=r"no room for its copy in .* \(0 MB free, 0 MB needed\); make room"):
        open_root("s3://walks/set", print)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_named(bucket, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cannot be copied into .*/file/cache/copied-.*; .*set SCOLIOJAX_CACHE"):
        open_root("s3://walks/set", print)


def test_what_a_killed_copy_left_is_removed_and_of_several_processes_one_copies(cache, bucket, monkeypatch):
    lines: list[str] = []
    name = open_root("gs://walks/set", lines.append) and next(cache.iterdir()).name
    shutil.move(cache / name, cache / f"{name}.unfinished")
    (cache / f"{name}.unfinished" / SET / "metadata.json").write_bytes(b"{")
    begun, go_on = threading.Event(), threading.Event()
    usage = shutil.disk_usage

    def held(folder):  # asked for within the lock
        begun.set()
        assert go_on.wait(60)
        return usage(folder)

    monkeypatch.setattr(remote.shutil, "disk_usage", held)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(open_root, "gs://walks/set", lines.append)
        assert begun.wait(60)
        second = pool.submit(open_root, "gs://walks/set", lambda line: (lines.append(line), go_on.set()))
        assert first.result(60).digest() == second.result(60).digest()
    assert [path.name for path in cache.iterdir()] == [name]
    assert ["copied once" in line or "waiting for it" in line for line in lines] == [True] * 3


def test_a_copy_that_was_damaged_since_says_what_to_delete(cache, bucket):
    open_root("gs://walks/set", lambda line: None)
    (copy,) = cache.iterdir()
    (copy / SET / "metadata.json").write_bytes(b"{}")
    with pytest.raises(DataError, match=rf"^{copy}.*is damaged.*; delete it, and the same command copies it again$"):
        open_root("gs://walks/set", print)


def test_a_partition_file_is_read_from_a_store(prepared, bucket, cache):
    data = open_prepared(prepared)
    ids = list(data.sequences)
    bucket.pipe_file("walks/part.json", f'{{"TRAIN_SET": {ids[:3]}, "TEST_SET": {ids[3:]}}}'.replace("'", '"').encode())
    found = make_partition(data, "gs://walks/part.json", 0.0)
    assert [data.sequences[row] for row in found.train] == ids[:3]
    with pytest.raises(DataError, match=r"data.partition='gs://walks/other.json' is neither a file nor"):
        make_partition(data, "gs://walks/other.json", 0.0)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://walks/set", ["gcsfs is not installed", 'pip install "scoliojax[gs]"']),
        ("s3://walks/set", ["s3fs is not installed", 'pip install "scoliojax[s3]"']),
        ("gs:/walks/set", ["names no bucket", "gs://BUCKET/FOLDER"]),
        ("GS://walks/set", ["names no bucket", "gs://BUCKET/FOLDER"]),
        ("s3://", ["names no bucket", "s3://BUCKET/FOLDER"]),
        ("https://host/set", ["cannot be read from there", "file://, gs://, s3://"]),
        ("file://host/set", ["names no path of this machine", "file:///FOLDER"]),
        ("file:///nowhere", ["holds no prepared set"]),
    ],
)
def test_a_url_of_data_that_nobody_can_read_gets_one_line(url, words, tmp_path, cache, monkeypatch):
    def missing(name, *rest, **options):  # as where neither package is installed
        raise ImportError(f"Please install {'gcsfs' if name == 'gcs' else 's3fs'} to access the store")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    backend.fsspec_backend._get_filesystem.cache_clear()
    for key in ("root", "partition"):
        change = [f"--config.data.{key}={url}", "--config.train.steps=1"]
        if key == "partition" and url.startswith("file:///"):
            continue  # no prepared set is looked for
        told = run_here("scoliojax.main", "--config=configs/sconet_mt.py:quickstart", *change, f"--config.data.name="
                        f"{'scoliosis1k' if key == 'root' else 'synthetic'}", f"--workdir={tmp_path / 'run'}")  # fmt: skip
        assert told.returncode == 2
        assert_one_clear_error(told, f"data.{key}={url!r}", *words)
        assert not (tmp_path / "run").exists()


NO_TEXTS = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a large file": lambda path: path.write_bytes(bytes(LARGEST + 1)),
}


@pytest.mark.parametrize("make", NO_TEXTS.values(), ids=NO_TEXTS)
def test_a_file_url_is_read_as_its_path_is(make, tmp_path):
    """And nothing is waited for, such as the other end of a pipe."""
    make(path := tmp_path / "part.json")
    said = []
    for given in (str(path), path.as_uri()):
        with pytest.raises(DataError) as caught:
            text_of(given, "data.partition", "JSON")
        said.append(str(caught.value).replace(given, "FILE"))
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["SCOLIOJAX_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_is_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.delenv("SCOLIOJAX_CACHE", raising=False)
    monkeypatch.setenv(name, f"file://{tmp_path}/cache")
    assert cache_folder() in (tmp_path / "cache", tmp_path / "cache" / "scoliojax")
    monkeypatch.setenv(name, "gs://bucket/cache")
    with pytest.raises(DataError, match=f"^{name}='gs://bucket/cache' is a URL where a path of this machine is needed"):
        cache_folder()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///a/b%20c", "/a/b c"),
        ("file:/a", "/a"),
        ("FILE://localhost/a", "/a"),
        ("/a/gs:/b", "/a/gs:/b"),
        ("./gs:/b", "./gs:/b"),
        ("C:/a", "C:/a"),
        ("file://host/a", None),
        ("file:////a", None),
        ("file:///a%00b", None),
        ("gs://a/b", None),
        ("gs:/a/b", None),
        (" s3://a", None),
        ("HTTPS://a", None),
    ],
)
def test_a_path_is_a_path_or_the_path_of_a_file_url(text, path):
    if path:
        assert local_path(text) == path
        return
    assert is_url(text)
    with pytest.raises(DataError, match=r"^--option=") as caught:
        local_path(text, "--option")
    assert repr(text) in str(caught.value)


def test_the_url_of_the_data_is_recorded_as_it_is_and_not_sought_on_this_machine(tmp_path):
    urls = {"root": "gs://walks/set", "partition": "s3://walks/part.json"}
    changes = [f"--config.data.{key}={url}" for key, url in urls.items()]
    config = read_recipe(str(ROOT / "configs/sconet_mt.py"), changes)
    directory.claim(tmp_path, config.to_dict(), "0" * 16)
    recorded = directory.read_config(tmp_path)
    assert {key: recorded["data"][key] for key in urls} == urls
    directory.check_places(tmp_path, recorded)
    directory.check_config(tmp_path, config.to_dict())
