"""Reader of the released trees: `<root>/<sequence id>/<Class>/<view>/*.pkl`, or `*.png` (raw masks) or `*.json` (poses)."""

import functools
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.files import (
    DEEPER,
    MASKS,
    PICKLES,
    SHOWN,
    Listing,
    Unused,
    has_suffix,
    irregular_at,
    is_dead,
    list_folder,
    open_regular,
    other_frames,
)
from data_pipelines.masks import read_masks
from data_pipelines.names import COPY
from data_pipelines.poses.joints import JOINTS
from data_pipelines.schema import FRAME_SIZE, MARKER, DataError, abbreviate, class_id, existing_folder, is_class
from data_pipelines.scoliosis1k.safe_pickle import GZIP, MOST_BYTES, load_silhouettes
from data_pipelines.scoliosis1k.twins import States, same_files, spelt_alike, states_of

VERSION = "1.0.0"  # version of the prepared data set
SPLIT = "sequences"  # its only TFDS split; `splits.make_partition` divides it
POSE_BYTES = 4 * 3 * len(JOINTS)  # of a frame


@dataclass(frozen=True)
class ReleasedSequence:
    """One sequence of a released tree: one pickle, or in order files of one frame each, PNG masks or JSON poses."""

    sequence: str
    label: int
    folder: Path  # its name is the view
    names: tuple[str, ...]  # file names, not paths: 1,493 walks of 300 frames would need too many `Path` objects

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    @property
    def identity(self) -> Path:
        return self.folder.parents[1]

    @property
    def pickled(self) -> bool:
        return has_suffix(self.names[0], PICKLES)

    @functools.cached_property
    def nbytes(self) -> int:
        """Approximate size of the silhouettes or poses in bytes, known before they are read."""
        if not self.pickled:
            return (FRAME_SIZE**2 if has_suffix(self.names[0], MASKS) else POSE_BYTES) * len(self.names)
        try:
            with open_regular(self.folder / self.names[0]) as file:
                packed, size = file.read(len(GZIP)) == GZIP, file.seek(0, os.SEEK_END)
                if packed and size > 4:
                    file.seek(-4, os.SEEK_END)
                    size = max(size, int.from_bytes(file.read(4), "little"))  # gzip ends with the size of what is in it
        except (OSError, ValueError):  # a broken link, reported when it is read
            return 0
        return min(size, MOST_BYTES)

    @functools.cached_property
    def states(self) -> States:
        return states_of(self.folder, self.names)  # asked for once: a tree has hundreds of thousands of files

    def silhouettes(self) -> np.ndarray:
        """Normalised silhouettes, uint8 `[s, 64, 64]`; raises `DataError` naming a file that cannot be used.

        Of masks, frames in which nobody is seen are missing.
        """
        if self.pickled:
            return load_silhouettes(self.folder / self.names[0])  # s 64 64
        return read_masks(self.files, self.folder)[0]  # s 64 64

    def dropped(self, frames: int) -> int:
        """Number of masks that did not become one of so many silhouettes."""
        return 0 if self.pickled else len(self.names) - frames


class Survey(NamedTuple):
    """What a released tree holds, by the names of its files; only what may be a copy was opened."""

    sequences: list[ReleasedSequence]  # sorted by id
    problems: list[str]  # one line for each folder that cannot be used
    unused: Unused  # paths from the root; harmless
    remarks: list[str]  # lines for the user about what could be meant otherwise
    frames: tuple[str, ...] = MASKS  # suffixes of what holds one frame
    synthetic: bool = False  # the tree says that it shows nobody


def layout(frames: tuple[str, ...]) -> str:
    """How a tree is laid out whose frames have these suffixes, where a sequence is no pickle."""
    return f"<root>/<sequence id>/<Positive|Neutral|Negative>/<view>/*.pkl or *{frames[0]}"


def refuse_empty(found: Survey, root: str | Path, field: str) -> None:
    """Raise `DataError`, with the reason, where a tree has no sequence."""
    if not found.sequences:
        raise DataError(f"{field}={str(root)!r} {why_empty(Path(root).expanduser(), found)}")


def look_through(root: str | Path, field: str, shown: int | None = SHOWN, frames: tuple[str, ...] = MASKS) -> Survey:
    """What a released tree holds, also where that is no sequence, with so many names of what is not used, or all.

    `field` is the option that gave the tree, and `frames` are the suffixes of what holds one frame, where a sequence is no
    pickle.
    """
    folder = existing_folder(root, field)
    found = Survey([], [], Unused(shown), [], frames, (folder / MARKER).is_file())
    walker = _Walker(folder, found.unused, frames)
    for part in (folder / "scoliosis1k" / VERSION, folder / VERSION, folder):
        if (part / "features.json").is_file() or (part / "dataset_info.json").is_file() or any(part.glob("*.array_record*")):
            raise DataError(f"{field}={str(root)!r} {_why_no_set(part.absolute(), folder.absolute())}")
    for identity in walker.folders(folder, found.problems):
        try:
            found.sequences.append(_sequence_of(identity, walker))
        except DataError as error:
            found.problems.append(str(error))
        except OSError as error:
            found.problems.append(f"{identity}: cannot be read ({error})")
    found.sequences.sort(key=lambda sequence: sequence.sequence)
    pairs = same_files([one.states.inodes for one in found.sequences])
    ids = [one.sequence for one in found.sequences]
    twins = {ids[other]: f"holds the same files as {ids[one]} (a link)" for other, one in pairs.items()}
    accents = spelt_alike(ids, functools.partial(unicodedata.normalize, "NFC"))
    twins |= {name: f"has the name of {other}, with its accents in other codes" for name, other in accents.items()}
    found.problems.extend(
        f"{one.identity}: {twins[one.sequence]}, so one child would be two; remove one of them"
        for one in found.sequences
        if one.sequence in twins
    )
    found.sequences[:] = [one for one in found.sequences if one.sequence not in twins]
    cases = spelt_alike([one for one in ids if one not in twins], str.casefold)
    alike = "differ in upper case alone and count as two children; remove one if they are one child"
    found.remarks.extend(f"{folder}: {other} and {name} {alike}" for name, other in cases.items())
    return found


def _why_no_set(folder: Path, given: Path) -> str:
    """What to give instead of a prepared set or of a folder within one; `folder` is that of a version."""
    if not (folder / "dataset_info.json").is_file():
        return f"holds a prepared set that is not whole ({folder} lacks dataset_info.json); copy it again, or prepare it anew"
    if folder.parents[1] == given:
        return "is prepared already; give it as data.root, or as --input of data_pipelines.prepare --check"
    if (folder.parent.name, folder.name) == ("scoliosis1k", VERSION):
        return f"is a part of a prepared set; give the folder above it, {folder.parents[1]}"
    return f"holds files of a prepared set, whose place is scoliosis1k/{VERSION}; move them there, and give the folder above"


def why_empty(folder: Path, found: Survey) -> str:
    """Why a root has no sequence, above all one that stands a folder too high or too low."""
    outer = [child for child in _folders(folder) if any(map(_is_identity, _folders(child)))]
    if outer:
        return f"has no sequence, but {abbreviate(outer, 3)} has (an outer folder of an archive); give that folder"
    classes = [child for child in _folders(folder) if is_class(child.name)]
    if any(len(inner := _folders(child)) > 1 or any(map(_folders, inner)) for child in classes):
        names = abbreviate([child.name for child in classes], 3)
        return f"has the class above the sequence ({names}): the two folders changed places; expected {layout(found.frames)}"
    if _is_identity(folder):
        return f"is the folder of one sequence; give the folder above it, {folder.absolute().parent}"
    why = f" ({abbreviate(found.problems, 2)})" if found.problems else ""
    return f"has no sequence{why}; expected {layout(found.frames)}"


def _is_identity(folder: Path) -> bool:
    """True for a folder with a class folder in it."""
    return any(is_class(child.name) for child in _folders(folder))


def _folders(folder: Path) -> list[Path]:
    """Folders within a folder; none of one that cannot be read, which is a problem of its own."""
    try:
        return [folder / name for name in list_folder(folder).folders]
    except OSError:
        return []


class _Walker:
    """Lists the folders of a tree and notes what is not used."""

    def __init__(self, root: Path, unused: Unused, frames: tuple[str, ...]):
        self.root, self.unused, self.frames = root, unused, frames

    def look(self, folder: Path, *suffixes: str) -> Listing:
        found = list_folder(folder, *suffixes)
        found.refuse_problems(folder)
        for reason, names in found.unused.items():
            self.note(reason, folder, names)
        return found

    def note(self, reason: str, folder: Path, names: Sequence[str]) -> None:
        if folder == self.root:
            names = [name for name in names if name != MARKER]
        self.unused.add(reason, str(folder.relative_to(self.root)) if folder != self.root else "", names)

    def folders(self, folder: Path, problems: list[str]) -> list[Path]:
        """Folders within a folder of folders; what should be one and is none is a problem, such as a dead link."""
        found = self.look(folder)
        for name in found.others:
            path = folder / name
            if is_dead(path):
                problems.append(
                    f"{path}: is a link to {os.readlink(path)}, which is not there; bring it back or remove the link"
                )
            elif "." not in name:  # as the name of a sequence, a class or a view
                problems.append(f"{path}: is {irregular_at(path) or 'a file'} where a folder is expected; remove it")
        for name in [*found.folders]:
            try:
                name.encode()
            except UnicodeEncodeError:  # ids become text of the prepared set
                found.folders.remove(name)
                problems.append(f"{folder / name}: its name is not UTF-8; rename it".encode(errors="backslashreplace").decode())
        return [folder / name for name in found.folders]


def _sequence_of(identity: Path, walker: _Walker) -> ReleasedSequence:
    """The one sequence of an identity folder; two would share an identity, and the identity loss would mix them up."""
    views: list[Path] = []
    problems: list[str] = []
    for folder in walker.folders(identity, problems):
        if not is_class(folder.name) and _is_identity(folder):
            raise DataError(
                f"{identity}: an outer folder, whose sequences lie one folder deeper; move them up into {walker.root}"
            )
        views += walker.folders(folder, problems)
        try:
            class_id(folder.name)
        except DataError as error:
            raise DataError(f"{folder}: {error}") from None
    if problems:
        raise DataError(problems[0])
    if (original := COPY.sub("", identity.name)) != identity.name and identity.with_name(original).exists():
        raise DataError(f"{identity}: is called as a copy of {original} and holds something else; rename or delete it")
    if original != identity.name:
        raise DataError(f"{identity}: a second copy by its name; rename it to {original}, or delete it")
    if len(views) != 1:
        raise DataError(f"{identity}: {len(views)} sequences where one is expected; the layout is {layout(walker.frames)}")
    listing, kind = walker.look(views[0], *PICKLES, *walker.frames), walker.frames[0]
    walker.note(DEEPER, views[0], listing.folders)
    pickles = [name for name in listing.used if has_suffix(name, PICKLES)]
    images = [name for name in listing.used if name not in pickles] if pickles else listing.used
    if bool(pickles) == bool(images) or len(pickles) > 1:
        counts = f"{len(pickles)} .pkl and {len(images)} {kind} files{other_frames(listing.others)}"
        raise DataError(f"{views[0]}: {counts}; expected one .pkl, or {kind} frames only")
    return ReleasedSequence(identity.name, class_id(views[0].parent.name), views[0], tuple(pickles or images))


def refuse(problems: list[str]) -> None:
    """Raise `DataError` with the first problems of a tree, if it has any."""
    if problems:
        raise DataError(f"{abbreviate(problems, 3)}; fix the data, or go on without with --skip-bad")
