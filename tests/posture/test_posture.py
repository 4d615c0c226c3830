"""The command that measures posture: its numbers and files, what it refuses, and that nothing else is left."""

import csv
import json
import math
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data_pipelines.poses.asymmetry import ENTRIES, asymmetry_vector
from data_pipelines.poses.camera import camera_tilt
from data_pipelines.poses.posture import posture
from data_pipelines.poses.synthetic import true_joints, walk_poses
from data_pipelines.synthetic import SYNTHETIC, draw_walker, synthetic_walkers
from data_pipelines.video.background import Background
from data_pipelines.video.people import Outline
from data_pipelines.video.synthetic_clip import walk_across, write_clip
from data_pipelines.video.walk import Walk, read_walk
from scoliojax.posture.page import FILES
from scoliojax.runs import posture as measures
from scoliojax.runs.posture import FRAME_COLUMNS, SLUGS, SUMMARY_COLUMNS, as_dict, posture_of
from scoliojax.runs.posture_curves import number
from tests.conftest import assert_one_clear_error, run_here
from tests.data_pipelines.test_walk_poses import as_frames, as_pickle
from tests.posture.cameras import seen_by
from tests.report.test_report import Page

FRAMES, RATE = 120, 25
TIMES = np.arange(FRAMES) / RATE


def walker(subject: int = 0, **signs: float) -> SimpleNamespace:
    found = draw_walker(np.random.default_rng((11, subject)), subject % 3)
    vars(found).update(signs)
    return found


def poses_of(body: SimpleNamespace, frames: int = FRAMES) -> np.ndarray:
    """True joints as poses without a doubt, float32 `[s, 17, 3]`."""
    return np.insert(true_joints(body, frames), 2, 1.0, axis=2).astype(np.float32)


def measured(poses: np.ndarray, shape: tuple[int, int] | None = None) -> dict:
    """The content of `posture.json` for poses of a video with frames of `shape`."""
    none = np.empty((0, 64, 64), np.uint8)
    walk = Walk("walk", "poses", none, np.arange(len(poses)), np.arange(len(poses)) / RATE, poses, shape=shape)
    return as_dict(posture_of(walk), None, {})


def medians(result: dict, key: str = "median") -> dict[str, float]:
    return {one["name"]: one[key] for one in result["measures"]}


def posture_command(*arguments: object):
    return run_here("scoliojax.posture", *arguments)


# Numbers


@pytest.mark.parametrize("degrees", [3, -6, 10])
def test_the_true_tilt_is_recovered_from_true_joints_within_a_degree(degrees):
    for subject in range(6):
        body = walker(subject, shoulder_tilt=np.radians(degrees), pelvic_tilt=np.radians(-degrees / 2))
        found = medians(measured(poses_of(body)))
        assert found["shoulder line"] == pytest.approx(degrees, abs=0.3)
        assert found["pelvis line"] == pytest.approx(-degrees / 2, abs=0.5)
        assert found["lateral shift"] == pytest.approx(100 * body.trunk_shift, abs=0.3)
        assert found["cadence"] == pytest.approx(120 * RATE / body.period, rel=0.01)


@pytest.mark.parametrize("roll", [-8.0, 0.0, 5.0])
@pytest.mark.parametrize("pitch", [-10.0, 0.0])
def test_a_tilted_camera_is_noticed_and_taken_off(roll, pitch):
    for subject in range(3):
        body = walker(subject, shoulder_tilt=np.radians(6))
        result = measured(seen_by(poses_of(body), roll, pitch), (854, 480))
        assert result["camera"]["known"], result["camera"]
        assert result["camera"]["tilt"] == pytest.approx(roll, abs=0.3)
        assert medians(result, "levelled")["shoulder line"] == pytest.approx(6, abs=0.5)
        assert abs(medians(result)["shoulder line"] - 6) == pytest.approx(abs(roll), abs=0.5)
        assert medians(result, "levelled")["cadence"] is None
        assert ("tilted camera" in {flag["name"] for flag in result["flags"]}) == (abs(roll) > 2)


NO_HORIZON = {  # what hides it, and what is said
    "a picture of unknown size": (lambda poses: (poses, None), "the picture's middle is not known"),
    "a walk beside the middle": (lambda poses: (seen_by(poses, 0, 10, offset=0.5), (854, 480)), "pixels beside the picture's"),
    "one stride": (lambda poses: (seen_by(poses[:40], 0, 0), (854, 480)), "whole strides found: 0, 2 are needed"),
}


@pytest.mark.parametrize("kind", NO_HORIZON)
def test_where_the_horizon_cannot_be_told_it_is_flagged(kind):
    change, words = NO_HORIZON[kind]
    poses, shape = change(poses_of(walker(1)))
    result = measured(poses, shape)
    assert not result["camera"]["known"]
    assert words in result["camera"]["why_not"]
    (flag,) = (flag for flag in result["flags"] if flag["name"] == "horizon unknown")
    assert words in flag["message"]
    assert all(one["levelled"] is None for one in result["measures"])
    assert medians(result)["shoulder line"] is not None


def test_a_walker_whose_legs_sway_from_stride_to_stride_gives_no_horizon():
    poses = seen_by(poses_of(walker(1, period=20.0)), 0, 0)
    drift = 120 * np.sin(np.arange(FRAMES) / 11)[:, None]
    poses[:, 5:13, 0] += drift  # from the hips up
    tilt = camera_tilt(poses, TIMES, (854, 480))
    assert not tilt.known
    assert "differs from stride to stride" in tilt.why


def test_damaged_frames_do_not_count_and_the_vector_is_that_of_a_network():
    poses = poses_of(walker(4))
    usual = medians(measured(poses))
    poses[30:40, 5, 1] += 30  # the left shoulder falls
    poses[30:40, 6] = 0  # and the right one is not seen
    result = measured(poses)
    assert result["quality"]["bad_frames"] == 10
    assert result["quality"]["damage"]["with too few joints"] == 10
    assert medians(result)["shoulder line"] == pytest.approx(usual["shoulder line"], abs=0.4)
    vector = asymmetry_vector(poses).ravel()
    assert [one["entry"] for one in result["asymmetry"]] == list(ENTRIES)
    np.testing.assert_array_equal([one["value"] for one in result["asymmetry"]], vector.astype(float))
    assert {one["unit"] for one in result["asymmetry"]} == {"1/128 of the body's height", "rad"}


def test_numbers_of_a_page():
    assert [number(value) for value in (None, 0.04, -0.04, 12.345)] == ["unknown", "0.0", "0.0", "12.3"]
    assert [number(value, True) for value in (0.04, -0.04, 2.0, -3.16)] == ["0.0", "0.0", "+2.0", "-3.2"]


# Files


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """The folder of a pickle's posture, what was printed, and the poses."""
    folder, poses = tmp_path_factory.mktemp("posture"), walk_poses(2, FRAMES, 1)
    done = posture_command(as_pickle(folder / "walk.pkl", poses), "--rate", RATE, "--output", folder / "out", "--synthetic")
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout, poses


def test_the_files_say_the_same_in_every_form(answered):
    folder, printed, poses = answered
    assert {path.name for path in folder.iterdir()} == FILES
    result = json.loads((folder / "posture.json").read_text(encoding="utf-8"))
    assert result["schema"] == "scoliojax.posture/1"
    assert result["synthetic"]
    assert result["input"]["frames_per_second"] == RATE
    expected = posture(np.where(np.any(list(read(poses).quality.bad.values()), axis=0)[:, None, None], 0, poses), TIMES)
    for one, measure in zip(result["measures"], expected, strict=True):
        assert one["median"] == pytest.approx(measure.median, abs=1e-4)
        assert f"{measure.name}: {number(measure.median, 'positive' in measure.about)} {measure.unit}" in printed
    with (folder / "frames.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == FRAME_COLUMNS
    assert len(rows) == FRAMES
    for measure in expected:
        curve = [float(row[SLUGS[measure.name]] or "nan") for row in rows]
        np.testing.assert_allclose(curve, measure.curve, atol=1e-4)
    assert float(rows[10]["time_seconds"]) == 10 / RATE
    with (folder / "measures.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 8 + 24
    assert [float(row["median"]) for row in table[:8]] == [one["median"] for one in result["measures"]]
    assert printed.count("(synthetic)") == 9
    assert "not a medical device" in printed
    with Image.open(folder / "curves.png") as picture:
        assert min(picture.size) > 900
        assert len(picture.convert("RGB").getcolors(2**20)) > 100


def read(poses: np.ndarray) -> measures.Posture:
    return posture_of(Walk("walk", "poses", np.empty((0, 64, 64), np.uint8), np.arange(len(poses)), TIMES, poses))


def test_the_page_is_whole_asks_for_nothing_and_says_its_limits(answered):
    folder, _, _ = answered
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(value.startswith("data:") for value in page.asked)
    assert "script" not in page.tags
    assert not re.search(r'class="(wide|scroll)"(?! tabindex="0" role="group" aria-label="[^"])', text), "scrolls by keys, too"
    assert list(page.pictures) == ["posture over the walk (synthetic)"]
    for words in (
        "No number is a Cobb angle",
        "(perspective)",
        "A tilted camera",
        "horizon is not known",
        "not a medical device",
        "a synthetic walker, not a person",
    ):
        assert words in text, words
    assert all(entry in text for entry in ENTRIES)
    for heading in re.findall(r"<h[12]>[^<]*(?:Posture)[^<]*</h", text):
        assert "(synthetic)" in heading


def test_a_second_measurement_takes_the_place_of_the_first_and_of_nothing_else(answered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = as_pickle(tmp_path / "walk.pkl", walk_poses(0, 60, 1))
    assert posture_command(first).returncode == 0
    before = (tmp_path / "posture" / "walk" / "posture.json").read_bytes()
    assert posture_command(first).returncode == 0
    assert (tmp_path / "posture" / "walk" / "posture.json").read_bytes() == before
    other = as_pickle(tmp_path / "walk.pickle", walk_poses(1, 60, 1))
    assert_one_clear_error(posture_command(other), "holds the answer for another input", "--output")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine", encoding="utf-8")
    assert_one_clear_error(posture_command(first, "--output", tmp_path / "mine"), "something else than measures of posture")
    assert_one_clear_error(posture_command(first, "--output", first), "is a file")
    frames = as_frames(tmp_path / "frames", walk_poses(0, 20, 1))
    assert_one_clear_error(posture_command(frames, "--output", frames / "out"), "lies in the input")
    assert {path.name for path in tmp_path.iterdir()} == {"walk.pkl", "walk.pickle", "posture", "mine", "frames"}


def test_several_inputs_have_a_row_each_also_those_without_measures(tmp_path):
    good = as_pickle(tmp_path / "good.pkl", walk_poses(0, 60, 1))
    still = as_pickle(tmp_path / "still.pkl", walk_poses(0, 1, 1).repeat(60, axis=0))
    broken = as_frames(tmp_path / "broken", walk_poses(0, 20, 1))
    (broken / "0003.json").write_text("{", encoding="utf-8")
    done = posture_command(good, still, broken, tmp_path / "none.mp4", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.count("error:") == 2
    with (tmp_path / "out" / "posture.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == SUMMARY_COLUMNS
    assert [Path(row["input"]).name for row in rows] == ["good.pkl", "still.pkl", "broken", "none.mp4"]
    assert [row["no_measures"] for row in rows] == ["", "still", "", ""]
    assert "0003.json: is no JSON" in rows[2]["error"]
    assert "does not exist" in rows[3]["error"]
    assert math.isfinite(float(rows[0]["shoulder_line_degrees_median"]))
    assert rows[0]["horizon"] == "unknown"
    assert rows[1]["shoulder_line_degrees_median"] == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"posture.csv", "good", "still"}
    assert {path.name for path in (tmp_path / "out" / "still").iterdir()} == {"posture.json", "report.html"}
    assert "Nothing was measured, because" in (tmp_path / "out" / "still" / "report.html").read_text(encoding="utf-8")
    assert "1 of 4 measured" in done.stdout


# Refusals

REFUSED = {  # arguments in a folder, and words of the one line
    "an option of screen": (["walk.mp4", "--backend", "background"], ["unrecognized arguments: --backend background"]),
    "COCO-18": (["eighteen.pkl"], ["eighteen.pkl", "has 18 joints (COCO-18 of OpenPose", "give [frames, 17, 3]"]),
    "NaN": (["nan.pkl"], ["nan.pkl: frame 0, nose", "write 0, 0, 0"]),
    "nobody": (["nobody.pkl"], ["nobody is seen"]),
    "silhouettes": (["silhouettes.pkl"], ["has no poses, only silhouettes; give poses, or a video"]),
    "a broken JSON": (["frames"], ["0002.json: is no JSON"]),
    "no pickle": (["text.pkl"], ["text.pkl", "not a readable pickle of a numpy array"]),
    "nothing": (["nothing.pkl"], ["nothing.pkl does not exist"]),
    "a person of poses": (["good.pkl", "--person", "2"], ["--person", "holds one person"]),
    "models of poses": (["good.pkl", "--models", "m"], ["--models", "no input is one; leave it out"]),
    "a rate of a video": (["walk.mp4", "--rate", "30"], ["--rate and --synthetic are of poses"]),
    "no models": (["walk.mp4", "--models", "m"], ["pose_detection.tflite is missing; python -m data_pipelines.video.fetch"]),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder, poses = tmp_path_factory.mktemp("inputs"), walk_poses(0, 20, 1)
    as_pickle(folder / "good.pkl", poses)
    as_pickle(folder / "eighteen.pkl", np.zeros((20, 18, 3), np.float32))
    as_pickle(folder / "nan.pkl", np.full((20, 17, 3), np.nan, np.float32))
    as_pickle(folder / "nobody.pkl", np.zeros((20, 17, 3), np.float32))
    (folder / "silhouettes.pkl").write_bytes(pickle.dumps(synthetic_walkers(3, 20).read(0)))
    (folder / "text.pkl").write_text("poses", encoding="utf-8")
    (as_frames(folder / "frames", poses) / "0002.json").write_text('{"people": [', encoding="utf-8")
    write_clip(folder / "walk.mp4", walk_across(0, 2, 3, size=(64, 64))[0])
    return folder


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_measured_is_one_line(kind, inputs, tmp_path, monkeypatch):
    arguments, words = REFUSED[kind]
    monkeypatch.chdir(inputs)
    done = posture_command(*arguments, "--output", tmp_path / "out")
    assert_one_clear_error(done, *words)
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


# Videos


class Known(Background):
    """Finds people as `Background` does, with the true joints of a walker in the middle of the picture."""

    name = "known"

    def __init__(self, poses: np.ndarray):
        super().__init__()
        self.poses = poses

    def __call__(self, frame) -> list[Outline]:
        return [Outline(one.mask, self.poses[frame.number]) for one in super().__call__(frame)]


def test_a_video_gives_the_numbers_of_its_joints_and_is_marked_as_synthetic(tmp_path):
    images, _ = walk_across(0, 2, 60, size=(160, 256), scale=1.3)
    path = write_clip(tmp_path / "walk.mp4", images, comment=SYNTHETIC)
    poses = seen_by(poses_of(walker(3, period=18.0), 60), 4, 0, size=(160, 256))
    walk = read_walk(path, Known(poses))
    assert walk.source["synthetic"]
    result = as_dict(posture_of(walk), "known", {})
    assert result["synthetic"]
    assert result["joints"]["backend"] == "known"
    assert walk.frames.tolist() == list(range(60))
    expected = {measure.name: measure.median for measure in posture(poses, walk.times)}
    assert medians(result) == pytest.approx(expected, abs=1e-4)
    assert result["camera"]["tilt"] == pytest.approx(4, abs=0.5)
