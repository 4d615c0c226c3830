"""Every file of a run that is read back, in every state that people and disks leave it in: one line with file, key, remedy."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from data_pipelines.augment import Augmentation
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.runs import directory as run_directory
from scoliojax.runs.environment import RATES, read_environment, read_rates, record_environment
from scoliojax.runs.run import open_run, recorded_config
from scoliojax.runs.settings import MAY_LACK
from scoliojax.scores import calibration
from scoliojax.scores.evaluation import evaluation_folder, find_metrics
from scoliojax.scores.results import write_results
from scoliojax.screen.reader import check_target
from scoliojax.training.log import read_log
from tests.conftest import assert_one_clear_error, run_here
from tests.scores.test_results import calibration as fitted
from tests.scores.test_results import evaluated

PARTS = {"train": ["a"], "validation": ["b"], "test": ["c"]}


class File(NamedTuple):
    path: str  # from the run directory on
    read: Callable[[Path], Any]  # given the run directory
    optional: frozenset[str] = frozenset()  # keys that it may lack


def read_result(workdir: Path) -> None:
    check_target(workdir / "screening", [workdir / "walk.pkl"], anew=True)


METRICS = evaluation_folder(Path(), "test", 7) / "metrics.json"
CALIBRATION = calibration.calibration_file(Path(), 7)
ENVIRONMENT = frozenset({"command", "python", "platform", "packages", "devices", "processes", "git_commit", "imported_from"})
LATER = frozenset({"parts", "parts_digest"})
FILES = (
    File("config.json", recorded_config, frozenset(part for key in MAY_LACK for part in key.split(".")[1:])),
    File("data.json", run_directory.read_data, LATER),
    File("environment.json", read_environment, ENVIRONMENT),
    File(RATES, read_rates),
    File(str(METRICS), lambda workdir: find_metrics(workdir, 7)),
    File(str(CALIBRATION), lambda workdir: calibration.read(workdir / CALIBRATION, "abc"), frozenset({"notes"})),
    File("screening/result.json", read_result, frozenset({"schema"})),
)


@pytest.fixture
def workdir(tiny_config, tmp_path) -> Path:
    """A directory with every file of a run that we read, without training."""
    run_directory.claim(tmp_path, tiny_config.to_dict(), "digest", PARTS)
    record_environment(tmp_path)
    (tmp_path / RATES).write_text('[{"step": 1, "old": 0.2, "new": 0.1}]', encoding="utf-8")
    write_results((tmp_path / METRICS).parent, evaluated(calibration=fitted()))
    calibration.write(tmp_path / CALIBRATION, fitted())
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(np.zeros((2, 64, 64), np.uint8)))
    (tmp_path / "screening").mkdir()
    content = {"schema": "scoliojax.screening/1", "input": {"sha256": calibrated_checksum(tmp_path / "walk.pkl")}}
    (tmp_path / "screening" / "result.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def calibrated_checksum(path: Path) -> str:
    from data_pipelines.video.walk import checksum

    return checksum(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


STATES: dict[str, bytes | Callable[[Path], None]] = {
    "empty": b"",
    "null": b"null",
    "a number": b"3",
    "a text": b'"x"',
    "a list": b"[3]",
    "a word": b"nothing",
    "binary": bytes(range(256)),
    "zeros": b"\0" * 50,
    "nested": b"[" * 10_000 + b"]" * 10_000,
    "nested objects": b'{"a":' * 10_000,
    "not finite": b'{"a": NaN}',
    "a number beyond all": b'{"a": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"digest": "a", "digest": "b"}',
    "half": lambda path: path.write_bytes(path.read_bytes()[:-20]) and None,
    "UTF-16": lambda path: path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16")) and None,
    "a folder": folder,
    "a pipe": pipe,
    "a link to itself": loop,
}


def test_what_is_whole_is_read(workdir):
    for file in FILES:
        file.read(workdir)
        path = workdir / file.path
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as some editors begin a text
        file.read(workdir)


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file.path).name)
def test_a_file_in_another_state_is_named_with_the_remedy(file, workdir):
    path = workdir / file.path
    whole = path.read_bytes()
    for state, content in STATES.items():
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        path.write_bytes(whole)
        content(path) if callable(content) else path.write_bytes(content)
        with pytest.raises(RunError) as refused:
            file.read(workdir)
        text = str(refused.value)
        assert path.name in text, (state, text)
        assert "; " in text, (state, text)
        assert "\n" not in text
        assert len(text) < 600, (state, text)


OTHERS = (None, True, "text", "", 3, -1, 10**400, 1.5, float("nan"), float("inf"), [], [None], ["x"], {}, {"a": 1})


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file.path).name)
def test_a_key_that_is_missing_or_of_another_type_is_named(file, workdir):
    path = workdir / file.path
    whole = path.read_text(encoding="utf-8")

    def sections(content: Any) -> list[Any]:
        return [content, *(below for value in content.values() if isinstance(value, dict) for below in sections(value)[:3])]

    def first(content: Any) -> dict[str, Any]:
        return content[0] if isinstance(content, list) else content

    refusals = 0
    for number, section in enumerate(sections(first(json.loads(whole)))):
        for key in list(section)[:8]:
            content = json.loads(whole)
            del sections(first(content))[number][key]
            path.write_text(json.dumps(content), encoding="utf-8")
            try:
                file.read(workdir)
                missed = f"{path.name} is read without {key}"
                by_name = number and file.path != "config.json"  # names of parts, scores and packages
                assert key in file.optional or by_name or file.path == "screening/result.json", missed
            except RunError as refused:
                assert path.name in str(refused)
                assert key.split("/")[0] in str(refused) or "parts_digest" in str(refused), refused
            for other in OTHERS[:: 3 if number else 1]:
                content = json.loads(whole)
                sections(first(content))[number][key] = other
                path.write_text(json.dumps(content), encoding="utf-8")
                try:
                    file.read(workdir)
                except RunError as refused:
                    refusals += 1
                    if "the answer for another input" in str(refused) or "of another kind" in str(refused):
                        continue  # a text, of the right type
                    assert path.name in str(refused)
                    assert key.split("/")[0] in str(refused) or "parts_digest" in str(refused), (other, refused)
                    assert "\n" not in str(refused)
    assert refusals > 5


def test_an_older_config_gets_what_came_later_and_nothing_else(workdir):
    content = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    for key in ("share_frames", "cache_gigabytes", "augment"):
        del content["data"][key]
    (workdir / "config.json").write_text(json.dumps(content), encoding="utf-8")
    config = open_run(workdir).config
    assert (config.data.share_frames, config.data.cache_gigabytes) == (False, 2.0)  # frames were not shared then
    assert not build.build_augmentation(config.data)  # nor changed
    content["data"]["augment"] = {"shift": 2}
    (workdir / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert open_run(workdir).config.data.augment.to_dict() == vars(Augmentation(shift=2))
    del content["loss"]["margin"]
    (workdir / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=r"config\.json: the config has no loss\.margin, e\.g\. 0\.2"):
        open_run(workdir)
    assert {"data.root", "data.partition", "data.max_eval_frames", "train.steps", "loss.scale"}.isdisjoint(MAY_LACK)


@pytest.mark.parametrize("value", [None, -16.0, float("nan"), "16", [16.0]])
def test_a_scale_that_cannot_be_is_refused_by_every_command_that_opens_a_run(value, workdir, tmp_path_factory):
    pytest.importorskip("torch")
    out = tmp_path_factory.mktemp("elsewhere") / "out"
    content = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    content["loss"]["scale"] = value
    (workdir / "config.json").write_text(json.dumps(content), encoding="utf-8")
    for command in (
        ("scoliojax.main", "--mode=eval", f"--workdir={workdir}"),
        ("scoliojax.main", f"--workdir={workdir}"),
        ("scoliojax.report", f"--workdir={workdir}"),
        ("scoliojax.export", f"--workdir={workdir}", f"--output={out}"),
        ("scoliojax.screen", workdir / "walk.pkl", f"--checkpoint={workdir}", f"--output={out}"),
        ("scoliojax.interop.opengait", "export", f"--workdir={workdir}", f"--output={out}"),
    ):
        found = run_here(*command)
        assert_one_clear_error(found, "config.json", "scale")
        assert found.returncode == 2
    assert not out.exists()


def test_a_log_keeps_its_whole_lines_and_is_named_where_it_is_no_file(tmp_path):
    path, good = tmp_path / "metrics.jsonl", {"step": 1, "loss": 0.5}
    bad = [b"3", b"null", b'"step"', b"[]", b"{}", b'{"step": "2"}', b'{"step": 2, "loss": "low"}', b'{"step": true}',
           b"\xff\xfe", b"[" * 10_000, b'{"step": 3', b'{"step": null}']  # fmt: skip
    assert read_log(path) == []
    path.write_bytes(b"\n".join([*bad, json.dumps(good).encode(), b'{"step": 2}']))
    assert read_log(path) == [good]  # the last line has no end
    for state in (folder, pipe, loop):
        path.unlink(missing_ok=True)
        path.write_bytes(b"")
        state(path)
        with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read .*; restore it"):
            read_log(path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_run_whose_log_or_rates_cannot_be_read_is_left_as_it_was(workdir):
    config = (workdir / "config.json").read_bytes()
    for name, content in ((RATES, "[{}]"), ("metrics.jsonl", None)):
        (workdir / name).mkdir() if content is None else (workdir / name).write_text(content, encoding="utf-8")
        refused = run_here("scoliojax.main", f"--workdir={workdir}", "--config.train.steps=99")
        assert_one_clear_error(refused, name)
        assert (workdir / "config.json").read_bytes() == config
        if content:
            (workdir / name).unlink()


def test_a_damaged_environment_is_set_aside_when_a_run_goes_on(workdir, capsys):
    (workdir / "environment.json").write_text('{"imported_from": "theirs.pt"', encoding="utf-8")
    record_environment(workdir)
    assert "environment.json cannot be read" in capsys.readouterr().out
    assert "theirs.pt" in (workdir / "damaged-environment.json").read_text(encoding="utf-8")
    assert "imported_from" not in read_environment(workdir)
