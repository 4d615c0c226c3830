import numpy as np
import pytest

from data_pipelines.poses.joints import JOINTS, LIMBS, from_blazepose
from data_pipelines.poses.maps import skeleton_maps

# BlazePose's landmarks in their order, as its documentation numbers them, and where they are on somebody who faces the camera.
FACE = {
    "nose": (100, 40), "left eye, inner": (103, 36), "left eye": (105, 36), "left eye, outer": (107, 36),
    "right eye, inner": (97, 36), "right eye": (95, 36), "right eye, outer": (93, 36), "left ear": (111, 38),
    "right ear": (89, 38), "left mouth": (103, 44), "right mouth": (97, 44),
}  # fmt: skip
BODY = {
    "shoulder": (24, 62), "elbow": (33, 95), "wrist": (36, 125), "little finger": (38, 132), "index finger": (35, 134),
    "thumb": (33, 129), "hip": (13, 122), "knee": (12, 168), "ankle": (11, 212), "heel": (9, 218), "toe": (17, 222),
}  # fmt: skip


def person() -> dict[str, tuple[float, float]]:
    places = {name: (100.0 + x, float(y)) for name, (x, y) in FACE.items() for x in [x - 100]}
    for name, (across, y) in BODY.items():
        for side, sign in (("left", 1), ("right", -1)):
            places[f"{side} {name}"] = (100.0 + sign * across, y + 2.0 * (sign > 0))  # the left is a little lower
    return places


@pytest.mark.parametrize("auxiliary", [0, 6])
def test_blazepose_landmarks_draw_the_same_figure_in_the_order_of_coco(auxiliary):
    places = person()
    assert len(places) == 33
    landmarks = np.array([[*place, 1.0] for place in places.values()] + [[0, 0, 1]] * auxiliary)  # n 3
    coco = np.array([[*places[name], 1.0] for name in JOINTS])  # 17 3
    found = from_blazepose(landmarks[None])  # 1 17 3
    np.testing.assert_array_equal(found[0], coco)
    drawn = skeleton_maps(found)
    np.testing.assert_array_equal(drawn, skeleton_maps(coco[None]))
    for joint in range(1, len(JOINTS)):  # each joint has its own place on the map
        other = landmarks.copy()
        other[list(places).index(JOINTS[joint]), 2] = 0
        assert (skeleton_maps(from_blazepose(other[None])) != drawn).any(), JOINTS[joint]


def test_landmarks_of_another_number_are_refused():
    with pytest.raises(ValueError, match="33"):
        from_blazepose(np.zeros((5, 17, 3)))


def test_limbs_stay_on_their_side_but_for_the_head_and_the_hips():
    crossing = [(start, end) for start, end in LIMBS if start and start % 2 != end % 2]
    assert crossing == [(11, 12)]
    assert {joint for limb in LIMBS for joint in limb} == set(range(17))
