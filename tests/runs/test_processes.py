"""Several processes are one run: the same batches, the same losses, and a checkpoint that goes on anywhere."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.pipelines import EvalBatcher
from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.runs.run import open_run
from scoliojax.scores import reference
from tests.conftest import ROOT, assert_one_clear_error, make_set, run_here, run_module
from tests.data_pipelines.test_pipelines import skeletons
from tests.scripts import chaos, pods


@pytest.mark.long
def test_two_processes_are_one_run_and_one_goes_on_where_two_were_stopped(tmp_path):
    alone, moved = tmp_path / "alone", tmp_path / "moved"
    options = [option for option in pods.RUN if "validation_fraction" not in option]
    options.append("--config.data.validation_fraction=0.4")  # for distances from training
    jobs = pods.start(2, 1, *options, "--config.train.steps=100000", f"--workdir={moved}")
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

    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*")}
    tried, _ = pods.run(2, 1, *options, "--config.train.steps=100000", f"--workdir={moved}", "--dry-run")
    assert f"it would go on from step {stopped}\n" in tried
    assert "training step, float32, 16 clips x 3 frames; 2 x cpu (this machine)" in tried
    assert tried.endswith("dry run: the run could start; nothing was written\n")
    assert before == {path: path.stat().st_mtime_ns for path in moved.rglob("*")}

    steps = f"--config.train.steps={stopped + 3}"
    (rest,) = pods.run(1, 1, *options, steps, f"--workdir={moved}")
    assert "this run was on 2 device(s) of 2 process(es) and continues on 1 device(s) of 1 process(es)" in rest
    assert f"going on from step {stopped}" in rest
    pods.run(1, 1, *options, steps, f"--workdir={alone}")
    same_batches, losses, parameters = pods.compare(moved, alone, steps=4)
    assert same_batches
    assert len({line["batch_fingerprint"] for line in pods.log(alone)}) == stopped + 3
    assert losses < 1e-5
    assert parameters < 1e-3  # float32; `test_train_step` compares one device and four in float64, to 1e-6

    predictions, perturbations = pods.predictions(alone), pods.perturbations(alone)
    assert perturbations["walks"] == 29
    assert b",distance," in predictions
    (path,) = (alone / "reference").iterdir()
    digest = open_run(alone).network("newest").digest
    kept = reference.read(path, digest)
    path.unlink()  # the two fit it anew
    pods.run(2, 1, "--mode=eval", f"--workdir={alone}")
    one, two = (list(csv.DictReader(io.StringIO(text.decode()))) for text in (predictions, pods.predictions(alone)))
    distances = [[float(row.pop("distance")) for row in rows] for rows in (one, two)]
    assert one == two
    np.testing.assert_allclose(*distances, rtol=1e-5, atol=1.1e-4)  # four decimals are written
    fitted = reference.read(path, digest)
    np.testing.assert_allclose(fitted.usual, kept.usual, rtol=1e-5)
    walks = np.random.default_rng(0).normal(size=(9, *kept.mean.shape)) + kept.mean
    np.testing.assert_allclose(fitted.distance(walks), kept.distance(walks), rtol=1e-5)
    assert pods.perturbations(alone) == perturbations


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(
    "data", [make_set(per_class=4, frames=3), skeletons(per_class=4, frames=3)], ids=lambda data: data.modality
)
def test_every_sequence_is_in_one_share(processes, data):
    rows = np.arange(10)
    shares = [
        EvalBatcher(data=data, rows=rows, batch_size=6, max_frames=2, process_index=index, process_count=processes)
        for index in range(processes)
    ]
    whole = EvalBatcher(data=data, rows=rows, batch_size=6, max_frames=2)
    for turn in range(2):
        for name in whole(turn).keys() - {"rows"}:
            np.testing.assert_array_equal(np.concatenate([share(turn)[name] for share in shares]), whole(turn)[name])
        for share in shares:
            np.testing.assert_array_equal(share(turn)["rows"], whole(turn)["rows"])
        assert ("asymmetry" in whole(turn)) == (data.modality == "skeletons")


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
    with pytest.raises(RunError, match="give --processes=1 alone"):
        cluster.join(None, 2, None)
    result = run_here("scoliojax.main", "--processes=2", "--workdir=/nowhere", "--config=configs/sconet_mt.py")
    assert_one_clear_error(result, "--coordinator", "belong together")


def test_several_processes_that_jax_does_not_see_are_not_several_runs(tmp_path):
    result = run_module(
        "scoliojax.main", "--config=configs/sconet_mt.py", f"--workdir={tmp_path / 'run'}", env={"OMPI_COMM_WORLD_SIZE": "4"}
    )
    assert_one_clear_error(result, "OMPI_COMM_WORLD_SIZE=4", "give --coordinator, --processes and --process")
    assert not (tmp_path / "run").exists()


SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
UNFIT = "the variables of the launcher do not fit"
LAUNCHERS = [  # variables, and words of the line
    (SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "nohost.invalid"}, ["joined"]),  # one task is alone
    (
        {name: SLURM[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS")},
        ["joined"],
    ),  # a shell of salloc
    ({"PMI_SIZE": "four"}, ["PMI_SIZE='four' is no number of processes", "--processes=1"]),
    ({"OMPI_COMM_WORLD_SIZE": "-1"}, ["OMPI_COMM_WORLD_SIZE='-1'", "--processes=1"]),
    ({"SLURM_STEP_NUM_TASKS": "1e3"}, ["SLURM_STEP_NUM_TASKS='1e3'"]),
    ({"PMI_SIZE": "3"}, ["PMI_SIZE=3 announces several processes", "--processes=1"]),
    (SLURM | {"SLURM_NTASKS": ""}, [UNFIT]),
    (SLURM | {"SLURM_PROCID": "x"}, [UNFIT, "SLURM_NTASKS=4", "'x'"]),
    (SLURM | {"SLURM_PROCID": "9"}, [UNFIT, "process_id=9"]),
    ({"OMPI_MCA_orte_hnp_uri": "nonsense"}, [UNFIT, "nonsense"]),
    ({"OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:1"}, [UNFIT, "SIZE"]),
]
JOIN = """
import json, os, sys
from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.runs.run import open_run
from scoliojax.scores import reference

said = []
for surroundings in json.load(sys.stdin):
    os.environ |= surroundings
    cluster.join(None, 1, None)  # --processes=1: alone, whatever the variables say
    try:
        cluster.join(None, None, None)
        said.append("joined")
    except RunError as error:
        said.append(str(error))
    for name in surroundings:
        del os.environ[name]
json.dump(said, sys.stdout)
"""


def test_variables_of_a_launcher_that_do_not_fit_are_one_line():
    """In a process of its own, which has not used a device yet."""
    done = subprocess.run(
        [sys.executable, "-c", JOIN],
        input=json.dumps([surroundings for surroundings, _ in LAUNCHERS]),
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line, (_, words) in zip(json.loads(done.stdout), LAUNCHERS, strict=True):
        assert all(word in line for word in words), line
        assert "\n" not in line


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", ":7", "host:123456"])
def test_an_address_that_is_none_is_named(address):
    with pytest.raises(RunError, match=r"--coordinator=.* is no address; give host:port"):
        cluster.join(address, 2, 0)


WAIT = """
import sys
from scoliojax.devices import cluster
cluster.JOIN_NOTICE, cluster.JOIN_TIMEOUT = 0.5, 2.0
from scoliojax.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_waiting_is_said_and_ends_in_one_line(tmp_path):
    """In a shell that a scheduler gave, for four tasks of which nobody started three."""
    done = subprocess.run(
        [sys.executable, "-c", WAIT, *chaos.RUN, f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT,
        env=os.environ | SLURM | {"JAX_COORDINATOR_PORT": str(pods.free_port())},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    notice, end = done.stderr.splitlines()
    remedy = "to run one process alone, unset that variable, or give --processes=1"
    assert notice == f"process 0 waits for 3 other processes, because of SLURM_NTASKS=4; {remedy}"
    assert end == (
        "error: process 0 waits for 3 other processes, because of SLURM_NTASKS=4: in vain for 2 seconds; start them, or "
        f"correct that; {remedy}"
    )
    assert not (tmp_path / "run").exists()


@pytest.fixture
def seven(monkeypatch):
    """Seven processes, of which this is the first: a function that says which of the others have another text."""

    def differ(*others: int) -> None:
        def gather(mine):
            assert jax.config.jax_transfer_guard_device_to_host != "disallow"  # an accelerator would refuse the result
            return np.stack([mine ^ (process in others) for process in range(7)])

        monkeypatch.setattr(cluster.multihost_utils, "process_allgather", gather)

    monkeypatch.setattr(jax, "process_count", lambda: 7)
    monkeypatch.setattr(cluster, "barrier", lambda name: None)
    return differ


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], None),
        ([3], "of 7 processes number 3 has another program than process 0; start all with the same config"),
        ([1, 6], "of 7 processes number 1, 6 have another program than process 0; "),
        ([1, 2, 3, 4, 5, 6], "of 7 processes number 1, 2, 3 and 3 more have another program than process 0; "),
    ],
)
def test_processes_with_another_program_are_named_before_it_is_compiled(others, said, seven):
    seven(*others)
    step = cluster.compile_in_step(jax.jit(lambda x: 3.0 * x))
    if said is None:
        assert float(step(jnp.ones(()))) == 3.0
    else:
        with pytest.raises(RunError, match=re.escape(said)):
            step(jnp.ones(()))


@pytest.mark.parametrize(
    "ask", [lambda: cluster.all_agree(True), lambda: cluster.compile_in_step(jax.jit(jnp.negative))(jnp.ones(()))]
)
def test_processes_ask_each_other_also_where_the_loop_forbids_copies(ask, seven):
    """As for a batch that shares no frames, whose step is compiled long after the first."""
    seven()
    with jax.transfer_guard_device_to_host("disallow"):
        assert ask()


@pytest.mark.parametrize("chosen", ["", "there"])
def test_several_processes_keep_programs_beside_the_run_unless_the_user_has_a_place(chosen, seven, tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", chosen)
    try:
        cluster.keep_programs(tmp_path / "compiled")
        assert jax.config.jax_compilation_cache_dir == (before if chosen else str(tmp_path / "compiled"))
        jax.jit(lambda x: x * 17.25)(jnp.ones(()))
        assert bool(list(tmp_path.glob("compiled/*"))) is not chosen.startswith("there")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        cluster.compilation_cache.reset_cache()


def test_alone_nothing_waits():
    cluster.barrier("for nobody")
    with cluster.first_alone("data"):
        assert cluster.is_first()
    function = object()
    assert cluster.compile_in_step(function) is function
