"""What lies in a folder of data: which names are leftovers of other systems, what a file really is, and how it is opened."""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_pipelines.names import in_order, take_out_copies
from data_pipelines.schema import DataError, abbreviate, unreadable

MOST_BYTES = 2**28  # of a file that is read as a whole, unless it has a limit of its own
PICKLES = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")
MASKS = (".png",)
POSES = (".json",)
HIDDEN = (".", "~$")  # how names begin that macOS, Linux and Office hide, such as `._000.png`
# How names begin that archives, shares and systems leave, such as `@eaDir` and `$RECYCLE.BIN`; also a mask may be called so.
MARKED = ("@", "$", "~", "#", "__")
LEFTOVERS = re.compile(  # further ones
    r"thumbs\.db|ehthumbs\.db|desktop\.ini|lost\+found|system volume information|icon\r|network trash folder|temporary items|"
    r"thevolumesettingsfolder|recycler|recycled|found\.[0-9]{3}",
    re.IGNORECASE,
)
PARTIAL = re.compile(r"\.(?:icloud|part|partial|filepart|crdownload|download|opdownload|aria2|!qb|!ut)$", re.IGNORECASE)


class Kind(NamedTuple):
    """What a file is, and what can be done with it where something else is expected; both empty if nobody knows."""

    what: str
    remedy: str = ""


class Footage(Kind):
    """A kind of file that may hold a video."""


UNPACK = "unpack it"
KINDS = (  # how files begin, as a pattern, and what they are then; the one table of the project
    *((re.compile(pattern, re.DOTALL), Kind(*kind)) for pattern, *kind in (
        (rb'.{5}\0{3}\{"', "a safetensors file"),  # before others, because it begins with a number of any bytes
        (rb"version https://git-lfs", "a pointer of Git LFS, whose file was not fetched", "run git lfs pull"),
        (rb"(?i:\s*<(!doctype|html))", "a web page, such as a download gives where it needs a login",
         "download it with the browser"),
        (rb"\x89PNG\r\n\x1a\n", "a PNG"),
        (rb"\xff\xd8\xff", "a JPEG"),
        (rb"BM.{4}\0{4}", "a BMP"),
        (rb"II\*\0|MM\0\*", "a TIFF"),
        (rb"\x93NUMPY", "a numpy array (.npy)"),
        (rb"\x89HDF", "an HDF5 file, as Keras writes it"),
        (rb"GGUF", "a GGUF file"),
        (rb"\x08[\0-\x1f][\x12\x1a\x3a]", "an ONNX network"),
        (rb"%PDF", "a PDF"),
        (rb"{\\rtf", "a Word document (RTF)"),
        (rb"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
        (rb"PK\x03\x04", "a zip file, such as an Excel workbook (.xlsx), .docx, .npz or .pt"),
        (rb"\x1f\x8b", "a gzip file", UNPACK),
        (rb"BZh[1-9]", "a bzip2 file", UNPACK),
        (rb"\xfd7zXZ", "an xz file", UNPACK),
        (rb"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
        (rb"7z\xbc\xaf", "a 7z archive", UNPACK),
        (rb"Rar!", "a RAR archive", UNPACK),
        (rb".{257}ustar", "a tar archive", UNPACK),
    )),
    (re.compile(rb"GIF8[79]a"), Footage("a GIF")),
    (re.compile(rb"RIFF.{4}(WEBP|AVI |WAVE)", re.DOTALL), Footage("a WebP, AVI or WAV")),
    (re.compile(rb".{4}ftyp", re.DOTALL), Footage("a video")),
)  # fmt: skip
BEGINNING = 512  # bytes of a file that tell what it is
SHOWN = 3  # names in a message, of however many
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


def other_frames(names: Iterable[str]) -> str:
    """In brackets, what frames there are among names that are not used where others are expected; empty for none."""
    names = [*names]
    kinds = {"silhouettes": MASKS, "poses": POSES}
    counts = {f"{kind}, {suffixes[0]}": sum(has_suffix(name, suffixes) for name in names) for kind, suffixes in kinds.items()}
    return "".join(f" (but {count} frames of {kind})" for kind, count in counts.items() if count)


def has_suffix(name: str, suffixes: Iterable[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def kind_of(content: bytes) -> Kind:
    """What a file is by its first bytes (262 of them tell all), such as "a JPEG"."""
    return next((kind for pattern, kind in KINDS if pattern.match(content)), Kind(""))


class Listing(NamedTuple):
    """Names in a folder, each in natural order."""

    used: list[str]  # files with one of the suffixes that are wanted, dead links among them
    folders: list[str]
    copies: list[str]  # second copies of what is there, such as `000 (1).png`, byte for byte
    leftovers: list[str]
    others: list[str]  # files with other suffixes
    parts: list[str]  # files that were not downloaded to their end, which are problems, too
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
    found = list_names(folder, *suffixes)
    for names in (found.used, found.folders):
        copies, problems = take_out_copies(folder, names, *suffixes)
        found.copies.extend(copies)
        found.problems.extend(problems)
    return found


def list_names(folder: Path, *suffixes: str) -> Listing:
    """As `list_folder`, with copies as files like any other: nothing is opened."""
    found = Listing([], [], [], [], [], [], [])
    with os.scandir(folder) as entries:
        kinds = {entry.name: os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir() for entry in entries}
    for name in in_order(kinds, *suffixes):
        if has_suffix(name, suffixes) and not name.startswith(HIDDEN):
            found.used.append(name)  # a folder of such a name as well: whoever opens it says that it is none
        elif whole := partial(name, suffixes):
            if whole in kinds:
                found.others.append(name)
            else:
                found.parts.append(name)
                found.problems.append(f"{name} {not_whole(whole)}")
        elif is_leftover(name, *suffixes):
            found.leftovers.append(name)
        else:
            (found.folders if kinds[name] else found.others).append(name)
    return found


def not_whole(whole: str) -> str:
    """What to say behind the name of a file that is a part of `whole`."""
    return f"is a part of {whole}, which was not downloaded to its end; download it again"


class Unused:
    """What is not used, by the reason why: how many things, and the names of the first of them.

    `count` and `names` have the same keys. A tree that a Mac has packed has as many leftovers as masks, so their names are not
    all kept.
    """

    def __init__(self, shown: int | None = SHOWN):
        self.shown = shown  # number of names that are kept for each reason; None: all
        self.count: dict[str, int] = {}
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, folder: str, names: Sequence[str]) -> None:
        """Add what lies in a folder; its names are kept as paths."""
        if names:
            kept = self.names.setdefault(reason, [])
            room = None if self.shown is None else self.shown - len(kept)
            kept += [os.path.join(folder, name) for name in names[:room]]
            self.count[reason] = self.count.get(reason, 0) + len(names)

    def as_json(self) -> dict[str, dict[str, Any]]:
        return {reason: {"count": count, "names": self.names[reason]} for reason, count in self.count.items()}


def remarks(unused: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each reason in what `Unused.as_json` gave, with the number and three names."""
    lines = []
    for reason, found in unused.items():
        names, count = found["names"][:SHOWN], found["count"]
        more = f" and {count - len(names)} more" if count > len(names) else ""
        lines.append(f"not used ({count}): {reason}: {', '.join(names)}{more}")
    return lines


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
        raise DataError(f"{path}: {unreadable(error, 'copy it again')}") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}; remove it") from None


def is_dead(path: Path) -> bool:
    """True for a link that leads nowhere, or in a circle."""
    return path.is_symlink() and not os.path.exists(path)


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
