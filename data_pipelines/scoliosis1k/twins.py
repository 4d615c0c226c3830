"""Sequences that are the same files: through links, one child would be two."""

import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


def same_files(sequences: Iterable[tuple[Path, Sequence[str]]]) -> dict[int, int]:
    """Numbers of sequences more than half of whose files are those of an earlier one, and that one's number.

    A sequence is given as its folder and the names in it. Single frames may well be one file: tools that save room link files
    of the same bytes, such as those of nobody.
    """
    inodes, owners = array("q"), array("q")
    for number, (folder, names) in enumerate(sequences):
        for name in names:
            try:
                state = os.stat(os.path.join(folder, name))
            except OSError:  # a dead link, reported when it is read
                continue
            if state.st_ino and stat.S_ISREG(state.st_mode):  # some network file systems know no inodes
                inodes.append(hash((state.st_dev, state.st_ino)))
                owners.append(number)
    if not inodes:
        return {}
    files, owner = np.unique(np.array([inodes, owners], np.int64), axis=1)  # each file of a sequence once
    first = np.flatnonzero(np.r_[True, np.diff(files) != 0])  # of each file, the first sequence that has it
    original = np.repeat(owner[first], np.diff(np.r_[first, len(files)]))
    count = Counter(owner.tolist())
    shared = Counter((one, other) for one, other in zip(original.tolist(), owner.tolist(), strict=True) if one != other)
    found: dict[int, int] = {}
    for (one, other), number in sorted(shared.items()):
        if number > min(count[one], count[other]) / 2:
            found.setdefault(other, one)
    return found
