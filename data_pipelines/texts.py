"""Text files that people hand in: read in whatever encoding a spreadsheet wrote them, or refused with what they are."""

import os
import re
import unicodedata
from pathlib import Path
from typing import NoReturn

from data_pipelines.files import read_regular
from data_pipelines.schema import DataError

LARGEST = 2**23  # bytes; a line for each of 200,000 sequences has less, and what is made of it stays far below 1 GB
SAVE, UNPACK = "save it as {wanted}", "unpack it and give the {wanted} file in it"
KINDS = {  # how files begin that are no text, what they are, and the remedy
    b"PK\x03\x04": ("a zip file, such as an Excel workbook (.xlsx)", SAVE),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook (.xls)", SAVE),
    b"{\\rtf": ("a Word document (RTF)", SAVE),
    b"%PDF": ("a PDF", SAVE),
    b"\x1f\x8b": ("a gzip file", UNPACK),
    b"BZh": ("a bzip2 file", UNPACK),
    b"\xfd7zXZ": ("an xz file", UNPACK),
    b"7z\xbc\xaf": ("a 7z file", UNPACK),
    b"version https://git-lfs": ("the pointer to a file in Git LFS", "fetch the {wanted} file itself"),
}
MOST_ZEROS = 3  # bytes; UTF-32 may end with so many
MARKS = {"utf-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "utf-16": (b"\xff\xfe", b"\xfe\xff"), "utf-8-sig": (b"\xef\xbb\xbf",)}
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f]")  # signs that no text has


def text_of(path: str | os.PathLike[str], field: str, wanted: str) -> str:
    """The text of a file; `field` is the option that named it, `wanted` the kind of file, such as "CSV", for messages.

    UTF-8, UTF-16 and UTF-32 with and without byte order mark; any other bytes are read as Windows-1252. Raises `DataError` for
    what is no regular file or no text, saying what it is; `FileNotFoundError` where there is none.
    """

    def refuse(what: str) -> NoReturn:
        raise DataError(f"{field}={os.fspath(path)!r} {what}")

    if not os.fspath(path):
        refuse(f"is empty (an unset variable?); give the name of a {wanted} file, or leave the option out")
    try:
        content = read_regular(Path(os.path.expanduser(path)), LARGEST)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        change = "change its permissions, or " if isinstance(error, PermissionError) else ""
        refuse(f"cannot be read ({reason}); {change}give a {wanted} file")
    for start, (name, remedy) in KINDS.items():
        if content.startswith(start):
            refuse(f"is {name}; {remedy.format(wanted=wanted)}")
    whole = content.rstrip(b"\0")
    if len(content) - len(whole) > MOST_ZEROS and b"\0" not in whole:
        count = len(content) - len(whole)
        refuse(f"ends with {count:,} zero bytes, left by a save that broke off; fetch an earlier version")
    text = _decoded(content)
    if text is None or CONTROLS.search(text):
        refuse(f"is a binary file, no text; save it as {wanted}")
    text = text.lstrip("\ufeff").rstrip("\x1a\ufeff \t\r\n") + "\n"
    if conflict := re.search(r"^(<{7}|>{7})( |$)", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        refuse(f", line {line}: a conflict of git ({conflict[1]}); keep one of the versions, and delete git's lines")
    if text.lstrip().startswith("<"):
        refuse(f"is a web page or XML; fetch the file itself, or save it as {wanted}")
    if not text.strip():
        refuse(f"is an empty file; give the {wanted} file with your sequences")
    return text


def _decoded(content: bytes) -> str | None:
    """Text of bytes in one of the encodings that spreadsheets write; None where they are none."""
    marked = next((name for name, marks in MARKS.items() if content.startswith(marks)), None)
    zeros = [content[place::2].count(0) / max(len(content) // 2, 1) for place in (0, 1)]  # the share at even and odd places
    unmarked = "utf-16-be" if zeros[0] > 0.4 > zeros[1] else "utf-16-le" if zeros[1] > 0.4 > zeros[0] else "utf-8"
    try:
        return content.decode(marked or unmarked)
    except UnicodeDecodeError:
        if marked or unmarked != "utf-8":
            return None
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def shown(text: str, most: int = 60) -> str:
    """A text in quotes for a message, on one line and not longer than about `most` signs."""
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def plain(text: str) -> str:
    """A field without blanks, and without the quotes and the `="..."` that keep a spreadsheet from changing it.

    Accents become one sign each, so that equal names are equal.
    """
    text = unicodedata.normalize("NFC", text).strip("\ufeff\u200b\u00a0 \t\r\n\x1a")
    if formula := re.fullmatch(r'="(.*)"', text, re.DOTALL):
        text = formula[1]
    for _ in range(2):  # '"00007"'
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1].strip()
    return text[1:] if re.fullmatch(r"'[0-9.,]+", text) else text  # Excel's mark for "this is text"
