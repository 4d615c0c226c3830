"""What the file system says of the files of sequences, and which are the same: through links, one child would be two."""

import os
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class States(NamedTuple):
    """What the file system says of the files of a sequence, links followed; -1 in `sizes` for one that is not there."""

    inodes: array  # a number for each regular file, the same for the same file; some network file systems know none
    sizes: array  # bytes
    times: array  # of modification, in nanoseconds
    links: dict[str, str]  # where each link leads


def states_of(folder: Path, names: Iterable[str]) -> States:
    """The files of a sequence, each asked for once."""
    found = States(array("q"), array("q"), array("q"), {})
    place = str(folder.resolve())
    with os.scandir(place) as entries:
        links = {entry.name for entry in entries if entry.is_symlink()}
    for name in names:
        path = f"{place}/{name}"
        if name in links:
            path = found.links[name] = os.path.realpath(path)
        try:
            state = os.stat(path)
        except OSError:  # a dead link, reported when it is read
            found.sizes.append(-1)
            found.times.append(0)
            continue
        found.sizes.append(state.st_size)
        found.times.append(state.st_mtime_ns)
        if state.st_ino and stat.S_ISREG(state.st_mode):
            found.inodes.append(hash((state.st_dev, state.st_ino)))
    return found


def spelt_alike(names: Iterable[str], plain: Callable[[str], str]) -> dict[str, str]:
    """Names that are the same as an earlier one when they are `plain`, and that one."""
    first: dict[str, str] = {}
    return {name: other for name in names if (other := first.setdefault(plain(name), name)) != name}


def same_files(sequences: Sequence[array]) -> dict[int, int]:
    """Numbers of sequences more than half of whose files are those of an earlier one, and that one's number.

    A sequence is given as a number for each of its files, 64 bits signed, the same for the same file. Single frames may well be
    one file: tools that save room link files of the same bytes, such as those of nobody.
    """
    numbers = np.concatenate([np.zeros(0, np.int64), *sequences])  # file
    if len(np.unique(numbers)) == len(numbers):  # the usual case, cheaper to see
        return {}
    owners = np.repeat(np.arange(len(sequences)), [*map(len, sequences)])  # file
    files, owner = np.unique(np.stack([numbers, owners]), axis=1)  # file, file: each file of a sequence once
    first = np.flatnonzero(np.r_[True, np.diff(files) != 0])  # file: the first place, of the first sequence that has it
    original = np.repeat(owner[first], np.diff(np.r_[first, len(files)]))  # file
    count = Counter(owner.tolist())
    shared = Counter((one, other) for one, other in zip(original.tolist(), owner.tolist(), strict=True) if one != other)
    found: dict[int, int] = {}
    for (one, other), number in sorted(shared.items()):
        if number > min(count[one], count[other]) / 2:
            found.setdefault(other, one)
    return found
