"""What lies in a folder: how it is opened, and in which order."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import files
from data_pipelines.files import Unused, kind_of, open_regular, read_regular, remarks
from data_pipelines.names import missing_numbers, natural
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
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
        for read in (open_regular, read_regular):
            with pytest.raises(ValueError, match=words):
                read(Path("it"))
        with pytest.raises(DataError, match=f"^it: {words}; remove it$"):
            files.read_file(Path("it"), 9)


def test_what_takes_the_place_of_a_file_after_it_was_judged_is_refused_and_closed(tmp_path, monkeypatch):
    path, judged = tmp_path / "it", os.stat(__file__)
    os.mkfifo(path)
    before = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda _: judged)  # a file, then
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


NAMES = st.lists(st.text(st.sampled_from("a1.0Z_9 é²"), max_size=8))  # ² is a digit to Python, and no number


@given(NAMES | st.lists(st.text(max_size=20)))
def test_any_names_have_an_order_that_is_always_the_same(names):
    backwards = names[::-1]
    assert sorted(names, key=natural) == sorted(backwards, key=natural)


@given(
    st.lists(st.lists(st.integers(0, 999), min_size=2, max_size=2), min_size=1),
    st.lists(st.text("ab.-"), min_size=3, max_size=3),
)
def test_names_with_numbers_of_equal_length_are_in_the_order_of_text(numbers, texts):
    names = [f"{texts[0]}{one:03d}x{texts[1]}{other:03d}{texts[2]}" for one, other in numbers]
    assert sorted(names, key=natural) == sorted(names)


def test_a_name_that_continues_another_with_a_number_stands_behind_it():
    assert sorted(["anna0", "anna", "anna10", "anna2"], key=natural) == ["anna", "anna0", "anna2", "anna10"]


KINDS = {  # how a file begins: what it is called
    b"\x89PNG\r\n\x1a\n": "a PNG", b"\xff\xd8\xff\xe0": "a JPEG", b"GIF89a": "a GIF", b"BM\x36\0\x10\0\0\0\0\0": "a BMP",
    b"\0\0\0\x18ftypmp42": "a video", b"RIFF\x24\0\0\0WEBPVP8 ": "a WebP, AVI or WAV", b"MM\0*": "a TIFF",
    b"\n<HTML>": "a web page, such as a download gives where it needs a login", b"{\\rtf1": "a Word document (RTF)",
    b"BZh9": "a bzip2 file", bytes(257) + b"ustar\0": "a tar archive", b"\x1f\x8b\x08": "a gzip file",
    b"BMI,sequence,subject": "", b"pk\x03\x04": "", b"sequence,subject": "", b"": "",
}  # fmt: skip


@pytest.mark.parametrize("begin", KINDS)
def test_a_file_is_known_by_its_beginning(begin):
    assert kind_of(begin).what == KINDS[begin]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["000.png", "001.png", "005.png"], 3),
        (["8.png", "9.png", "10.png", "11.png"], 0),
        (["000.png", "002.png", "004.png", "010.png"], 2),  # every second one, by choice
        (["cam1-000.png", "cam1-001.png", "cam2-000.png", "cam2-003.png", "cam2-004.png"], 2),
        (["000_180-007.mask.png", "000_180-009.mask.png", "000_180-010.mask.png"], 1),
        (["walk.001.png", "walk.002.PNG", "walk.005.png"], 2),
        (["0.04.png", "0.08.png", "0.2.png"], 0),  # fractions of a second
        (["a.png", "b.png"], 0),
        (["7.png"], 0),
    ],
)
def test_gaps_in_the_numbers_of_frames_are_counted(names, missing):
    assert missing_numbers(names, ".png") == missing


def test_of_many_names_the_first_are_kept_and_all_are_counted():
    few, all_of_them = Unused(), Unused(None)
    for unused in (few, all_of_them):
        for view in ("00001", "00002"):
            unused.add(files.LEFT, view, [f"._{number}.png" for number in range(2)])
        unused.add(files.COPIES, "", [])
    found = {files.LEFT: {"count": 4, "names": ["00001/._0.png", "00001/._1.png", "00002/._0.png"]}}
    assert few.as_json() == found
    assert all_of_them.as_json()[files.LEFT]["names"][3:] == ["00002/._1.png"]
    line = f"not used (4): {files.LEFT}: 00001/._0.png, 00001/._1.png, 00002/._0.png and 1 more"
    assert remarks(few.as_json()) == remarks(all_of_them.as_json()) == [line]
