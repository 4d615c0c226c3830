"""The report of a run: its page, its figures, and what it refuses."""

import base64
import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from data_pipelines.perturbations import PERTURBATIONS
from data_pipelines.poses import maps
from data_pipelines.poses.joints import JOINTS, PAIRS
from data_pipelines.poses.maps import skeleton_maps
from data_pipelines.schema import FRAME_SIZE
from scoliojax.errors import RunError
from scoliojax.models.drf import DRF
from scoliojax.models.sconet import ScoNet
from scoliojax.report import evidence, gates, saliency
from scoliojax.report.__main__ import main
from scoliojax.runs.evaluation import Screening
from scoliojax.scores import strips
from scoliojax.scores.evaluation import Evaluation, Provenance
from scoliojax.scores.metrics import Scored
from scoliojax.scores.robustness import AS_GIVEN
from scoliojax.training.state import split_model
from tests.conftest import assert_one_clear_error, run_module

FIGURES = {"confusion", "curves", "embeddings", "reliability", "saliency", "strips", "training"}


def check_report(one: Path, other: Path, tmp_path: Path, capsys) -> None:
    """The report of a trained run of ScoNet beside one of DRF of the same partition, and the report of that."""
    main(["--workdir", str(one), "--compare", str(other), "--prevalence", "0.04"])
    check_a_report_of_the_posture(other)
    check_the_page_is_whole_and_asks_for_nothing(one, other)
    check_cases_and_strips_can_be_read_by_a_program(one)
    check_reports_replace_reports_and_nothing_else(one, tmp_path, capsys)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("all checked but the look in a browser: install Chromium for that")
    check_a_browser_shows_it_without_a_word(one, browser, tmp_path)


def check_a_report_of_the_posture(run: Path) -> None:
    main(["--workdir", str(run)])
    report = run / "report"
    figures = {path.stem for path in (report / "figures").iterdir()}
    assert figures == FIGURES | {"asymmetry", "gates"}
    text = (report / "report.html").read_text(encoding="utf-8")
    assert "by a hash of the skeleton maps:" in text
    assert text.count("Each frame has its limbs left and its joints right.") == 2
    assert "<td>ankle: angle</td><td>rad</td>" in text
    with (report / "asymmetry.csv").open(encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    assert len(entries) == 24 * 3
    with (report / "gates.csv").open(encoding="utf-8") as file:
        weights = list(csv.DictReader(file))
    assert len(weights) == (16 + 4 + 1 + 4) * 3
    assert all(row["synthetic"] == "True" for row in entries + weights)
    card = (report / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "- DRF (MICCAI 2025, arXiv 2509.00872): skeleton maps of a walk and the postural asymmetry vector" in card
    assert "Weights of the classes in the classification loss: negative 0.6, neutral 1.2, positive 1.2." in card
    assert "Poses of another detector" in card


class Page(HTMLParser):
    """What a page asks a browser for, and what it shows."""

    def __init__(self, text: str):
        super().__init__()
        self.asked, self.tags, self.pictures = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.asked += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "img":
            self.pictures[found["alt"]] = found["src"]


def check_the_page_is_whole_and_asks_for_nothing(run, other):
    report = run / "report"
    assert {path.name for path in report.iterdir()} == {"report.html", "figures", "cases.csv", "strips.csv", "MODEL_CARD.md"}
    assert {path.name for path in (report / "figures").iterdir()} == {
        f"{name}.{end}" for name in FIGURES for end in ("png", "svg")
    }
    text = (report / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(value.startswith("data:") for value in page.asked)
    assert "script" not in page.tags
    assert "@import" not in text
    assert not re.search(r'class="(wide|scroll)"(?! tabindex="0" role="group" aria-label="[^"])', text), "scrolls by keys, too"
    assert len(page.pictures) == len(FIGURES)
    for alt, source in page.pictures.items():
        assert "(synthetic)" in alt
        picture = base64.b64decode(source.removeprefix("data:image/svg+xml;base64,"))
        assert b"<svg" in picture
    assert "Synthetic walkers, not people" in text
    assert "not a diagnosis" in text
    commit = json.loads((run / "environment.json").read_text(encoding="utf-8"))["git_commit"]
    assert commit in text
    for name in (AS_GIVEN, *PERTURBATIONS):
        assert re.search(rf"<td>{name}</td>(<td>[01]\.\d{{3}}</td>){{3,4}}", text), name
    metrics = json.loads((run / "evaluation" / "test-step-000004" / "metrics.json").read_text(encoding="utf-8"))
    assert f"{metrics['n']} sequences of {metrics['subjects']} subjects" in text
    assert f"Compared with DRF, partition 1:1:2, seed 0 ({other.name}, step 4)" in text
    assert "PPV at the prevalence given" in text
    for value in re.findall(r"<th>[^<]*</th>", text):
        if any(word in value for word in ("three classes", "question", "McNemar", "score")):
            assert "synthetic" in value, value


def check_cases_and_strips_can_be_read_by_a_program(run):
    report = run / "report"
    with (report / "strips.csv").open(encoding="utf-8") as file:
        strips = list(csv.DictReader(file))
    assert len(strips) == (16 + 4 + 1) * 3
    assert [row["first_row"] for row in strips if row["level"] == "1" and row["class"] == "positive"] == ["0", "16", "32", "48"]
    with (report / "cases.csv").open(encoding="utf-8") as file:
        cases = list(csv.DictReader(file))
    predictions = (run / "evaluation" / "test-step-000004" / "predictions.csv").read_text(encoding="utf-8")
    wrong = sum(row["label"] != row["prediction"] for row in csv.DictReader(predictions.splitlines()))
    assert sum(case["true"] != case["called"] for case in cases) == wrong > 0
    assert f"# ScoNet, partition 1:1:2, seed 0 ({run.name}, step 4)" in (report / "MODEL_CARD.md").read_text(encoding="utf-8")


def check_a_browser_shows_it_without_a_word(run, browser, tmp_path):
    curious = tmp_path / "curious.html"
    curious.write_text('<img src="http://pictures.example/a.png">', encoding="utf-8")
    asked, _ = look_at(curious, browser, tmp_path / "curious")
    assert asked == {"http://pictures.example/a.png"}, "a page that asks somebody is not noticed"
    asked, said = look_at(run / "report" / "report.html", browser, tmp_path / "look")
    assert asked == set()
    assert ":CONSOLE" not in said, said


def look_at(page: Path, browser: str, folder: Path) -> tuple[set[str], str]:
    """Show a page in a browser that can reach nobody.

    Returns:
      The addresses that the page asked for beside itself, without those that the browser asks for its own sake (its updates,
      the time): they were not set off by a page. And what the browser said.
    """
    folder.mkdir()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
               "--disable-component-update", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND",
               f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}", "--enable-logging=stderr",
               "--v=0", "--virtual-time-budget=5000", "--window-size=390,2000",
               f"--screenshot={folder / 'page.png'}"]  # fmt: skip
    found = subprocess.run(
        [browser, *options, page.as_uri()], capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False
    )
    assert (folder / "page.png").read_bytes().startswith(b"\x89PNG"), found.stderr
    events = json.loads((folder / "net.json").read_text(encoding="utf-8"))["events"]
    requests = [event["params"] for event in events if "initiator" in event.get("params", {})]
    asked = {request["url"] for request in requests if request["initiator"] != "not an origin"}
    return {url for url in asked if not url.startswith(("file:", "data:", "chrome"))}, found.stderr


def check_reports_replace_reports_and_nothing_else(run, tmp_path, capsys):
    capsys.readouterr()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
    for arguments, words in (
        ({"--workdir": run, "--output": tmp_path / "mine"}, "holds something else than a report (thesis.txt)"),
        ({"--workdir": tmp_path / "nothing"}, "holds no run"),
        ({"--workdir": run, "--step": "latest"}, "--step=latest is neither"),
        ({"--workdir": run, "--prevalence": "3"}, "--prevalence=3 must lie between 0 and 1"),
        ({"--workdir": run, "--sensitivity": "0"}, "--sensitivity=0 must be above 0"),
        ({"--workdir": run, "--data": tmp_path / "mine"}, "is given but data.name='synthetic'"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for pair in arguments.items() for word in pair])
        assert caught.value.code == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert words in error
        assert "\n" not in error
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "years"
    assert not list(run.glob(".report*"))
    assert_one_clear_error(run_module("scoliojax.report", "--workdir", tmp_path / "nothing"), "holds no run")


SKELETONS = {"modality": "skeletons", "maps": {"align": "each"}}
UNFIT = {  # what the other run reads, digest, sequences and labels of its data, and words of the line
    "other sequences": ({}, "f00d", "00000 00001 00009", [0, 1, 2], r"differ in 00002, 00009\); compare runs of one partition"),
    "other data": ({}, "cafe", "00000 00001 00002", [0, 1, 2], "has other data than here"),
    "poses of others": (SKELETONS, "cafe", "00000 00001 00009", [0, 1, 2], r"differ in 00002, 00009\)"),
    "poses with another class": (
        SKELETONS,
        "cafe",
        "00000 00001 00002",
        [0, 2, 1],
        "subjects or classes than here of 00001, 0",
    ),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_run_on_other_data_or_sequences_is_not_compared(kind):
    data, digest, sequences, labels, words = UNFIT[kind]
    ours = SimpleNamespace(evaluation=evidence_of([0, 1, 2], [0, 1, 2]), digest="f00d", workdir="here", config={"data": {}})
    network = SimpleNamespace(directory="elsewhere", config=ConfigDict({"data": data, "model": {"name": "drf"}}))
    theirs = SimpleNamespace(
        digest=lambda: digest, sequences=sequences.split(), subjects=["0", "1", "2"], labels=np.array(labels)
    )
    cohort = SimpleNamespace(data=theirs, rows=lambda part: [0, 1, 2])
    with pytest.raises(RunError, match=rf"--compare=elsewhere .*{words}"):
        evidence.compare_runs(ours, network, cohort, "test", Screening())


def test_a_run_that_reads_the_walks_in_another_order_is_compared_walk_by_walk(monkeypatch):
    ours = evidence_of([0, 1, 2, 0], [0, 1, 2, 2])
    mine = SimpleNamespace(evaluation=ours, digest="f00d", workdir="here", config={"data": {}}, scorer=ours.scorer())
    turned = [3, 1, 0, 2]
    theirs = evidence_of(ours.labels[turned], np.array([0, 1, 2, 2])[turned])
    object.__setattr__(theirs, "sequences", [ours.sequences[row] for row in turned])
    object.__setattr__(theirs, "subjects", [ours.subjects[row] for row in turned])
    monkeypatch.setattr(evidence, "evaluate_part", lambda *_, **__: theirs)
    monkeypatch.setattr(evidence, "score", lambda *_: None)
    data = SimpleNamespace(sequences=theirs.sequences, subjects=theirs.subjects, labels=theirs.labels, digest=lambda: "cafe")
    network = SimpleNamespace(directory="elsewhere", config=ConfigDict({"data": SKELETONS, "model": {"name": "drf"}}))
    cohort = SimpleNamespace(data=data, rows=lambda part: range(4))
    found = evidence.compare_runs(mine, network, cohort, "test", Screening())
    assert found.comparison.mcnemar["class"] == (0, 0, None), "both networks say the same of every walk"
    assert found.comparison.differences["accuracy"].value == 0.0


def evidence_of(labels, predictions, certainty=0.9, referred=None):
    labels, predictions = np.array(labels), np.array(predictions)
    certainty = np.broadcast_to(np.asarray(certainty, float), labels.shape)[:, None]
    probabilities = np.where(np.eye(3)[predictions] > 0, certainty, (1 - certainty) / 2)
    found = Evaluation(
        data="walkers", synthetic=True, part="test", classes=("negative", "neutral", "positive"),
        sequences=[f"{row:05d}" for row in range(len(labels))], subjects=[str(row) for row in range(len(labels))],
        labels=labels, strip_logits=np.log(probabilities)[:, None], scale=1.0, rows=np.arange(len(labels)),
        provenance=Provenance(4, "1:1:1", True, {}, []),
    )  # fmt: skip
    found.__dict__["scored"] = Scored(labels, probabilities, predictions, None if referred is None else np.array(referred))
    return found


def test_missed_people_come_first_among_the_cases():
    found = evidence.cases_to_review(evidence_of([2, 0, 1, 0, 2, 1], [0, 1, 2, 0, 2, 0], [0.8, 0.7, 0.9, 0.38, 0.95, 0.99]))
    assert [(case.row, case.reason) for case in found] == [
        (5, "missed"), (0, "missed"), (1, "false alarm"), (2, "another class"), (3, "narrow"),
    ]  # fmt: skip
    at_point = evidence.cases_to_review(evidence_of([2, 0], [0, 0], 0.8, referred=[True, False]))
    assert [(case.row, case.reason) for case in at_point] == [(0, "another class")]


def test_the_certain_cases_are_one_right_of_each_class_and_the_wrong_ones():
    found = evidence.certain_cases(
        evidence_of([0, 0, 1, 2, 2, 1, 1, 0], [0, 0, 1, 0, 1, 2, 0, 2], [0.5, 0.6, 0.7, 0.8, 0.9, 0.55, 0.65, 0.4])
    )
    assert found == [1, 2, 4, 3, 6]  # nothing was rightly called positive


def test_a_strip_contributes_by_what_it_separates():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    logits = rng.normal(0.0, 0.05, (60, 16, 3)) + rng.normal(0.0, 1.0, (60, 16, 1))  # the second is shared by all classes
    logits[np.arange(60), 5, labels] += 0.9
    found = strips.strip_contribution(logits, labels, [str(row) for row in range(60)])
    assert np.argmax(found.value[:, 2]) == 5
    assert found.value[5, 2] == pytest.approx(0.9, abs=0.06)
    assert np.abs(np.delete(found.value, 5, axis=0)).max() < 0.06
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    centred = (logits - logits.mean(2, keepdims=True)).mean(1)  # the whole network's
    whole = centred[labels == 2, 2].mean() - centred[labels != 2, 2].mean()
    assert found.value[:, 2].mean() == pytest.approx(whole)
    absent = strips.strip_contribution(logits, np.zeros(60, int), [str(row) for row in range(60)])
    assert np.isnan(absent.value).all()


def test_strips_lie_where_the_pyramid_puts_them():
    assert strips.strip_bounds((2, 1)) == [(0, 0, 32), (0, 32, 64), (1, 0, 64)]
    assert strips.strip_bounds((16,))[-1] == (0, 60, FRAME_SIZE)


@pytest.mark.parametrize("network", [ScoNet, DRF])
def test_saliency_is_the_gradient_of_the_margin(network):
    rng = np.random.default_rng(0)
    frame, inputs = ((64, 44), 1) if network is ScoNet else ((2, 64, 44), 2)
    model = network(channels=(2, 3, 4, 5), embedding_dim=4, strips=(16,), inputs=inputs, rng=rng)
    vector = rng.uniform(size=(8, 3)).astype(np.float32) if network is DRF else None
    graph, params, batch_stats = split_model(model)
    clip = rng.integers(0, 256, (5, *frame), dtype=np.uint8)
    find = saliency.make_saliency(graph, SimpleNamespace(params=params, batch_stats=batch_stats))
    found = find(clip, vector)
    assert found.gradient.shape == clip.shape
    np.testing.assert_array_equal(found.numbers, np.arange(5))

    def margin(frames):
        whole = nnx.merge(graph, params, batch_stats, copy=True)
        output = whole(jnp.asarray(frames[None]), asymmetry=None if vector is None else vector[None], train=False)
        logits = np.sort(np.asarray(output.logits.mean(1)[0], np.float64))
        return logits[-1] - logits[-2]

    place = np.unravel_index(np.argmax(found.gradient), clip.shape)
    moved = [clip.astype(np.float32) for _ in range(2)]
    moved[0][place] += 2.0
    moved[1][place] -= 2.0
    assert found.gradient[place] == pytest.approx(abs(margin(moved[0]) - margin(moved[1])) / 4.0, rel=0.1)
    long = rng.integers(0, 256, (130, *frame), dtype=np.uint8)
    assert len(find(long, vector).numbers) == 60
    figure = saliency.draw_saliency([("a walk", found)])
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == (5 if network is ScoNet else 3)
    top = int(np.argmax(found.gradient.reshape(5, -1).sum(axis=1)))
    assert any(np.array_equal(picture, strips.side_by_side(clip[top])) for picture in shown)


def test_limbs_lie_left_of_joints():
    frame = np.stack([np.full((64, 44), 1), np.full((64, 44), 2)])
    assert strips.side_by_side(frame)[0].tolist() == [1] * 44 + [2] * 44
    assert strips.side_by_side(frame[0]) is not None
    means = strips.mean_silhouettes(lambda row: np.stack([frame, 3 * frame]) * row, np.array([1, 2, 5]), np.array([0, 0, 2]), 3)
    assert means.shape == (3, 2, 64, 44)
    assert means[:, 1, 0, 0].tolist()[::2] == [6.0, 20.0]
    assert np.isnan(means[1]).all(), "a class that is absent"


@pytest.mark.parametrize(("body_only", "sigma"), [(False, 8.0), (True, 8.0), (False, 4.0), (True, 12.0)])
def test_the_names_beside_a_skeleton_map_stand_where_its_joints_are_drawn(body_only, sigma):
    heights = {"nose": 0.93, "eye": 0.936, "ear": 0.93, "elbow": 0.63, "wrist": 0.485}
    heights |= {name.removesuffix("s"): height for name, height in maps.HEIGHTS.items()}
    pose = np.array([[[500, 1000 - 1000 * heights[name.split()[-1]], 0.9] for name in JOINTS]], np.float32)  # 1 17 3
    marks = maps.map_marks(body_only, sigma)
    assert list(marks) == list(maps.HEIGHTS)[body_only:]
    plain = skeleton_maps(pose, body_only=body_only, sigma=sigma)[0, 1].astype(int)  # 64 64
    for name, row in marks.items():
        surer = pose.copy()
        surer[:, [index for index, joint in enumerate(JOINTS) if joint.endswith(name.removesuffix("s"))], 2] = 1.0
        brighter = (skeleton_maps(surer, body_only=body_only, sigma=sigma)[0, 1] - plain).max(axis=1)  # 64
        assert row == pytest.approx(np.flatnonzero(brighter == brighter.max()).mean() + 0.5, abs=1.0), name


def test_the_gates_of_a_class_are_the_mean_of_those_of_its_walks():
    rng = np.random.default_rng(0)
    model = DRF(channels=(2, 3, 4, 5), embedding_dim=4, strips=(16,), inputs=2, rng=rng)
    model.gates.high[...] = jnp.full((8, 3), 2.0)
    vectors = rng.uniform(0.0, 2.0, (40, 8, 3)).astype(np.float32)
    labels, subjects = np.repeat([0, 2], 20), [str(row) for row in range(40)]
    found = gates.measure_gates(model, vectors, labels, subjects, 3)
    ones = model.gates(jnp.ones((40, 16, 4)), jnp.asarray(vectors))  # n p c: what the network multiplies by
    for label in (0, 2):
        product = np.asarray(ones)[labels == label]
        alone = [gates.measure_gates(model, vectors[[row]], labels[[row]], ["0"], 3) for row in np.flatnonzero(labels == label)]
        for row, one in enumerate(alone):
            whole = one.strips.value[label][:, None] * one.channels.value[label]  # p c
            np.testing.assert_allclose(whole, product[row], rtol=1e-5)
        mean = np.mean([one.strips.value[label] for one in alone], axis=0)
        np.testing.assert_allclose(found.strips.value[label], mean, rtol=1e-6)
        assert (found.channels.low[label] <= found.channels.value[label]).all()
        assert (found.channels.value[label] <= found.channels.high[label]).all()
    assert np.isnan(found.vector.value[1]).all(), "a class that is absent"
    classes = ("negative", "neutral", "positive")
    rows = gates.vector_rows(found, classes)
    assert len(rows) == 24 * 3
    named = {(row["entry"], row["class"]): row for row in rows}
    shoulder = named["shoulder: angle", "positive"]
    assert shoulder["unit"] == "rad"
    assert shoulder["mean"] == pytest.approx(vectors[20:, 2, 2].mean())
    assert (shoulder["training_low"], shoulder["training_high"]) == (0.0, 2.0)
    weights = gates.gate_rows(found, (16,), classes)
    assert [row["gate"] for row in weights].count("strip") == 16 * 3
    assert (weights[3]["first_row"], weights[3]["last_row"]) == (4, 7)
    drawn = gates.draw_gates(found, (16,), classes, maps.map_marks()), gates.draw_vector(found, classes)
    assert [axes.get_title() for axes in drawn[0].axes] == ["strips", "channels"]
    assert [text.get_text() for text in drawn[1].axes[0].get_yticklabels()] == list(PAIRS)
