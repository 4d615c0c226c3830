"""What people write by hand: subjects files (CSV), and the sequence ids in these and in partition files.

Spreadsheets change such files: they add a byte order mark, write UTF-16 or a Windows code page, separate by semicolons or tabs,
and drop leading zeros. What can be read in one way only is read; anything else is refused with the line, the value and the
remedy.
"""

import csv
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest

from data_pipelines.schema import DataError, abbreviate, is_unknown
from data_pipelines.texts import plain, shown, text_of

SEPARATORS = ",;\t|"
NEEDED = ("sequence", "subject")  # columns of a subjects file
LONGEST = 255  # signs of an id or a name; no file system takes more
ABOVE = {"〃", "″", "״", "ditto", "dito", "idem", "same", "s.o.", "同上"}  # names of the person in the line above
LONGEST_HEADER = 100_000  # signs
WHOLE_NUMBER = re.compile(r"0*([0-9]+)(?:[.,]0{1,2})?")  # with three zeros the point could separate thousands


class Problem(Exception):  # noqa: N818, its message becomes that of a `DataError`
    """What is wrong with a text, and the remedy, without the name of the file."""


class Subjects(dict[str, str]):
    """Subject of each sequence id in a subjects file; `traits` are its further columns: by name, then by sequence id.

    `remarks` are lines for the user about what was left out or could be meant otherwise.
    """

    def __init__(self, subjects: dict[str, str], traits: dict[str, dict[str, str]], remarks: Iterable[str] = ()):
        super().__init__(subjects)
        self.traits, self.remarks = traits, list(remarks)

    def settings(self) -> str:
        """Text that changes with any subject or trait."""
        return str(sorted(self.items())) + (str(sorted(self.traits.items())) if self.traits else "")


class Ids:
    """The sequence ids of a data set, found also where blanks were added or leading zeros dropped."""

    def __init__(self, known: Iterable[str]):
        self._known = set(known)
        self._plain: defaultdict[str, list[str]] = defaultdict(list)
        self._numbers: defaultdict[str, list[str]] = defaultdict(list)
        for sequence in sorted(self._known):
            self._plain[plain(sequence)].append(sequence)
            if number := _number(sequence):
                self._numbers[number].append(sequence)

    def find(self, given: str | int | float, place: str) -> str:
        """The id that is meant; the text itself where the data have none of the kind. `place` is where it stands, for messages.

        A text is first taken as it stands. A number has no leading zeros, so it stands for the one id of that value. Raises
        `Problem` where that could be two, and for what can be no id.
        """
        if given in self._known:
            return str(given)
        text = plain(given) if isinstance(given, str) else str(int(given))
        named = self._plain.get(text, []) if isinstance(given, str) else []
        candidates = named or self._numbers.get(_number(text) or "", [])
        if not candidates and (len(text) > LONGEST or not text.isprintable()):
            raise Problem(f"{place} is {shown(text)}, which is no id; write the id of a sequence there")
        if len(candidates) > 1:
            ways = " or ".join(map(repr, candidates))
            raise Problem(f"{place} is {given!r}, which could be {ways}; write it in full, in quotes")
        return candidates[0] if candidates else text


def _number(text: str) -> str | None:
    """Digits of a whole number without leading zeros; None for another text."""
    found = WHOLE_NUMBER.fullmatch(text)
    return found and found[1]


def read_subjects(
    path: str | os.PathLike[str] | None, sequences: Iterable[str] = (), report: Callable[[str], None] | None = None
) -> Subjects:
    """Subject of each sequence, from a CSV file with the columns `sequence` and `subject`; empty without a path.

    Ids are those of `sequences` where they are meant (7 for 00007); others stay as they are. Further columns are kept. `report`
    receives a line where the encoding was a guess (None: standard error). Raises `DataError` naming file, line and value.
    """
    if path is None:
        return Subjects({}, {})
    name = f"--subjects={os.fspath(path)!r}"
    try:
        text = text_of(path, "--subjects", "CSV", report)
        found = _subjects_of(text, Ids(sequences))
        found.remarks[:] = [f"{name}{line}" for line in found.remarks]
        return found
    except FileNotFoundError:
        raise DataError(f"{name} does not exist; give a CSV file with the columns sequence,subject") from None
    except Problem as error:
        raise DataError(f"{name}{error}") from None


def _subjects_of(text: str, ids: Ids) -> Subjects:
    subjects: dict[str, str] = {}
    traits: dict[str, dict[str, str]] = {}
    lines: dict[str, int] = {}  # of each sequence
    spellings: dict[str, tuple[str, int]] = {}  # of each person, and the line
    near: dict[str, str] = {}  # a name of each group whose names may be one, also in signs that are no ASCII
    remarks: list[str] = []
    counted: dict[int, int] = {}  # columns that only count the lines, and where they begin
    header: list[str] = []
    for line, fields in _rows(text):
        with _in_line(line):
            if not header:
                header = _header_of(fields)
                continue
            row = _row_of(header, fields, counted, len(subjects))
            sequence, subject = ids.find(row.pop("sequence"), "sequence"), row.pop("subject")
            if sequence in lines:
                raise Problem(f"sequence {sequence!r} stands in line {lines[sequence]} already; delete one of the lines")
            key = " ".join(subject.split())
            other, first = spellings.setdefault(_number(subject) or key.lower(), (subject, line))
            _refuse_nobody(subject, line, first)
            similar = near.setdefault(key.casefold(), subject)
            if (other == subject != similar) or (other != subject and _ascii(other) == _ascii(subject)):
                alike = similar if other == subject else other
                remarks.append(
                    f", line {line}: subject {shown(subject)} counts as another person than {shown(alike)}; write one alike"
                )
            elif other != subject:
                raise Problem(
                    f"subject {shown(subject)} is {shown(other)} in line {first}; write one person alike, "
                    "and give two people names that differ in more than upper case or leading zeros"
                )
        subjects[sequence], lines[sequence] = subject, line
        for title, value in row.items():
            traits.setdefault(title, {})[sequence] = value
    if not header:
        raise Problem(" is an empty file; give the CSV file with your sequences")
    if not subjects:
        raise Problem(" has a header and no line below it; give a line for every sequence, or leave the option out")
    if counted:
        remarks.append(": a column without a name, which counts the lines, is left out")
    return Subjects(subjects, {title: values for title, values in traits.items() if any(values.values())}, remarks)


def _ascii(text: str) -> str:
    """A text without what may be half of a sign that was read in a wrong encoding."""
    return text.encode("ascii", "ignore").decode()


def _refuse_nobody(subject: str, line: int, first: int) -> None:
    """Raise `Problem` for the name of nobody where it makes sequences those of one person; `first` is its first line."""
    name = subject.casefold()  # "none" is nobody, but a value of other columns, such as a brace
    if name in ABOVE or (first != line and (is_unknown(name) or name == "none")):
        where = f"stands in line {first}, too, and" if first != line else "stands for the line above and"
        raise Problem(
            f"subject {shown(subject)} {where} names nobody; write who walked, or, where nobody knows, "
            "a name of its own in each line, such as the id of the sequence"
        )


@contextmanager
def _in_line(line: int) -> Iterator[None]:
    """Add the number of the line to a `Problem` of the body."""
    try:
        yield
    except Problem as error:
        raise Problem(f", line {line}: {error}") from None


def _header_of(fields: list[str]) -> list[str]:
    """Name of each column: "sequence" and "subject" in lower case, others as they are, some perhaps empty."""
    titles = [plain(field) for field in fields]
    known = [unicodedata.normalize("NFKC", title).casefold() for title in titles]
    if missing := [repr(name) for name in NEEDED if name not in known]:
        raise Problem(
            f"no column {' and no column '.join(missing)} in the header {abbreviate(map(shown, titles), 3)}; "
            "expected CSV columns sequence,subject, and further ones if you like"
        )
    if twice := [name for name, count in Counter(known).items() if name and count > 1]:
        raise Problem(f"the header names {shown(twice[0])} twice; keep one of these columns")
    return [name if name in NEEDED else title for name, title in zip(known, titles, strict=True)]


def _row_of(header: list[str], fields: list[str], counted: dict[int, int], number: int) -> dict[str, str]:
    """Values of a row by column, of which only further ones may be empty.

    `counted`: first number of each column without a name that counts the rows, as pandas writes it; filled by row `number` 0.
    """
    line, count = shown(",".join(fields)), len(fields)
    if count < len(header) or any(map(str.strip, fields[len(header) :])):
        raise Problem(f"{count} field{'s' * (count != 1)} in {line}, and the header has {len(header)}; mend the line")
    values = [" ".join(filter(None, plain(field).splitlines())) for field in fields[: len(header)]]
    row = dict(zip(header, values, strict=True))
    if number == 0:
        counted |= {place: int(value) for place, value in enumerate(values) if not header[place] and value in ("0", "1")}
    if unnamed := [
        value
        for place, value in enumerate(values)
        if not header[place] and value and value != (str(counted[place] + number) if place in counted else "")
    ]:
        raise Problem(f"{shown(unnamed[0])} stands in a column without a name; name it in the header, or delete it")
    for title in NEEDED:
        if not row[title]:
            raise Problem(f"the {title} is empty in {line}; fill it in, or delete the line")
        if len(row[title]) > LONGEST:
            raise Problem(f"{title} {shown(row[title])} has {len(row[title])} signs; mend the line")
    row.pop("", None)
    return row | {"sequence": fields[header.index("sequence")]}  # as it stands, should the data have blanks in their ids


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and fields, of each row that is not blank."""
    skipped = 0
    if chosen := re.match(r'"?sep=([,;\t|])"?[ \t]*(\r\n|\r|\n)', text, re.IGNORECASE):  # Excel's own first line
        text, skipped = text[chosen.end() :], 1
    if text.lstrip()[:1] in ("{", "["):
        raise Problem(" is JSON, as partition files are; give a CSV file with the columns sequence,subject")
    header = next((found[0] for found in re.finditer(r"[^\r\n]+", text) if found[0].strip()), "")
    if len(header) > LONGEST_HEADER:
        raise Problem(
            f" begins with a line of {len(header):,} signs, which is no header; expected CSV columns sequence,subject"
        )
    fitting = [one for one in SEPARATORS if {plain(title).casefold() for title in header.split(one)} >= {*NEEDED}]
    separator = chosen[1] if chosen else fitting[0] if fitting else max(SEPARATORS, key=header.count)
    text = re.sub(rf'"[ ]+(?=[{separator}\r\n])', '"', text)  # a blank behind a closing quote
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    line = skipped + 1  # in which the next row begins
    titles: list[str] = []
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                titles = titles or [plain(field).casefold() for field in fields]
                pairs = zip_longest(titles, fields)
                torn = [field for title, field in pairs if field and _is_torn(field, title, separator, titles)]
                if torn:
                    what = f"{shown(','.join(torn))} goes over several lines"
                    raise Problem(f", line {line}: {what}; close the quote where the field ends")
                yield line, fields
            line = reader.line_num + skipped + 1
    except csv.Error as error:
        why = "a quote is opened and not closed" if "end of data" in str(error) else str(error)
        raise Problem(f", line {line}: {why}; mend the line") from None


def _is_torn(field: str, title: str | None, separator: str, titles: list[str]) -> bool:
    """True where a quoted field of several lines is none of a further column, or has swallowed rows."""
    pieces = field.splitlines()
    swallowed = any(piece.count(separator) >= len(titles) - 1 for piece in pieces[1:])
    return len(pieces) > 1 and (not title or title in NEEDED or title not in titles or swallowed)
