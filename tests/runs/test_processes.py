"""Several processes are one run: the same batches, the same losses, and a checkpoint that goes on anywhere."""

import signal
import time

import numpy as np
import pytest

from data_pipelines.pipelines import EvalBatcher
from scoliojax.devices import cluster
from scoliojax.errors import RunError
from tests.conftest import assert_one_clear_error, make_set, run_here, run_module
from tests.scripts import chaos, pods


@pytest.mark.long
def test_two_processes_are_one_run_and_one_goes_on_where_two_were_stopped(tmp_path):
    alone, moved = tmp_path / "alone", tmp_path / "moved"
    jobs = pods.start(2, 1, *pods.RUN, "--config.train.steps=100000", f"--workdir={moved}")
    deadline = time.monotonic() + 240
    while len(pods.log(moved)) < 5:
        assert time.monotonic() < deadline
        assert [job.poll() for job in jobs] == [None, None], pods.finish(jobs)
        time.sleep(0.05)
    jobs[1].send_signal(signal.SIGTERM)  # one is told, both stop
    first, second = pods.finish(jobs, chaos.STOPPED)
    assert "2 cpu device(s) of 2 processes" in first
    assert "synthetic walkers (" not in second  # one process speaks for all
    stopped = max(int(path.name) for path in (moved / "checkpoints").iterdir())
    for printed in (first, second):
        assert f"stopped after step {stopped}, as asked" in printed

    steps = f"--config.train.steps={stopped + 3}"
    (rest,) = pods.run(1, 1, *pods.RUN, steps, f"--workdir={moved}")
    assert "this run was on 2 device(s) of 2 process(es) and continues on 1 device(s) of 1 process(es)" in rest
    assert f"going on from step {stopped}" in rest
    pods.run(1, 1, *pods.RUN, steps, f"--workdir={alone}")
    same_batches, losses, parameters = pods.compare(moved, alone, steps=4)
    assert same_batches
    assert len({line["batch_fingerprint"] for line in pods.log(alone)}) == stopped + 3
    assert losses < 1e-5
    assert parameters < 1e-3  # float32; `test_train_step` compares one device and four in float64, to 1e-6

    predictions = pods.predictions(alone)
    pods.run(2, 1, "--mode=eval", f"--workdir={alone}")
    assert pods.predictions(alone) == predictions


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_sequence_is_in_one_share(processes):
    data = make_set(per_class=4, frames=3)
    rows = np.arange(10)
    shares = [
        EvalBatcher(data=data, rows=rows, batch_size=6, max_frames=2, process_index=index, process_count=processes)
        for index in range(processes)
    ]
    whole = EvalBatcher(data=data, rows=rows, batch_size=6, max_frames=2)
    for turn in range(2):
        for name in ("silhouettes", "frame_mask"):
            np.testing.assert_array_equal(np.concatenate([share(turn)[name] for share in shares]), whole(turn)[name])
        for share in shares:
            np.testing.assert_array_equal(share(turn)["rows"], whole(turn)["rows"])


@pytest.mark.long
def test_a_kill_and_a_term_change_nothing(tmp_path):
    counts = chaos.chaos(tmp_path, kills=1, terms=1, steps=200, every=40, seed=1)
    assert counts == {
        "killed": 1,
        "stopped after a step": 1,
        "stopped outside the steps": 0,
        "finished before its end": 0,
        "steps": 200,
    }
    assert "as asked; the same command goes on from there" in (tmp_path / "troubled.log").read_text(encoding="utf-8")


def test_flags_of_several_hosts_belong_together():
    with pytest.raises(RunError, match="--processes, --process is missing"):
        cluster.join("host:1", None, None)
    result = run_here("scoliojax.main", "--processes=2", "--workdir=/nowhere", "--config=configs/sconet_mt.py")
    assert_one_clear_error(result, "--coordinator", "belong together")


def test_several_processes_that_jax_does_not_see_are_not_several_runs(tmp_path):
    result = run_module(
        "scoliojax.main", "--config=configs/sconet_mt.py", f"--workdir={tmp_path / 'run'}", env={"OMPI_COMM_WORLD_SIZE": "4"}
    )
    assert_one_clear_error(result, "OMPI_COMM_WORLD_SIZE=4", "give --coordinator, --processes and --process")
    assert not (tmp_path / "run").exists()


def test_alone_nothing_waits():
    cluster.barrier("for nobody")
    with cluster.first_alone("data"):
        assert cluster.is_first()
    function = object()
    assert cluster.compile_in_step(function) is function
