"""One process at a time in a place: who holds it, who waits, and what a killed one leaves."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_pipelines.locks import alone
from data_pipelines.schema import DataError
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from data_pipelines.locks import alone

with alone(Path(sys.argv[1]), lambda holder: None):
    print("held", flush=True)
    time.sleep(60)
"""
# Each adds its number to a file as a whole would not allow: it reads, waits, and writes.
COUNT = """
import sys, time
from pathlib import Path
from data_pipelines.locks import alone

counter = Path(sys.argv[1])
with alone(counter.with_suffix(".lock"), lambda holder: print(holder, flush=True)) as locked:
    assert locked
    number = int(counter.read_text(encoding="utf-8"))
    time.sleep(0.05)
    counter.write_text(str(number + 1), encoding="utf-8")
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def start_holder(path: Path) -> subprocess.Popen:
    """A process that has the lock `path`."""
    process = start(HOLD, path)
    assert process.stdout.readline() == "held\n", process.stderr.read()
    return process


def refuse(holder: str) -> None:
    raise PermissionError(holder)


def test_a_holder_is_named_by_host_process_and_time_until_it_is_killed(tmp_path):
    path = tmp_path / "deep" / ".lock"
    holder = start_holder(path)
    with pytest.raises(PermissionError) as caught, alone(path, refuse):
        raise AssertionError
    named = (
        rf"process {holder.pid} on host {re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
    )
    assert re.fullmatch(named, str(caught.value))
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert path.exists()  # and stops nobody
    with alone(path, refuse) as locked:
        assert locked
        assert f"process {os.getpid()} " in path.read_text(encoding="utf-8")
    assert not path.exists()
    assert path.parent.exists()  # whose it is we do not know


def test_eight_processes_come_in_turn_also_when_the_first_is_killed(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0", encoding="utf-8")
    first = start_holder(counter.with_suffix(".lock"))
    others = [start(COUNT, counter) for _ in range(8)]
    for other in others:
        assert f"process {first.pid} on host" in other.stdout.readline()  # all wait, and know for whom
    first.kill()
    first.communicate()
    assert [(other.communicate(timeout=60)[1], other.returncode) for other in others] == [("", 0)] * 8
    assert counter.read_text(encoding="utf-8") == "8"
    assert list(tmp_path.iterdir()) == [counter]


def test_the_folders_made_for_a_lock_go_if_they_stay_empty(tmp_path):
    with alone(tmp_path / "a" / "b" / ".lock", refuse):
        pass
    assert not list(tmp_path.iterdir())
    with alone(tmp_path / "a" / "b" / ".lock", refuse):
        (tmp_path / "a" / "kept").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept"]


FOREIGN = {  # what may lie in the place of a lock file
    "link to nothing": lambda path: path.symlink_to("/nonexistent/file"),
    "link to a file": lambda path: path.symlink_to(__file__),
    "link to itself": lambda path: path.symlink_to(path),
    "named pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.fixture
def limited():
    """An end, with an error, to a test that would go on for ever."""

    def end(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 20)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_lock_file_is_named_and_left_alone(kind, tmp_path, limited):
    path = tmp_path / ".lock"
    FOREIGN[kind](path)
    before, content = path.lstat(), Path(__file__).read_bytes()
    with pytest.raises(DataError, match=r"\.lock is no lock file, .*; move it away"), alone(path, refuse):
        raise AssertionError
    assert path.lstat() == before
    assert Path(__file__).read_bytes() == content


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_to_be_one(number, tmp_path, monkeypatch, capsys):
    def no_locks(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with alone(tmp_path / ".lock", refuse) as locked:
        assert not locked
    assert capsys.readouterr().err == (
        f"the file system of {tmp_path} has no locks; see to it that no other process writes there\n"
    )


def test_a_fault_of_the_disk_is_not_taken_for_a_lack_of_locks(tmp_path, monkeypatch):
    def broken(file, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), alone(tmp_path / ".lock", refuse):
        raise AssertionError


def test_who_waits_is_told_once_and_the_lock_is_there_at_the_end(tmp_path):
    holder = start_holder(tmp_path / ".lock")
    told: list[str] = []

    def wait(who: str) -> None:
        told.append(who)
        holder.kill()
        holder.communicate()
        time.sleep(0.05)

    with alone(tmp_path / ".lock", wait) as locked:
        assert locked
    assert len(told) == 1


def test_a_place_that_changes_hands_has_one_holder_and_who_waits_is_told_once(tmp_path, limited):
    """The first holder removes its file as it ends, and another one makes a new file before the one who waits has noticed."""
    path, leave, inside = tmp_path / ".lock", threading.Event(), threading.Event()
    told: list[str] = []

    def hold(end: threading.Event, seconds: float) -> None:
        with alone(path, refuse):
            inside.set()
            end.wait(seconds)
            inside.clear()

    first = threading.Thread(target=hold, args=(leave, 20))
    second = threading.Thread(target=hold, args=(threading.Event(), 0.3))

    def wait(who: str) -> None:
        told.append(who)
        if len(told) == 1:
            leave.set()
            first.join()
            second.start()
            assert inside.wait(20)

    first.start()
    assert inside.wait(20)
    with alone(path, wait) as locked:
        assert locked
        assert not inside.is_set()
        with pytest.raises(PermissionError), alone(path, refuse):
            raise AssertionError
    second.join()
    assert len(told) == 1
