"""What lies in a folder of data: which names are leftovers of other systems, what a file really is, and how it is opened."""

import filecmp
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from data_pipelines.schema import DataError, abbreviate, printable

MOST_BYTES = 2**28  # of a file that is read as a whole, unless it has a limit of its own
PICKLES = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")
MASKS = (".png",)
HIDDEN = (".", "~$")  # how names begin that macOS, Linux and Office hide, such as `._000.png`
# How names begin that archives, shares and systems leave, such as `@eaDir` and `$RECYCLE.BIN`; also a mask may be called so.
MARKED = ("@", "$", "~", "#", "__")
LEFTOVERS = re.compile(  # further ones
    r"thumbs\.db|ehthumbs\.db|desktop\.ini|lost\+found|system volume information|icon\r|network trash folder|temporary items|"
    r"thevolumesettingsfolder|recycler|recycled|found\.[0-9]{3}",
    re.IGNORECASE,
)
PARTIAL = re.compile(r"\.(?:icloud|part|partial|filepart|crdownload|download|opdownload|aria2|!qb|!ut)$", re.IGNORECASE)
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


MOST_CALLED = 0.2  # of the names in a folder; more names like those of copies, with contents of their own, are a series
COPIES = "second copies of a name that is there (delete them)"
OTHERS = "files that are no part of a sequence"
DEEPER = "folders within a view"
LEFT = "leftovers of other systems"


def is_leftover(name: str, *suffixes: str) -> bool:
    """True for what other systems leave beside data; `suffixes` are those of data."""
    marked = name.startswith(MARKED) and not has_suffix(name, suffixes)
    return marked or name.startswith(HIDDEN) or bool(LEFTOVERS.fullmatch(name))


def partial(name: str, suffixes: Iterable[str]) -> str:
    """Name of the file with one of the suffixes of which this is a part, or a placeholder in a cloud; empty for any other."""
    whole = PARTIAL.sub("", name)
    whole = whole.removeprefix(".") if name.lower().endswith(".icloud") else whole
    return whole if whole != name and has_suffix(whole, suffixes) else ""


FRACTION = r"(?<![0-9.])[0-9]+\.[0-9]+(?!\.?[0-9])"  # a number with a point; a date has two
FRACTIONS = rf"({FRACTION}|[0-9]+)"


def natural(name: str, fractions: bool = False) -> tuple:
    """Sort key: numbers by their value, so that 2 stands before 10; names with equally long numbers as text sorts them.

    With `fractions` 0.24 is a number, and stands before 0.3.
    """
    stem = name[: len(name) - len(_suffix_of(name))]
    pieces = re.split(FRACTIONS if fractions else r"([0-9]+)", stem)
    return [(text, Decimal(number)) for text, number in zip(pieces[::2], [*pieces[1::2], "0"], strict=True)], name


def in_order(names: Iterable[str]) -> list[str]:
    """Names in natural order. Whether 1.10 is the tenth after 1 or a fraction of 2 is told by the names together.

    Fractions differ in length and end with no zero (0.2, 0.24); where all are equally long, both are the same.
    """
    names = list(names)
    found = {number.partition(".")[2] for name in names for number in re.findall(FRACTION, name)}
    lengths = {len(digits) for digits in found}
    fractions = len(lengths) > 1 and not any(digits[1:].endswith("0") for digits in found)
    return sorted(names, key=lambda name: natural(name, fractions))


def _suffix_of(name: str) -> str:
    """What stands behind points at the end, of letters alone: ".png", ".pkl.gz"."""
    return "".join(re.findall(r"(?:\.[A-Za-z]+)+$", name))


def has_suffix(name: str, suffixes: Iterable[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def kind_of(content: bytes) -> str:
    """What a file is by its first bytes, such as "a JPEG"; empty if they say nothing."""
    return next((kind for magic, kind in KINDS.items() if content.startswith(magic)), "")


class Listing(NamedTuple):
    """Names in a folder, each in natural order."""

    used: list[str]  # files with one of the suffixes that are wanted, dead links among them
    folders: list[str]
    copies: list[str]  # second copies of what is there, such as `000 (1).png`, byte for byte
    leftovers: list[str]
    others: list[str]  # files with other suffixes
    problems: list[str]  # what nobody can know how to use, with the remedy

    @property
    def unused(self) -> dict[str, list[str]]:
        """Names by the reason why they are not used."""
        return {COPIES: self.copies, OTHERS: self.others, LEFT: self.leftovers}

    def refuse_problems(self, folder: Path) -> None:
        """Raise `DataError` if there is a problem."""
        if self.problems:
            raise DataError(f"{folder}: {abbreviate(self.problems, 3)}")


def list_folder(folder: Path, *suffixes: str) -> Listing:
    """What lies in a folder, by name; links to folders count as folders. Only what may be a copy is opened.

    A copy is what holds the same, and whose name contains that of the original, in whatever language the copy is called so.
    """
    found = Listing([], [], [], [], [], [])
    with os.scandir(folder) as entries:
        kinds = {entry.name: os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir() for entry in entries}
    for name in in_order(kinds):
        if whole := partial(name, suffixes):
            if whole in kinds:
                found.others.append(name)
            else:
                found.problems.append(f"{name} is a part of {whole}, which was not downloaded to its end; download it again")
        elif is_leftover(name, *suffixes):
            found.leftovers.append(name)
        elif has_suffix(name, suffixes):  # a folder of such a name as well: whoever opens it says that it is none
            found.used.append(name)
        else:
            (found.folders if kinds[name] else found.others).append(name)
    for names in (found.used, found.folders):
        _part_copies(folder, names, found)
    return found


def _part_copies(folder: Path, names: list[str], found: Listing) -> None:
    """Move copies among the names, and those that are only called so where most others are not."""
    stems = {name[: len(name) - len(_suffix_of(name))]: name for name in names}
    if len({re.sub(r"[0-9]+", "0", stem) for stem in stems}) < 2:  # no name contains another
        return
    called: list[str] = []
    for stem, name in stems.items():
        originals = _originals(stem, stems)
        if any(_same(folder / name, folder / original) for original in originals):
            found.copies.append(name)
        elif originals and os.path.isfile(folder / name):
            original = COPY.sub("", name) if COPY.sub("", name) in originals else originals[0]
            called.append(f"{name} is called as a copy of {original} and holds something else; rename or delete it")
    names[:] = [name for name in names if name not in {*found.copies}]
    if len(called) <= MOST_CALLED * len(names):  # otherwise they are a series, such as mask.png, mask (1).png, mask (2).png
        found.problems.extend(called)


def _originals(stem: str, stems: Mapping[str, str]) -> list[str]:
    """The names whose stems are contained in `stem`, not within a number or a word, the longest first."""
    cuts = [piece.start() for piece in re.finditer(r"[0-9]+|[A-Za-z]+|[^0-9A-Za-z]+", stem)] + [len(stem)]
    parts = {stem[start:end] for place, start in enumerate(cuts) for end in cuts[place + 1 :]} - {stem}
    return [stems[part] for part in sorted(parts & stems.keys(), key=lambda part: (-len(part), part))]


def _same(one: Path, other: Path) -> bool:
    """True where two files, or all files of two folders, hold the same bytes; links count as what they lead to."""
    try:
        if not (one.is_dir() and other.is_dir()):
            return filecmp.cmp(one, other, shallow=False)
        inside = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (one, other)]
        return inside[0] == inside[1] and all(filecmp.cmp(one / name, other / name, shallow=False) for name in inside[0])
    except OSError:
        return False


def mask_names(folder: Path) -> list[str]:
    """The mask PNGs of a folder, in order."""
    return list_folder(folder, *MASKS).used


def remarks(unused: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each reason why something is not used, with the number and three names."""
    lines = [f"not used ({len(names)}): {reason}: {abbreviate(names, 3)}" for reason, names in unused.items() if names]
    return [*map(printable, lines)]


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes; raises `OSError`, or `ValueError` saying what it is instead.

    A FIFO is not waited for, and no device is read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(handle)
        if kind := irregular(state.st_mode):
            raise ValueError(f"it is {kind}, no file")
        if state.st_size > most:
            raise ValueError(f"it has {state.st_size:,} bytes; at most {most:,} are read")
        with open(handle, "rb", closefd=False) as file:
            return file.read(state.st_size)
    finally:
        os.close(handle)


def read_file(path: Path, most: int) -> bytes:
    """As `read_regular`; raises `DataError`, with the remedy, naming whatever is none."""
    try:
        return read_regular(path, most)
    except OSError as error:
        if is_dead(path):
            raise DataError(f"{path}: is a link to {os.readlink(path)}, which is not there; bring it back") from None
        kind = "" if isinstance(error, PermissionError) else irregular_at(path)
        raise DataError(f"{path}: {f'it is {kind}, no file; remove it' if kind else _unreadable(error)}") from None
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
