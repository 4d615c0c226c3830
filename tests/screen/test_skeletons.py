"""Screening with networks that read skeletons, alone and beside one that reads silhouettes."""

import csv
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.pipelines import EvalBatcher
from data_pipelines.poses.asymmetry import asymmetry_vector
from data_pipelines.poses.drawing import drawn
from data_pipelines.poses.maps import map_marks
from data_pipelines.poses.synthetic import synthetic_poses, walk_poses
from data_pipelines.schema import CLASSES
from data_pipelines.synthetic import synthetic_walkers
from data_pipelines.video.walk import Walk, read_walk
from scoliojax.runs.run import open_run
from scoliojax.scores.strips import MARKS
from scoliojax.screen.answer import Screener
from scoliojax.screen.limits import disagreement, reasons_of
from scoliojax.screen.pictures import draw_strips
from scoliojax.screen.result import Wanted, as_dict
from scoliojax.training.evaluate import evaluate, make_eval_step
from tests.screen.test_screen import screen

PLAIN = {"result.json", "report.html"}


@pytest.fixture
def poses(tmp_path):
    """A pickle with the poses of a walk."""
    path = tmp_path / "poses.pkl"
    path.write_bytes(pickle.dumps(walk_poses(1, 66, 0)))
    return path


def both(frames: int = 66) -> Walk:
    """A walk with silhouettes and poses, as a video gives them."""
    silhouettes, numbers = synthetic_walkers(3, frames).read(1), np.arange(frames)
    return Walk("walk.mp4", "video", silhouettes, numbers, numbers / 25, poses=walk_poses(1, frames, 0))


def test_the_answer_is_that_of_the_evaluation(skeleton_run, tmp_path):
    walkers = drawn(synthetic_poses(6, 40))
    network = open_run(skeleton_run).network("newest")
    batch = EvalBatcher(walkers, np.arange(6), 6, 720)(0)
    found = evaluate(make_eval_step(network.graph), network.state.params, network.state.batch_stats, [batch])
    screener = Screener(network)
    for row in range(6):
        path = tmp_path / f"{row}.pkl"
        path.write_bytes(pickle.dumps(walk_poses(row, 40, 0)))
        answer = screener(read_walk(path, None))
        np.testing.assert_allclose(answer.whole.strip_logits, found.strip_logits[row], atol=2e-6)
        np.testing.assert_array_equal(answer.frames, walkers.read(row))


def test_a_window_is_read_with_its_own_posture_and_a_cut_walk_with_that_of_the_whole(skeleton_run):
    network, walk = open_run(skeleton_run).network("newest"), both()
    screener, asked = Screener(network), []
    read = screener._read
    screener._read = lambda pooled, asymmetry: asked.append(asymmetry) or read(pooled, asymmetry)
    screener(walk)
    expected = [walk.poses, walk.poses[:30], walk.poses[30:]]
    for found, frames in zip(asked, expected, strict=False):
        np.testing.assert_array_equal(found[0], asymmetry_vector(frames))
    network.config.data.max_eval_frames = 45
    asked.clear()
    assert screener(walk).frames_used == 45
    np.testing.assert_array_equal(asked[0][0], asymmetry_vector(walk.poses))


def test_poses_are_answered_for_in_full(skeleton_run, poses, tmp_path, capsys):
    folder = tmp_path / "out"
    assert screen(poses, "--checkpoint", skeleton_run, "--output", folder) == 0
    assert {path.name for path in folder.iterdir()} == PLAIN | {"skeletons.png", "skeletons.gif"}
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["network"]["modality"] == "skeletons"
    assert result["input"]["kind"] == "poses"
    assert result["beside"] is None
    assert sum(result["answer"]["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "66 skeletons were read" in page
    assert "silhouette" not in page
    assert "skeletons damaged" in capsys.readouterr().out


def test_two_networks_read_one_walk_and_a_disagreement_is_flagged(run, skeleton_run, monkeypatch):
    walk = both()
    first, second = (Screener(open_run(folder).network("newest"))(walk) for folder in (run, skeleton_run))
    assert [len(one.qualities) for one in (first, second)] == [1, 2]
    result = as_dict(first, "pose", {}, None, Wanted(None, None), second)
    other = result["beside"]
    assert (result["network"]["modality"], other["network"]["modality"]) == ("silhouettes", "skeletons")
    assert other["answer"]["class"] == second.whole.called
    apart = (first.whole.called, first.whole.referred) != (second.whole.called, second.whole.referred)
    assert ("networks disagree" in {flag["name"] for flag in result["flags"]}) == apart
    assert disagreement(first, first) is None

    other_class = CLASSES[(CLASSES.index(first.whole.called) + 1) % 3]
    turned = np.roll(first.whole.strip_logits, 1, axis=1)
    second = replace(second, whole=replace(second.whole, strip_logits=turned))
    assert second.whole.called == other_class
    flag = disagreement(first, second)
    assert flag is not None
    assert f"(silhouettes) calls it {first.whole.called}" in flag.message
    assert f"(skeletons) calls it {other_class}" in flag.message

    monkeypatch.setattr("scoliojax.screen.limits.reasons_of", lambda answer: [] if answer is first else ["damaged"])
    flag = disagreement(first, second)
    assert flag is not None
    assert "skeleton_run (skeletons) has no answer for this walk" in flag.message
    monkeypatch.setattr("scoliojax.screen.limits.reasons_of", lambda answer: ["damaged"])
    assert disagreement(first, second) is None


def test_what_is_no_walk_by_its_joints_gets_no_answer(skeleton_run):
    walk = both()
    still = Walk(walk.name, "poses", walk.silhouettes[:0], walk.frames, poses=np.repeat(walk.poses[:1], 66, axis=0))
    assert "still" in {reason.name for reason in reasons_of(Screener(open_run(skeleton_run).network("newest"))(still))}
    with_silhouettes = Walk(walk.name, "video", walk.silhouettes, walk.frames, walk.times, poses=still.poses)
    found = reasons_of(Screener(open_run(skeleton_run).network("newest"))(with_silhouettes))
    assert [reason.name for reason in found] == ["still"]


def test_the_answer_beside_has_its_columns(run, skeleton_run, tmp_path, monkeypatch):
    walk = both()
    monkeypatch.setattr("scoliojax.screen.reader.read_walk", lambda path, *_: walk)
    inputs = []
    for name in ("one", "two"):
        inputs.append(tmp_path / f"{name}.pkl")
        inputs[-1].write_bytes(pickle.dumps(walk.silhouettes))
    folder = tmp_path / "out"
    assert screen(*inputs, "--checkpoint", run, "--beside", skeleton_run, "--output", folder) == 0
    with (folder / "screening.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    other = Screener(open_run(skeleton_run).network("newest"))(walk)
    assert [row["beside_class"] for row in rows] == [other.whole.called] * 2
    assert {row["beside_referred"] for row in rows} == {"yes" if other.whole.referred else "no"}
    page = (folder / "one" / "report.html").read_text(encoding="utf-8")
    assert "What another network says" in page
    assert page.count("skeleton_run") >= 2


def test_a_network_beside_that_cannot_read_the_walk_leaves_the_first_answer(run, skeleton_run, poses, tmp_path):
    folder = tmp_path / "out"
    assert screen(poses, "--checkpoint", skeleton_run, "--beside", run, "--output", folder) == 0
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["answer"] is not None
    assert result["beside"] is None
    (flag,) = [flag for flag in result["flags"] if flag["name"] == "no answer beside"]
    assert "run reads silhouettes, and there are poses alone" in flag["message"]


def test_a_skeleton_without_a_joint_gets_no_answer_unless_the_joint_is_not_drawn(skeleton_run):
    network = open_run(skeleton_run).network("newest")

    def without(*joints: int) -> list[str]:
        walk = both()
        walk.poses[:, list(joints)] = 0
        return [reason.name for reason in reasons_of(Screener(network)(walk))]

    assert without() == []
    assert without(10) == without(1) == ["joints never seen"]
    network.config.data.maps.body_only = True
    assert without(1) == []


def test_the_names_beside_the_strips_are_those_of_what_the_network_reads(run, skeleton_run):
    walk = both()
    for folder, names in ((run, list(MARKS)), (skeleton_run, list(map_marks()))):
        body = draw_strips(Screener(open_run(folder).network("newest"))(walk)).axes[0]
        assert [label.get_text() for label in body.get_yticklabels()] == names
    body_only = open_run(skeleton_run).network("newest")
    body_only.config.data.maps.body_only = True
    body = draw_strips(Screener(body_only)(walk)).axes[0]
    np.testing.assert_allclose(body.get_yticks(), list(map_marks(body_only=True).values()))
