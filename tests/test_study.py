"""The class-ratio study, as a user runs it, and after a stop in the middle; and the report of its runs."""

import csv
import shutil
from types import SimpleNamespace

import pytest

from configs import sconet_mt
from scoliojax.errors import RunError
from scoliojax.runs import directory, training
from scoliojax.scores.bootstrap import Estimate
from scoliojax.study import __main__ as command
from scoliojax.study import ratios as study
from scoliojax.study.ratios import Cell, summarise, table
from tests.report.test_report import check_report

SMALL = [
    "--config=configs/sconet_mt.py:quickstart",
    "--ratios=1:1:2",
    "--seeds=1",
    "--config.data.synthetic.subjects=36",
    "--config.data.synthetic.frames=4",
    "--config.data.subjects_per_batch=2",
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
    files = ("study.md", "study.csv")
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
    assert [(row["ratio"], row["model"]) for row in rows] == [("1:1:2", "sconet"), ("1:1:2", "sconet_mt")]
    assert all(row["synthetic"] == "True" for row in rows)
    cells = tmp_path / "broken" / "1-1-2"
    check_report(cells / "sconet_mt" / "seed-0", cells / "sconet" / "seed-0", tmp_path, capsys)


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
        (["--models=sconet,gaitset"], "'gaitset' is unknown; known are sconet, sconet_mt"),
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


def test_official_files_are_known_by_their_ratio():
    assert study._as_ratio("there/Scoliosis1K_118.json") == "1:1:8"
    assert study._as_ratio("Scoliosis1K_1116.json") == "1:1:16"
    assert study._as_ratio("1:1:4") == "1:1:4"
    assert study._as_ratio("mine.json") == "mine.json"
