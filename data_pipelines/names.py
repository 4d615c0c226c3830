"""What the names of files mean: their order, and which are those of copies."""

import filecmp
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

COPY = re.compile(  # of a browser, Windows, macOS, Dropbox, Syncthing; what is left without it is the name of the original
    r"(?: ?\(\d+\)| - (?:Copy|Kopie|Copie)(?: \(\d+\))?| copy(?: \d+)?| \([^()]*conflicted copy[^()]*\)|\.sync-conflict-[\w-]+)"
    r"(?=(?:\.[^.]+)*$)",
    re.IGNORECASE,
)
MOST_CALLED = 0.2  # of the names in a folder; more names like those of copies, with contents of their own, are a series
FRACTION = r"(?<![0-9.])[0-9]+\.[0-9]+(?!\.?[0-9])"  # a number with a point; a date has two
FRACTIONS = rf"({FRACTION}|[0-9]+)"
DIGITS = str.maketrans("123456789", "000000000")


def stem(name: str, suffixes: Iterable[str]) -> str:
    """A name without that one of the suffixes, in upper or lower case, with which it ends."""
    lower = name.lower()
    return name[: len(name) - max((len(one) for one in suffixes if lower.endswith(one)), default=0)]


def _alike(names: Iterable[str]) -> bool:
    """True for names that differ in single digits alone, as those of nearly every folder do."""
    return len({name.translate(DIGITS) for name in names}) < 2


def natural(name: str, fractions: bool = False, suffixes: Sequence[str] = ()) -> tuple:
    """Sort key: numbers by their value, so that 2 stands before 10; names with equally long numbers as text sorts them.

    With `fractions` 0.24 is a number, and stands before 0.3. `suffixes` are no part of the order.
    """
    value = Decimal if fractions else int
    pieces = re.split(FRACTIONS if fractions else r"([0-9]+)", stem(name, suffixes))
    return [(text, value(number)) for text, number in zip(pieces[::2], [*pieces[1::2], "0"], strict=True)], name


def _fractions(names: Iterable[str]) -> bool:
    """True where 0.24 in names is a fraction. Fractions differ in length and end with no zero (0.2, 0.24)."""
    found = {number.partition(".")[2] for name in names for number in re.findall(FRACTION, name)}
    return len({*map(len, found)}) > 1 and not any(digits[1:].endswith("0") for digits in found)


def in_order(names: Iterable[str], *suffixes: str) -> list[str]:
    """Names in natural order. Whether 1.10 is the tenth after 1 or a fraction of 2 is told by the names together.

    Where all fractions are equally long, both are the same.
    """
    names = list(names)
    if _alike(names):  # as text sorts them
        return sorted(names)
    fractions = _fractions(names)
    return sorted(names, key=lambda name: natural(name, fractions, suffixes))


def missing_numbers(names: Sequence[str], *suffixes: str) -> int:
    """How many numbers are missing between those at the end of file names, such as 3 of 000.png, 001.png, 005.png.

    Every second frame is no gap: what counts is the smallest step. Names that differ before the number are not compared.
    Fractions are times, which have no gaps by their names.
    """
    numbers: dict[str, set[int]] = {}
    for name in names if not _fractions(names) else ():
        if found := re.fullmatch(r"(.*?)([0-9]+)\D*", stem(name, suffixes)):
            numbers.setdefault(found[1], set()).add(int(found[2]))
    missing = 0
    for found in numbers.values():
        steps = [after - before for before, after in itertools.pairwise(sorted(found))]
        missing += sum(step // min(steps) - 1 for step in steps)
    return missing


def take_out_copies(folder: Path, names: list[str], *suffixes: str) -> tuple[list[str], list[str]]:
    """Take the copies out of the names in a folder, and return them.

    Also returned are problems: files that are only called so, where most others are not.
    """
    if _alike(names) or len({re.sub(r"[0-9]+", "0", name) for name in names}) < 2:  # no name contains another
        return [], []
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(stem(name, suffixes), []).append(name)
    copies: list[str] = []
    called: list[str] = []
    for inner, group in stems.items():
        contained = _originals(inner, stems)
        for name in group:
            originals = contained if name == group[-1] else [*contained, group[-1]]  # of 5.PNG and 5.png the latter
            if any(_same(folder / name, folder / original) for original in originals):
                copies.append(name)
            elif originals and (contained or name.lower() == group[-1].lower()) and os.path.isfile(folder / name):
                original = COPY.sub("", name) if COPY.sub("", name) in originals else originals[0]
                called.append(f"{name} is called as a copy of {original} and holds something else; rename or delete it")
    names[:] = [name for name in names if name not in {*copies}]
    # More of them are a series, such as mask.png, mask (1).png, mask (2).png.
    return copies, called if len(called) <= MOST_CALLED * len(names) else []


def _originals(whole: str, stems: Mapping[str, list[str]]) -> list[str]:
    """The names whose stems are contained in `whole`, not within a number or a word, the longest first."""
    cuts = [piece.start() for piece in re.finditer(r"[0-9]+|[A-Za-z]+|[^0-9A-Za-z]+", whole)] + [len(whole)]
    parts = {whole[start:end] for place, start in enumerate(cuts) for end in cuts[place + 1 :]} - {whole}
    return [name for part in sorted(parts & stems.keys(), key=lambda part: (-len(part), part)) for name in stems[part]]


def _same(one: Path, other: Path) -> bool:
    """True where two files, or all files of two folders, hold the same bytes; links count as what they lead to."""
    try:
        if not (one.is_dir() and other.is_dir()):
            return filecmp.cmp(one, other, shallow=False)
        inside = [{path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (one, other)]
        return inside[0] == inside[1] and all(filecmp.cmp(one / name, other / name, shallow=False) for name in inside[0])
    except OSError:
        return False
