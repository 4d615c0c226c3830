"""What ties a run to its data: the ids of its parts, wherever its files lie; and what may change when it goes on."""

import json
import shutil
from pathlib import Path

import pytest

from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.environment import read_environment, read_rates
from scoliojax.runs.run import open_run, recorded_config
from scoliojax.runs.training import run_training
from scoliojax.scores.model_card import model_card
from tests.conftest import assert_one_clear_error, make_tiny_config, run_here
from tests.runs.test_run import digests, history

IDS = [f"{number:05d}" for number in range(18)]


def partition(path: Path, train: list[str], test: list[str]) -> Path:
    path.write_text(json.dumps({"TRAIN_SET": train, "TEST_SET": test}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a partition file, and a run of two steps that names it relatively, from that folder."""
    folder = tmp_path_factory.mktemp("partition")
    partition(folder / "cut.json", IDS[:12], IDS[12:])
    config = make_tiny_config()
    config.data.partition, config.train.steps, config.train.checkpoint_every = "cut.json", 2, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_training(config, folder / "run")
    return folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """A copy of that folder, whose run reads the partition file in the copy."""
    shutil.copytree(trained, tmp_path / "copy")
    change_record(tmp_path / "copy" / "run", partition=str(tmp_path / "copy" / "cut.json"))
    return tmp_path / "copy"


def change_record(workdir: Path, **data: str) -> None:
    content = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    content["data"] |= data
    (workdir / "config.json").write_text(json.dumps(content), encoding="utf-8")


def evaluate(workdir: Path, *changes: str):
    return run_here("scoliojax.main", "--mode=eval", f"--workdir={workdir}", *changes)


@pytest.mark.slow
def test_a_run_records_its_parts_and_refuses_a_partition_that_changed_under_its_name(copied):
    workdir = copied / "run"
    recorded = run_directory.read_data(workdir)
    assert recorded.parts == {"train": IDS[:12], "validation": [], "test": IDS[12:]}
    assert recorded.parts_digest == run_directory.digest_of({"test": IDS[:11:-1], "train": IDS[:12], "validation": []})
    partition(copied / "cut.json", [*IDS[:11], *IDS[14:16]], [IDS[11], *IDS[12:14], IDS[17]])
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    words = ("another data.partition", "00011 (train there, test here)", "00014 (test there, train here)", "and 1 more")
    for command in (
        evaluate(workdir),
        run_here("scoliojax.main", f"--workdir={workdir}", "--config.train.steps=3"),
        run_here("scoliojax.report", f"--workdir={workdir}"),
    ):
        assert_one_clear_error(command, *words)
        assert command.returncode == 2
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_partition_file_and_data_may_move(copied, monkeypatch):
    workdir = copied / "run"
    (copied / "cut.json").rename(copied / "moved.json")
    missing = evaluate(workdir)
    assert_one_clear_error(missing, "data.partition=", "cut.json' is not there", "--config.data.partition=PATH")
    monkeypatch.chdir(copied)
    found = run_here("scoliojax.main", f"--workdir={workdir}", "--config.data.partition=moved.json")
    assert found.returncode == 0, found.stderr
    monkeypatch.chdir("/")
    assert recorded_config(workdir).data.partition == str(copied / "moved.json")
    assert evaluate(workdir).returncode == 0


@pytest.mark.slow
def test_an_older_run_opens_with_a_warning_and_records_its_parts_when_it_is_trained_on(copied):
    workdir = copied / "run"
    recorded = run_directory.read_data(workdir)
    (workdir / "data.json").write_text(json.dumps({"digest": recorded.digest}), encoding="utf-8")
    change_record(workdir, partition="../cut.json")  # relative, and not there from where the tests run
    other = recorded_config(workdir)
    other.data.partition = str(partition(copied / "other.json", IDS[:11], IDS[12:]))
    with pytest.raises(RunError, match=r"another config: data\.partition"):  # nothing tells that it is the same
        run_directory.check_config(workdir, other.to_dict())
    assert run_directory.read_data(workdir).parts is None
    evaluated = evaluate(workdir)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "warning: an older version trained this run without recording which sequences" in evaluated.stdout
    assert run_directory.read_data(workdir).parts is None
    trained = run_here("scoliojax.main", f"--workdir={workdir}")
    assert trained.returncode == 0, trained.stderr
    assert "those of today's partition are recorded now" in trained.stdout
    assert run_directory.read_data(workdir) == recorded
    run_directory.check_config(workdir, other.to_dict())
    with pytest.raises(RunError, match=r"00011 \(train there, in no part here\)"):
        run_directory.check_data(workdir, recorded.digest, {"train": IDS[:11], "validation": [], "test": IDS[12:]})


def test_paths_are_recorded_so_that_they_hold_from_everywhere(tiny_config, tmp_path, monkeypatch):
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "prepared").mkdir()
    tiny_config.data.root, tiny_config.data.partition = "prepared", "cut.json"
    run_directory.claim(tmp_path / "run", tiny_config.to_dict(), "digest", {"train": []})
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = open_run(tmp_path / "run").config.data
    assert (data.root, data.partition) == (str(tmp_path / "here" / "prepared"), str(tmp_path / "here" / "cut.json"))
    tiny_config.data.root, tiny_config.data.partition = "", "1:1:2"
    run_directory.claim(tmp_path / "other", tiny_config.to_dict(), "digest", {"train": []})
    data = open_run(tmp_path / "other").config.data
    assert (data.root, data.partition) == ("", "1:1:2")


@pytest.mark.slow
def test_a_learning_rate_may_be_lowered_and_stays_on_record(copied):
    workdir = copied / "run"
    raised = run_here(
        "scoliojax.main", f"--workdir={workdir}", "--config.train.steps=4", "--config.optimizer.learning_rate=0.2"
    )
    assert_one_clear_error(raised, "optimizer.learning_rate (0.1 there, 0.2 here)", "may only be lowered")
    assert_one_clear_error(evaluate(workdir, "--config.optimizer.learning_rate=0.01"), "may only be lowered")
    assert not read_rates(workdir)
    done = run_here("scoliojax.main", f"--workdir={workdir}", "--config.optimizer.learning_rate=0.01")  # no step is left
    assert done.returncode == 0, done.stderr
    assert "no step is left, so optimizer.learning_rate stays 0.1" in done.stdout
    assert recorded_config(workdir).optimizer.learning_rate == 0.1
    lowered = run_here(
        "scoliojax.main", f"--workdir={workdir}", "--config.train.steps=4", "--config.optimizer.learning_rate=0.01"
    )
    assert lowered.returncode == 0, lowered.stderr
    assert "optimizer.learning_rate is lowered from 0.1 to 0.01 after step 2" in lowered.stdout
    assert [line["learning_rate"] for line in history(workdir)] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert recorded_config(workdir).optimizer.learning_rate == 0.01
    environment = read_environment(workdir)
    assert environment["learning_rates"] == [{"step": 2, "old": 0.1, "new": 0.01}]
    card = model_card("a run", recorded_config(workdir).to_dict(), environment, None)
    assert "The learning rate was lowered from 0.1 to 0.01 after step 2." in card
    again = run_here("scoliojax.main", f"--workdir={workdir}", "--config.train.steps=5")  # the lower one is now the run's
    assert again.returncode == 0, again.stderr
    assert history(workdir)[-1]["learning_rate"] == pytest.approx(0.01)
    assert sorted(digests(workdir)) == [3, 4, 5]


def test_a_change_is_on_record_once_and_from_where_it_counts(tiny_config, tmp_path):
    config = tiny_config.to_dict()
    run_directory.claim(tmp_path, config, "digest", {"train": []})
    for rate in (0.05, 0.01):
        config["optimizer"]["learning_rate"] = rate
        run_directory.claim(tmp_path, config, "digest", {"train": []})  # records no rate
        assert recorded_config(tmp_path).optimizer.learning_rate > rate
        assert "is lowered" in str(run_directory.record_rate(tmp_path, config, 100 if rate == 0.05 else 200))
    assert [change.step for change in read_rates(tmp_path)] == [100, 200]
    recorded = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(recorded.replace("0.01", "0.05"), encoding="utf-8")  # the power went between the two
    run_directory.record_rate(tmp_path, config, 200)
    assert [(change.step, change.old, change.new) for change in read_rates(tmp_path)] == [(100, 0.1, 0.05), (200, 0.05, 0.01)]
    assert (
        run_directory.record_rate(tmp_path, config, 150) is None
    )  # a checkpoint was damaged, so it goes on from an earlier one
    assert [change.step for change in read_rates(tmp_path)] == [100, 150]


@pytest.mark.slow
def test_an_existing_run_takes_more_steps_and_another_root_without_a_recipe(copied):
    """As README and docs/train.md have it."""
    workdir = copied / "run"
    longer = run_here("scoliojax.main", f"--workdir={workdir}", "--config.train.steps=3")
    assert longer.returncode == 0, longer.stderr
    assert max(digests(workdir)) == 3
    for arguments in (("--mode=eval",), ()):
        moved = run_here("scoliojax.main", *arguments, f"--workdir={workdir}", "--config.data.root=/nowhere/at/all")
        assert_one_clear_error(moved, "/nowhere/at/all")  # the key is known; that folder is not there


@pytest.mark.slow
def test_checkpoints_without_a_config_are_nobody_s(copied):
    workdir = copied / "run"
    (workdir / "config.json").unlink()
    with pytest.raises(RunError, match=r"has checkpoints and no config\.json, so nothing says what they were trained on"):
        run_training(make_tiny_config(), workdir)
    assert not (workdir / "config.json").exists()


@pytest.mark.slow
def test_checkpoints_of_another_run_or_under_another_name_are_not_taken(copied):
    workdir = copied / "run"
    shutil.copytree(workdir, other := copied / "other")
    content = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(content | {"seed": 5}), encoding="utf-8")
    mixed = evaluate(other)
    assert_one_clear_error(mixed, "it is of another run, with seed 0, data", "this one has seed 5")
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "200")
    renamed = evaluate(workdir)
    assert renamed.returncode == 0
    assert "checkpoint 200 is damaged and left out (it holds step 2 under another name)" in renamed.stderr
    assert_one_clear_error(evaluate(workdir, "--step=200"), "it holds step 2 under another name")


@pytest.mark.parametrize("name", run_directory.FOLDERS)
@pytest.mark.parametrize("kind", ["file", "dead link"])
def test_what_stands_in_the_way_of_a_folder_is_named_at_once(name, kind, tmp_path):
    way = tmp_path / "run" / name
    way.parent.mkdir()
    if kind == "file":
        way.write_text("mine", encoding="utf-8")
    else:
        way.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match=f"{name} is no folder; move it away"):
        run_training(make_tiny_config(), tmp_path / "run")
    assert [path.name for path in way.parent.iterdir()] == [name]


@pytest.mark.slow
def test_a_report_does_not_lie_in_the_data_of_the_run(copied):
    workdir = copied / "run"
    change_record(workdir, root=str(copied))
    refused = run_here("scoliojax.report", "--workdir", workdir, "--output", copied / "rep")
    assert_one_clear_error(refused, f"--output={copied / 'rep'} and the data in {copied} contain one another")
    assert not (copied / "rep").exists()


@pytest.mark.slow
def test_a_message_names_the_option_that_named_the_run(copied, tmp_path):
    workdir = copied / "run"
    assert_one_clear_error(
        run_here("scoliojax.report", "--workdir", workdir, "--compare", tmp_path), f"--compare={tmp_path} holds no"
    )
    (workdir / "data.json").write_text("[]", encoding="utf-8")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "000.png").touch()
    screened = run_here("scoliojax.screen", tmp_path / "masks", "--checkpoint", workdir, "--output", tmp_path / "out")
    assert_one_clear_error(screened, f"--checkpoint={workdir}: data.json cannot be read")
    with pytest.raises(RunError, match=r"--compare=.* belongs to another config"):
        run_directory.check_config(workdir, recorded_config(workdir).to_dict() | {"seed": 9}, field="--compare")
