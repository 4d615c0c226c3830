"""Class names, frame sizes, field names and the axis legend: the root of this package.

Axis legend, used in every shape comment of the project:

====== =============================================================
letter axis
====== =============================================================
``n``  clips of a training batch, or sequences of an evaluation batch
``s``  frames
``h``  pixel rows, top to bottom
``w``  pixel columns, left to right
``c``  channels
``p``  parts (horizontal strips, top to bottom)
``k``  classes
``g``  groups of clips that share their frames
``m``  clips of such a group, so that n = g m
``u``  frames that a group shares
``d``  draws of a bootstrap
``t``  thresholds
====== =============================================================
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CLASSES = ("negative", "neutral", "positive")  # the position is the class id
RATIO_ORDER = ("positive", "neutral", "negative")  # how the field writes class ratios: "1:1:8"

FRAME_SIZE = 64  # a normalised silhouette is FRAME_SIZE x FRAME_SIZE, uint8, 0..255 with grey edges
SIDE_CUT = 10  # columns that training and evaluation cut from each side
FRAME_WIDTH = FRAME_SIZE - 2 * SIDE_CUT


class DataError(ValueError):
    """A mistake in the data that a user can mend; the message names the field, the value and the remedy."""


def class_id(name: str) -> int:
    """The id of a class name written in any case; raises `DataError` for an unknown one."""
    try:
        return CLASSES.index(name.lower())
    except ValueError:
        raise DataError(f"unknown class {name!r}; expected one of {', '.join(CLASSES)} (any case)") from None


def abbreviate(items, shown: int = 5) -> str:
    """A list for a message: the first few items, and how many more there are."""
    items = [str(item) for item in items]
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")


@dataclass(frozen=True)
class SilhouetteSet:
    """Sequences of normalised silhouettes with random access; what every source of data hands to the pipelines.

    A *sequence* is one walk. The multi-task loss learns to tell sequences apart, so a sequence is also the *identity*
    of its clips. A *subject* is the person who walked; partitions never cut through a subject.

    Attributes:
      name: what to call the data in messages and results.
      synthetic: True where nobody walked; every score on such a set says so.
      sequences: one unique id per sequence.
      subjects: the person of each sequence (the sequence id itself where the person is not known).
      labels: int32 class ids, one per sequence.
      n_frames: int32 frame counts, one per sequence.
      content: tells sets apart whose ids agree and whose frames do not, such as a digest of all checksums.
      read: index -> uint8 `[s, 64, 64]`; decodes one sequence. Must be callable from several threads.
    """

    name: str
    synthetic: bool
    sequences: tuple[str, ...]
    subjects: tuple[str, ...]
    labels: np.ndarray
    n_frames: np.ndarray
    read: Callable[[int], np.ndarray]
    content: str = ""

    def __len__(self) -> int:
        return len(self.sequences)

    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with any id, subject, label or frame count, and with `content`."""
        columns = (self.sequences, self.subjects, self.labels.tolist(), self.n_frames.tolist(), self.content)
        return hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:16]

    def class_counts(self, rows: np.ndarray | None = None) -> dict[str, int]:
        """Sequences per class, in the order positive, neutral, negative."""
        labels = self.labels if rows is None else self.labels[rows]
        return {name: int(np.sum(labels == class_id(name))) for name in RATIO_ORDER}


def existing_folder(path: str | Path, field: str) -> Path:
    """The folder as a `Path`; raises `DataError` naming `field` when it is missing, not a folder or empty."""
    folder = Path(path).expanduser()
    try:
        if not folder.exists():
            raise DataError(f"{field}={str(path)!r} does not exist; give the folder that holds the data")
        if not folder.is_dir():
            raise DataError(f"{field}={str(path)!r} is a file; give the folder that holds the data")
        if not any(folder.iterdir()):
            raise DataError(f"{field}={str(path)!r} is empty; give the folder that holds the data")
    except OSError as error:
        raise DataError(f"{field}={str(path)!r} cannot be read ({error.strerror}); mend its rights") from None
    return folder


def cache_folder() -> Path:
    """`$SCOLIOJAX_CACHE`, else the user's cache folder.

    Raises:
      DataError: when the user has no home.
    """
    if chosen := os.environ.get("SCOLIOJAX_CACHE"):
        return Path(chosen).expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scoliojax"
    except RuntimeError:  # a container's user of whom only the number is known
        raise DataError(
            "no home folder to keep a cache in: neither $HOME nor the list of users names one; set SCOLIOJAX_CACHE to a folder"
        ) from None
