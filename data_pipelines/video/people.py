"""Tracking: people from the masks of successive frames, and the choice of the person who walks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import linear_sum_assignment

from data_pipelines.schema import FEWEST_FRAMES, DataError
from data_pipelines.silhouettes import normalise_silhouette
from data_pipelines.video.decoding import Frame, Video

LEAST_HEIGHT = 100  # pixels of a decoded frame, whose short side is at most 480
LEAST_OVERLAP = 0.2  # smallest intersection over union of a person's boxes in two frames
LOST_AFTER = 1.0  # seconds without a mask until a person is no longer followed
NEAR_TIE = 0.6  # fraction of the best score
CONTACT = 2  # pixels from the frame's edge that count as touching it
GHOST = "ghost"
FAULTS = {
    "cut by the frame edge": "keep the whole person inside the picture",
    "too small": f"under {LEAST_HEIGHT} pixels tall in a picture of at most 480; walk nearer to the camera",
    "damaged": "these frames of the video are damaged; copy or record it again",
    "not one person": "what was outlined is no upright person",
    GHOST: (
        "the picture taken for the empty scene shows the person, who stays in one place or walks straight towards the camera; "
        "use --backend pose, or record the empty scene before and after the walk"
    ),
}


class Outline(NamedTuple):
    """What a backend finds of one person in a frame."""

    mask: np.ndarray  # uint8 [h, w], 0 or 255
    joints: np.ndarray | None = None  # float32 [17, 3] in pixels of the frame, as in `data_pipelines.poses.joints`


class Segmenter(Protocol):
    """A backend that segments the people in frames."""

    name: str  # name of the backend
    models: dict[str, str]  # SHA-256 of every model file, by file name

    def study(self, video: Video) -> None:
        """Prepare for a video; called before its frames are segmented. Raises `DataError` if it cannot be used."""

    def __call__(self, frame: Frame) -> list[Outline]:
        """An outline of each person; called for the frames in order."""
        ...

    def review(self, people: list["Person"]) -> None:
        """Mark sightings that cannot be right, once all frames are segmented and people followed."""


class Sighting(NamedTuple):
    frame: int  # frame number
    time: float  # seconds
    box: tuple[int, int, int, int]  # top, left, bottom, right in pixels, the last two exclusive
    silhouette: np.ndarray | None  # uint8 [64, 64]; None if the frame is not usable
    fault: str  # reason why the frame is not usable, a key of `FAULTS`; empty if it is
    joints: np.ndarray | None = None  # float32 [17, 3] in pixels of the frame; None if the backend finds none


@dataclass
class Person:
    sightings: list[Sighting] = field(default_factory=list)

    @property
    def usable(self) -> list[Sighting]:
        return [sighting for sighting in self.sightings if not sighting.fault]

    @property
    def height(self) -> float:
        """Median height over the usable frames, in pixels; 0 without usable frames."""
        heights = [sighting.box[2] - sighting.box[0] for sighting in self.usable]
        return float(np.median(heights)) if heights else 0.0

    @property
    def score(self) -> float:
        """Rank as the person who walks."""
        return len(self.usable) * self.height

    def faults(self) -> dict[str, int]:
        """Number of frames lost to each fault."""
        faults = [sighting.fault for sighting in self.sightings]
        return {fault: faults.count(fault) for fault in FAULTS if fault in faults}


class SeveralPeopleError(DataError):
    """Several people have similar scores; the user has to choose among `candidates`."""

    def __init__(self, message: str, candidates: list[Person], shape: tuple[int, int]):
        super().__init__(message)
        self.candidates, self.shape = candidates, shape


def sight(outline: Outline, frame: Frame) -> Sighting:
    """Check the mask of an outline, and normalise it as for training."""
    mask = outline.mask  # h w
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
    elif box[3] - box[1] > box[2] - box[0] or (silhouette := normalise_silhouette(mask)) is None:  # 64 64
        fault = "not one person"
    return Sighting(frame.number, frame.time, box, silhouette, fault, outline.joints)


def overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes."""
    tall = min(first[2], second[2]) - max(first[0], second[0])
    wide = min(first[3], second[3]) - max(first[1], second[1])
    both = max(tall, 0) * max(wide, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)


def follow(frames: Iterable[tuple[Frame, list[Outline]]]) -> list[Person]:
    """People in the order of their appearance, from outlines assigned to people by the largest total overlap of their boxes.

    A person without an outline for more than a second is no longer followed; a later outline starts a new person.
    """
    everybody: list[Person] = []
    followed: list[Person] = []
    for frame, outlines in frames:
        sightings = [sight(outline, frame) for outline in outlines]
        followed = [person for person in followed if frame.time - person.sightings[-1].time <= LOST_AFTER]
        boxes = [item.box for item in sightings]
        gain = np.array([[overlap(person.sightings[-1].box, box) for box in boxes] for person in followed])  # people sightings
        pairs = dict(zip(*(index.tolist() for index in linear_sum_assignment(-gain.T)), strict=True)) if gain.size else {}
        for column, sighting in enumerate(sightings):
            row = pairs.get(column)
            if row is not None and gain[row, column] >= LEAST_OVERLAP:
                followed[row].sightings.append(sighting)
            else:
                everybody.append(Person([sighting]))
                followed.append(everybody[-1])
    return everybody


def choose(people: list[Person], wanted: list[int] | None, name: str, shape: tuple[int, int]) -> tuple[Person, list[Person]]:
    """The person who walks, and all candidates, the best score first, of the people that `follow` found.

    `wanted` are numbers of candidates, from 1, whose frames are joined. None chooses the best score, and raises
    `SeveralPeopleError` if another one is similar. `name` of the input and `shape` (h, w) of a frame are for the errors.
    """
    candidates = sorted((person for person in people if len(person.usable) >= FEWEST_FRAMES), key=lambda person: -person.score)
    if not candidates:
        raise DataError(_nobody(people, name))
    if wanted is None:
        near = [person for person in candidates if person.score >= NEAR_TIE * candidates[0].score]
        if len(near) > 1:
            lines = "; ".join(
                f"{number}: {len(used)} frames from {used[0].time:.1f} s to {used[-1].time:.1f} s, {height:.0f} pixels tall"
                for number, (used, height) in enumerate(((person.usable, person.height) for person in near), 1)
            )
            raise SeveralPeopleError(f"{name}: several people walk here ({lines}); say who with --person N", near, shape)
        return candidates[0], candidates
    if beyond := [number for number in wanted if not 1 <= number <= len(candidates)]:
        raise DataError(f"{name}: --person {beyond[0]} is not there; there are 1 to {len(candidates)}")
    joined = (sighting for number in wanted for sighting in candidates[number - 1].sightings)
    sightings = sorted(joined, key=lambda sighting: sighting.frame)
    if len({sighting.frame for sighting in sightings}) < len(sightings):
        raise DataError(f"{name}: the people of --person {' '.join(map(str, wanted))} are seen at once, so they are not one")
    return Person(sightings), candidates


def described(candidates: list[Person], frames: int) -> list[dict[str, float]]:
    """Of each candidate in a video of so many frames: the number, the usable frames and their share of all frames.

    Further the seconds from the start of the video at which they start and end, and the height in pixels.
    """
    return [
        {
            "number": number,
            "frames": len(used),
            "share": round(len(used) / frames, 3),
            "start": round(used[0].time, 3),
            "end": round(used[-1].time, 3),
            "height": round(person.height),
        }
        for number, (person, used) in enumerate(((person, person.usable) for person in candidates), 1)
    ]


def _nobody(people: list[Person], name: str) -> str:
    """Message that there is no candidate, with the faults of the person with the most frames, ghosts among them."""
    best = max(people, key=lambda one: (len(one.usable) + one.faults().get(GHOST, 0), len(one.sightings)), default=None)
    if best is None:
        return f"{name}: no person was found; is somebody walking in it? Try another --backend"
    message = f"{name}: only {len(best.usable)} usable frames of a person, {FEWEST_FRAMES} are needed"
    faults = best.faults()
    if not faults:
        return f"{message}; record a longer walk"
    worst = max(faults, key=lambda fault: faults[fault])
    counts = ", ".join(f"{count} {fault}" for fault, count in faults.items())
    return f"{message} ({counts}); {worst}: {FAULTS[worst]}"
