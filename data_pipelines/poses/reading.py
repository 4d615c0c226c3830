"""Readers of poses: the pickles of the pose release, and folders of one JSON a frame as OpenPose writes it.

A sequence that cannot be used is one `DataError` that names the file or folder, what is wrong, and the remedy.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.files import PICKLES, POSES, has_suffix, kind_of, list_folder, read_file
from data_pipelines.names import missing_numbers
from data_pipelines.poses.joints import HIPS, JOINTS, LEAST_SURE, SHOULDERS
from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH, DataError, abbreviate
from data_pipelines.scoliosis1k.release_tree import ReleasedSequence
from data_pipelines.scoliosis1k.safe_pickle import load_array

VERSION = 1  # of these rules; sets of poses in the cache that others made are not used
MOST_BYTES = 2**24  # of a pickle: 41,000 frames in double precision
MOST_FRAME_BYTES = 2**20  # of a JSON
NUMBERS = 3 * len(JOINTS)
EACH = "x, y and confidence of COCO's joints"
WANTED = f"[frames, {len(JOINTS)}, 3]: {EACH}"
SKELETONS = {  # by number of joints: whose they are
    15: "BODY-15 or MPI", 16: "MPII", 18: "COCO-18 of OpenPose, with a neck", 25: "BODY-25 of OpenPose", 26: "Halpe-26",
    33: "the landmarks of BlazePose", 39: "the landmarks of BlazePose", 133: "the whole body of COCO", 136: "Halpe-136",
    135: "BODY-135 of OpenPose", 137: "the whole body of OpenPose",
}  # fmt: skip
MOST_PIXELS = 2.0**15  # distance from the corner of a picture; 8K video has 7,680 columns
LEAST_PIXELS = 2.0  # which a coordinate of some frame reaches; fractions of the picture do not


class Poses(NamedTuple):
    """The poses of one sequence, without the frames in which nobody is seen."""

    joints: np.ndarray  # float32 [s, 17, 3]; x to the right and y down in pixels, confidence 0..1; 0, 0, 0: not found
    places: np.ndarray  # int64 [s]; number of each frame among all that were given
    given: int  # number of frames that were given
    remarks: tuple[str, ...]  # lines for the user about what was not used
    names: tuple[str, ...] = ()  # of the files of a folder, one a frame
    crowded: int = 0  # number of frames that show several people, of whom the first is taken
    gaps: int = 0  # number of frames that are missing by their numbers

    @property
    def never(self) -> list[str]:
        """Names of the joints that are seen in no frame."""
        return [
            joint for joint, sure in zip(JOINTS, self.joints[..., 2].max(axis=0, initial=0), strict=True) if sure < LEAST_SURE
        ]


def read_sequence(sequence: ReleasedSequence) -> Poses:
    """The poses of a sequence of a tree; raises `DataError`."""
    return read_poses(sequence.folder / sequence.names[0] if sequence.pickled else sequence.folder)


def read_poses(path: Path) -> Poses:
    """The poses of a pickle, or of a folder of one JSON a frame; raises `DataError` for what cannot be used."""
    if has_suffix(path.name, PICKLES):
        return check_poses(load_array(path, MOST_BYTES, WANTED), path)
    if not path.is_dir():
        raise DataError(f"{path}: is no folder of {POSES[0]} frames and no pickle; give one of both")
    listing = list_folder(path, *POSES)
    listing.refuse_problems(path)
    if not listing.used:
        raise DataError(f"{path}: holds no {POSES[0]} frame; give a folder with one for each frame, or a pickle {WANTED}")
    read = [_frame(path / name) for name in listing.used]
    crowded = [name for name, (_, people) in zip(listing.used, read, strict=True) if people > 1]
    remarks = []
    if crowded:
        names = abbreviate(crowded, 3)
        remarks.append(f"{path}: {len(crowded)} of {len(read)} frames show several people ({names}); the first is taken")
    if gaps := missing_numbers(listing.used, *POSES):
        remarks.append(f"{path}: frames that are missing by their numbers: {gaps}")
    found = check_poses(np.stack([joints for joints, _ in read]), path)
    remarks += found.remarks
    return found._replace(remarks=tuple(remarks), crowded=len(crowded), gaps=gaps, names=tuple(listing.used))


def _frame(path: Path) -> tuple[np.ndarray, int]:
    """Joints float64 `[17, 3]` of the first person of a frame, zeros where there is none, and the number of people."""
    content = read_file(path, MOST_FRAME_BYTES)
    kind, remedy = kind_of(content) if content.strip() else ("an empty file", "")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({kind or ' '.join(str(error).split())}); {remedy or 'write it again'}") from None
    people = found.get("people") if isinstance(found, dict) else None
    if not isinstance(people, list):
        wanted = '{"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}]}'
        raise DataError(f'{path}: has no list "people"; write it as OpenPose does: {wanted}')
    if not people:
        return np.zeros((len(JOINTS), 3)), 0
    numbers = people[0].get("pose_keypoints_2d") if isinstance(people[0], dict) else None
    if not isinstance(numbers, list):
        raise DataError(f'{path}: its first person has no list "pose_keypoints_2d"; give {NUMBERS} numbers, {EACH}')
    if odd := [number for number in numbers if isinstance(number, bool) or not isinstance(number, (int, float))]:
        raise DataError(f"{path}: {str(odd[0])[:40]!r} in pose_keypoints_2d is no number; write {NUMBERS} numbers")
    if len(numbers) != NUMBERS:
        what = f"{len(numbers)} numbers in pose_keypoints_2d{_skeleton_of(len(numbers))}"
        raise DataError(f"{path}: {what}; give {NUMBERS}, {EACH}")
    try:
        return np.array(numbers, np.float64).reshape(-1, 3), len(people)
    except OverflowError:
        raise DataError(f"{path}: a number in pose_keypoints_2d is beyond all pictures; write pixels") from None


def _skeleton_of(numbers: int) -> str:
    """What so many numbers are, in brackets; empty if nobody knows."""
    if numbers % 3 == 0 and numbers // 3 in SKELETONS:
        return f" ({numbers // 3} joints: {SKELETONS[numbers // 3]})"
    return f" ({len(JOINTS)} joints without confidences)" if numbers == 2 * len(JOINTS) else ""


def check_poses(poses: np.ndarray, name: object) -> Poses:
    """The poses of a sequence, after all that can be told from the numbers; `name` is its file or folder, for messages.

    Frames in which no joint is seen are left out, counted and named. Raises `DataError` where no frame is left, and for what
    are no poses: other joints, other axes, no numbers, confidences that are none, coordinates that are no pixels.
    """
    if poses.ndim != 3 or poses.shape[1:] != (len(JOINTS), 3) or not len(poses):
        raise DataError(f"{name}: shape {poses.shape} {_other_shape(poses.shape)}")
    if poses.dtype.kind not in "iuf":
        raise DataError(f"{name}: dtype {poses.dtype}; write numbers, float32")
    with np.errstate(over="ignore"):
        poses = poses.astype(np.float32)  # s 17 3
    _check_numbers(poses, name)
    seen = (poses[..., 2] >= LEAST_SURE).any(axis=1)  # s
    if not seen.any():
        what = "places, but every confidence is 0" if poses.any() else "no joint in any frame"
        raise DataError(f"{name}: {what} ({len(poses)} frames), so nobody is seen; give poses of a person, with confidences")
    places = np.flatnonzero(seen)  # s
    joints = poses[places]  # s 17 3
    _check_places(joints, name)
    remarks = []
    if len(lost := np.flatnonzero(~seen)):
        numbers = f"{len(lost)} of {len(poses)} frames (number {abbreviate(lost, 3)})"
        remarks.append(f"{name}: no joint is seen in {numbers}; they are left out")
    found = Poses(joints, places, len(poses), ())
    if never := found.never:
        remarks.append(f"{name}: seen in no frame: {', '.join(never)}")
    return found._replace(remarks=tuple(remarks))


def like_poses(shape: tuple[int, ...]) -> bool:
    """True for the shape of an array that `check_poses` takes, or knows by name, and that no silhouettes have."""
    if shape[1:] in ((3, len(JOINTS)), (NUMBERS,)) or shape == (len(JOINTS), 3):
        return True
    return shape[-1:] in ((2,), (3,)) and (len(shape) == 3 or (len(shape) == 4 and shape[2] in (len(JOINTS), *SKELETONS)))


def _other_shape(shape: tuple[int, ...]) -> str:
    """What a shape that is none of poses may be, and what to give instead."""
    if shape[-2:] == (FRAME_SIZE, FRAME_SIZE) or shape[1:3] in ((FRAME_SIZE, FRAME_SIZE), (FRAME_SIZE, FRAME_WIDTH)):
        return f"is the silhouette release; give the pose release, {WANTED}"
    what = "is none of poses"
    if shape and not shape[0]:
        what = "has no frame"
    elif shape == (len(JOINTS), 3):
        what = "is one frame"
    elif shape[1:] == (len(JOINTS), 2):
        what = "has no confidences"
    elif shape[1:] == (3, len(JOINTS)):
        what = "has its axes in another order"
    elif shape[1:] == (NUMBERS,):
        what = "has all numbers of a frame in a row"
    elif len(shape) == 4 and shape[2:] == (len(JOINTS), 3):
        what = "has an axis of people"
    elif len(shape) == 3 and shape[2] in (2, 3):
        known = SKELETONS.get(shape[1])
        what = f"has {shape[1]} joints" + (f" ({known})" if known else "")
    return f"{what}; give {WANTED}"


def _check_numbers(poses: np.ndarray, name: object) -> None:
    """Refuse numbers, float32 `[s, 17, 3]`, that are no pixels and confidences, with the first frame and joint."""
    confidence = poses[..., 2]  # s 17

    def refuse(wrong: np.ndarray, says: str) -> None:
        if wrong.any():
            frame, joint = np.argwhere(wrong)[0]
            x, y, sure = poses[frame, joint]
            raise DataError(f"{name}: frame {frame}, {JOINTS[joint]}: {says.format(x=x, y=y, sure=sure)}")

    says = "{x:g}, {y:g}, {sure:g} are not all numbers; write 0, 0, 0 for a joint that was not found"
    refuse(~np.asarray(np.isfinite(poses).all(axis=2)), says)
    percent = 2 < confidence.max() <= 100 and confidence.min() >= 0
    remedy = "divide by 100" if percent else "write confidences 0..1"
    refuse((confidence < 0) | (confidence > 1), f"confidence {{sure:g}}; {remedy}")
    refuse(np.abs(poses[..., :2]).max(axis=2) > MOST_PIXELS, "x={x:g}, y={y:g} is no place in a picture; write pixels")


def _check_places(joints: np.ndarray, name: object) -> None:
    """Refuse a walk, float32 `[s, 17, 3]`, whose coordinates are fractions or whose axes are others."""
    found = joints[..., 2] >= LEAST_SURE  # s 17
    if (largest := float(np.abs(joints[..., :2][found]).max())) <= LEAST_PIXELS:
        what = f"its coordinates reach {largest:g} and are fractions of the picture"
        raise DataError(f"{name}: {what}; multiply x by its width and y by its height")
    both = found[:, [*SHOULDERS, *HIPS]].all(axis=1)  # s
    if both.any():
        trunk = joints[both][:, HIPS, :2].mean(axis=1) - joints[both][:, SHOULDERS, :2].mean(axis=1)  # s 2
        across, down = np.median(np.abs(trunk[:, 0])), np.median(trunk[:, 1])
        if not down > across:
            way = "is upside down" if down < -across else "lies on its side"
            raise DataError(f"{name}: the body {way}; give x to the right and then y down, of a person who stands")


def check_same_frames(silhouettes: int, poses: int, name: object) -> None:
    """Raise `DataError` where silhouettes and poses of a sequence, `name`, were made of different numbers of frames."""
    if silhouettes != poses:
        what = f"{silhouettes} silhouettes and {poses} poses, so nobody knows which belong together"
        raise DataError(f"{name}: {what}; give both of the same frames, or prepare the two trees one by one")
