"""Skeleton maps of a whole set of poses, drawn whenever a sequence is read."""

import dataclasses

import numpy as np

from data_pipelines.poses.maps import skeleton_maps
from data_pipelines.schema import POSES, SKELETONS, DataError, SequenceSet


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
