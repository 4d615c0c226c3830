"""The main job, end to end, as a user runs it: `python -m scoliojax.main` in its own process."""

import contextlib
import dataclasses
import errno
import gzip
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipelines.perturbations import PERTURBATIONS
from data_pipelines.schema import DataError
from data_pipelines.sources import prepare
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.dry_run import dry_run
from scoliojax.runs.environment import read_environment, record_environment
from scoliojax.runs.evaluation import Screening, calibrate, open_network, predict, predict_perturbed, write_evaluation
from scoliojax.runs.run import Run, TrainedNetwork, open_run
from scoliojax.runs.training import profiled, run_training
from scoliojax.scores.robustness import AS_GIVEN
from scoliojax.training.log import is_time
from tests.conftest import ROOT, assert_one_clear_error, run_here, run_module, write_tree

NARROW = (
    "--config=configs/sconet_mt.py:quickstart",
    "--config.model.channels=(2,3,4,5)",
    "--config.model.embedding_dim=4",
    "--config.data.subjects_per_batch=2",
    "--config.data.frames_per_clip=3",
    "--config.data.sequences_per_eval_batch=3",
    "--config.train.log_every=1",
    "--config.data.validation_fraction=0.0",
    "--config.train.eval_every=0",
)
SYNTHETIC = (
    *NARROW,
    "--config.data.synthetic.subjects=18",
    "--config.data.synthetic.frames=6",
    "--config.train.checkpoint_every=3",
)


def main(*arguments: object, **kwargs):
    return run_module("scoliojax.main", *arguments, **kwargs)


def evaluate(workdir: Path, which: str, part: str, config=None, **screening) -> None:
    """As `--mode eval`."""
    write_evaluation(*open_network(open_run(workdir, config=config), which), part, Screening(**screening))


def digests(workdir: Path) -> dict[int, str]:
    """The digest of every checkpoint, as stored beside it."""
    metas = (json.loads(path.read_text(encoding="utf-8")) for path in workdir.glob("checkpoints/*/meta/metadata"))
    return {meta["step"]: meta["digest"] for meta in metas}


def history(workdir: Path) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in line.items() if not is_time(key)} for line in lines]


@pytest.mark.long
def test_the_real_input_prepared_trained_resumed_and_evaluated(silhouettes, tmp_path):
    prepared, workdir = tmp_path / "prepared", tmp_path / "run"
    assert run_module("data_pipelines.prepare", "--input", silhouettes / "raw", "--output", prepared).returncode == 0
    partition = tmp_path / "partition.json"
    ids = [f"{number:05d}" for number in range(8)]
    partition.write_text(json.dumps({"TRAIN_SET": ids[:5], "TEST_SET": [*ids[5:], "99999"]}), encoding="utf-8")
    job = (
        *NARROW,
        "--config.data.name=scoliosis1k",
        f"--config.data.root={prepared}",
        f"--config.data.partition={partition}",
        f"--workdir={workdir}",
        "--config.train.checkpoint_every=10",
    )
    first = main(*job, "--config.train.steps=20")
    assert first.returncode == 0, first.stderr
    second = main(*job, "--config.train.steps=40")
    assert second.returncode == 0, second.stderr
    assert "going on from step 20" in second.stdout
    assert [line["step"] for line in history(workdir)] == list(range(1, 41))
    assert all(abs(line["loss"]) < 100 for line in history(workdir))
    assert sorted(digests(workdir)) == [20, 30, 40]
    folder = workdir / "evaluation" / "test-step-000040"
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "metrics.json", "confusion.png"}
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["n"] == 4
    assert metrics["synthetic"] is False
    assert "synthetic" not in second.stdout.lower()
    assert json.loads((workdir / "environment.json").read_text(encoding="utf-8"))["packages"]["jax"]
    assert list((workdir / "tensorboard").iterdir())

    moved = tmp_path / "moved"
    prepared.rename(moved)
    config = ConfigDict(run_directory.read_config(workdir))
    config.data.root = str(moved)
    evaluate(workdir, "newest", "train", config)
    assert json.loads((workdir / "evaluation" / "train-step-000040" / "metrics.json").read_text(encoding="utf-8"))["n"] == 5


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of 6 steps without interruption, and what it printed: once for all workers of a session."""
    kept = Path(os.environ["HOME"]) / "straight"
    if not kept.exists():
        folder = tmp_path_factory.mktemp("straight")
        result = main(*SYNTHETIC, f"--workdir={folder / 'run'}", "--config.train.steps=6")
        assert result.returncode == 0, result.stderr
        (folder / "printed.txt").write_text(result.stdout, encoding="utf-8")
        with contextlib.suppress(OSError):  # another worker was as fast
            folder.rename(kept)
    return kept / "run", (kept / "printed.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_three_steps_a_restart_and_three_more_are_six_steps_to_the_bit(straight, tmp_path):
    workdir = tmp_path / "broken"
    for steps in (3, 6):
        result = main(*SYNTHETIC, f"--workdir={workdir}", f"--config.train.steps={steps}")
        assert result.returncode == 0, result.stderr
        if steps == 3:
            with (workdir / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write('{"step": 4, "loss": 99.0}\n\0\0\n{"step": 5, "lo')  # after the checkpoint; then the power went
            (workdir / "environment.json").write_text("{", encoding="utf-8")
    assert digests(workdir) == digests(straight[0])
    assert history(workdir) == history(straight[0])
    for name in ("predictions.csv", "metrics.json"):
        ours, theirs = (folder / "evaluation" / "test-step-000006" / name for folder in (workdir, straight[0]))
        assert ours.read_text(encoding="utf-8") == theirs.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_recorded_run_needs_no_config_to_be_evaluated(straight, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight[0], workdir)
    evaluate(workdir, "3", "train")
    assert (
        json.loads((workdir / "evaluation" / "train-step-000003" / "metrics.json").read_text(encoding="utf-8"))["part"]
        == "train"
    )
    with pytest.raises(RunError, match="--part=validation is empty"):
        evaluate(workdir, "3", "validation")
    with pytest.raises(RunError, match="--step=latest is neither newest nor best"):
        evaluate(workdir, "latest", "test")
    with pytest.raises(RunError, match=r"--step=best: .* was not validated"):
        evaluate(workdir, "best", "test")
    with pytest.raises(RunError, match="--step=5: no such checkpoint"):
        evaluate(workdir, "5", "test")


@pytest.mark.slow
def test_a_recorded_config_takes_changes_of_what_is_not_bound_and_no_others(straight, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight[0], workdir)
    recorded = ("--mode=eval", f"--workdir={workdir}", "--step=3", "--part=train")
    taken = main(*recorded, "--config.data.sequences_per_eval_batch=2", "--config.model.channels=(2,3,4,5)")
    assert taken.returncode == 0, taken.stderr
    assert (workdir / "evaluation" / "train-step-000003" / "metrics.json").exists()
    assert_one_clear_error(run_here("scoliojax.main", *recorded, "--config.model.embedding_dim=8"), "model.embedding_dim")
    assert_one_clear_error(
        run_here("scoliojax.main", *recorded, "--config.model.nothing=8"), "model.nothing", "it has channels"
    )


@pytest.fixture
def tiny_job(tiny_config):
    """The config of `SYNTHETIC`, for runs within this process, on its four devices."""
    tiny_config.train.steps = 2
    return tiny_config


@pytest.mark.slow
def test_four_devices_give_the_losses_of_one(straight, tiny_job, tmp_path, capsys):
    run_training(tiny_job, tmp_path / "four")
    printed = capsys.readouterr().out
    assert "4 cpu device(s)" in printed
    assert re.search(r"^host memory of each process: about [\d.]+ GB \(so far .*, sequences 0\.00, .*; there", printed, re.M)
    for one, four in zip(history(straight[0]), history(tmp_path / "four"), strict=False):
        assert four["loss"] == pytest.approx(one["loss"], rel=1e-3)


@pytest.mark.slow
def test_validation_subjects_are_scored_during_the_run_and_the_best_is_kept(tiny_job, tmp_path, capsys):
    tiny_job.data.validation_fraction = 0.34
    tiny_job.train.eval_every = 1
    run_training(tiny_job, tmp_path / "run")
    scored = {line["step"]: line for line in history(tmp_path / "run") if "validation/accuracy" in line}
    assert list(scored) == [1, 2]
    best = max(scored, key=lambda step: scored[step]["validation/macro_f1"])  # the first of equals
    words = f"best validation/macro_f1 {scored[best]['validation/macro_f1']:.4f} (synthetic) at step {best}"
    assert words in capsys.readouterr().out
    evaluate(tmp_path / "run", "best", "validation", tiny_job)
    folder = tmp_path / "run" / "evaluation" / f"validation-step-{best:06d}"
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert found["scores"]["macro_f1"]["value"] == pytest.approx(scored[best]["validation/macro_f1"])
    kept = json.loads((tmp_path / "run" / "calibration" / f"step-{best:06d}.json").read_text(encoding="utf-8"))
    assert len(kept.pop("margins")) == 3
    assert found["calibration"] == kept
    assert kept["sequences"] == 3
    assert "operating_point/sensitivity" in found["scores"]
    evaluate(tmp_path / "run", "best", "test", tiny_job, sensitivity=0.5, prevalence=0.02)
    found = json.loads((tmp_path / "run" / "evaluation" / f"test-step-{best:06d}" / "metrics.json").read_text(encoding="utf-8"))
    assert found["calibration"]["wanted_sensitivity"] == 0.5
    assert "screening/ppv_at_prevalence" in found["scores"]
    network, cohort = open_network(open_run(tmp_path / "run"), "best")
    check_perturbed_walks_are_read_as_alone(network, cohort, found["perturbations"])
    kept = calibrate(network, cohort)
    assert kept.wanted_sensitivity == 0.5  # as it was chosen last
    cohort.partition = dataclasses.replace(cohort.partition, validation=np.arange(0))  # what is kept for this network applies
    assert calibrate(network, cohort) == kept
    other = TrainedNetwork(network.run, dataclasses.replace(network.state, params=network.run.initial_state().params))
    assert calibrate(other, cohort) is None
    with pytest.raises(RunError, match=r"--sensitivity=0.8 needs validation subjects"):
        calibrate(network, cohort, 0.8)
    cohort.partition = dataclasses.replace(cohort.partition, train=cohort.partition.test)
    with pytest.raises(DataError, match="stand in both the train and the test part"):
        write_evaluation(network, cohort, "test", Screening())


def check_perturbed_walks_are_read_as_alone(network, cohort, table):
    assert (table["walks"], list(table["readings"])) == (9, [AS_GIVEN, *PERTURBATIONS])
    assert all(isinstance(one["decision_changed"], float) for one in table["readings"].values())
    cohort.config.data.max_eval_frames = 5  # of 6
    rows, module = cohort.rows("test"), network.module()
    found = predict_perturbed(network, cohort, rows, 5)  # on four devices
    assert len(found.places) == 5
    for name, perturb in PERTURBATIONS.items():
        clips = [perturb(cohort.cache(int(row))[:5]) for row in rows[found.places]]
        alone = [np.asarray(module(clip[None], train=False).logits)[0].mean(axis=0) for clip in clips]
        np.testing.assert_allclose(found.logits[name], alone, atol=2e-5, err_msg=name)
    assert predict_perturbed(network, cohort, rows, 0) is None
    cohort.config.data.max_eval_frames = 720


def traced(folder: Path) -> list[str]:
    """The steps of a trace for Perfetto, as its file names them; TensorBoard's lies beside it."""
    (path,) = folder.rglob("perfetto_trace.json.gz")
    assert list(path.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert any(event.get("dur") for event in events)
    return sorted(str(event["args"]["step_num"]) for event in events if event.get("name", "").startswith("train"))


@pytest.mark.slow
def test_a_profile_lies_in_the_run_directory(tiny_job, tmp_path, capsys):
    tiny_job.train.steps = 3
    run_training(tiny_job, tmp_path / "run", profile=range(1, 3))
    assert f"profile: {tmp_path}/run/profile\n" in capsys.readouterr().out
    assert traced(tmp_path / "run" / "profile") == ["2", "3"]


@pytest.mark.parametrize(
    ("start", "steps", "recorded", "said"),
    [
        (0, range(2, 4), ["3", "4"], "profile: {}"),
        (2, range(2, 3), ["3"], "profile: {}"),
        (0, range(3, 9), ["4", "5", "6"], "profile: {}"),  # stopped before its end
        (3, range(2, 4), None, "no profile: the run goes on from step 3, after step 2"),
        (0, None, None, ""),
    ],
)
def test_a_trace_holds_the_steps_asked_for(start, steps, recorded, said, tmp_path, capsys):
    finish = jax.jit(lambda state, batch: (state + 1, {"loss": state * 2.0}))
    state = jnp.zeros(())
    with profiled(finish, start, steps, tmp_path) as step:
        for _ in range(start, 6):
            state, _ = step(state, {})
    assert int(state) == 6 - start
    assert capsys.readouterr().out.strip() == said.format(tmp_path)
    assert (traced(tmp_path) if recorded else list(tmp_path.iterdir())) == (recorded or [])


@pytest.mark.parametrize("fault", ["no folder", "no room"])
def test_a_trace_that_cannot_be_written_is_a_line(fault, tmp_path, capsys, monkeypatch):
    if fault == "no folder":
        (tmp_path / "profile").touch()
    else:
        stop = jax.profiler.stop_trace

        def fail() -> None:
            stop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(jax.profiler, "stop_trace", fail)
    with profiled(lambda state, batch: (state, {}), 0, range(1), tmp_path / "profile") as step:
        assert step(1, {}) == (1, {})
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"warning: the profile is not kept in {tmp_path}/profile \(\[Errno .+\)\n", err)
    assert out == ""


def test_a_fault_of_the_run_ends_the_trace_and_stays_a_fault(tmp_path):
    def fail(state, batch):
        raise OSError("of the run")

    with pytest.raises(OSError, match="of the run"), profiled(fail, 0, range(5), tmp_path) as step:
        step(1, {})
    assert traced(tmp_path) == ["1"]


@pytest.mark.slow
def test_a_run_that_blows_up_leaves_what_its_batch_was_made_of(tiny_job, tmp_path):
    tiny_job.optimizer.learning_rate = 1e30
    tiny_job.train.steps = 6
    with pytest.raises(RunError, match=r"is (nan|inf); its sequences and frames are in .*not-finite-step-\d+\.json") as caught:
        run_training(tiny_job, tmp_path / "run")
    (path,) = (tmp_path / "run").glob("not-finite-step-*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert f"step {found['step']}:" in str(caught.value)
    assert np.shape(found["frames"]) == (2, 2, 3)
    assert len(set(found["sequences"])) == 2
    finite = [line for line in history(tmp_path / "run") if line["step"] < found["step"]]
    assert all(np.isfinite(line["loss"]) for line in finite)
    assert found["step"] not in digests(tmp_path / "run")


@pytest.mark.slow
def test_a_synthetic_run_says_so_beside_every_score(straight):
    _, printed = straight
    scores = [line for line in printed.splitlines() if re.search(r"\d\.\d{4}", line)]
    assert scores
    assert all("synthetic" in line for line in scores)
    assert "results:" in printed


def test_no_root_says_that_the_walkers_are_synthetic(tiny_job, tmp_path, capsys):
    tiny_job.data.name = "scoliosis1k"
    run_training(tiny_job, tmp_path)
    assert "no data.root: using SYNTHETIC walkers, not people" in capsys.readouterr().out


@pytest.mark.slow
def test_another_config_is_refused_and_the_keys_named(straight, tiny_job):
    workdir, _ = straight
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    tiny_job.loss.margin = 0.3
    tiny_job.model.embedding_dim = 8
    for start in (run_training, dry_run):
        with pytest.raises(RunError, match=r"loss\.margin \(0\.2 there, 0\.3 here\), model\.embedding_dim \(4 there, 8 here\)"):
            start(tiny_job, workdir)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_other_data_are_refused(straight, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(straight[0], workdir)
    (workdir / "data.json").write_text('{"digest": "of other data"}', encoding="utf-8")
    with pytest.raises(RunError, match="belongs to other data"):
        evaluate(workdir, "newest", "test")


def test_a_recipe_for_accelerators_says_how_long_a_cpu_would_take(tiny_job, tmp_path, capsys):
    tiny_job.train.steps = 10**9
    tiny_job.data.subjects_per_batch = 1000  # ends it before it begins
    with pytest.raises(DataError, match="subjects_per_batch=1000"):
        run_training(tiny_job, tmp_path)
    assert re.search(
        r"would take about [1-9]\d* days on a CPU of 100 GFLOP/s; .*sconet_mt\.py:quickstart", capsys.readouterr().out
    )


def test_a_run_does_not_lie_in_its_data(tiny_job, tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=2)
    tiny_job.data.name, tiny_job.data.root = "scoliosis1k", str(tree)
    for start in (run_training, dry_run):
        with pytest.raises(RunError, match=r"--workdir=.*tree/runs/one and data\.root=.* contain one another"):
            start(tiny_job, tree / "runs" / "one")
    assert not (tree / "runs").exists()
    (tree / "runs").mkdir()  # and where the folder is there already
    with pytest.raises(RunError, match="contain one another"):
        run_training(tiny_job, tree / "runs")
    assert not list((tree / "runs").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
def test_results_that_cannot_be_kept_are_printed_all_the_same(straight, error, monkeypatch, capsys):
    """The run lies on a read-only medium, or the disk is full."""

    def refuse(*arguments, **options):
        raise OSError(error, os.strerror(error), "there")

    monkeypatch.setattr("scoliojax.scores.results.whole_folder", refuse)
    before = {path: path.stat().st_mtime_ns for path in straight[0].rglob("*")}
    refused = run_here("scoliojax.main", "--mode=eval", f"--workdir={straight[0]}")
    assert "accuracy" in refused.stdout
    assert "results:" not in refused.stdout
    assert_one_clear_error(refused, "the results above are not kept", "test-step-000006", os.strerror(error))
    assert refused.returncode == 2
    assert before == {path: path.stat().st_mtime_ns for path in straight[0].rglob("*")}


@pytest.mark.slow
def test_a_damaged_checkpoint_falls_back_to_the_one_before(straight, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight[0], workdir)
    for path in (workdir / "checkpoints" / "6").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:-100])
    result = main(*SYNTHETIC, f"--workdir={workdir}", "--config.train.steps=6")
    assert result.returncode == 0, result.stderr
    assert "checkpoint 6 is damaged and set aside" in result.stdout
    assert "going on from step 3" in result.stdout
    assert digests(workdir) == digests(straight[0])


MISTAKES = {
    "unknown key": (["--config.train.stepz=3"], ["stepz", "steps"]),
    "tuple given twice": (["--config.model.channels=(2,3)"], ["model.channels=(2, 3) must be four"]),
    "mistyped value": (["--config.train.steps=many"], ["train.steps", "many"]),
    "unknown variant": (["--config=configs/sconet_mt.py:slow"], ["slow", "quickstart"]),
    "missing config file": (["--config=configs/none.py"], ["configs/none.py"]),
    "stray argument": (["train"], ["train"]),
    "empty root": (["--config.data.name=scoliosis1k", "--config.data.root={empty}"], ["data.root", "is empty"]),
    "unwritable workdir": (["--workdir={file}/run"], ["--workdir", "cannot be written"]),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_on_the_command_line_gets_one_clear_line(kind, tmp_path):
    arguments, words = MISTAKES[kind]
    places = {"empty": tmp_path / "empty", "file": tmp_path / "file"}
    places["empty"].mkdir()
    places["file"].write_text("", encoding="utf-8")
    arguments = [argument.format(**places) if "{" in argument else argument for argument in arguments]
    workdir = tmp_path / "run"
    for dry in ([], ["--dry-run"]):
        refused = run_here("scoliojax.main", *SYNTHETIC, f"--workdir={workdir}", *arguments, *dry)
        assert_one_clear_error(refused, *words)
        assert refused.returncode == 2
    assert not workdir.exists()


@pytest.mark.parametrize("text", ["[]", "{}", '{"model": 3}', "{"])
def test_a_config_that_is_none_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    refused = run_here("scoliojax.main", "--mode=eval", f"--workdir={tmp_path}")
    assert_one_clear_error(refused, f"--workdir={tmp_path}: config.json cannot be read")


def test_missing_flags_and_runs(tmp_path):
    assert_one_clear_error(run_here("scoliojax.main", "--config=configs/sconet_mt.py"), "--workdir is missing")
    assert_one_clear_error(run_here("scoliojax.main", f"--workdir={tmp_path}"), "--config is missing")
    assert_one_clear_error(run_here("scoliojax.main", "--mode=eval", f"--workdir={tmp_path}"), "holds no run")
    for option in ("--step=best", "--part=train"):
        assert_one_clear_error(run_here("scoliojax.main", f"--workdir={tmp_path}", option), "belong to --mode eval")
    for option in ("--profile=1:2", "--dry-run"):
        refused = run_here("scoliojax.main", "--mode=eval", f"--workdir={tmp_path}", option)
        assert_one_clear_error(refused, "--profile and --dry-run belong to --mode train")
    for text in ("", "10", "10:", ":", "5:5", "5:4", "-1:4", "1:2:3", "1.5:3", "a:b", f"{tmp_path}", f"1:{'9' * 20}"):
        mistaken = run_here("scoliojax.main", "--config=configs/sconet_mt.py", f"--workdir={tmp_path}", f"--profile={text}")
        assert_one_clear_error(mistaken, "argument --profile: ", "give START:STOP, e.g. 10:15 for steps 11 to 15")
    beyond = run_here("scoliojax.main", *SYNTHETIC, f"--workdir={tmp_path / 'run'}", "--profile=10:421")
    assert_one_clear_error(beyond, "--profile=10:421 goes beyond the last step, train.steps=420")
    assert not list(tmp_path.iterdir())
    assert_one_clear_error(main("--mode=eval", f"--workdir={tmp_path}"), "holds no run")  # and in a process of its own


@pytest.mark.parametrize("start", [run_training, dry_run])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.name": "scoliosis1k", "data.root": "/nowhere"}, r"data\.root='/nowhere' does not exist"),
        ({"data.root": "/nowhere"}, r"data\.root='/nowhere' is given but data\.name='synthetic'"),
        ({"data.partition": "none.json"}, r"data\.partition='none\.json'"),
        ({"data.subjects_per_batch": 200}, r"data\.subjects_per_batch=200 but the training part has 9 sequences"),
        ({"data.subjects_per_batch": 3}, "6 clips do not divide evenly over 4 devices"),
        ({"train.eval_every": 2}, r"train\.eval_every=2 needs validation subjects"),
        ({"model.strips": (5,)}, r"model\.strips=\(5,\)"),
        ({"precision": "float8"}, "precision='float8'"),
        ({"train.steps": 0}, r"train\.steps=0"),
        ({"train.checkpoints_to_keep": 0}, r"train\.checkpoints_to_keep=0"),
    ],
)
def test_a_mistake_in_the_config_is_named_before_anything_is_written(changes, words, start, tiny_job, tmp_path):
    tiny_job.update_from_flattened_dict(changes)
    with pytest.raises((RunError, DataError), match=words):
        start(tiny_job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_reads_every_sequence_once(tiny_job, tmp_path):
    tiny_job.data.loader_threads = 1  # two could both be the first to read one
    run, cohort = Run(tmp_path, tiny_job), Cohort(tiny_job)
    reads, read = [], cohort.data.read
    object.__setattr__(cohort.data, "read", lambda row: reads.append(row) or read(row))
    list(cohort.train_batches(0, run.mesh))
    list(cohort.train_batches(0, run.mesh))
    assert len(reads) == len(set(reads)) > 0
    assert set(reads) <= set(cohort.partition.train.tolist())


@pytest.mark.slow
def test_a_sequence_that_is_read_once_is_not_kept(tiny_job, tmp_path):
    """So the memory of an evaluation does not grow with the set; what training validates on again and again stays."""
    tiny_job.data.validation_fraction = 0.34
    run, cohort = Run(tmp_path, tiny_job), Cohort(tiny_job)
    network = TrainedNetwork(run, run.initial_state())
    assert cohort.read_once is cohort.cache  # walkers are drawn
    cohort.read_once = cohort.cache.read_once  # as of real ones
    reads, read = [], cohort.data.read
    object.__setattr__(cohort.data, "read", lambda row: reads.append(row) or read(row))
    for again, times in ((False, 2), (True, 1)):
        reads.clear()
        for _ in range(2):
            found = predict(network, cohort, cohort.partition.validation, again)
        assert sorted(reads) == sorted(cohort.partition.validation.tolist() * times)
    assert found.embeddings is None
    reads.clear()
    cohort.near_duplicates()
    cohort.near_duplicates()
    kept = set(cohort.partition.validation.tolist())
    assert sorted(reads) == sorted([row for row in range(len(cohort.data)) if row not in kept] * 2)


def test_a_released_tree_as_root(tiny_job, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    tree = write_tree(tmp_path / "tree", per_class=6)
    shutil.copytree(tree / "00000", tree / "00099")  # one walk under two names, one to train on and one to test
    ids = [f"{number:05d}" for number in range(18)]
    (tmp_path / "cut.json").write_text(json.dumps({"TRAIN_SET": ids[:9], "TEST_SET": [*ids[9:], "00099"]}), encoding="utf-8")
    tiny_job.data.name, tiny_job.data.root, tiny_job.data.partition = "scoliosis1k", str(tree), str(tmp_path / "cut.json")
    run_training(tiny_job, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "is a released tree; preparing it once" in printed
    assert "warning: held-out sequences that are nearly ones trained on: 00099 is nearly 00000; one person" in printed
    found = json.loads((tmp_path / "run" / "evaluation" / "test-step-000002" / "metrics.json").read_text(encoding="utf-8"))
    assert found["near_duplicates"] == [{"sequence": "00099", "twin": "00000", "distance": 0.0}]
    next(tree.glob("*/*/*/*.pkl")).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"not a readable pickle.*--skip-bad"):
        run_training(tiny_job, tmp_path / "run2")


@pytest.mark.slow
def test_a_partial_download_is_trained_on_knowingly_and_what_is_left_out_stays_on_record(tmp_path):
    subjects = tmp_path / "subjects.csv"
    subjects.write_text(
        "Sequence;Subject;Sex\n" + "".join(f"{row};s{row};{'FM'[row % 2]}\n" for row in range(12)), encoding="utf-16"
    )
    prepare(str(write_tree(tmp_path / "tree", per_class=4)), tmp_path / "prepared", str(subjects))
    partition, workdir = tmp_path / "partition.json", tmp_path / "run"
    job = (*NARROW, "--config.data.name=scoliosis1k", f"--config.data.root={tmp_path / 'prepared'}", "--config.train.steps=1",
           f"--config.data.partition={partition}", "--workdir", workdir)  # fmt: skip
    partition.write_text(json.dumps({"TRAIN_SET": [2, 5], "TEST_SET": [3, 4]}), encoding="utf-8")
    single = run_here("scoliojax.main", *job)
    assert_one_clear_error(single, "data.partition=", "all 2 training sequences are positive, so there is nothing to learn")
    partition.write_text(json.dumps({"TRAIN_SET": [*range(6), 90000], "TEST_SET": [6, 7]}), encoding="utf-8")
    refused = run_here("scoliojax.main", *job)
    assert_one_clear_error(refused, "data.partition=", "of which the data lack 1: 90000", "--allow-missing")
    assert single.returncode == refused.returncode == 2
    assert not workdir.exists()
    trained = run_here("scoliojax.main", *job, "--allow-missing")
    assert trained.returncode == 0, trained.stderr
    for words in ("the data lack 1: 90000; going on without", "4 of 12 sequences are in neither part", "no positive"):
        assert sum(words in line for line in trained.stdout.splitlines() if line.startswith("warning: ")) == 1
    assert run_directory.read_config(workdir)["data"]["allow_missing"] is True
    again = run_here("scoliojax.main", "--mode", "eval", "--workdir", workdir)
    assert again.returncode == 0, again.stderr
    assert re.search(r"^  Sex: F +1  too small", again.stdout, re.M)
    metrics = json.loads((workdir / "evaluation" / "test-step-000001" / "metrics.json").read_text(encoding="utf-8"))
    assert {name: group["n"] for name, group in metrics["subgroups"]["Sex"].items()} == {"F": 1, "M": 1}
    recorded = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    del recorded["data"]["allow_missing"]  # as of a run that is older than the key
    (workdir / "config.json").write_text(json.dumps(recorded), encoding="utf-8")
    assert_one_clear_error(run_here("scoliojax.main", "--mode", "eval", "--workdir", workdir), "the data lack 1: 90000")
    old = run_here("scoliojax.main", "--mode", "eval", "--workdir", workdir, "--allow-missing")
    assert old.returncode == 0, old.stderr


def test_where_a_run_was_trained_stays_on_record_until_it_trains_on(tiny_config, tmp_path):
    run_directory.claim(tmp_path, tiny_config.to_dict(), None)
    record_environment(tmp_path, imported_from="theirs.pt, step 5")
    there = read_environment(tmp_path) | {"git_commit": "f00d"}
    (tmp_path / "environment.json").write_text(json.dumps(there), encoding="utf-8")
    run_directory.claim(tmp_path, tiny_config.to_dict(), "data")  # as every start of the command does
    assert read_environment(tmp_path) == there
    record_environment(tmp_path)
    here = read_environment(tmp_path)
    assert here["git_commit"] != "f00d"
    assert here["imported_from"] == "theirs.pt, step 5"


def test_the_readme_s_commands_name_what_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([a-z0-9_.]+)", text):
        path = ROOT / module.replace(".", "/")
        there = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
        assert there or module in ("pip", "venv", "pytest"), module
    for path in re.findall(r"(?:configs|docs)/[a-z0-9_/]+\.(?:py|md|png)", text):
        assert (ROOT / path).exists(), path


def test_an_operating_point_that_cannot_be_kept_is_used_all_the_same(tmp_path, monkeypatch, capsys):
    labels = np.array([0, 1, 2, 0, 1, 2])
    logits = np.eye(3)[[0, 1, 2, 1, 1, 0]].astype(np.float32)  # n k
    network = SimpleNamespace(calibration=None, scale=16.0, digest="d", directory=tmp_path, step=1)
    data = SimpleNamespace(labels=labels, subjects=[*"abcdef"], synthetic=True)
    cohort = SimpleNamespace(partition=SimpleNamespace(validation=np.arange(6)), data=data)
    monkeypatch.setattr("scoliojax.runs.evaluation.predict", lambda *_: SimpleNamespace(rows=np.arange(6), logits=logits))
    (tmp_path / "calibration").touch()  # in the way of the folder
    assert calibrate(network, cohort).threshold is not None
    assert "warning: the operating point is not kept; " in capsys.readouterr().err
