"""Reader of the released trees: `<root>/<sequence id>/<Class>/<view>/*.pkl` (silhouettes) or `*.png` (raw masks)."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.schema import FRAME_SIZE, DataError, abbreviate, class_id, existing_folder
from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from data_pipelines.silhouettes import normalise_sequence

LAYOUT = "<root>/<sequence id>/<Positive|Neutral|Negative>/<view>/*.pkl or *.png"
VERSION = "1.0.0"  # version of the prepared data set
SPLIT = "sequences"  # its only TFDS split; `splits.make_partition` divides it


@dataclass(frozen=True)
class ReleasedSequence:
    """One sequence of a released tree: one pickle, or PNG frames in order."""

    sequence: str
    label: int
    folder: Path  # its name is the view
    names: tuple[str, ...]  # file names, not paths: 1,493 walks of 300 frames would need too many `Path` objects

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    @functools.cached_property
    def nbytes(self) -> int:
        """Approximate size of the silhouettes in bytes, known before they are read."""
        if not self.names[0].endswith(".pkl"):
            return FRAME_SIZE**2 * len(self.names)
        try:
            return os.path.getsize(self.folder / self.names[0])
        except OSError:  # a broken link, reported when it is read
            return 0

    def silhouettes(self) -> np.ndarray:
        """Normalised silhouettes, uint8 `[s, 64, 64]`; raises `DataError` naming a file that cannot be used."""
        if self.names[0].endswith(".pkl"):
            return load_silhouettes(self.folder / self.names[0])  # s 64 64
        frames = normalise_sequence(map(read_mask, self.files))  # s 64 64
        if len(frames) == 0:
            raise DataError(f"{self.folder}: none of its {len(self.names)} masks shows a usable person")
        return frames


def read_mask(path: Path) -> np.ndarray:
    """Grey values of a PNG, uint8 `[h, w]`; raises `DataError` naming a file that cannot be read."""
    import cv2  # imported here so that commands answer --help without it

    try:
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # the header claims more pixels than OpenCV accepts
        mask = None
    if mask is None:
        raise DataError(f"{path}: not a readable PNG")
    return mask  # h w


def scan(root: str | Path, field: str) -> tuple[list[ReleasedSequence], list[str]]:
    """The sequences of a released tree, sorted by id, not opened, and one line for each folder that cannot be used.

    `field` is the option that gave the tree, for the `DataError` of a root without any sequence.
    """
    folder = existing_folder(root, field)
    sequences: list[ReleasedSequence] = []
    problems: list[str] = []
    for identity in _folders(folder):
        try:
            sequences.append(_sequence_of(identity))
        except DataError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{identity}: cannot be read ({error})")
    if not sequences:
        why = f" ({abbreviate(problems, 2)})" if problems else ""
        raise DataError(f"{field}={str(root)!r} has no sequence{why}; expected {LAYOUT}")
    return sequences, problems


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _sequence_of(identity: Path) -> ReleasedSequence:
    """The one sequence of an identity folder; two would share an identity, and the identity loss would mix them up."""
    views: list[Path] = []
    for folder in _folders(identity):
        views += _folders(folder)
        try:
            class_id(folder.name)
        except DataError as error:
            raise DataError(f"{folder}: {error}") from None
    if len(views) != 1:
        raise DataError(f"{identity}: {len(views)} sequences where one is expected; the layout is {LAYOUT}")
    names = sorted(os.listdir(views[0]))
    pickles, images = ([name for name in names if name.endswith(suffix)] for suffix in (".pkl", ".png"))
    if bool(pickles) == bool(images) or len(pickles) > 1:
        raise DataError(f"{views[0]}: {len(pickles)} .pkl and {len(images)} .png files; expected one .pkl, or .png frames only")
    return ReleasedSequence(identity.name, class_id(views[0].parent.name), views[0], tuple(pickles or images))


def fingerprint(sequences: list[ReleasedSequence], settings: str = "") -> str:
    """Sixteen hexadecimal digits that change with any file's path, size or modification time, and with `settings`."""
    digest = hashlib.sha256(settings.encode())
    for sequence in sequences:
        folder = str(sequence.folder.resolve())
        for name in sequence.names:
            path = os.path.join(folder, name)
            path = os.path.realpath(path) if os.path.islink(path) else path
            try:
                stat = os.stat(path)
                state = f"{stat.st_size}|{stat.st_mtime_ns}"
            except OSError:  # a broken link
                state = "cannot be read"
            digest.update(os.fsencode(f"{path}|{state}\n"))
    return digest.hexdigest()[:16]


def metadata_digest(metadata: Mapping) -> str:
    """SHA-256 of all metadata except `digest` itself."""
    content = {name: value for name, value in metadata.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
