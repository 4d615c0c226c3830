"""Silhouettes and poses of one walk from any input, silhouettes normalised exactly as training data are, and flags."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files import (
    BEGINNING,
    LEFT,
    MASKS,
    OTHERS,
    PICKLES,
    POSES,
    Listing,
    Unused,
    has_suffix,
    irregular_at,
    is_dead,
    list_folder,
    list_names,
    not_whole,
    partial,
    read_file,
    remarks,
)
from data_pipelines.gait import FEW_CYCLES
from data_pipelines.masks import read_masks
from data_pipelines.names import COPY
from data_pipelines.pictures import MOST_BYTES
from data_pipelines.poses.quality import judge_poses
from data_pipelines.poses.reading import WANTED as WANTED_POSES
from data_pipelines.poses.reading import Poses, check_poses, like_poses, read_poses
from data_pipelines.quality import Quality, judge
from data_pipelines.schema import FEWEST_FRAMES, FRAME_SIZE, DataError, abbreviate, printable
from data_pipelines.scoliosis1k.safe_pickle import MOST_BYTES as MOST_PICKLED
from data_pipelines.scoliosis1k.safe_pickle import WANTED, as_silhouettes, load_array
from data_pipelines.video.decoding import GIVE, SUFFIXES, Frame, Video, what_else
from data_pipelines.video.flags import Flag, video_flags
from data_pipelines.video.people import Outline, Person, Segmenter, choose, described, follow

OR_POSES = f", or poses {WANTED_POSES}"  # what a pickle may hold beside silhouettes
FEW_FRAMES = 60  # a walk with fewer usable frames is flagged as short


Report = Callable[[str, int, int | None], None]  # told a stage, the frames done, and all frames, None if unknown


def silent(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""


@dataclass
class Walk:
    name: str  # file or folder name
    kind: str  # "video", "masks", "silhouettes" or "poses"
    silhouettes: np.ndarray  # uint8 [s, 64, 64], normalised; [0, 64, 64] of a walk of poses
    frames: np.ndarray  # int [s], number of each frame in the input
    times: np.ndarray | None = None  # float [s], seconds from the first frame; None for an input without times
    poses: np.ndarray | None = None  # float32 [s, 17, 3] in pixels of the input's frames; None where nothing gives joints
    source: dict[str, Any] = field(default_factory=dict)  # properties of the input
    flags: list[Flag] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)  # all candidates of a video, the best score first
    taken: list[int] = field(default_factory=list)  # numbers of those who were taken, from 1; empty without candidates
    shape: tuple[int, int] | None = None  # height and width of a frame of a video, in pixels

    @cached_property
    def quality(self) -> Quality:
        """The judgement of the silhouettes, or of the kind "poses" of these; no answer where a finding is grave."""
        return self.pose_quality if self.kind == "poses" else judge(self.silhouettes, self.times)

    @cached_property
    def pose_quality(self) -> Quality:
        """The judgement of the poses; raises `DataError` for a walk that has none."""
        if self.poses is None:
            raise DataError(f"{self.name} has no poses, only silhouettes; give poses, or a video")
        return judge_poses(self.poses, self.times)

    @property
    def choice(self) -> dict[str, Any] | None:
        """The candidates of a video and the numbers of those who were taken; None where there was nothing to choose."""
        if len(self.people) < 2:
            return None
        return {"taken": self.taken, "candidates": described(self.people, self.source["frames_taken"])}


def inputs_of(path: Path, report: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Inputs of single walks: the path itself, or the videos in a folder of videos; `report` receives what else lies there.

    A video that was not downloaded to its end is among them, for `read_walk` to say so.
    """
    if not path.is_dir():
        _refuse_no_walk(path)
        return [path]
    kinds = SUFFIXES, MASKS, PICKLES, POSES
    found = list_names(path, *(suffix for kind in kinds for suffix in kind))
    videos, masks, pickles, poses = ([name for name in found.used if has_suffix(name, kind)] for kind in kinds)
    videos = [name for name in videos if not (path / name).is_dir()]
    if odd := [path / name for name in videos if not (path / name).is_file()]:
        raise DataError(f"{odd[0]} is {irregular_at(odd[0]) or 'a link to what is not there'}, no video; remove it")
    parts = [name for name in found.parts if partial(name, SUFFIXES)]
    if masks and videos:
        raise DataError(f"{path} holds mask PNGs and videos; give a folder of either")
    if masks:
        return [path]
    if videos or parts:
        unused = Unused()
        for reason, names in (
            (OTHERS, [*found.others, *pickles, *poses]),
            ("folders beside videos", found.folders),
            (LEFT, found.leftovers),
        ):
            unused.add(reason, path.name, names)
        for line in remarks(unused.as_json()):
            report(line)
        return [path / name for name in sorted([*videos, *parts])]
    if pickles := [name for name in pickles if (path / name).is_file()]:
        raise DataError(f"{path} holds pickles ({abbreviate(pickles, 3)}); give the file of one walk")
    if poses:
        return [path]
    if deeper := [path / name for name in found.folders if _has_frames(path / name)]:
        raise DataError(f"{path} holds folders of mask PNGs or poses ({abbreviate(deeper, 3)}); give the folder of one walk")
    others = sorted([*found.used, *found.folders, *found.others, *found.parts])
    what = f"; it holds {abbreviate(others, 3)}" if others else ", nor anything else"
    raise DataError(f"{path} holds neither mask PNGs (*.png), poses (*.json) nor videos ({', '.join(sorted(SUFFIXES))}){what}")


def _refuse_no_walk(path: Path) -> None:
    """Raise `DataError` for what is no file, no whole one, or neither by its name nor by its beginning a video or a pickle."""
    if whole := partial(path.name, (*SUFFIXES, *PICKLES, *MASKS, *POSES)):
        raise DataError(f"{path} {not_whole(whole)}")
    if not path.exists():
        raise DataError(f"{path} {'is a link to what is not there' if is_dead(path) else 'does not exist'}; {GIVE}")
    if kind := irregular_at(path):
        raise DataError(f"{path} is {kind}; {GIVE}")
    if has_suffix(path.name, (*SUFFIXES, *PICKLES)):
        return
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
    if beginning.startswith(b"\x80") and beginning[1:2] <= b"\x05":
        name = f"{COPY.sub('', path.name).removesuffix('.pkl')}.pkl"
        raise DataError(f"{path} is a pickle by its beginning; rename it to {name}")
    if has_suffix(path.name, POSES):
        raise DataError(f"{path} is no walk, but perhaps the pose of one frame; give the folder of all poses of one walk")
    if what := what_else(path):
        one = has_suffix(path.name, MASKS)
        raise DataError(f"{path}{' is a single picture; give the folder of all masks of one walk' if one else what}")


def _has_frames(folder: Path) -> bool:
    try:
        return bool(list_names(folder, *MASKS, *POSES).used)
    except OSError:
        return False


def needs_segmenter(path: Path) -> bool:
    """True for a video; a folder of masks or poses and a pickle hold silhouettes or joints already."""
    return not path.is_dir() and not has_suffix(path.name, PICKLES)


def read_walk(
    path: Path,
    segmenter: Segmenter | None,
    person: list[int] | None = None,
    report: Report = silent,
    rate: float | None = None,
) -> Walk:
    """Read a video with a backend, or, without one, a folder of mask PNGs or poses, or a pickle of silhouettes or poses.

    A walk of poses alone is of the kind "poses".

    `person` has numbers of candidates, as `wanted` of `people.choose`; `report` is told how far a video is read, and ends the
    reading by raising; `rate` is that of poses, in frames a second. Raises `DataError` for what is none of these.
    """
    names = None
    if not path.is_dir():
        _refuse_no_walk(path)
    if segmenter is not None:
        walk = _read_video(path, segmenter, person, report)
    elif person is not None:
        raise DataError(f"--person: {path} holds one person; leave it out")
    elif path.is_dir():
        listing = list_folder(path, *MASKS)
        if listing.used or not any(has_suffix(name, POSES) for name in listing.others):
            walk, names = _read_masks(path, listing), listing.used
        else:
            found = read_poses(path)
            walk, names = _pose_walk(path, found, rate), found.names
    else:
        array = load_array(path, MOST_PICKLED, f"{WANTED}{OR_POSES}")
        if like_poses(array.shape):
            walk = _pose_walk(path, check_poses(array, path), rate)
        else:
            silhouettes = as_silhouettes(array, path)  # s 64 64
            frames = len(silhouettes)
            walk = Walk(path.name, "silhouettes", silhouettes, np.arange(frames), source={"frames": frames})
    walk.name = printable(walk.name)
    walk.source["sha256"] = checksum(path, names)
    if (usable := len(walk.frames)) < FEWEST_FRAMES:
        raise DataError(f"{path}: only {usable} usable frames, {FEWEST_FRAMES} are needed; record a longer walk")
    walk.flags += quality_flags(usable, walk.quality)
    return walk


def quality_flags(usable: int, quality: Quality) -> list[Flag]:
    """The flags of a judgement, and that a walk of so many `usable` frames is short."""
    flags = [Flag(one.name, one.frames, one.message) for one in quality.findings if not one.grave]
    if usable >= FEW_FRAMES:
        return flags
    message = f"a short walk: {usable} usable frames, {FEW_FRAMES} or more are better"
    few = [flag.message for flag in flags if flag.name == FEW_CYCLES]  # the same in other words
    return [Flag("short", usable, "; ".join([message, *few])), *(flag for flag in flags if flag.name != FEW_CYCLES)]


def _pose_walk(path: Path, found: Poses, rate: float | None) -> Walk:
    """A walk of poses alone; flags have what was said about frames that were not used."""
    none = np.empty((0, FRAME_SIZE, FRAME_SIZE), np.uint8)
    times = None if rate is None else found.places / rate  # s
    source: dict[str, Any] = {"frames": found.given} | ({} if rate is None else {"frames_per_second": rate})
    walk = Walk(path.name, "poses", none, found.places, times, found.joints, source)
    walk.flags += [Flag("poses", None, remark.removeprefix(f"{path}: ")) for remark in found.remarks]
    return walk


def _read_masks(folder: Path, listing: Listing) -> Walk:
    """Masks of a folder in the order of their names; flags count those that normalisation drops, and files that are none."""
    listing.refuse_problems(folder)
    silhouettes, numbers = read_masks([folder / name for name in listing.used], folder)  # s 64 64, s
    frames = len(listing.used)
    walk = Walk(folder.name, "masks", silhouettes, numbers, source={"frames": frames})
    if dropped := frames - len(silhouettes):
        walk.flags.append(Flag("empty masks", dropped, "masks with (almost) nobody in them were dropped, as in training"))
    if unused := [*listing.folders, *listing.others, *listing.copies]:
        message = f"not used, because they are no PNG or a second copy: {abbreviate(unused, 3)}"
        walk.flags.append(Flag("files left out", len(unused), message))
    return walk


def checksum(path: Path, names: Sequence[str] | None = None) -> str:
    """SHA-256 of the file, or of the concatenated frames of a folder in the order of their names: masks, or else poses.

    `names` are those of the frames, if the folder was looked through already.
    """
    total = hashlib.sha256()
    if path.is_dir():
        for name in (list_folder(path, *MASKS).used or list_folder(path, *POSES).used) if names is None else names:
            total.update(read_file(path / name, MOST_BYTES))
    else:
        with path.open("rb") as content:
            hashlib.file_digest(content, lambda: total)  # adds the content to `total`
    return total.hexdigest()


def _read_video(path: Path, segmenter: Segmenter, wanted: list[int] | None, report: Report) -> Walk:
    video = Video(path)
    video.watch = lambda taken: report("looking at the scene", taken, video.expected)
    segmenter.study(video)
    video.watch = lambda taken: report("finding the person", taken, video.expected)
    brightness: list[float] = []
    repeated: set[int] = set()

    def segmented() -> Iterator[tuple[Frame, list[Outline]]]:
        for frame in video.frames():
            if not frame.black:
                brightness.append(float(frame.image[::8, ::8].mean()))
            if frame.repeated:
                repeated.add(frame.number)
            yield frame, segmenter(frame)

    people = follow(segmented())
    segmenter.review(people)
    decoded = video.decoded
    try:
        person, candidates = choose(people, wanted, str(path), (video.height, video.width))
    except DataError as error:
        damage = f"{decoded.undecodable} parts of the file cannot be decoded" if decoded.undecodable else ""
        if decoded.missing:
            damage = f"the file is cut off, {decoded.missing} of its frames are missing"
        if damage:
            error.args = (f"{error.args[0]} (and {damage})",)
        raise
    silhouettes = np.stack([one.silhouette for one in person.usable if one.silhouette is not None])  # s 64 64
    joints = [one.joints for one in person.usable if one.joints is not None]  # each 17 3
    poses = np.stack(joints) if len(joints) == len(silhouettes) else None  # s 17 3
    frames, times = (np.array(column) for column in zip(*((one.frame, one.time) for one in person.usable), strict=True))  # s
    source = video.source | {"frames": decoded.frames, "frames_taken": decoded.taken, "seconds": round(decoded.seconds, 3)}
    taken = wanted or [1]
    again = len(repeated.intersection(frames.tolist()))
    flags = list(video_flags(video, person, len(candidates) - len(set(taken)), np.array(brightness), again))
    shape = (video.height, video.width)
    return Walk(path.name, "video", silhouettes, frames, times, poses, source, flags, candidates, taken, shape)
