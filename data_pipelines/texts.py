"""Text files that people hand in: read in whatever encoding a spreadsheet wrote them, or refused with what they are."""

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from data_pipelines.files import kind_of, read_regular
from data_pipelines.remote import read_url
from data_pipelines.schema import DataError, is_url, unreadable

LARGEST = 2**23  # bytes; a line for each of 200,000 sequences has less, and what is made of it stays far below 1 GB
MOST_ZEROS = 3  # bytes; UTF-32 may end with so many
MARKS = {"utf-32": (b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "utf-16": (b"\xff\xfe", b"\xfe\xff"), "utf-8-sig": (b"\xef\xbb\xbf",)}
COMMON = {  # encodings of two bytes a sign: the name, and the first and second bytes of frequent signs
    "gb18030": ("Chinese (GB 18030)", range(0xB0, 0xD8), range(0xA1, 0xFF)),  # the 3,755 of level 1
    "cp932": ("Japanese (Windows-932)", range(0x81, 0x99), range(0x40, 0xFD)),  # kana, and level 1 of JIS
}
MOSTLY = 0.75  # least fraction of frequent signs, apart from letters, among what is not ASCII
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f]")  # signs that no text has


def text_of(path: str | os.PathLike[str], field: str, wanted: str, report: Callable[[str], None] | None = None) -> str:
    """The text of a file; `field` is the option that named it, `wanted` the kind of file, such as "CSV", for messages.

    UTF-8, UTF-16 and UTF-32 with and without byte order mark. Any other bytes are read as Chinese (GB 18030) or Japanese
    (Windows-932) where that is clear, and else as Windows-1252; `report` (None: standard error) then receives a line that says
    so. Raises `DataError` for what is no regular file or no text, saying what it is; `FileNotFoundError` where there is none.
    """

    def refuse(what: str) -> NoReturn:
        raise DataError(f"{field}={os.fspath(path)!r} {what}")

    if not os.fspath(path):
        refuse(f"is empty (an unset variable?); give the name of a {wanted} file, or leave the option out")
    try:
        if is_url(os.fspath(path)):
            content = read_url(os.fspath(path), field, LARGEST)
        else:
            content = read_regular(Path(os.path.expanduser(path)), LARGEST)
    except FileNotFoundError:
        raise
    except DataError:  # is a ValueError, and says all of it
        raise
    except OSError as error:
        refuse(unreadable(error, f"give a {wanted} file"))
    except ValueError as error:
        refuse(f"cannot be read ({error}); give a {wanted} file")
    what, remedy = kind_of(content)
    if what:
        refuse(f"is {what}; {f'{remedy} and give the {wanted} file' if remedy else f'save it as {wanted}'}")
    whole = content.rstrip(b"\0")
    if len(content) - len(whole) > MOST_ZEROS and b"\0" not in whole:
        count = len(content) - len(whole)
        refuse(f"ends with {count:,} zero bytes, left by a save that broke off; fetch an earlier version")
    text, guess = _decoded(content)
    if text is None or CONTROLS.search(text):
        refuse(f"is a binary file, no text; save it as {wanted}")
    text = text.lstrip("\ufeff").rstrip("\x1a\ufeff \t\r\n") + "\n"
    if conflict := re.search(r"^(<{7}|>{7})( |$)", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        refuse(f", line {line}: a conflict of git ({conflict[1]}); keep one of the versions, and delete git's lines")
    if text.lstrip().startswith("<"):
        refuse(f"is XML or a web page; save it as {wanted}")
    if not text.strip():
        refuse(f"is an empty file; give the {wanted} file with your sequences")
    if guess:
        line = f"warning: {field}={os.fspath(path)!r} is not UTF-8 and is read as {guess}; save it as UTF-8 if names look wrong"
        (report or (lambda line: print(line, file=sys.stderr, flush=True)))(line)
    return text


def _decoded(content: bytes) -> tuple[str | None, str]:
    """Text of bytes in an encoding that spreadsheets write, None where they are none; and the encoding where it is a guess.

    Chinese and Japanese are guessed where that is clear, Windows-1252 otherwise: nearly all bytes are text in it.
    """
    marked = next((name for name, marks in MARKS.items() if content.startswith(marks)), None)
    zeros = [content[place::2].count(0) / max(len(content) // 2, 1) for place in (0, 1)]  # the share at even and odd places
    unmarked = "utf-16-be" if zeros[0] > 0.4 > zeros[1] else "utf-16-le" if zeros[1] > 0.4 > zeros[0] else "utf-8"
    try:
        return content.decode(marked or unmarked), ""
    except UnicodeDecodeError:
        if marked or unmarked != "utf-8":
            return None, ""
    for encoding in COMMON:
        with contextlib.suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if _is_clear(text, encoding):
                return text, COMMON[encoding][0]
    try:
        return content.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        return content.decode("latin-1"), "Latin-1"


def _is_clear(text: str, encoding: str) -> bool:
    """True where bytes that read so in an encoding of `COMMON` can hardly be of another one.

    A Western letter with its neighbour can look like such a sign, but a rare one, or one beside a letter.
    """
    _, firsts, seconds = COMMON[encoding]
    frequent = count = 0
    for found in re.finditer(r"[^\x00-\x7f]", text):
        sign, beside = found[0].encode(encoding), text[max(found.start() - 1, 0) : found.end() + 1]
        frequent += len(sign) == 2 and sign[0] in firsts and sign[1] in seconds and not re.search("[A-Za-z]", beside)
        count += 1
    return frequent >= MOSTLY * count


def shown(text: str, most: int = 60) -> str:
    """A text in quotes for a message, on one line and not longer than about `most` signs."""
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def plain(text: str) -> str:
    """A field without blanks, and without the quotes and the `="..."` that keep a spreadsheet from changing it.

    Accents become one sign each, so that equal names are equal.
    """
    text = unicodedata.normalize("NFC", text).strip("\ufeff\u200b\u00a0\u3000 \t\r\n\x1a")
    if formula := re.fullmatch(r'="(.*)"', text, re.DOTALL):
        text = formula[1]
    for _ in range(2):  # '"00007"'
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = text[1:-1].strip()
    return text[1:] if re.fullmatch(r"'[0-9.,]+", text) else text  # Excel's mark for "this is text"
