"""Two released trees side by side: what there is of each walk, silhouettes, poses or both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_pipelines.files import MASKS
from data_pipelines.files import POSES as POSE_FRAMES
from data_pipelines.poses.reading import like_poses
from data_pipelines.schema import CLASSES, FRAME_SIZE, POSES, SILHOUETTES, DataError, abbreviate
from data_pipelines.scoliosis1k.metadata import fingerprint, is_of
from data_pipelines.scoliosis1k.release_tree import ReleasedSequence, Survey, look_through, refuse_empty
from data_pipelines.scoliosis1k.safe_pickle import MOST_BYTES, load_array

FRAMES = {SILHOUETTES: MASKS, POSES: POSE_FRAMES}  # suffixes of what holds one frame of each modality
LOOKED_AT = 3  # first sequences of a tree, which tell what it holds


class Names(NamedTuple):
    """What gave the folders of a preparation, for messages."""

    input: str = "--input"
    output: str = "--output"
    poses: str = "--poses"


class Walk(NamedTuple):
    """What two trees have of one sequence; at least one of them has it."""

    silhouettes: ReleasedSequence | None
    poses: ReleasedSequence | None

    @property
    def both(self) -> list[ReleasedSequence]:
        return [one for one in self if one]

    @property
    def sequence(self) -> str:
        return self.both[0].sequence

    @property
    def label(self) -> int:
        return self.both[0].label

    @property
    def view(self) -> str:
        return self.both[0].folder.name

    @property
    def nbytes(self) -> int:
        """Approximate size in bytes, known before anything is read."""
        return sum(one.nbytes for one in self.both)


@dataclass(frozen=True)
class Trees:
    """The released trees of a preparation, of which one may be missing."""

    silhouettes: Survey | None
    poses: Survey | None
    walks: list[Walk]  # sorted by id
    problems: list[str]  # one line for each folder or sequence that cannot be used
    remarks: list[str]  # lines for the user about what could be meant otherwise

    @property
    def sequences(self) -> list[str]:
        return [one.sequence for one in self.walks]

    def strangers(self, names: Names) -> str:
        """What to say of two trees without a sequence in common; empty of others."""
        if not (self.silhouettes and self.poses):
            return ""
        one, other = ([each.sequence for each in tree.sequences] for tree in (self.silhouettes, self.poses))
        if not one or not other or {*one} & {*other}:
            return ""
        which = f"{names.input} ({abbreviate(one, 3)}) and {names.poses} ({abbreviate(other, 3)})"
        return f"{which} have no sequence in common; name the sequences alike, or prepare the two trees one by one"

    def source(self, settings: str) -> str:
        """Fingerprint of all files, and of `settings`."""
        return fingerprint(*self._source(settings))

    def made(self, metadata: Mapping, settings: str) -> bool:
        """True for metadata of a set that was prepared from these trees and settings."""
        return is_of(metadata, *self._source(settings))

    def _source(self, settings: str) -> tuple[list[ReleasedSequence], str]:
        further = f" poses {fingerprint(self.poses.sequences)}" if self.poses else ""
        return self.silhouettes.sequences if self.silhouettes else [], settings + further


def look_at(silhouettes: str | None, poses: str | None, names: Names) -> Trees:
    """What released trees hold; raises `DataError` for one without a sequence or of the other modality, and for strangers."""
    tree = survey_of(silhouettes, names.input, SILHOUETTES, f"give it as {names.poses}") if silhouettes else None
    other = survey_of(poses, names.poses, POSES, f"give it as {names.input}") if poses else None
    found = side_by_side(tree, other)
    if strange := found.strangers(names):
        raise DataError(strange)
    return found


def side_by_side(silhouettes: Survey | None, poses: Survey | None) -> Trees:
    """Pair the sequences of two trees by their ids."""
    trees = [tree for tree in (silhouettes, poses) if tree]
    walks, problems = [], [line for tree in trees for line in tree.problems]
    one, other = ({each.sequence: each for each in tree.sequences} if tree else {} for tree in (silhouettes, poses))
    for sequence in sorted(one.keys() | other.keys()):
        walk = Walk(one.get(sequence), other.get(sequence))
        if len({each.label for each in walk.both}) > 1:
            classes = " and ".join(f"{CLASSES[each.label]} in {each.folder.parent}" for each in walk.both)
            problems.append(f"{sequence}: {classes}; nobody but you can know which is right: correct the other")
        else:
            walks.append(walk)
    return Trees(silhouettes, poses, walks, problems, [line for tree in trees for line in tree.remarks])


def survey_of(root: str | Path, field: str, modality: str, remedy: str) -> Survey:
    """What a released tree of a modality holds; raises `DataError`, with the `remedy` for a tree of the other modality.

    `field` is the option or key that gave the tree.
    """
    found = look_through(root, field, frames=FRAMES[modality])
    if mistaken := other_modality(found, root, field):
        raise DataError(f"{field}={str(root)!r} holds {mistaken}, no {modality}; {remedy}")
    refuse_empty(found, root, field)
    return found


def other_modality(found: Survey, root: str | Path, field: str) -> str:
    """The modality of a tree that was looked through for the other one; empty for the right one, or if nobody can tell."""
    other = POSES if found.frames == FRAMES[SILHOUETTES] else SILHOUETTES
    if not found.sequences:
        again = look_through(root, field, frames=FRAMES[other])
        return other if any(not one.pickled for one in again.sequences) else ""
    return other if {*map(_modality_of, found.sequences[:LOOKED_AT])} == {other} else ""


def _modality_of(sequence: ReleasedSequence) -> str:
    """The modality of a pickle, by the shape of its array; empty if nobody can tell."""
    if not sequence.pickled:
        return ""
    try:
        shape = load_array(sequence.files[0], MOST_BYTES, "").shape
    except DataError:  # said when it is read
        return ""
    if like_poses(shape):
        return POSES
    return SILHOUETTES if len(shape) in (3, 4) and FRAME_SIZE in shape[1:] else ""
