"""Odd videos: orientation, tracks, edit lists, false claims, faults of pictures, ghosts, and who was chosen; each made here."""

import os
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipelines.schema import DataError
from data_pipelines.silhouettes import normalise_sequence
from data_pipelines.video import backends, synthetic_clip
from data_pipelines.video.background import Background
from data_pipelines.video.decoding import Video
from data_pipelines.video.fetch import models_there
from data_pipelines.video.orientation import AS_STORED, read_orientation
from data_pipelines.video.synthetic_clip import SIZE, walk_across, walk_towards, write_clip
from data_pipelines.video.walk import read_walk
from tests.conftest import iou

FRAMES = 45


@pytest.fixture(scope="module")
def images():
    return walk_across(0, 2, FRAMES)[0]


@pytest.fixture(scope="module")
def towards():
    """Images and true masks."""
    return walk_towards(2, 2, 60)


@pytest.fixture(scope="module")
def ninety():
    return walk_across(1, 1, 90)[0]


# Orientation

MATRICES = {  # a, b, c, d of x' = a x + c y, y' = b x + d y (y down), and what they do to a picture
    "none": ((1, 0, 0, 1), lambda image: image),
    "mirror": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "half turn": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "anticlockwise": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "diagonal": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "other diagonal": ((0, -1, -1, 0), lambda image: image[::-1, ::-1].transpose(1, 0, 2)),
    "zeros": ((0, 0, 0, 0), lambda image: image),
    "half zeros": ((0, 0, 0, -1), lambda image: image),
    "nearly a mirror": ((-0.99, 0.1, 0.1, 0.99), lambda image: image[:, ::-1]),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_a_display_matrix_turns_or_mirrors_as_it_says(kind, images, tmp_path):
    (a, b, c, d), shown = MATRICES[kind]
    path = write_clip(tmp_path / "walk.mp4", images[:4])
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 4 + 40  # version and flags, times, track, duration, layer, volume: 40 bytes in version 0
    assert struct.unpack_from(">9i", content, start)[0] == 1 << 16
    numbers = (
        round(a * 65536),
        round(b * 65536),
        0,
        round(c * 65536),
        round(d * 65536),
        0,
        0,
        0,
        1 << 30 if any((a, d, b)) else 0,
    )
    struct.pack_into(">9i", content, start, *numbers)
    path.write_bytes(content)
    video = Video(path)
    expected = shown(images[0])
    assert (video.height, video.width) == expected.shape[:2]
    assert np.abs(next(video.frames()).image.astype(int) - expected).mean() < 8.0
    assert video.source["mirrored"] == (kind in ("mirror", "upside down", "diagonal", "other diagonal", "nearly a mirror"))


def test_bytes_that_are_no_matrix_leave_the_picture_alone():
    for content in (None, b"", bytes(35), bytes(36), bytes(40)):
        assert read_orientation(content) == AS_STORED


# Tracks, edit lists and false claims


def with_tracks(path: Path, images: np.ndarray, *edges: int) -> Path:
    """A file with a video track for each stride of `edges`: 1 is the whole picture, 2 half its height and width."""
    with av.open(str(path), "w") as container:
        streams = []
        for edge in edges:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt = SIZE[0] // edge, SIZE[1] // edge, "yuv420p"
            streams.append(stream)
        for image in images:
            for stream, edge in zip(streams, edges, strict=True):
                smaller = np.ascontiguousarray(image[::edge, ::edge])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(smaller, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("edges", "others"), [((2, 1), ["160 x 100"]), ((1, 2), ["160 x 100"]), ((4, 2, 1), ["160 x 100", "80 x 50"])]
)
@pytest.mark.parametrize("end", ["mp4", "mkv"])
def test_the_largest_video_track_is_read_and_others_are_named(edges, others, end, images, tmp_path):
    walk = read_walk(with_tracks(tmp_path / f"two.{end}", images, *edges), Background())
    assert walk.shape == SIZE
    (flag,) = (flag for flag in walk.flags if flag.name == "other tracks")
    assert all(size in flag.message for size in others)
    assert len(walk.silhouettes) == FRAMES


@pytest.mark.parametrize(("hidden", "left"), [(20, 0), (0, 15), (10, 10)])
def test_a_lossless_trim_is_not_cut_off(hidden, left, images, tmp_path):
    """An edit list hides frames at the start and at the end."""
    path = write_clip(tmp_path / "trim.mp4", images)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        tick = float(container.streams.video[0].time_base)
    start = content.find(b"elst") + 12
    length, begin = struct.unpack_from(">Ii", content, start)  # in milliseconds; in ticks
    struct.pack_into(">Ii", content, start, round(length - (hidden + left) / 0.03), begin + round(hidden / 30 / tick))
    path.write_bytes(content)
    video = Video(path)
    shown = len(list(video.frames()))
    assert abs(shown - (FRAMES - hidden - left)) <= 2  # frames that are shown out of order stay
    assert video.decoded.missing == 0
    cut = write_clip(tmp_path / "index-first.mp4", images, movflags="faststart").read_bytes()
    path.write_bytes(cut[: int(0.7 * len(cut))])
    broken = Video(path)
    assert FRAMES - len(list(broken.frames())) == broken.decoded.missing > 0


def test_a_false_duration_does_not_leave_one_frame_as_the_scene(images, tmp_path):
    path = write_clip(tmp_path / "long.mkv", images)
    content = path.read_bytes()
    (claim,) = re.findall(rb"00:00:01\.\d{9}", content)
    path.write_bytes(content.replace(claim, b"02:00:00.000000000"))
    assert len(Video(path).samples(20)) >= 20
    walk = read_walk(path, Background())
    assert len(walk.silhouettes) == FRAMES
    (flag,) = (flag for flag in walk.flags if flag.name == "truncated")
    assert "its header is wrong" in flag.message


# Faults of pictures


def woven(images: np.ndarray) -> np.ndarray:
    both = images[:-1:2].copy()
    both[:, 1::2] = images[1::2, 1::2]
    return both


def blackened(images: np.ndarray) -> np.ndarray:
    dark = images.copy()
    dark[:5] = dark[20:22] = 6
    return dark


FAULTY = {  # images of 90 frames to those of the file, its rate; flag, and its least and largest number of frames
    "combed": (woven, 30, "combed", 43, 45),
    "slow": (lambda images: images[::3], 10, "low frame rate", 30, 30),
    "black": (blackened, 30, "black", 7, 7),
    "repeated": (lambda images: images[::3].repeat(3, axis=0), 30, "repeated", 54, 60),
    "one frame": (lambda images: np.concatenate([images, images[-1:].repeat(20, axis=0)]), 30, "repeated", 18, 20),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_faults_of_pictures_are_flagged_with_their_number(kind, ninety, tmp_path):
    change, rate, name, least, most = FAULTY[kind]
    walk = read_walk(write_clip(tmp_path / "faulty.mp4", change(ninety), rate=rate), Background())
    (flag,) = (flag for flag in walk.flags if flag.name == name)
    assert least <= flag.frames <= most
    others = {"short"} if kind in ("combed", "slow") else set()
    assert {flag.name for flag in walk.flags} <= {name} | others


def test_a_healthy_video_has_no_flag(ninety, tmp_path):
    assert not read_walk(write_clip(tmp_path / "healthy.mp4", ninety), Background()).flags


# Ghosts


@pytest.mark.parametrize("reverse", [False, True])
def test_somebody_who_walks_towards_the_camera_is_refused_by_background(reverse, towards, tmp_path):
    images = towards[0]
    path = write_clip(tmp_path / "near.mp4", images[::-1] if reverse else images)
    with pytest.raises(DataError, match=r"ghost: the picture taken for the empty scene shows the person.*use --backend pose"):
        read_walk(path, Background())


def test_a_walk_after_standing_is_read_without_the_ghost(tmp_path):
    images, masks = walk_across(100, 0, 60)
    rng = np.random.default_rng(0)
    still = (images[0].astype(np.float32) + rng.normal(0.0, 2.0, (80, *SIZE, 1))).clip(0, 255).astype(np.uint8)
    walk = read_walk(write_clip(tmp_path / "stood.mp4", np.concatenate([still, images])), Background())
    assert walk.frames.min() >= 80
    assert len(walk.frames) >= 40
    true = normalise_sequence(masks[walk.frames - 80]).astype(int)
    assert np.abs(walk.silhouettes.astype(int) - true).mean() < 10.0


def test_true_masks_of_a_walk_towards_the_camera_are_the_walk_itself(towards):
    """Normalisation takes the growth away."""
    near, (_, across) = towards[1], walk_across(2, 2, 60, size=(240, 480), scale=2.0)
    heights = near.any(axis=2).sum(axis=1)
    assert heights[-1] > 2.5 * heights[0]
    middle = near.sum(axis=0, dtype=np.int64).sum(axis=0)
    assert abs(np.average(np.arange(near.shape[2]), weights=middle) - near.shape[2] / 2) < 0.05 * near.shape[2]
    grown, steady = (normalise_sequence(masks).astype(int) for masks in (near, across))
    assert np.abs(grown - steady).mean() < 6.0


def test_the_command_writes_a_walk_towards_the_camera(tmp_path, capsys):
    synthetic_clip.main(["--output", str(tmp_path / "near.mp4"), "--frames", "20", "--towards"])
    video = Video(tmp_path / "near.mp4")
    assert (video.height, video.width) == synthetic_clip.TOWARDS_SIZE
    assert "20 frames" in capsys.readouterr().out


def test_pose_outlines_somebody_who_walks_towards_the_camera(towards, tmp_path):
    models = Path(os.environ["SCOLIOJAX_MODELS"])
    if not models_there(models):
        pytest.skip("the pose models are not there: python -m data_pipelines.video.fetch")
    images, masks = towards
    walk = read_walk(write_clip(tmp_path / "near.mp4", images), backends.make_segmenter("pose", models))
    overlaps = [iou(a, b) for a, b in zip(walk.silhouettes, normalise_sequence(masks[walk.frames]), strict=True)]
    assert len(overlaps) >= 18  # of 60: what it was trained on are photographs
    assert np.mean(overlaps) > 0.7


# Who was chosen


def test_everybody_who_could_have_been_taken_is_told(images, tmp_path):
    first = walk_across(7, 0, 80)[0]
    later = walk_across(8, 1, 24, start=0.3)[0]
    pause = np.repeat(first[:1], 45, axis=0) * 0 + np.median(first, axis=0).astype(np.uint8)
    second = np.where(np.abs(later.astype(int) - np.median(later, axis=0)).max(axis=3, keepdims=True) > 25, later, pause[:1])
    path = write_clip(tmp_path / "two.mp4", np.concatenate([first, pause, second, pause]))
    walk = read_walk(path, Background())
    choice = walk.choice
    assert choice is not None
    assert choice["taken"] == walk.taken == [1]
    assert walk.shape == SIZE
    numbers, shares = [one["number"] for one in choice["candidates"]], [one["share"] for one in choice["candidates"]]
    assert numbers == [1, 2]
    assert shares[0] == pytest.approx(len(walk.silhouettes) / walk.source["frames_taken"], abs=0.001)
    assert 0 < shares[1] < shares[0]
    assert choice["candidates"][1]["start"] > choice["candidates"][0]["end"]
    other = read_walk(path, Background(), [2])
    assert other.taken == [2]
    assert other.choice is not None
    assert other.choice["candidates"] == choice["candidates"]
    alone = read_walk(write_clip(tmp_path / "one.mp4", images), Background())
    assert alone.choice is None
    assert alone.taken == [1]


def test_auto_says_once_that_pose_is_better_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path))
    lines: list[str] = []
    assert backends.make_segmenter("auto", report=lines.append).name == "background"
    (line,) = lines
    assert line.endswith("python -m data_pipelines.video.fetch gets it")
    assert "better than background" in line
    lines.clear()
    backends.make_segmenter("background", report=lines.append)
    assert not lines
