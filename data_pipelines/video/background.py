"""Background subtraction: segmentation without a model, for a fixed camera and a scene without other movement.

The scene is the median of the clip in CIE Lab colour, pixel by pixel. This is correct only if the person covers each pixel in
less than half of the frames: record some time before and after the walk, or let the walk cross the picture. Outlines that come
from somebody in the scene are found by their edges, and do not count.
"""

from collections.abc import Iterable

import cv2
import numpy as np

from data_pipelines.schema import DataError
from data_pipelines.video.decoding import Frame, Video
from data_pipelines.video.ghosts import Ghosts
from data_pipelines.video.people import Outline, Person

SAMPLES = 40  # evenly spaced frames for the median; up to twice as many
MOST_SHIFT = 2.0  # pixels; measured: 0.1 to 0.3 on a tripod, 7 to 26 by hand
FEWEST_MATCHES = 12  # matched corners of two frames needed to estimate the camera's movement
LEAST_DIFFERENCE = 14.0  # Lab units
NOISE_FACTOR = 5.0  # threshold as a multiple of the clip's noise
COLOUR_WEIGHTS = np.array([[0.6, 1.0, 1.0]], np.float32)  # of L, a, b; a soft shadow changes mainly L
CLOSED = 0.012  # fraction of the frame's height; narrower gaps in a body are closed
SMALLEST = 40  # pixels; smallest height of a body


class Background:
    """Segments people by their difference from the median of the clip."""

    name = "background"

    def __init__(self):
        self.models: dict[str, str] = {}
        self._scene = np.zeros((1, 1, 3), np.float32)  # h w 3
        self._threshold = LEAST_DIFFERENCE**2
        self._ghosts = Ghosts(self._scene)

    def study(self, video: Video) -> None:
        """Read the whole clip and compute the scene; raises `DataError` if the camera moved."""
        samples = [cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in video.samples(SAMPLES)]  # each h w 3
        shift = camera_shift([lab[..., 0] for lab in samples])
        if shift > MOST_SHIFT:
            raise DataError(
                f"{video.path}: the camera moved (by {shift:.1f} pixels; --backend background allows {MOST_SHIFT:g}); put it "
                "on a tripod, or use --backend pose"
            )
        rows = [np.median([lab[row] for lab in samples], axis=0) for row in range(samples[0].shape[0])]  # each w 3
        self._scene = np.stack(rows).astype(np.float32)  # h w 3
        self._ghosts = Ghosts(self._scene)
        noise = np.sqrt(np.median([np.median(self._difference(lab)[::4, ::4]) for lab in samples]))
        self._threshold = max(LEAST_DIFFERENCE, NOISE_FACTOR * float(noise)) ** 2

    def _difference(self, lab: np.ndarray) -> np.ndarray:
        """Squared colour distance between a frame and the scene, `[h, w]`, corrected for a change of exposure."""
        apart = cv2.subtract(lab, self._scene, dtype=cv2.CV_32F)  # h w 3
        common = np.median(apart[::4, ::4], axis=(0, 1))  # 3; a change of all pixels is a change of exposure
        apart -= common.astype(np.float32)  # h w 3
        return cv2.transform(cv2.multiply(apart, apart), COLOUR_WEIGHTS)  # h w

    def __call__(self, frame: Frame) -> list[Outline]:
        lab = cv2.cvtColor(frame.image, cv2.COLOR_RGB2LAB)  # h w 3
        mask = (self._difference(lab) > self._threshold).astype(np.uint8)  # h w
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))  # h w
        edge = 2 * round(CLOSED * mask.shape[0] / 2) + 1
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (edge, edge)))  # h w
        masks = list(bodies(mask))
        self._ghosts.look(frame.number, lab, masks)
        return [Outline(mask) for mask in masks]

    def review(self, people: list[Person]) -> None:
        """Mark the ghosts of somebody whom the scene shows."""
        self._ghosts.mark(people)


def camera_shift(images: list[np.ndarray]) -> float:
    """Camera movement in pixels: shift of the frame's corners from the middle image to the others, median over the images.

    ORB features (Rublee et al. 2011) are matched, and a similarity is fitted by RANSAC, which excludes walkers. 0 if there are
    too few features.
    """
    detector = cv2.ORB_create(600)  # pyright: ignore[reportAttributeAccessIssue]
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
    height, width = images[0].shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    points, features = detector.detectAndCompute(images[len(images) // 2], None)
    shifts = []
    for image in images:
        others, theirs = detector.detectAndCompute(image, None)
        matches = matcher.match(features, theirs) if features is not None and theirs is not None else []
        if len(matches) < FEWEST_MATCHES:
            continue
        here = np.array([points[match.queryIdx].pt for match in matches])  # matches 2
        there = np.array([others[match.trainIdx].pt for match in matches])  # matches 2
        moved, inside = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=2.0)
        if moved is not None and inside.sum() >= FEWEST_MATCHES:
            shifts.append(np.linalg.norm(corners @ moved[:, :2].T + moved[:, 2] - corners, axis=1).mean())
    return float(np.median(shifts)) if shifts else 0.0


def bodies(mask: np.ndarray) -> Iterable[np.ndarray]:
    """Masks `[h, w]` of the connected regions that are tall enough, each with the fragments just above and below it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    order = [label for label in np.argsort(-stats[:, cv2.CC_STAT_AREA]) if label and stats[label, cv2.CC_STAT_AREA] >= 30]
    gap = 0.04 * mask.shape[0]
    groups: list[tuple[list[int], list[float]]] = []  # labels; left, top, right, bottom
    for label in order:
        left, top, width, height = (float(value) for value in stats[label, :4])
        right, bottom = left + width, top + height
        for members, box in groups:
            over = min(right, box[2]) - max(left, box[0])
            apart = max(top - box[3], box[1] - bottom)
            if over >= 0.5 * width and apart <= gap:
                members.append(label)
                box[:] = [min(left, box[0]), min(top, box[1]), max(right, box[2]), max(bottom, box[3])]
                break
        else:
            groups.append(([label], [left, top, right, bottom]))
    for members, box in groups:
        if box[3] - box[1] >= SMALLEST:
            chosen = np.zeros(count, np.uint8)
            chosen[members] = 255
            yield chosen[np.asarray(labels, np.intp)]  # h w
