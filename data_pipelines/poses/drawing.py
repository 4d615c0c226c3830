"""Skeleton maps of a whole set of poses, drawn whenever a sequence is read, and the poses of a tree that can be drawn."""

import dataclasses

import numpy as np

from data_pipelines.poses.maps import flat_frames, never_placed, skeleton_maps
from data_pipelines.poses.reading import Poses, read_sequence
from data_pipelines.schema import POSES, SKELETONS, DataError, SequenceSet
from data_pipelines.scoliosis1k.release_tree import ReleasedSequence


def drawn(data: SequenceSet, align: str = "each", body_only: bool = False, sigma: float = 8.0) -> SequenceSet:
    """The set of skeleton maps of a set of poses, with the same sequences, frames and asymmetry vectors.

    The arguments behind the set are those of `skeleton_maps`. A frame that cannot be scaled is a `DataError` of `read`, with
    the names of the set and of the sequence.
    """
    if data.modality != POSES:
        raise ValueError(f"{data.name}: {data.modality}, of which no map can be drawn; give poses")

    def read(row: int) -> np.ndarray:
        poses = data.read(row)  # s 17 3
        try:
            return skeleton_maps(poses, align, body_only, sigma)  # s 2 64 64
        except DataError as error:
            raise DataError(f"{data.name}: sequence {data.sequences[row]}: {error}") from None

    content = f"{data.content}; maps: align={align}, body_only={body_only}, sigma={float(sigma)}"
    return dataclasses.replace(data, modality=SKELETONS, read=read, content=content)


def read_drawable(sequence: ReleasedSequence) -> Poses:
    """As `reading.read_sequence`; raises `DataError` also where no map can be drawn, as it cannot be centred or scaled."""
    poses = read_sequence(sequence)
    if lost := [name for name in never_placed(poses.joints) if "hip" in name]:
        what = f"no {' and no '.join(lost)} in any frame, so no body can be centred"
        raise DataError(f"{sequence.folder}: {what}; find the joints anew, or leave the sequence out")
    if len(flat := poses.places[flat_frames(poses.joints)]):
        what = "all its joints have one height, so no body can be scaled"
        raise DataError(f"{sequence.folder}: frame {flat[0]}: {what}; remove it")
    return poses
