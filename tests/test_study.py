"""The class-ratio study, as a user runs it, and after a stop in the middle; and the report of its runs."""

import csv
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from configs import sconet_mt
from scoliojax.errors import RunError
from scoliojax.runs import directory, training
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.metrics import Scored
from scoliojax.study import MODELS, networks
from scoliojax.study import __main__ as command
from scoliojax.study import ratios as study
from scoliojax.study.pairs import Predicted, pair_up
from scoliojax.study.ratios import Cell, summarise, table
from tests.conftest import make_set
from tests.report.test_report import check_report

SMALL = [
    "--config=configs/sconet_mt.py:quickstart",
    "--ratios=1:1:2",
    "--models=sconet,drf",
    "--seeds=1",
    "--config.data.synthetic.subjects=36",
    "--config.data.synthetic.frames=4",
    "--config.data.subjects_per_batch=12",
    "--config.data.frames_per_clip=3",
    "--config.data.sequences_per_eval_batch=3",
    "--config.model.channels=(2,3,4,5)",
    "--config.model.embedding_dim=4",
    "--config.model.strips=(16,4,1)",
    "--config.train.log_every=1",
    "--config.train.steps=4",
    "--config.train.checkpoint_every=2",
    "--config.train.eval_every=0",
]


@pytest.mark.long
def test_a_study_killed_in_the_middle_ends_with_the_table_of_one_left_in_peace(tmp_path, monkeypatch, capsys):
    command.main([*SMALL, "--workdir", str(tmp_path / "whole")])
    assert "(synthetic)" in capsys.readouterr().out
    files = ("study.md", "study.csv", "pairs.csv")
    whole = [(tmp_path / "whole" / name).read_bytes() for name in files]
    assert (tmp_path / "whole" / "study.svg").exists()
    shutil.copytree(tmp_path / "whole" / "1-1-2" / "sconet", tmp_path / "broken" / "1-1-2" / "sconet")  # it got so far
    train, left = training.train, [2]  # steps until the power goes: in the second cell

    def dying(state, step, *rest, **named):
        def step_or_die(*arguments):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return step(*arguments)

        return train(state, step_or_die, *rest, **named)

    monkeypatch.setattr(training, "train", dying)
    with pytest.raises(SystemExit) as caught:
        command.main([*SMALL, "--workdir", str(tmp_path / "broken")])
    assert caught.value.code == 130
    assert not (tmp_path / "broken" / "study.md").exists()
    monkeypatch.setattr(training, "train", train)
    capsys.readouterr()
    command.main([*SMALL, "--workdir", str(tmp_path / "broken")])
    printed = capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main([*SMALL, "--workdir", str(tmp_path / "whole"), "--config.train.steps=2"])
    assert "was trained further; give as many steps" in capsys.readouterr().err
    assert "== 1:1:2 sconet seed 0: finished" in printed
    assert "going on from step 2" in printed
    assert [(tmp_path / "broken" / name).read_bytes() for name in files] == whole
    with (tmp_path / "broken" / "study.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["ratio"], row["model"]) for row in rows] == [("1:1:2", model) for model in ("sconet", "drf")]
    assert all(row["synthetic"] == "True" for row in rows)
    check_the_pairs(tmp_path / "broken")
    cells = tmp_path / "broken" / "1-1-2"
    check_report(cells / "sconet" / "seed-0", cells / "drf" / "seed-0", tmp_path, capsys)


def check_the_pairs(folder):
    with (folder / "pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["first"], row["second"]) for row in rows if row["score"] == "McNemar"] == [("sconet", "drf")]
    lines = (folder / "study.md").read_text(encoding="utf-8").splitlines()
    predicted = {model: study.read_predicted(folder / "1-1-2" / model / "seed-0", 4) for model in ("sconet", "drf")}
    right = {model: run.scored.predictions == run.scored.labels for model, run in predicted.items()}
    row = next(row for row in rows if (row["second"], row["score"]) == ("drf", "accuracy"))
    assert float(row["difference"]) == pytest.approx(right["drf"].mean() - right["sconet"].mean())
    test = next(row for row in rows if (row["second"], row["score"]) == ("drf", "McNemar"))
    assert int(test["second_only"]) == np.sum(right["drf"] & ~right["sconet"])
    assert any(line.startswith("| 1:1:2 | drf - sconet | 1 | ") and "ours, seed by seed (synthetic)" in line for line in lines)


def small_cells(workdir, **optimizer):
    config = sconet_mt.get_config("quickstart")
    config.update_from_flattened_dict(
        {"data.synthetic.subjects": 36, "data.synthetic.frames": 4, "model.channels": (2, 3, 4, 5)}
    )
    config.optimizer.update(optimizer)
    return study.cells(config, ["1:1:2"], ["sconet"], 1, workdir)


def test_cells_of_another_learning_rate_are_not_of_this_study(tmp_path):
    (cell,) = small_cells(tmp_path)
    directory.claim(cell.folder, cell.config.to_dict(), None)
    study.check([cell])
    with pytest.raises(RunError, match=r"belongs to another config: optimizer\.learning_rate \(0\.1 there, 0\.01 here\)"):
        study.check(small_cells(tmp_path, learning_rate=0.01))


def test_metrics_of_another_partition_are_not_of_this_cell(tmp_path, monkeypatch):
    (cell,) = small_cells(tmp_path)
    monkeypatch.setattr(study, "find_metrics", lambda *_: SimpleNamespace(partition="2:1:1", step=4))
    with pytest.raises(RunError, match=r"is of data\.partition='2:1:1'; delete that evaluation"):
        study.finish(cell)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models=sconet,gaitset"], "'gaitset' is unknown; known are sconet, sconet_mt, sconet_mt_ske, drf"),
        (["--config=configs/drf.py:quickstart"], "a study sets both for each of --models; give a recipe for silhouettes"),
        (["--config.data.modality=skeletons"], "data.modality='skeletons' with model.name='sconet': a study sets both"),
        (["--config.data.subjects_per_batch=4"], "must be a multiple of the 3 classes where data.balanced=True"),
        (["--models=sconet,sconet"], "names one twice"),
        (["--ratios=1:1:8,1:1:8"], "names one twice"),
        (["--ratios=1:1:2,"], "names one twice, or none"),
        (["--seeds=0"], "argument --seeds: '0' is no whole number from 1"),
        (["--ratios=1:1:2,1:0:2"], "no zero in the ratio"),
        (["--ratios=1:1:2,nowhere.json"], "neither a file nor a ratio"),
        (["--config.data.subjects_per_batch=200"], "data.subjects_per_batch=200 but the training part"),
        (["--config.model.channels=(2,3)"], "must be four positive numbers"),
        (["--step=3"], "unexpected argument '--step=3'"),
    ],
)
def test_mistakes_are_told_in_one_line_before_any_training(options, words, tmp_path, capsys):
    given = {option.split("=")[0] for option in options}
    arguments = [option for option in SMALL if option.split("=")[0] not in given] + options
    with pytest.raises(SystemExit) as caught:
        command.main([*arguments, "--workdir", str(tmp_path / "study")])
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert words in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "study").exists()


def cell(ratio: str, model: str, seed: int, accuracy: float | None) -> tuple[Cell, SimpleNamespace]:
    scores = {name: Estimate(accuracy if name == "accuracy" else 0.5, None, None) for name in study.SCORES}
    return Cell(ratio, model, seed, None, None), SimpleNamespace(scores=scores)


def test_the_table_has_mean_and_spread_what_was_published_and_the_difference():
    pairs = [cell("1:1:8", model, seed, value) for model, values in (("sconet", (0.6, 0.8)), ("sconet_mt", (0.8, 0.9)))
             for seed, value in enumerate(values)]  # fmt: skip
    rows = summarise(*map(list, zip(*pairs, strict=True)))
    assert [row.model for row in rows] == ["sconet", "sconet_mt", "sconet_mt", "sconet_mt - sconet"]
    assert rows[0].scores["accuracy"] == (pytest.approx(0.7), pytest.approx(0.1 * 2**0.5))
    assert rows[2].scores["accuracy"] == (0.82, None)
    assert rows[3].scores["accuracy"] == (pytest.approx(0.15), pytest.approx(0.05 * 2**0.5))
    text = table(rows, "walkers", True)
    published = [line for line in text.splitlines() if "published" in line]
    assert len(published) == 1
    assert published[0].count("not given") == 4  # seeds, and three scores
    assert "synthetic" not in published[0]
    assert "| 0.7650 (a) |" in published[0]
    assert text.splitlines()[-1] == study.FOOTNOTE
    assert text.count("(a)") == 2, "no score of ours has the footnote"
    assert "may be the share of neutral or positive children who were not called negative" in study.FOOTNOTE
    assert sum("(synthetic)" in line for line in text.splitlines()) == 3
    undefined = summarise(*map(list, zip(cell("1:1:2", "sconet", 0, None), strict=True)))
    assert undefined[0].scores["accuracy"] == (None, None)
    assert "| sconet | 1 | undefined | 0.5000 |" in table(undefined, "walkers", True)
    assert "(a)" not in table(undefined, "walkers", True), "nothing was published at this ratio"


def test_every_network_of_a_study_is_that_of_its_recipe_but_for_what_the_user_gave(tmp_path):
    config = sconet_mt.get_config("quickstart")
    config.data.clips_per_subject, config.loss.triplet_weight = 3, 0.5
    changes = ["--config.data.clips_per_subject=3", "--config.loss.triplet_weight=0.5"]
    found = study.cells(config, ["1:1:2", "mine.json"], list(MODELS), 1, tmp_path, "quickstart", changes)
    assert {one.model: (one.config.data.modality, one.config.model.name, one.config.loss.triplet_weight) for one in found} == {
        "sconet": ("silhouettes", "sconet", 0.0),
        "sconet_mt": ("silhouettes", "sconet", 0.5),
        "sconet_mt_ske": ("skeletons", "sconet", 0.5),
        "drf": ("skeletons", "drf", 0.5),
    }
    assert {one.config.data.clips_per_subject for one in found} == {3}
    by_name = {(one.ratio, one.model): one.config for one in found}
    assert by_name["1:1:2", "drf"].data.balanced
    assert not by_name["1:1:2", "sconet_mt_ske"].data.balanced
    assert by_name["1:1:2", "drf"].loss.weights_by_class == (0.6, 1.2, 1.2)
    assert by_name["mine.json", "drf"].loss.weights_by_class == (0.174, 1.413, 1.413)
    assert by_name["1:1:2", "sconet_mt"].loss.weights_by_class == (1.0, 1.0, 1.0)
    assert networks.class_weights("1:1:8", (9.0, 9.0, 9.0)) == (9.0, 9.0, 9.0)
    assert networks.class_weights("1:1:8.0", (9.0,)) == (9.0,), "no ratio"
    assert networks.class_weights("1:1:16", ()) == pytest.approx((3 / 33, 16 / 11, 16 / 11), abs=1e-4)


OTHERS = {
    "one is missing": (lambda data: replace(data, sequences=(*data.sequences[:-1], "new")), r"00011, new: in one alone, or of"),
    "another class": (lambda data: replace(data, labels=data.labels[::-1]), "of another subject or class"),
    "another subject": (
        lambda data: replace(data, subjects=("x", *data.subjects[1:])),
        r"\(00000: in one alone, or of another",
    ),
    "another order": (
        lambda data: replace(
            data, sequences=data.sequences[::-1], subjects=data.subjects[::-1], labels=data.labels[::-1], name="turned"
        ),
        "turned has the walks of random in another order",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_networks_are_compared_on_the_same_walks_alone(kind, tmp_path, monkeypatch):
    change, words = OTHERS[kind]
    data = make_set(4)
    with pytest.raises(RunError, match=rf"--models: .*{words}"):
        networks.refuse_other_walks(data, change(data))
    networks.refuse_other_walks(data, replace(data, n_frames=data.n_frames - 1, name="poses"))


def predicted(names="a b c", labels=(0, 1, 2), predictions=(0, 1, 2), subjects="p q r"):
    chances = np.eye(3)[list(predictions)] * 0.7 + 0.1
    return Predicted(names.split(), subjects.split(), Scored(np.array(labels), chances, np.array(predictions)))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"names": "a b d"}, r"drf was evaluated on other walks .*\(c, d: in one alone"),
        ({"labels": (0, 1, 1)}, r"other walks .*\(c: in one alone, or of another subject or class\)"),
        ({"subjects": "p q q"}, r"other walks .*\(c: "),
        ({"names": "b a c", "labels": (1, 0, 2), "subjects": "q p r"}, "another order"),
    ],
)
def test_predictions_of_other_walks_are_not_paired(other, words):
    with pytest.raises(RunError, match=words):
        pair_up({"sconet": [predicted()], "drf": [predicted(**other)]}, ("accuracy",))


def test_a_pair_is_the_mean_over_its_seeds():
    ours, theirs = [predicted(), predicted(predictions=(0, 1, 1))], [predicted(predictions=(1, 1, 1))] * 2
    found = pair_up({"sconet": ours, "drf": theirs}, ("accuracy", "macro_f1"))
    assert found.scores.means["sconet"]["accuracy"].value == pytest.approx(5 / 6)
    assert found.scores.differences["sconet", "drf"]["accuracy"].value == pytest.approx(1 / 3 - 5 / 6)
    assert [one[:2] for one in found.tests["sconet", "drf"]] == [(2, 0), (1, 0)]
    assert set(found.scores.differences) == {("sconet", "drf")}


@pytest.mark.parametrize("content", [None, "", "sequence,subject\n", "sequence,subject,label\na,b,scoliosis\n", "\0"])
def test_predictions_that_cannot_be_read_are_one_line(content, tmp_path):
    folder = tmp_path / "evaluation" / "test-step-000004"
    if content is not None:
        folder.mkdir(parents=True)
        (folder / "predictions.csv").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"predictions.csv cannot be read \(.*\); delete .*test-step-000004, and run the same"):
        study.read_predicted(tmp_path, 4)


def test_official_files_are_known_by_their_ratio():
    assert study._as_ratio("there/Scoliosis1K_118.json") == "1:1:8"
    assert study._as_ratio("Scoliosis1K_1116.json") == "1:1:16"
    assert study._as_ratio("1:1:4") == "1:1:4"
    assert study._as_ratio("mine.json") == "mine.json"
