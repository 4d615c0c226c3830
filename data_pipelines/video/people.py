"""Who is who: masks of one frame after the other to people, and the one person who walks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_pipelines.schema import DataError
from data_pipelines.silhouettes import normalise_silhouette
from data_pipelines.video.decoding import Frame, Video

FEWEST_FRAMES = 15  # usable ones, of a person
LEAST_HEIGHT = 100  # pixels, of a frame as it is decoded: its short side is at most 480
LEAST_OVERLAP = 0.2  # intersection over union of a person's boxes in two frames
LOST_AFTER = 1.0  # seconds without a mask
NEAR_TIE = 0.6  # of the best score
CONTACT = 2  # pixels from the frame's edge that count as touching it
FAULTS = {
    "cut by the frame edge": "keep the whole person inside the picture",
    "too small": f"under {LEAST_HEIGHT} pixels tall in a picture of at most 480; walk nearer to the camera",
    "damaged": "these frames of the video are damaged; copy or record it again",
    "not one person": "what was outlined is no upright person",
}


class Segmenter(Protocol):
    """What finds people in frames.

    Attributes:
      name: of the backend.
      models: SHA-256 of every model file by name.
    """

    name: str
    models: dict[str, str]

    def study(self, video: Video) -> None:
        """Look at a video before its frames are asked for; raises `DataError` where it cannot be used."""
        ...

    def __call__(self, frame: Frame) -> list[np.ndarray]:
        """A mask for each person, uint8 `[h, w]`, 0 or 255; frames come in order."""
        ...


class Sighting(NamedTuple):
    """A person in a frame.

    Attributes:
      frame: its number.
      time: in seconds.
      box: top, left, bottom, right in pixels, the last two exclusive.
      silhouette: uint8 `[64, 64]`; None where the frame cannot be used.
      fault: why not, a key of `FAULTS`; empty where it can.
    """

    frame: int
    time: float
    box: tuple[int, int, int, int]
    silhouette: np.ndarray | None
    fault: str


@dataclass
class Person:
    """Everything that was seen of one person."""

    sightings: list[Sighting] = field(default_factory=list)

    @property
    def usable(self) -> list[Sighting]:
        return [one for one in self.sightings if not one.fault]

    @property
    def height(self) -> float:
        """Median over the usable frames, in pixels; 0 without any."""
        heights = [one.box[2] - one.box[0] for one in self.usable]
        return float(np.median(heights)) if heights else 0.0

    @property
    def score(self) -> float:
        """Who walks here: many usable frames, and near the camera."""
        return len(self.usable) * self.height

    def faults(self) -> dict[str, int]:
        """How many frames each fault cost."""
        found = [one.fault for one in self.sightings]
        return {fault: found.count(fault) for fault in FAULTS if fault in found}


class SeveralPeopleError(DataError):
    """Nobody stands out; `candidates` are to be shown to the user."""

    def __init__(self, message: str, candidates: list[Person], shape: tuple[int, int]):
        super().__init__(message)
        self.candidates, self.shape = candidates, shape


def sight(mask: np.ndarray, frame: Frame) -> Sighting:
    """Judge a mask, uint8 `[h, w]`, by itself, and normalise it as training does."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    silhouette, fault = None, ""
    if frame.corrupt:
        fault = "damaged"
    elif box[0] < CONTACT or box[1] < CONTACT or box[2] > height - CONTACT or box[3] > width - CONTACT:
        fault = "cut by the frame edge"
    elif box[2] - box[0] < LEAST_HEIGHT:
        fault = "too small"
    else:
        silhouette = normalise_silhouette(mask)  # 64 64
        if silhouette is None or box[3] - box[1] > box[2] - box[0]:
            silhouette, fault = None, "not one person"
    return Sighting(frame.number, frame.time, box, silhouette, fault)


def overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes."""
    tall = min(one[2], other[2]) - max(one[0], other[0])
    wide = min(one[3], other[3]) - max(one[1], other[1])
    both = max(tall, 0) * max(wide, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


def follow(frames: Iterable[tuple[Frame, list[np.ndarray]]]) -> list[Person]:
    """Join the masks of successive frames by the overlap of their boxes, one to one at the least total cost.

    A person without a mask for a second is lost; whoever comes afterwards is somebody new. In the order of appearance.
    """
    everybody: list[Person] = []
    followed: list[Person] = []
    for frame, masks in frames:
        seen = [sight(mask, frame) for mask in masks]
        followed = [person for person in followed if frame.time - person.sightings[-1].time <= LOST_AFTER]
        gain = np.array([[overlap(person.sightings[-1].box, one.box) for one in seen] for person in followed])
        pairs = dict(zip(*(index.tolist() for index in linear_sum_assignment(-gain.T)), strict=True)) if gain.size else {}
        for column, one in enumerate(seen):
            row = pairs.get(column)
            if row is not None and gain[row, column] >= LEAST_OVERLAP:
                followed[row].sightings.append(one)
                continue
            everybody.append(Person([one]))
            followed.append(everybody[-1])
    return everybody


def choose(people: list[Person], wanted: list[int] | None, name: str, shape: tuple[int, int]) -> tuple[Person, list[Person]]:
    """The person who walks.

    Args:
      people: from `follow`.
      wanted: numbers of candidates, from 1, whose frames are joined; None to let the score decide.
      name: of the input, for messages.
      shape: height and width of a frame.

    Returns:
      The person, and all candidates, the best score first.

    Raises:
      SeveralPeopleError: when two have nearly the same score and none was asked for.
      DataError: when there is nobody, nobody with 15 usable frames, or no candidate of the number asked for.
    """
    candidates = sorted((one for one in people if len(one.usable) >= FEWEST_FRAMES), key=lambda one: -one.score)
    if not candidates:
        raise DataError(_nobody(people, name))
    if wanted is None:
        near = [one for one in candidates if one.score >= NEAR_TIE * candidates[0].score]
        if len(near) > 1:
            lines = "; ".join(_describe(number, one) for number, one in enumerate(near, 1))
            raise SeveralPeopleError(f"{name}: several people walk here ({lines}); say who with --person N", near, shape)
        return candidates[0], candidates
    if beyond := [number for number in wanted if not 1 <= number <= len(candidates)]:
        raise DataError(f"{name}: --person {beyond[0]} is not there; there are 1 to {len(candidates)}")
    sightings = sorted((one for number in wanted for one in candidates[number - 1].sightings), key=lambda one: one.frame)
    numbers = [one.frame for one in sightings]
    if len(set(numbers)) < len(numbers):
        raise DataError(f"{name}: the people of --person {' '.join(map(str, wanted))} are seen at once, so they are not one")
    return Person(sightings), candidates


def _describe(number: int, person: Person) -> str:
    used = person.usable
    return f"{number}: {len(used)} frames from {used[0].time:.1f} s to {used[-1].time:.1f} s, {person.height:.0f} pixels tall"


def _nobody(people: list[Person], name: str) -> str:
    """Why there is no candidate, from the person with the most frames."""
    best = max(people, key=lambda one: (len(one.usable), len(one.sightings)), default=None)
    if best is None:
        return f"{name}: no person was found; is somebody walking in it? Try another --backend"
    faults = best.faults()
    if not faults:
        return f"{name}: only {len(best.usable)} usable frames of a person, {FEWEST_FRAMES} are needed; record a longer walk"
    worst = max(faults, key=lambda fault: faults[fault])
    every = ", ".join(f"{count} {fault}" for fault, count in faults.items())
    found = f"{name}: only {len(best.usable)} usable frames of a person, {FEWEST_FRAMES} are needed"
    return f"{found} ({every}); {worst}: {FAULTS[worst]}"
