"""Any input to the silhouettes of one walk, on exactly the road that training data takes, and what to know of their quality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.schema import DataError
from data_pipelines.scoliosis1k.release_tree import read_mask
from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from data_pipelines.silhouettes import normalise_silhouette
from data_pipelines.video.decoding import SUFFIXES, Frame, Video
from data_pipelines.video.people import FAULTS, FEWEST_FRAMES, Person, Segmenter, choose, follow

BRIGHTNESS_JUMP = 10.0  # grey levels between two frames
MOST_GREY = 0.5  # of what is not black in a mask: soft edges of small ones
FEW_FRAMES = 60  # below which a walk is short


class Flag(NamedTuple):
    """Something about a walk that a reader of the answer has to know.

    Attributes:
      name: short.
      frames: how many it touches; None where that means nothing.
      message: what it means, and how to do better.
    """

    name: str
    frames: int | None
    message: str


@dataclass
class Walk:
    """One person's walk.

    Attributes:
      name: of the file or folder.
      kind: "video", "masks" or "silhouettes".
      silhouettes: uint8 `[s, 64, 64]`, normalised.
      frames: int `[s]`, numbers of the frames that they come from.
      times: float `[s]`, seconds from the first frame; None where the input has no times.
      source: facts about the input.
      flags: about its quality.
      people: candidates, where people had to be told apart.
    """

    name: str
    kind: str
    silhouettes: np.ndarray
    frames: np.ndarray
    times: np.ndarray | None = None
    source: dict[str, Any] = field(default_factory=dict)
    flags: list[Flag] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)


def inputs_of(path: Path) -> list[Path]:
    """The walks that a path names: itself, or the videos in a folder of videos.

    Raises:
      DataError: for a path that is missing, or a folder that holds neither masks nor videos, or both.
    """
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path} does not exist; give a video file, a folder of mask PNGs or a prepared pickle")
        return [path]
    seen = [child for child in path.iterdir() if not child.name.startswith(".")]  # macOS leaves ._NAME beside a video
    videos = sorted(child for child in seen if child.suffix.lower() in SUFFIXES and child.is_file())
    masks = any(path.glob("*.png"))
    if masks and videos:
        raise DataError(f"{path} holds mask PNGs and videos; give a folder of either")
    if not masks and not videos:
        raise DataError(f"{path} holds neither mask PNGs (*.png) nor videos ({', '.join(sorted(SUFFIXES))})")
    return [path] if masks else videos


def needs_segmenter(path: Path) -> bool:
    """False for what holds silhouettes already."""
    return not path.is_dir() and path.suffix.lower() != ".pkl"


def read_walk(path: Path, segmenter: Segmenter | None, person: list[int] | None = None) -> Walk:
    """Read one input.

    Args:
      path: a video, a folder of mask PNGs, or a prepared pickle.
      segmenter: finds people; None where the input holds silhouettes already.
      person: as of `people.choose`.

    Raises:
      DataError: naming what is wrong with the input and what to do.
    """
    if segmenter is None:
        if person is not None:
            raise DataError(f"--person: {path} holds silhouettes of one person; leave it out")
        walk = _read_masks(path) if path.is_dir() else _read_silhouettes(path)
    else:
        walk = _read_video(path, segmenter, person)
    walk.source["sha256"] = checksum(path)
    if len(walk.silhouettes) < FEWEST_FRAMES:
        raise DataError(f"{path}: only {len(walk.silhouettes)} usable frames, {FEWEST_FRAMES} are needed; record a longer walk")
    if len(walk.silhouettes) < FEW_FRAMES:
        message = f"a short walk: {len(walk.silhouettes)} usable frames, {FEW_FRAMES} or more are better"
        walk.flags.append(Flag("short", len(walk.silhouettes), message))
    return walk


def _read_silhouettes(path: Path) -> Walk:
    silhouettes = load_silhouettes(path)  # s 64 64
    return Walk(path.name, "silhouettes", silhouettes, np.arange(len(silhouettes)), source={"frames": len(silhouettes)})


def _read_masks(folder: Path) -> Walk:
    """The frames of a folder in the order of their names; those that normalisation drops are counted."""
    files = sorted(folder.glob("*.png"))
    found = [(number, normalise_silhouette(_read_black_and_white(file))) for number, file in enumerate(files)]
    used = [(number, frame) for number, frame in found if frame is not None]
    if not used:
        raise DataError(f"{folder}: none of its {len(files)} masks shows a usable person (masks are 0 and 255)")
    walk = Walk(
        folder.name,
        "masks",
        np.stack([frame for _, frame in used]),
        np.array([number for number, _ in used]),
        source={"frames": len(files)},
    )
    if dropped := len(files) - len(used):
        walk.flags.append(Flag("empty masks", dropped, "masks with (almost) nobody in them were dropped, as in training"))
    return walk


def _read_black_and_white(path: Path) -> np.ndarray:
    """A mask `[h, w]`; raises `DataError` for a picture, whose every outline would be the picture's frame."""
    mask = read_mask(path)
    grey = np.count_nonzero((mask > 15) & (mask < 240))
    if grey > MOST_GREY * np.count_nonzero(mask):
        raise DataError(f"{path} is no mask but a picture ({grey / mask.size:.0%} of it is grey); masks are 0 and 255")
    return mask


def checksum(path: Path) -> str:
    """SHA-256 of an input: of the file, or of the PNG files of a folder in order."""
    total = hashlib.sha256()
    for file in sorted(path.glob("*.png")) if path.is_dir() else [path]:
        with file.open("rb") as content:
            while piece := content.read(2**20):
                total.update(piece)
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
        if decoded.missing or decoded.undecodable:
            error.args = (f"{error.args[0]} (and {_damage(video)})",)
        raise
    used = person.usable
    walk = Walk(
        path.name,
        "video",
        np.stack([one.silhouette for one in used if one.silhouette is not None]),
        np.array([one.frame for one in used]),
        np.array([one.time for one in used]),
        source=video.source | {"frames": decoded.frames, "frames_taken": decoded.taken, "seconds": round(decoded.seconds, 3)},
        people=candidates,
    )
    others = len(candidates) - len(set(wanted or [1]))
    walk.flags = list(_flags(video, person, others, np.array(brightness)))
    return walk


def _flags(video: Video, person: Person, others: int, brightness: np.ndarray) -> Iterator[Flag]:
    decoded = video.decoded
    if decoded.missing:
        yield Flag("truncated", decoded.missing, "the file is cut off: it promises more frames than it holds")
    if decoded.undecodable:
        yield Flag("undecodable", decoded.undecodable, "parts of the file cannot be decoded; copy or record it again")
    if decoded.corrupt:  # also where nobody could be outlined for it
        yield Flag("damaged", decoded.corrupt, f"left out: {FAULTS['damaged']}")
    for fault, count in person.faults().items():
        if fault == "damaged":
            continue
        yield Flag(fault, count, f"left out: {FAULTS[fault]}")
    if others:
        yield Flag("other people", None, f"{others} more walked here and did not count")
    usual = float(np.median(brightness))
    if len(brightness) > 1 and np.abs(np.diff(brightness)).max() > BRIGHTNESS_JUMP:
        off = max(1, int(np.sum(np.abs(brightness - usual) > BRIGHTNESS_JUMP / 2)))
        yield Flag("exposure jump", off, "the picture's brightness jumps; lock the camera's exposure")


def _damage(video: Video) -> str:
    decoded = video.decoded
    if decoded.missing:
        return f"the file is cut off, {decoded.missing} of its frames are missing"
    return f"{decoded.undecodable} parts of the file cannot be decoded"
