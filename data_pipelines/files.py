"""What lies in a folder of data: which names are leftovers of other systems, what a file really is, and how it is opened."""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data_pipelines.schema import DataError, abbreviate

MOST_BYTES = 2**28  # of a file that is read as a whole, unless it has a limit of its own
PICKLES = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")
MASKS = (".png",)
# Beside names that begin with a dot (`._000.png` and `.DS_Store` of macOS) or with ~$: what archives, shares and systems leave.
LEFTOVERS = {
    "__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found",
    "$recycle.bin", "system volume information", "icon\r",
}  # fmt: skip
COPY = re.compile(  # of a browser, Windows, macOS, Dropbox, Syncthing; what is left without it is the name of the original
    r"(?: ?\(\d+\)| - (?:Copy|Kopie|Copie)(?: \(\d+\))?| copy(?: \d+)?| \([^()]*conflicted copy[^()]*\)|\.sync-conflict-[\w-]+)"
    r"(?=(?:\.[^.]+)*$)",
    re.IGNORECASE,
)
KINDS = {  # how files begin, and what they are then
    b"\x89PNG\r\n\x1a\n": "a PNG", b"\xff\xd8\xff": "a JPEG", b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF", b"\x93NUMPY": "a .npy file of numpy", b"PK\x03\x04": "a zip archive, such as .npz, .pt or .docx",
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive",
    b"\x89HDF": "HDF5", b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched (git lfs pull)",
    b"%PDF": "a PDF", b"<!DOCTYPE": "a web page, as of a download that asks to log in", b"<html": "a web page",
    b"\0\0\0\x1cftyp": "a video", b"\0\0\0\x18ftyp": "a video", b"\0\0\0 ftyp": "a video", b"RIFF": "a WebP or AVI",
}  # fmt: skip


COPIES = "second copies of a name that is there (delete them)"
OTHERS = "files that are no part of a sequence"
DEEPER = "folders within a view"
LEFT = "leftovers of other systems"


def is_leftover(name: str) -> bool:
    """True for what other systems leave beside data."""
    return name.startswith((".", "~$")) or name.casefold() in LEFTOVERS


def natural(name: str) -> tuple:
    """Sort key: numbers by their value, so that 2 stands before 10; names with equally long numbers as text sorts them."""
    pieces = re.split(r"([0-9]+)", name)
    return *((text, int(number)) for text, number in zip(pieces[::2], [*pieces[1::2], "0"], strict=True)), name


def has_suffix(name: str, suffixes: Iterable[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def kind_of(content: bytes) -> str:
    """What a file is by its first bytes, such as "a JPEG"; empty if they say nothing."""
    return next((kind for magic, kind in KINDS.items() if content.startswith(magic)), "")


class Listing(NamedTuple):
    """Names in a folder, each in natural order."""

    used: list[str]  # files with one of the suffixes that are wanted, dead links among them
    folders: list[str]
    copies: list[str]  # second copies of a name that is there, such as `000 (1).png`
    leftovers: list[str]
    others: list[str]  # files with other suffixes

    @property
    def unused(self) -> dict[str, list[str]]:
        """Names by the reason why they are not used."""
        return {COPIES: self.copies, OTHERS: self.others, LEFT: self.leftovers}


def list_folder(folder: Path, *suffixes: str) -> Listing:
    """What lies in a folder, by name alone; links to folders count as folders."""
    found = Listing([], [], [], [], [])
    with os.scandir(folder) as entries:
        kinds = {entry.name: os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir() for entry in entries}
    for name in sorted(kinds, key=natural):
        if is_leftover(name):
            found.leftovers.append(name)
        elif (original := COPY.sub("", name)) != name and original in kinds:
            found.copies.append(name)
        elif has_suffix(name, suffixes):  # a folder of such a name as well: whoever opens it says that it is none
            found.used.append(name)
        else:
            (found.folders if kinds[name] else found.others).append(name)
    return found


def mask_names(folder: Path) -> list[str]:
    """The mask PNGs of a folder, in order."""
    return list_folder(folder, *MASKS).used


def remarks(unused: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each reason why something is not used, with the number and three names."""
    return [f"not used ({len(names)}): {reason}: {abbreviate(names, 3)}" for reason, names in unused.items() if names]


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading; raises `OSError`, or `ValueError` saying what it is instead: "it is a FIFO, no file".

    It is judged before it is opened, as opening a device can do something already, and again when it is open: another file may
    have taken its place. No FIFO is waited for.
    """
    _refuse_irregular(os.stat(path).st_mode)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_irregular(os.fstat(handle).st_mode)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _refuse_irregular(mode: int) -> None:
    if kind := irregular(mode):
        raise ValueError(f"it is {kind}, no file")


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file of at most `most` bytes; raises as `open_regular` does, and `ValueError` for a larger one."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes; at most {most:,} are read")
        return file.read(size)


def read_file(path: Path, most: int) -> bytes:
    """As `read_regular`; raises `DataError`, with the remedy, naming whatever is none."""
    try:
        return read_regular(path, most)
    except OSError as error:
        if is_dead(path):
            raise DataError(f"{path}: is a link to {os.readlink(path)}, which is not there; bring it back") from None
        raise DataError(f"{path}: {_unreadable(error)}") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}; remove it") from None


def is_dead(path: Path) -> bool:
    """True for a link that leads nowhere, or in a circle."""
    return path.is_symlink() and not os.path.exists(path)


def _unreadable(error: OSError) -> str:
    remedy = "change its permissions" if isinstance(error, PermissionError) else "copy it again"
    return f"cannot be read ({error.strerror}); {remedy}"


def irregular_at(path: Path) -> str:
    """As `irregular`, also empty where nothing stands."""
    try:
        return irregular(path.stat().st_mode)
    except OSError:
        return ""


def irregular(mode: int) -> str:
    """What stands there if it is no regular file: "a FIFO"; empty for a regular file."""
    tests = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISDIR: "a folder", stat.S_ISCHR: "a device",
             stat.S_ISBLK: "a device"}  # fmt: skip
    return next((kind for test, kind in tests.items() if test(mode)), "")
