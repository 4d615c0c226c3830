"""Class names, frame sizes, field names and the axis legend: the root of this package.

Axis legend, used in every shape comment of the project:

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
``b``  frames of all clips in a row, so that b = n s
"""

import difflib
import errno
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np

CLASSES = ("negative", "neutral", "positive")  # the position is the class id
TRANSLATED = {  # guesses for a message, never taken for the class
    "阴性": "negative", "陰性": "negative", "neg": "negative", "阳性": "positive", "陽性": "positive", "pos": "positive",
    "中性": "neutral", "neu": "neutral",
}  # fmt: skip
SILHOUETTES, SKELETONS, POSES = "silhouettes", "skeletons", "poses"  # modalities; a network reads one of the first two
CHANNELS = {SILHOUETTES: 1, SKELETONS: 2}  # of a frame: limbs and joints are two
MARKER = "synthetic.txt"  # file in a tree of synthetic walkers: every score on them says so
RATIO_ORDER = ("positive", "neutral", "negative")  # order of the classes in a ratio such as "1:1:8"

FRAME_SIZE = 64  # a normalised silhouette is FRAME_SIZE x FRAME_SIZE, uint8, 0..255 with grey edges
FEWEST_FRAMES = 15  # usable frames of a walk; `scoliojax.screen` answers for no shorter one
SIDE_CUT = 10  # columns that training and evaluation remove on each side
FRAME_WIDTH = FRAME_SIZE - 2 * SIDE_CUT


def frame_shape(modality: str) -> tuple[int, ...]:
    """Axes of a frame whose sides are removed, `(64, 44)` of silhouettes and `(2, 64, 44)` of skeleton maps."""
    channels = CHANNELS[modality]
    return (FRAME_SIZE, FRAME_WIDTH) if channels == 1 else (channels, FRAME_SIZE, FRAME_WIDTH)


REMEDIES = {  # of an error of the file system
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room: your quota is used up",
    errno.EACCES: "change its permissions, or give another place",
    errno.EPERM: "change its permissions, or give another place",
    errno.EROFS: "its file system is read-only; give another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; check the path",
    errno.EISDIR: "it is a folder; give a file",
    errno.ELOOP: "its links run in a circle; check the path",
    errno.EEXIST: "something stands there, or another process has made it; move it away, or give another place",
    errno.ENOTEMPTY: "another process may have written there; start again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the system has too many open files",
    errno.ENOMEM: "free some memory",
    errno.EIO: "check the disk",
}
UNKNOWN = {
    "", "na", "n/a", "n.a.", "nan", "null", "nil", "unknown", "unbekannt", "not given", "-", "--", "?", "??", ".",
}  # fmt: skip
URL = re.compile(r"\s*([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # one slash is what a path makes of two; C:/ is none
SHEET_ERROR = re.compile(r"#[^\W\d]+([/.]?[^\W_]+)?[!?]?|#div/0!")  # in lower case: #n/a, #ref!, #bezug!, #nv


class DataError(ValueError):
    """An error in the data that the user can correct; the message names the field, the value and the remedy."""


def remedy(error: OSError, otherwise: str = "check the file and the disk") -> str:
    """What a user can do about an error of the file system; `otherwise` where its kind does not tell."""
    return REMEDIES.get(error.errno or 0, otherwise)


def unwritable(error: OSError) -> str:
    """The end of a sentence about a place that cannot be written."""
    return f"cannot be written ({error.strerror or error}); {remedy(error)}"


def unreadable(error: OSError, otherwise: str = "check the file and the disk") -> str:
    """The end of a sentence about a place that cannot be read; `otherwise` as for `remedy`."""
    return f"cannot be read ({error.strerror or error}); {remedy(error, otherwise)}"


def is_class(name: str) -> bool:
    """True for a name that `class_id` knows."""
    return _plain(name) in CLASSES


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().lower()


def class_id(name: str) -> int:
    """Class id of a class name in any case, with or without blanks around it; raises `DataError` for an unknown name."""
    plain = _plain(name)
    if plain in CLASSES:
        return CLASSES.index(plain)
    near = TRANSLATED.get(plain) or next(iter(difflib.get_close_matches(plain, CLASSES, 1, 0.7)), None)
    guess = f"did you mean {near}? Write it so" if near else "write the one that is meant: nobody but you can know"
    raise DataError(f"unknown class {name!r}; the classes are {', '.join(CLASSES)} (any case); {guess}")


def is_unknown(text: str) -> bool:
    """True for what people and spreadsheets write where they know nothing, such as "n/a", "?" and "#REF!"."""
    plain = text.strip().casefold()
    return plain in UNKNOWN or bool(SHEET_ERROR.fullmatch(plain))


def abbreviate(items, shown: int = 5) -> str:
    """Comma-separated text of the first `shown` items and the number of the remaining ones, for a message."""
    items = [str(item) for item in items]
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")


def printable(text: str) -> str:
    """A text for a terminal: signs that would move its cursor or break a line, and bytes that are no UTF-8, become codes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


@dataclass(frozen=True)
class SequenceSet:
    """Sequences of one modality with random access; every data source returns one.

    `read` gives silhouettes uint8 `[s, 64, 64]`, skeleton maps uint8 `[s, 2, 64, 64]`, or poses float32 `[s, 17, 3]`, of which
    maps are drawn before a network reads them (`data_pipelines.poses.drawing`).

    A *sequence* is one walk. The identity loss separates sequences, so a sequence is also the *identity* of its clips.
    A *subject* is the person who walked; a partition never divides the sequences of a subject.
    """

    name: str  # name of the data in messages and results
    synthetic: bool  # True for generated walkers; every score on such a set says so
    sequences: tuple[str, ...]  # unique id of each sequence
    subjects: tuple[str, ...]  # subject of each sequence; the sequence id where the subject is unknown
    labels: np.ndarray  # int32 class id of each sequence
    n_frames: np.ndarray  # int32 number of frames of each sequence
    read: Callable[[int], np.ndarray]  # index -> [s, ...]; decodes one sequence; callable from several threads
    content: str = ""  # fingerprint of the frames, such as a digest of all checksums
    # What else is known of each sequence, such as sex or age: by name, one text for each sequence, empty where unknown. No
    # step depends on it, so it is no part of `digest`.
    traits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    modality: str = SILHOUETTES  # or SKELETONS, or POSES
    # Of poses and skeleton maps, what else a network may read: the postural asymmetry vector of each sequence, not normalised,
    # float32 [n, 8, 3].
    asymmetry: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Axes of a frame whose sides are removed, after that of frames."""
        return frame_shape(self.modality)

    def digest(self) -> str:
        """Sixteen hexadecimal digits that change with any id, subject, label or frame count, and with `content`."""
        columns = (self.sequences, self.subjects, self.labels.tolist(), self.n_frames.tolist(), self.content)
        return hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:16]

    def class_counts(self, rows: np.ndarray | None = None) -> dict[str, int]:
        """Number of sequences per class, in the order positive, neutral, negative; of `rows` only, if given."""
        labels = self.labels if rows is None else self.labels[rows]
        return {name: int(np.sum(labels == class_id(name))) for name in RATIO_ORDER}


def is_url(text: str) -> bool:
    """True for `gs://bucket/folder`, `file:///folder` and the like."""
    return bool(URL.match(text))


def local_path(text: str, field: str = "") -> str:
    """A path as it is, and the path of a `file://` URL.

    `field`: what gave the path, for the message. Raises `DataError` for any other URL: as a path it would be a folder `gs:`.
    """
    if not (found := URL.match(text)):
        return text
    name = f"{field}={text!r}" if field else repr(text)
    if found[1].lower() != "file":
        raise DataError(
            f"{name} is a URL where a path of this machine is needed; mount the bucket or share and give its path, or copy it "
            "(only data.root and data.partition read from gs:// and s3://)"
        )
    whole = text[found.end(1) + 1 :].rstrip()
    path = os.fsdecode(unquote_to_bytes(re.sub(r"^//(localhost)?(?=/)", "", whole, flags=re.IGNORECASE)))
    if path.startswith("//") or "\0" in path:
        raise DataError(f"{name} names no path of this machine; write file:///FOLDER, or the path alone")
    return path


def existing_folder(path: str | Path, field: str) -> Path:
    """The folder as a `Path`; raises `DataError` naming `field` if it is missing, not a folder, empty or unreadable."""
    try:
        folder = Path(path).expanduser()
        problem = "does not exist" if not folder.exists() else "is a file" if not folder.is_dir() else ""
        if not problem and not any(folder.iterdir()):
            problem = "is empty"
    except OSError as error:
        raise DataError(f"{field}={str(path)!r} {unreadable(error)}") from None
    except (RuntimeError, ValueError) as error:  # no home of that name; a NUL in the path
        raise DataError(f"{field}={str(path)!r} names no folder ({error}); give the whole path") from None
    if problem:
        raise DataError(f"{field}={str(path)!r} {problem}; give the folder that holds the data")
    return folder


def nested(one: Path, other: Path) -> bool:
    """True where two folders, links followed, are the same or one contains the other."""
    one, other = one.resolve(), other.resolve()
    return one == other or one in other.parents or other in one.parents


def cache_folder() -> Path:
    """`$SCOLIOJAX_CACHE`, or the user's cache folder if that is not set, absolute; `DataError` if the user has no home."""
    chosen = os.environ.get("SCOLIOJAX_CACHE")
    try:
        if chosen:
            return Path(local_path(chosen, "SCOLIOJAX_CACHE")).expanduser().absolute()
        caches = local_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME")
        return Path(caches).expanduser().absolute() / "scoliojax"
    except RuntimeError:  # in a container, a user id without an entry in the list of users
        raise DataError(
            "no home folder to keep a cache in: neither $HOME nor the list of users names one; set SCOLIOJAX_CACHE to a folder"
        ) from None
