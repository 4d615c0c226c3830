"""Ghosts of background subtraction: outlines of somebody whom the picture taken for the empty scene shows.

Somebody who stays in one place, or walks straight towards the camera, is in the median of the clip. Where this body is not any
more, frame and scene differ, and the edge of the difference is an edge of the scene. The edge of a person is one of the frame.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from data_pipelines.video.people import GHOST, LEAST_HEIGHT, Person

EVERY = 4  # frames; the edges of one in so many are compared
OWN_EDGE = 0.60  # fraction of the edge's contrast in the frame, of frame and scene together: 0.5 is as much in the scene
STAYED = 0.5  # fraction of the frames in which somebody is at a place; the median of the clip is then no empty scene
OWN_EDGE_THERE = 0.65  # `OWN_EDGE` at such a place
MOST_GHOSTS = 0.5  # fraction of a person's outlines; above it the others are no better
CELL = 8  # pixels
BORDER = 3  # pixels around a body whose contrast is computed with it


class Ghosts:
    """Compares the edges of outlines with those of the scene `[h, w, 3]` in CIE Lab, and marks the ghosts at the end."""

    def __init__(self, scene: np.ndarray):
        self._scene = _contrast(scene[..., 0])  # h w
        self._frames = 0
        self._own: dict[tuple[int, tuple[int, int, int, int]], float] = {}  # by frame number and box

    def look(self, number: int, lab: np.ndarray, masks: Iterable[np.ndarray]) -> None:
        """Compare the outlines `[h, w]` of a frame `[h, w, 3]`; called for every frame."""
        self._frames += 1
        if self._frames % EVERY != 1:
            return
        for mask in masks:
            left, top, width, height = cv2.boundingRect(mask)
            if height < LEAST_HEIGHT:
                continue
            around = (slice(max(0, top - BORDER), top + height + BORDER), slice(max(0, left - BORDER), left + width + BORDER))
            edge = cv2.morphologyEx(mask[around], cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0  # h' w'
            here, there = (float(contrast[edge].mean()) for contrast in (_contrast(lab[around][..., 0]), self._scene[around]))
            self._own[number, (top, left, top + height, left + width)] = here / max(here + there, 1e-6)

    def mark(self, people: list[Person]) -> None:
        """Give the sightings that are ghosts this fault, so that they do not count as usable."""
        stayed = self._stayed(people)
        doubtful: list[tuple[Person, list[int], np.ndarray]] = []  # of each person, indices of usable sightings, and which
        staying: list[np.ndarray] = []  # the same of all sightings at places where somebody stays
        for person in people:
            used = [index for index, sighting in enumerate(person.sightings) if not sighting.fault]
            looked = [(n, own) for n, one in enumerate(person.sightings) if (own := self._own.get((one.frame, one.box)))]
            if not used or not looked:
                continue
            places, owns = (np.array(column) for column in zip(*looked, strict=True))  # l, l
            own = owns[np.abs(np.array(used)[:, None] - places).argmin(axis=1)]  # u; of the nearest frame that was looked at
            there = np.array([_cells(stayed, person.sightings[index].box).any() for index in used])  # u
            ghosts = own < np.where(there, OWN_EDGE_THERE, OWN_EDGE)  # u
            if ghosts.mean() > MOST_GHOSTS:
                ghosts[:] = True
            doubtful.append((person, used, ghosts))
            staying.append(np.stack([there, ghosts]))
        together = np.concatenate(staying, axis=1) if staying else np.zeros((2, 0), bool)  # 2 all
        hopeless = together[0].any() and together[1][together[0]].mean() > MOST_GHOSTS
        for (person, used, ghosts), (there, _) in zip(doubtful, staying, strict=True):
            for index in np.array(used)[ghosts | (there & hopeless)]:
                person.sightings[index] = person.sightings[index]._replace(silhouette=None, fault=GHOST)

    def _stayed(self, people: list[Person]) -> np.ndarray:
        """Cells of the picture, bool `[h / 8, w / 8]`, in which somebody is during more than half of the clip."""
        seen: dict[int, list[tuple[int, int, int, int]]] = {}
        for person in people:
            for sighting in person.sightings:
                top, left, bottom, right = sighting.box
                if bottom - top >= max(LEAST_HEIGHT, right - left):
                    seen.setdefault(sighting.frame, []).append(sighting.box)
        count = np.zeros([-(-edge // CELL) for edge in self._scene.shape], np.int64)  # h/8 w/8
        for boxes in seen.values():
            somebody = np.zeros(count.shape, bool)  # h/8 w/8
            for box in boxes:
                _cells(somebody, box)[:] = True
            count += somebody
        return count > STAYED * self._frames


def _cells(cells: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part of `[h / 8, w / 8]` that lies wholly in a box."""
    top, left, bottom, right = box
    return cells[-(-top // CELL) : bottom // CELL, -(-left // CELL) : right // CELL]


def _contrast(bright: np.ndarray) -> np.ndarray:
    """Strength of the edges of a picture `[h, w]`, float32."""
    smooth = cv2.GaussianBlur(bright.astype(np.float32), (0, 0), 1.0)  # h w
    return cv2.magnitude(cv2.Scharr(smooth, cv2.CV_32F, 1, 0), cv2.Scharr(smooth, cv2.CV_32F, 0, 1))  # h w
