"""Silhouettes of one walk from any input, normalised exactly as training data are, and flags about their quality."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.files import (
    MASKS,
    PICKLES,
    has_suffix,
    irregular_at,
    is_dead,
    is_leftover,
    kind_of,
    list_folder,
    mask_names,
    partial,
    read_file,
)
from data_pipelines.masks import read_masks
from data_pipelines.names import COPY
from data_pipelines.pictures import MOST_BYTES
from data_pipelines.schema import DataError, abbreviate
from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from data_pipelines.video.decoding import SUFFIXES, Frame, Video
from data_pipelines.video.people import FAULTS, FEWEST_FRAMES, Person, Segmenter, choose, follow

BRIGHTNESS_JUMP = 10.0  # grey levels; smallest change between two frames that is flagged
BEGINNING = 512  # bytes that tell what a file is
FEW_FRAMES = 60  # a walk with fewer usable frames is flagged as short


class Flag(NamedTuple):
    """A remark about the quality of a walk, for the reader of the answer."""

    name: str
    frames: int | None  # number of affected frames; None if it does not apply
    message: str  # meaning and remedy


@dataclass
class Walk:
    name: str  # file or folder name
    kind: str  # "video", "masks" or "silhouettes"
    silhouettes: np.ndarray  # uint8 [s, 64, 64], normalised
    frames: np.ndarray  # int [s], number of each silhouette's frame in the input
    times: np.ndarray | None = None  # float [s], seconds from the first frame; None for an input without times
    source: dict[str, Any] = field(default_factory=dict)  # properties of the input
    flags: list[Flag] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)  # all candidates of a video, the best score first


def inputs_of(path: Path) -> list[Path]:
    """Inputs of single walks: the path itself, or the videos in a folder of videos."""
    if not path.is_dir():
        if whole := partial(path.name, (*SUFFIXES, *PICKLES, *MASKS)):
            raise DataError(f"{path} is a part of {whole}, which was not downloaded to its end; download it again")
        if not path.exists():
            what = "is a link to what is not there" if is_dead(path) else "does not exist"
            raise DataError(f"{path} {what}; give a video file, a folder of mask PNGs or a prepared pickle")
        if kind := irregular_at(path):
            raise DataError(f"{path} is {kind}; give a video file, a folder of mask PNGs or a prepared pickle")
        if not has_suffix(path.name, (*SUFFIXES, *PICKLES)) and (what := _why_no_walk(path)):
            raise DataError(f"{path} {what}")
        return [path]
    # macOS writes ._NAME beside a video
    visible = [child for child in path.iterdir() if not is_leftover(child.name, *SUFFIXES, *MASKS, *PICKLES)]
    videos = sorted(child for child in visible if child.suffix.lower() in SUFFIXES and not child.is_dir())
    if odd := [child for child in videos if not child.is_file()]:
        raise DataError(f"{odd[0]} is {irregular_at(odd[0]) or 'a link to what is not there'}, no video; remove it")
    masks = bool(mask_names(path))
    if masks and videos:
        raise DataError(f"{path} holds mask PNGs and videos; give a folder of either")
    if not masks and not videos:
        pickles = sorted(child.name for child in visible if has_suffix(child.name, PICKLES) and child.is_file())
        if pickles:
            raise DataError(f"{path} holds pickles ({abbreviate(pickles, 3)}); give the file of one walk")
        deeper = [child for child in sorted(visible) if child.is_dir() and _has_masks(child)]
        if deeper:
            raise DataError(f"{path} holds folders of mask PNGs ({abbreviate(deeper, 3)}); give the folder of one walk")
        others = [child.name for child in visible]
        what = f"; it holds {abbreviate(sorted(others), 3)}" if others else ", nor anything else"
        raise DataError(f"{path} holds neither mask PNGs (*.png) nor videos ({', '.join(sorted(SUFFIXES))}){what}")
    return [path] if masks else videos


def _why_no_walk(path: Path) -> str:
    """What a file is that neither its name nor its beginning makes a video or a pickle, and the remedy; empty if unknown."""
    with open(path, "rb") as file:
        beginning = file.read(BEGINNING)
    if beginning.startswith(b"\x80") and beginning[1:2] <= b"\x05":
        return f"is a pickle by its beginning; rename it to {COPY.sub('', path.name).removesuffix('.pkl')}.pkl"
    kind, remedy = kind_of(beginning)
    if not kind or "video" in kind or "AVI" in kind:
        return ""
    if has_suffix(path.name, MASKS):
        return "is a single picture; give the folder of all masks of one walk"
    do = f"{remedy}, and give" if remedy else "give"
    return f"is {kind}; {do} a video file, a folder of mask PNGs or a prepared pickle ({', '.join(PICKLES)})"


def _has_masks(folder: Path) -> bool:
    try:
        return bool(mask_names(folder))
    except OSError:
        return False


def needs_segmenter(path: Path) -> bool:
    """True for a video; a folder of masks and a pickle hold silhouettes already."""
    return not path.is_dir() and not has_suffix(path.name, PICKLES)


def read_walk(path: Path, segmenter: Segmenter | None, person: list[int] | None = None) -> Walk:
    """Read a video with a backend, or, without one, a folder of mask PNGs or a prepared pickle.

    `person` has numbers of candidates, as `wanted` of `people.choose`.
    """
    if segmenter is not None:
        walk = _read_video(path, segmenter, person)
    elif person is not None:
        raise DataError(f"--person: {path} holds silhouettes of one person; leave it out")
    elif path.is_dir():
        walk = _read_masks(path)
    else:
        silhouettes = load_silhouettes(path)  # s 64 64
        frames = len(silhouettes)
        walk = Walk(path.name, "silhouettes", silhouettes, np.arange(frames), source={"frames": frames})
    walk.source["sha256"] = checksum(path)
    if len(walk.silhouettes) < FEWEST_FRAMES:
        raise DataError(f"{path}: only {len(walk.silhouettes)} usable frames, {FEWEST_FRAMES} are needed; record a longer walk")
    if len(walk.silhouettes) < FEW_FRAMES:
        message = f"a short walk: {len(walk.silhouettes)} usable frames, {FEW_FRAMES} or more are better"
        walk.flags.append(Flag("short", len(walk.silhouettes), message))
    return walk


def _read_masks(folder: Path) -> Walk:
    """Masks of a folder in the order of their names; flags count those that normalisation drops, and files that are none."""
    listing = list_folder(folder, *MASKS)
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


def checksum(path: Path) -> str:
    """SHA-256 of the file, or of the concatenated PNG files of a folder in the order of their names."""
    total = hashlib.sha256()
    if path.is_dir():
        for name in mask_names(path):
            total.update(read_file(path / name, MOST_BYTES))
    else:
        with path.open("rb") as content:
            hashlib.file_digest(content, lambda: total)  # adds the content to `total`
    return total.hexdigest()


def _read_video(path: Path, segmenter: Segmenter, wanted: list[int] | None) -> Walk:
    video = Video(path)
    segmenter.study(video)
    brightness: list[float] = []

    def segmented() -> Iterator[tuple[Frame, list[np.ndarray]]]:
        for frame in video.frames():
            brightness.append(float(frame.image[::8, ::8].mean()))
            yield frame, segmenter(frame)

    people = follow(segmented())
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
    frames, times = (np.array(column) for column in zip(*((one.frame, one.time) for one in person.usable), strict=True))  # s
    source = video.source | {"frames": decoded.frames, "frames_taken": decoded.taken, "seconds": round(decoded.seconds, 3)}
    flags = list(_flags(video, person, len(candidates) - len(set(wanted or [1])), np.array(brightness)))
    return Walk(path.name, "video", silhouettes, frames, times, source, flags, candidates)


def _flags(video: Video, person: Person, others: int, brightness: np.ndarray) -> Iterator[Flag]:
    decoded = video.decoded
    if decoded.missing:
        yield Flag("truncated", decoded.missing, "the file is cut off: it promises more frames than it holds")
    if decoded.undecodable:
        yield Flag("undecodable", decoded.undecodable, "parts of the file cannot be decoded; copy or record it again")
    if decoded.corrupt:  # of all frames, also those in which nobody was found
        yield Flag("damaged", decoded.corrupt, f"left out: {FAULTS['damaged']}")
    for fault, count in person.faults().items():
        if fault != "damaged":
            yield Flag(fault, count, f"left out: {FAULTS[fault]}")
    if others:
        yield Flag("other people", None, f"{others} more walked here and did not count")
    usual = float(np.median(brightness))
    if len(brightness) > 1 and np.abs(np.diff(brightness)).max() > BRIGHTNESS_JUMP:
        off = max(1, int(np.sum(np.abs(brightness - usual) > BRIGHTNESS_JUMP / 2)))
        yield Flag("exposure jump", off, "the picture's brightness jumps; lock the camera's exposure")
