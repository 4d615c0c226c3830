import numpy as np
import pytest

from data_pipelines.silhouettes import normalise_sequence, normalise_silhouette


def person(height=120, width=100, left=30, right=60, top=10, bottom=110) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def test_a_standing_rectangle_fills_the_height_and_is_centred():
    out = normalise_silhouette(person())
    assert out.shape == (64, 64)
    assert out.dtype == np.uint8
    assert (out[:, 32] == 255).all()
    columns = np.flatnonzero(out.any(axis=0))
    assert abs((columns[0] + columns[-1]) / 2 - 32) <= 1


def test_position_in_the_image_does_not_matter():
    moved = person(left=55, right=85)  # 25 columns are 16 at height 64: no interpolation between
    np.testing.assert_array_equal(normalise_silhouette(person()), normalise_silhouette(moved))


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((80, 60), np.uint8),
        person(top=10, bottom=12, left=3, right=20),  # 34 white pixels: 8,670
        np.pad(np.full((400, 1), 255, np.uint8), ((0, 0), (0, 2))),  # so thin that height 64 leaves no column
        np.pad(np.full((100, 2), 255, np.uint8), ((0, 0), (0, 90))),  # the centre would be column 0
    ],
    ids=["empty", "speck", "thin", "centre in column 0"],
)
def test_unusable_frames_are_dropped(mask):
    assert normalise_silhouette(mask) is None
    assert normalise_sequence([mask, person(), mask]).shape == (1, 64, 64)
    assert normalise_sequence([mask]).shape == (0, 64, 64)


def test_threshold_is_exclusive():
    mask = np.zeros((50, 50), np.uint8)
    mask[10:30, 20:25] = 100  # sum exactly 10,000
    assert normalise_silhouette(mask) is None
    mask[10, 20] = 101
    assert normalise_silhouette(mask) is not None
