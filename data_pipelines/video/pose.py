"""Masks and joints with BlazePose (Bazarevsky et al. 2020, arXiv 2006.10204): a person detector, and a pose network.

The models (Google, Apache-2.0) run on the CPU with LiteRT; `data_pipelines.video.fetch` downloads them. The regions follow the
model card and MediaPipe's description: a square centred on the hips that contains the whole body, enlarged by 1.25, and rotated
so that the body is upright. Of its 33 landmarks COCO's 17 joints are kept, as they come: nothing is smoothed over frames.
"""

import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import scipy.special

from data_pipelines.poses.joints import from_blazepose
from data_pipelines.schema import DataError
from data_pipelines.video.background import SMALLEST
from data_pipelines.video.decoding import Frame, Video
from data_pipelines.video.fetch import DETECTOR, LANDMARKS, checked_model
from data_pipelines.video.people import Outline, Person

DETECT_EVERY = 6  # frames; in between, regions follow the hips given by the pose network
MOST_PEOPLE = 6  # followed at the same time
LEAST_PRESENCE = 0.5  # smallest accepted probability of a body in a region
LEAST_SCORE = 0.5  # smallest accepted probability of a detection
SAME_PERSON = 0.3  # overlap of detections of one person; also distance of hips, as a fraction of the region's edge
ENLARGED = 1.25
DETECTOR_EDGE = 224  # pixels
CROP_EDGE = 256  # pixels
ANCHOR_GRIDS = ((28, 2), (14, 2), (7, 6))  # cells along an edge, anchors in each cell
HIPS, REACH = 33, 34  # auxiliary landmarks: middle of the hips, a point on the circle around the whole body
LANDMARK = 5  # numbers of a landmark: x, y and depth in pixels of the crop, logits that it is not hidden and that it is there
VISIBLE, PRESENT = 3, 4  # of these numbers
OUTPUTS = {DETECTOR: {(1, 2254, 12), (1, 2254, 1)}, LANDMARKS: {(1, 195), (1, 1), (1, 256, 256, 1)}}


class Region(NamedTuple):
    """A square in the frame: centre and edge in pixels, rotation angle in radians."""

    x: float
    y: float
    edge: float
    angle: float

    def to_frame(self) -> np.ndarray:
        """Affine map from pixels of the crop to pixels of the frame, `[2, 3]`."""
        scale = self.edge / CROP_EDGE
        cos, sin = scale * np.cos(self.angle), scale * np.sin(self.angle)
        half = CROP_EDGE / 2
        return np.array([[cos, -sin, self.x - half * (cos - sin)], [sin, cos, self.y - half * (sin + cos)]])

    def same(self, other: "Region") -> bool:
        return np.hypot(self.x - other.x, self.y - other.y) < SAME_PERSON * min(self.edge, other.edge)


def region_around(hips: np.ndarray, reach: np.ndarray) -> Region:
    """Region of a body from the middle of its hips and a point on the circle around it, both in pixels of the frame."""
    x, y = hips.tolist()
    dx, dy = (reach - hips).tolist()
    return Region(x, y, 2.0 * ENLARGED * math.hypot(dx, dy), math.pi / 2 - math.atan2(-dy, dx))


class Pose:
    """Segments every detected person and finds the joints, with the two model files of a folder."""

    name = "pose"

    def __init__(self, folder: Path):
        self.models: dict[str, str] = {}
        self._detector = self._load(folder, DETECTOR)
        self._landmarks = self._load(folder, LANDMARKS)
        centres = [(np.indices((edge, edge))[::-1].reshape(2, -1).T + 0.5) / edge for edge, _ in ANCHOR_GRIDS]  # each cells 2
        repeated = [grid.repeat(each, axis=0) for grid, (_, each) in zip(centres, ANCHOR_GRIDS, strict=True)]
        self._anchors = np.concatenate(repeated)  # 2254 2; x and y as fractions of the edge
        self._regions: list[Region] = []
        self._seen = 0

    def _load(self, folder: Path, name: str):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError:
            raise DataError('--backend pose needs LiteRT, which is not installed: pip install "scoliojax[screen]"') from None
        path, self.models[name] = checked_model(folder, name)
        return runner(Interpreter(str(path), num_threads=2), path, OUTPUTS[name])

    def study(self, video: Video) -> None:
        """Forget the people of the previous video."""
        self._regions, self._seen = [], 0

    def review(self, people: list[Person]) -> None:
        """Nothing is known of a person that the masks do not say."""

    def __call__(self, frame: Frame) -> list[Outline]:
        if self._seen % DETECT_EVERY == 0:
            detected = self.detect(frame.image)
            self._regions += [region for region in detected if not any(region.same(known) for known in self._regions)]
            self._regions = self._regions[:MOST_PEOPLE]
        self._seen += 1
        outlines, followed = [], []
        for region in self._regions:
            found, after = self.outline(frame.image, region)
            if found is not None and after is not None and not any(after.same(other) for other in followed):
                outlines.append(found)
                followed.append(after)
        self._regions = followed
        return outlines

    def detect(self, image: np.ndarray) -> list[Region]:
        """Regions of all people in a frame `[h, w, 3]`, the most certain first."""
        height, width = image.shape[:2]
        edge = max(height, width)
        scale = DETECTOR_EDGE / edge
        left, top = (edge - width) / 2, (edge - height) / 2
        fitted = np.array([[scale, 0.0, left * scale], [0.0, scale, top * scale]])
        small = cv2.warpAffine(image, fitted, (DETECTOR_EDGE, DETECTOR_EDGE), flags=cv2.INTER_LINEAR)  # 224 224 3
        outputs = self._detector(small.astype(np.float32)[None] / 127.5 - 1.0)
        raw, scores = outputs[1, 2254, 12][0], outputs[1, 2254, 1][0, :, 0]  # 2254 12, 2254
        certainty = scipy.special.expit(scores)  # 2254
        certain = np.flatnonzero(certainty >= LEAST_SCORE)  # detections
        points = raw[certain].reshape(-1, 6, 2) / DETECTOR_EDGE  # detections 6 2: centre, size, hips, reach, two unused
        points[:, [0, 2, 3]] += self._anchors[certain, None]
        boxes = np.hstack([points[:, 0] - points[:, 1] / 2, points[:, 1]])  # detections 4: left, top, width, height
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), certainty[certain].tolist(), LEAST_SCORE, SAME_PERSON) if len(certain) else []
        offset = np.array([left, top])
        return [region_around(points[index, 2] * edge - offset, points[index, 3] * edge - offset) for index in kept]

    def outline(self, image: np.ndarray, region: Region) -> tuple[Outline | None, Region | None]:
        """The person in a region of a frame `[h, w, 3]`, and the region in the next frame; None if nobody is there."""
        height, width = image.shape[:2]
        if not 8.0 < region.edge < 4.0 * max(height, width):
            return None, None
        to_frame = region.to_frame()
        crop = cv2.warpAffine(image, to_frame, (CROP_EDGE, CROP_EDGE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        outputs = self._landmarks(crop.astype(np.float32)[None] / 255.0)  # of crop 256 256 3
        if not outputs[1, 1][0, 0] >= LEAST_PRESENCE:
            return None, None
        logits = outputs[1, 256, 256, 1][0, :, :, 0]  # 256 256
        count, labels, stats, _ = cv2.connectedComponentsWithStats((logits > 0.0).astype(np.uint8))  # probability > 0.5
        if count < 2:  # background only
            return None, None
        logits[labels != 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])] = -1.0  # only the largest region
        mask = cv2.warpAffine(logits, to_frame, (width, height), flags=cv2.INTER_LINEAR, borderValue=-1.0) > 0.0  # h w
        if np.count_nonzero(mask.any(axis=1)) < SMALLEST:
            return None, None
        landmarks = outputs[1, 195][0].reshape(-1, LANDMARK)  # 39 5
        landmarks[:, :2] = landmarks[:, :2] @ to_frame[:, :2].T + to_frame[:, 2]  # 39 2; in pixels of the frame
        found = Outline(np.where(mask, np.uint8(255), np.uint8(0)), joints_of(landmarks, (height, width)))  # h w, 17 3
        return found, region_around(*landmarks[[HIPS, REACH], :2])


def joints_of(landmarks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """COCO's joints, float32 `[17, 3]`, of BlazePose's landmarks `[39, 5]`, x and y in pixels of a frame of `shape` (h, w).

    The confidence is the smaller of two probabilities that the network gives: that the landmark is in the picture (presence),
    and that it is not hidden (visibility). A place outside of the frame is a guess, and not found: 0, 0, 0.
    """
    joints = from_blazepose(landmarks)  # 17 5
    sure = scipy.special.expit(joints[:, [VISIBLE, PRESENT]].min(axis=1))  # 17
    inside = np.all((joints[:, :2] >= 0) & (joints[:, :2] <= [shape[1] - 1, shape[0] - 1]), axis=1)  # 17
    found = np.concatenate([joints[:, :2], sure[:, None]], axis=1)  # 17 3
    return np.where(inside[:, None], found, 0).astype(np.float32)  # 17 3


def runner(interpreter, path: Path, expected: set[tuple[int, ...]]):
    """Function from an input array to the model's outputs by shape; raises `DataError` if an expected shape is missing."""
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    indices = {tuple(int(size) for size in item["shape"]): item["index"] for item in interpreter.get_output_details()}
    if missing := expected - indices.keys():
        raise DataError(f"{path} has no output of shape {sorted(missing)}; it is another model, fetch it again")

    def run(array: np.ndarray) -> dict[tuple[int, ...], np.ndarray]:
        interpreter.set_tensor(input_index, array.astype(np.float32, copy=False))
        interpreter.invoke()
        return {shape: interpreter.get_tensor(indices[shape]) for shape in expected}

    return run
