"""Files and folders that are whole, and of one process, whatever else happens at the same time."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scoliojax.errors import RunError
from scoliojax.files import read_json, refuse_foreign, whole_file, whole_folder, write_json
from tests.conftest import ROOT

# A folder of many files with the number of its writer in each; `-1` waits within, to be killed there.
WRITE = """
import sys, time
from pathlib import Path
from scoliojax.files import whole_folder

folder, number = Path(sys.argv[1]), sys.argv[2]
with whole_folder(folder) as fresh:
    for name in range(20):
        (fresh / f"{name}.txt").write_text(number, encoding="utf-8")
    if number == "-1":
        print("within", flush=True)
        time.sleep(60)
"""


def start(folder: Path, number: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder), str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def writers(folder: Path) -> set[str]:
    """Whose files are in a folder, which must be complete."""
    texts = [path.read_text(encoding="utf-8") for path in folder.iterdir()]
    assert len(texts) == 20
    return set(texts)


@pytest.mark.slow
def test_eight_processes_on_one_folder_leave_that_of_one_also_when_one_is_killed(tmp_path):
    folder = tmp_path / "report"
    with whole_folder(folder) as fresh:
        for name in range(20):
            (fresh / f"{name}.txt").write_text("before", encoding="utf-8")
    killed = start(folder, -1)
    assert killed.stdout.readline() == "within\n", killed.stderr.read()
    others = [start(folder, number) for number in range(8)]
    for other in others:
        said = other.stderr.readline()
        assert f"process {killed.pid} on host" in said
        assert said.endswith(f"is at work in {folder}; waiting for it\n")
        assert writers(folder) == {"before"}
    killed.kill()
    killed.communicate()
    assert [(other.communicate(timeout=60)[1], other.returncode) for other in others] == [("", 0)] * 8
    (writer,) = writers(folder)
    assert int(writer) in range(8)
    assert list(tmp_path.iterdir()) == [folder], "nothing is left of anybody, the killed one included"


def test_what_killed_writers_left_is_removed_or_put_back(tmp_path):
    folder, other = tmp_path / "a[1]", tmp_path / "a[1].json"
    theirs = tmp_path / ".a[1].json.01234567.unfinished"  # of another file, whose writer may be alive
    theirs.touch()
    for name in (".a[1].unfinished", ".a[1].89abcdef.unfinished", ".a[1].89abcdef.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside").touch()
    seen = []
    with whole_folder(folder) as fresh:
        seen = sorted(path.name for path in tmp_path.iterdir())
        (fresh / "new").touch()
    assert seen == sorted([theirs.name, ".a[1].lock", fresh.name, "a[1]"])  # killed between two renames: the old one is back
    assert [path.name for path in folder.iterdir()] == ["new"]
    for age, left in ((80_000, [theirs.name]), (90_000, [])):  # seconds; the writer of the younger may be alive
        os.utime(theirs, (time.time() - age,) * 2)
        with whole_file(other) as fresh:
            fresh.write_text("x", encoding="utf-8")
        assert sorted(path.name for path in tmp_path.iterdir()) == [*left, "a[1]", "a[1].json"]


def test_a_file_waits_for_no_writer_that_stands_still(tmp_path):
    """As one that Ctrl-Z has stopped; what it has begun comes into place where it goes on."""
    path = tmp_path / "metrics.json"
    with whole_file(path) as stopped:
        stopped.write_text("first", encoding="utf-8")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write_json(path, number), range(8), timeout=20))
        assert json.loads(path.read_text(encoding="utf-8")) in range(8)
        assert sorted(tmp_path.iterdir()) == sorted([path, stopped])
    assert path.read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    def fail(whole, make) -> None:
        with whole(tmp_path / "place") as fresh:
            make(fresh)
            raise KeyError

    for whole, make in ((whole_file, Path.touch), (whole_folder, lambda path: (path / "half").touch())):
        with pytest.raises(KeyError):
            fail(whole, make)
        assert not list(tmp_path.iterdir())


def test_leftovers_are_not_taken_for_somebody_else_s_files(tmp_path):
    for name in (".walk.lock", ".walk.0123abcd.unfinished", ".walk.0123abcd.replaced", "walk"):
        (tmp_path / name).touch()
    refuse_foreign(tmp_path, {"walk"}, "a screening")
    (tmp_path / ".profile").touch()
    with pytest.raises(RunError, match=r"holds something else than a screening \(\.profile\)"):
        refuse_foreign(tmp_path, {"walk"}, "a screening")


@pytest.mark.parametrize("place", ["out", "."])
def test_a_place_that_may_not_be_written_is_named_before_the_work(place, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    closed = tmp_path / place
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed)  # the tests may run as root
    with pytest.raises(RunError, match=f"--output={tmp_path / 'out'} cannot be made: you may not write in {closed};"):
        refuse_foreign(tmp_path / "out", set(), "a report")


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": [1, Infinity]}', '{"a": [[NaN]]}', '{"b": {"a": [[1], [-Infinity]]}}'])
def test_a_number_that_is_not_finite_is_named_wherever_it_stands(text, tmp_path):
    (tmp_path / "file.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match="key a: a number is not finite"):
        read_json(tmp_path / "file.json", dict, "restore it")
