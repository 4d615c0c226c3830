"""The arithmetic of `first_hour`, which itself is run by hand."""

import json
import math
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest

from scoliojax.runs.memory import HostMemory
from tests.scripts import first_hour
from tests.scripts.first_hour import Hour, Row, apart, furthest, share_of_peak, stated_memory, table


@pytest.mark.parametrize(
    ("compiled", "measured", "ratio"),
    [(20.0, 30.0, 1.5), (None, 30.0, None), (20.0, None, None), (0.0, 30.0, None)],
)
def test_a_ratio_is_measured_over_compiled_where_both_are_known(compiled, measured, ratio):
    assert Row("step (ms)", compiled, measured).ratio == ratio


def test_the_table_leaves_empty_what_is_not_known():
    assert table([Row("step (ms)", 31.26, 46.89), Row("peak (MB)", None, 1634.0)])[2:] == [
        "| step (ms) | 31.26 | 46.89 | 1.5 |",
        "| peak (MB) |  | 1634 |  |",
    ]


def test_a_step_that_takes_twice_its_estimate_has_half_its_share_of_the_peak():
    assert share_of_peak("step", 42.0, 32.6, 65.2) == Row("share of the peak, step (%)", 42.0, 21.0)
    assert share_of_peak("step", None, None, 65.2)[1:] == (None, None)


def lines(losses: list[float], prints: list[int]) -> list[dict[str, float]]:
    return [{"loss": loss, "batch_fingerprint": one} for loss, one in zip(losses, prints, strict=True)]


@pytest.mark.parametrize(
    ("losses", "prints", "steps", "found"),
    [
        ([1.0, 2.0, 4.0], [1, 2, 3], 3, (True, 0.0)),
        ([1.0, 2.2, 4.0], [1, 2, 3], 3, (True, 0.1)),
        ([1.0, 2.2, 8.0], [1, 2, 4], 2, (True, 0.1)),  # the third step is not looked at
        ([1.0, 2.0, 3.0], [1, 2, 4], 3, (False, 0.25)),
    ],
)
def test_two_logs_are_compared_step_by_step(losses, prints, steps, found):
    same, distance = apart(lines(losses, prints), lines([1.0, 2.0, 4.0], [1, 2, 3]), steps)
    assert (same, distance) == (found[0], pytest.approx(found[1]))


def test_the_array_that_differs_most_is_named():
    one = {"mean": np.array([3.0, 4.0]), "logits": np.array([1.0, 0.0])}
    other = {"mean": np.array([3.0, 4.5]), "logits": np.array([1.0, 0.5])}
    assert furthest(one, other) == ("logits", pytest.approx(0.5 / math.hypot(1.0, 0.5)))


def test_the_memory_that_a_run_states_is_read_from_its_line():
    assert stated_memory(f"data\n{HostMemory({'sequences': 1.26e9}, 2e9).line()}\nsteps") == 1.3
    assert stated_memory("nothing of the kind") is None


def hour(tmp_path, **found) -> Hour:
    hosts = dict.fromkeys(first_hour.HOSTS)
    made = Hour(Namespace(workdir=tmp_path, small=False, config="x", steps=10, rounds=1, **hosts), [])
    made.found = {"platform": "gpu", "count": 8, "process": 0} | found
    return made


@pytest.mark.parametrize(
    ("platform", "alone", "wanted"),
    [("gpu", True, {"CUDA_VISIBLE_DEVICES": "0"}), ("tpu", True, {"TPU_VISIBLE_CHIPS": "0"}), ("gpu", False, {})],
)
def test_a_process_alone_sees_one_device_and_no_other_host(platform, alone, wanted, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(first_hour.subprocess, "Popen", lambda command, **how: begun.append((command, how["env"])))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = hour(tmp_path, platform=platform)
    made.hosts = ["--coordinator=host:1", "--processes=2", "--process=0"]
    made.start("scoliojax.main", "--workdir=x", alone=alone)
    ((command, environment),) = begun
    assert command[-1] == ("--processes=1" if alone else "--process=0")
    assert {name: value for name, value in environment.items() if name in first_hour.ALONE[platform]} == (
        first_hour.ALONE[platform] if alone else {}
    )
    assert wanted.items() <= environment.items()


@pytest.mark.parametrize("hosts", [{}, {"processes": 1}, {"coordinator": "host:1", "processes": 2, "process": 0}])
def test_a_training_has_the_processes_of_its_check(hosts, tmp_path, monkeypatch):
    """Alone it must not wait for those that SLURM's variables, or a pod, announce."""
    called = []
    monkeypatch.setattr("scoliojax.main.main", called.append)
    args = Namespace(workdir=tmp_path, config="x", **dict.fromkeys(first_hour.HOSTS) | hosts)
    first_hour.training(args, ["--config.train.steps=10"])
    assert called == [
        [
            "--config=x",
            f"--workdir={tmp_path}",
            *(f"--{name}={value}" for name, value in hosts.items()),
            "--config.train.steps=10",
        ]
    ]


def test_a_process_that_fails_ends_the_hour_with_what_it_said(tmp_path):
    made = hour(tmp_path)
    made.printed().write_text("error: no device\n", encoding="utf-8")
    job = SimpleNamespace(wait=lambda: 2, args=["python", "-m", "x"])
    with pytest.raises(SystemExit, match=r"(?s)python -m x ended with status 2:.*error: no device"):
        made.finish(job)  # pyright: ignore[reportArgumentType]
    assert made.finish(job, 2) == "error: no device\n"  # pyright: ignore[reportArgumentType]


def test_what_was_found_is_kept_as_a_table_and_as_json(tmp_path):
    made = hour(tmp_path)
    made.rows.append(Row("step (ms)", None, 2.0))
    made.note("batches", "equal", True)
    made.write()
    assert (tmp_path / "first_hour.md").read_text(encoding="utf-8").endswith("| step (ms) |  | 2 |  |\n\n- batches: equal\n")
    content = json.loads((tmp_path / "first_hour.json").read_text(encoding="utf-8"))
    assert content["rows"] == [{"what": "step (ms)", "compiled": None, "measured": 2.0, "ratio": None}]
    assert content["checks"] == [{"what": "batches", "outcome": "equal", "passed": True}]
