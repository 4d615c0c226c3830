"""Which walks get no answer, and what is said of an answer's limits; the networks are untrained."""

import csv
import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data_pipelines.schema import CLASSES, SILHOUETTES
from data_pipelines.synthetic import synthetic_walkers
from data_pipelines.video.walk import Walk
from scoliojax.runs.inputs import folder_names
from scoliojax.runs.run import open_run
from scoliojax.scores import reference
from scoliojax.scores.calibration import Calibration
from scoliojax.screen.answer import ALSO_READ, Screener
from scoliojax.screen.limits import flags_of, reasons_of
from scoliojax.screen.result import Wanted, as_dict, as_row
from scoliojax.screen.terminal import lines_of
from tests.conftest import shared_folder
from tests.screen.test_screen import FILES, screen


def pickled(path: Path, silhouettes: np.ndarray) -> Path:
    path.write_bytes(pickle.dumps(silhouettes))
    return path


def test_a_walk_without_an_answer_has_a_report_and_no_figure_of_the_network(run, tmp_path, capsys, no_figures):
    walkers = synthetic_walkers(3, 60)
    still = pickled(tmp_path / "still.pkl", np.repeat(walkers.read(1)[:1], 60, axis=0))
    good = pickled(tmp_path / "good.pkl", walkers.read(1))
    assert screen(still, "--checkpoint", run, "--output", tmp_path / "out", "--coverage", "0.9") == 2
    said = capsys.readouterr()
    assert "no answer (still)" in said.out
    assert said.err == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert [reason["name"] for reason in result["no_answer"]] == ["still"]
    assert (result["answer"], result["windows"], result["strips"], result["windows_agreeing"]) == (None, [], [], 0)
    assert not any(
        name in (tmp_path / "out" / "result.json").read_text(encoding="utf-8") for name in ("probabilities", "logits")
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "No answer, because" in page
    assert "probability" not in page.split("</style>")[-1].lower()
    assert screen(still, good, "--checkpoint", run, "--output", tmp_path / "both") == 2
    assert "1 of 2 answered" in capsys.readouterr().out
    with (tmp_path / "both" / "screening.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["no_answer"], first["class"], first["error"]) == ("still", "", "")
    assert second["no_answer"] == ""
    assert second["class"] in CLASSES


def test_masks_of_no_walk_get_no_answer(run, tmp_path, capsys, no_figures):
    folders = []
    for path in sorted((shared_folder("SCOLIOJAX_SHARED", "trials") / "masks").glob("*.npz")):
        folders.append(tmp_path / path.stem)
        folders[-1].mkdir()
        for number, mask in enumerate(np.load(path)["masks"]):
            cv2.imwrite(str(folders[-1] / f"{number:03d}.png"), mask.astype(np.uint8) * 255)
    assert len(folders) == 14
    assert screen(*folders, "--checkpoint", run, "--output", tmp_path / "out") == 2
    assert "0 of 14 answered" in capsys.readouterr().out
    with (tmp_path / "out" / "screening.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["no_answer"] or row["error"] for row in rows)
    assert not any(row["referred"] or row["class"] for row in rows)


def test_a_walk_far_from_training_gets_no_answer_and_one_near_the_bound_a_flag(run):
    network = open_run(run).network("newest")
    walk = Walk("walk", "masks", synthetic_walkers(3, 60).read(1), np.arange(60))
    answer = Screener(network)(walk)
    assert "no reference" in {flag.name for flag in flags_of(answer)}
    embeddings = answer.whole.embeddings[None] + np.random.default_rng(0).normal(0, 0.01, (200, *answer.whole.embeddings.shape))
    for scale, unlike, beyond in ((1.0, False, False), (0.75, True, False), (0.1, True, True)):
        fitted = reference.fit(embeddings.astype(np.float32), {60: embeddings[:120].astype(np.float32)}, network.digest, True)
        distance = float(fitted.distance(answer.whole.embeddings[None])[0])
        usual = np.array([distance / 0.9 * scale if scale > 0.5 else distance * scale])
        network.__dict__["reference"] = SimpleNamespace(distance=fitted.distance, judge=replace(fitted, usual=usual).judge)
        fresh = replace(answer)  # what is computed once is not kept
        assert ("unlike training" in {flag.name for flag in flags_of(fresh)}) == (unlike and not beyond)
        assert ([reason.name for reason in reasons_of(fresh)] == ["unlike training"]) == beyond
        result = as_dict(fresh, None, {}, None, Wanted())
        assert (result["answer"] is None) == beyond
        assert result["typicality"]["distance"] == pytest.approx(distance)
        assert (result["typicality"]["unlike"], result["typicality"]["beyond"]) == (unlike, beyond)


def test_an_answer_that_one_pixel_changes_is_fragile(run):
    network = open_run(run).network("newest")
    answer = Screener(network)(Walk("walk", "masks", synthetic_walkers(3, 60).read(1), np.arange(60)))
    assert tuple(answer.perturbed) == ALSO_READ[SILHOUETTES]
    moved = [np.roll(answer.walk.silhouettes, by, axis=2) for by in (-1, 1)] + [answer.walk.silhouettes[:, :, ::-1]]
    for name, silhouettes in zip(ALSO_READ[SILHOUETTES], moved, strict=True):
        alone = Screener(network)(Walk("walk", "masks", np.ascontiguousarray(silhouettes), np.arange(60))).whole
        np.testing.assert_allclose(answer.perturbed[name].strip_logits, alone.strip_logits, atol=2e-6)
    same = dict.fromkeys(ALSO_READ[SILHOUETTES], answer.whole)
    other = replace(answer.whole, strip_logits=np.roll(answer.whole.strip_logits, 1, axis=1))
    for perturbed, expected in ((same, []), (same | {"mirrored": other}, ["mirrored"])):
        changed = replace(answer, perturbed=perturbed)
        assert changed.fragile == expected
        assert ("fragile" in {flag.name for flag in flags_of(changed)}) == bool(expected)
        assert as_dict(changed, None, {}, None, Wanted())["answer"]["fragile"] == bool(expected)


@pytest.mark.parametrize(
    ("margins", "prevalence", "share", "expected"),
    [
        (((0.1,) * 50, (0.1,) * 25, (0.1,) * 25), 0.5, 0.5, 0.7),  # the same mix: the same probability
        (((0.1,) * 20, (0.1,) * 40, (0.1,) * 40), 0.2, 0.8, None),
        (None, 0.03, None, "unknown"),
    ],
)
def test_at_another_prevalence_the_probability_is_that_of_bayes(run, margins, prevalence, share, expected):
    network = open_run(run).network("newest")
    network.__dict__["calibration"] = Calibration(network.digest, True, 0.8, 0.5, 0.9, 0.9, 0.8, 100, 100, margins=margins)
    answer = Screener(network)(Walk("walk", "masks", synthetic_walkers(3, 60).read(1), np.arange(60)))
    given = as_dict(answer, None, {}, None, Wanted(prevalence=prevalence))["answer"]["prevalence"]
    assert given["validation_share"] == share
    assert given["measured_on"] == "validation"
    screening = answer.whole.screening
    if share is None:
        assert given["positive_or_neutral"] is None
    elif share == prevalence:
        assert given["positive_or_neutral"] == pytest.approx(screening, abs=1e-5)
    else:
        odds = screening / (1 - screening) * (prevalence / (1 - prevalence)) / (share / (1 - share))
        assert given["positive_or_neutral"] == pytest.approx(odds / (1 + odds), abs=1e-5)
    assert given["ppv"] == pytest.approx(0.9 * prevalence / (0.9 * prevalence + 0.2 * (1 - prevalence)), abs=1e-5)
    assert given["npv"] == pytest.approx(0.8 * (1 - prevalence) / (0.8 * (1 - prevalence) + 0.1 * prevalence), abs=1e-5)


def test_a_prediction_set_is_given_where_it_is_asked_for(run):
    network = open_run(run).network("newest")
    walk = Walk("walk", "masks", synthetic_walkers(3, 60).read(1), np.arange(60))
    assert as_dict(Screener(network)(walk), None, {}, None, Wanted())["answer"]["prediction_set"] is None
    old = as_dict(Screener(network)(walk), None, {}, None, Wanted(coverage=0.9))
    assert old["answer"]["prediction_set"]["classes"] is None
    assert "evaluate it again" in old["answer"]["prediction_set"]["note"]
    margins = (tuple(np.linspace(-9, 9, 50)),) * 3
    calibration = Calibration(network.digest, True, 0.8, 0.5, 0.9, 0.9, 0.8, 150, 150, margins=margins)
    network.__dict__["calibration"] = calibration
    found = as_dict(Screener(network)(walk), None, {}, None, Wanted(coverage=0.9))
    chosen = found["answer"]["prediction_set"]
    assert (chosen["coverage"], set(chosen["classes"]) <= set(CLASSES)) == (0.9, True)
    sure = calibration.prediction_set(np.asarray(list(found["answer"]["probabilities"].values()))[None], 0.9)[0][0]
    assert chosen["classes"] == [name for name, kept in zip(CLASSES, sure, strict=True) if kept]
    assert any("coverage" in line for line in lines_of(found))
    row = as_row("walk", found | {"typicality": {"distance": 1.5}})
    assert row["prediction_set"] == " ".join(chosen["classes"])
    assert (row["bad_frames"], row["distance"], row["fragile"]) == (0, "1.5", "yes" if found["answer"]["fragile"] else "no")


NAMES = ["walk$1_{$.mp4", "步態" * 40 + ".mp4", "%s{{x}}<b>&amp;.mp4", "a\nb\x1b[31m.mp4", "-x.mp4", "w" * 250 + ".mp4"]


@pytest.mark.parametrize("name", [*NAMES, b"walk\xff.mp4"])
def test_whatever_the_name_of_the_file_it_is_answered(name, run, clip, tmp_path, capsys, monkeypatch, recwarn):
    folder = tmp_path / "videos"
    folder.mkdir()
    path = folder / (name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))
    path.write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert screen("--checkpoint", run, "--backend", "background", "--", path) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]
    (written,) = (tmp_path / "screening").iterdir()
    assert {one.name for one in written.iterdir()} == FILES
    assert "\x1b" not in said.out


def test_inputs_of_one_name_have_folders_of_their_own():
    paths = [Path("a/walk.mp4"), Path("b/walk.mp4"), Path("a/walk.mov"), Path("c/other.mp4"), Path("walk-mp4-2")]
    assert folder_names(paths) == ["walk-mp4", "walk-mp4-3", "walk-mov", "other", "walk-mp4-2"]
    long = [Path("a", "x" * 250), Path("a", "x" * 249 + "y")]
    names = folder_names(long)
    assert len(set(names)) == 2
    assert all(len(name.encode()) < 200 for name in names)
    assert len({name.casefold() for name in folder_names([Path("Walk.mp4"), Path("walk.avi"), Path("WALK.mkv")])}) == 3


def test_a_network_of_prepared_synthetic_walkers_is_known_by_its_evaluation(run, tiny_config):
    network = open_run(run).network("newest")
    network.config.data.root = "prepared"
    assert network.synthetic, "the calibration was fitted on synthetic walkers"
    other = open_run(run).network("newest")
    other.config.data.root = "prepared"
    Path(run, "calibration", "step-000000.json").unlink()
    assert not other.synthetic
