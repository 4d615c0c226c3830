"""What lies in a folder: how it is opened, and in which order."""

import os
import socket
from pathlib import Path

import pytest

from data_pipelines import files
from data_pipelines.files import open_regular, read_regular
from data_pipelines.schema import DataError


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


IRREGULAR = {  # what stands there, and the words for it; a new kind of thing is a row
    "FIFO": (os.mkfifo, "it is a FIFO, no file"),
    "socket": (listen, "it is a socket, no file"),
    "folder": (Path.mkdir, "it is a folder, no file"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, no file"),
}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_file_is_said_and_not_opened(tmp_path, monkeypatch, kind):
    make, words = IRREGULAR[kind]
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make(Path("it"))
    monkeypatch.setattr(files.os, "open", lambda *_: pytest.fail("it was opened"))
    for read in (open_regular, read_regular):
        with pytest.raises(ValueError, match=words):
            read(Path("it"))
    with pytest.raises(DataError, match=f"^it: {words}; remove it$"):
        files.read_file(Path("it"), 9)


def test_what_takes_the_place_of_a_file_after_it_was_judged_is_refused_and_closed(tmp_path, monkeypatch):
    path, judged = tmp_path / "it", os.stat(__file__)
    os.mkfifo(path)
    monkeypatch.setattr(files.os, "stat", lambda _: judged)  # a file, then
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(ValueError, match="it is a FIFO, no file"):
        open_regular(path)
    assert len(os.listdir("/dev/fd")) == before


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(b"12345678")
    assert read_regular(path, 8) == b"12345678"
    with pytest.raises(ValueError, match="it has 8 bytes; at most 7 are read"):
        read_regular(path, 7)
    with open_regular(path) as file:
        assert (file.read(2), file.seek(0, os.SEEK_END)) == (b"12", 8)
