"""The reference of a network: fitted once on training and validation part, kept beside the checkpoint, the same everywhere."""

import errno
import functools
import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scoliojax.runs.cohort import Cohort
from scoliojax.runs.evaluation import calibrate, evaluate_part
from scoliojax.runs.reference import refer
from scoliojax.runs.run import Run, TrainedNetwork
from scoliojax.scores import calibration, reference
from tests.conftest import assert_one_clear_error, make_tiny_config, run_here

FRAMES = 30


@pytest.fixture(scope="module")
def cohort():
    config = make_tiny_config()
    config.data.validation_fraction = 0.4
    config.data.synthetic.subjects, config.data.synthetic.frames = 90, FRAMES
    return Cohort(config)


@pytest.fixture
def network(cohort, tmp_path):
    run = Run(tmp_path, cohort.config)
    return TrainedNetwork(run, run.initial_state())


@pytest.mark.slow
@pytest.mark.optimised
def test_it_is_fitted_once_and_the_same_walk_is_as_far_away_wherever_it_is_read(network, cohort, capsys):
    evaluation = evaluate_part(network, cohort, "test", [], coverage=0.9)
    kept = evaluation.reference
    assert kept.lengths.tolist() == [15, FRAMES]
    assert kept.sequences == len(cohort.partition.train)
    assert set(kept.walks.tolist()) == {len(cohort.partition.validation)}
    assert kept.synthetic
    path = reference.reference_file(network.directory, network.step)
    written = path.read_bytes()
    again = TrainedNetwork(network.run, network.state)
    second = evaluate_part(again, cohort, "test", [])
    np.testing.assert_allclose(second.distance, evaluation.distance, rtol=1e-12)
    assert path.read_bytes() == written
    assert again.reference.network == network.digest
    assert refer(again, cohort) is again.reference

    others = replace(network.state, params=jax.tree.map(lambda leaf: leaf * 1.5, network.state.params))
    assert TrainedNetwork(network.run, others).reference is None, "not of another network at the same step"

    # One by one, 15 frames at a time on one device, as screening reads a walk; above, batches of three on each of four devices.
    net = network.module()
    pool, head = jax.jit(functools.partial(net.pool, train=False)), jax.jit(functools.partial(net.head, train=False))
    for place in range(0, len(evaluation.rows), 7):
        clip = jnp.asarray(cohort.cache(int(evaluation.rows[place])))[None]  # 1 s 64 44
        pooled = jnp.maximum(pool(clip[:, :15]), pool(clip[:, 15:]))  # 1 16 11 c
        (distance,) = kept.distance(np.asarray(head(pooled).embeddings))
        assert distance == pytest.approx(evaluation.distance[place], rel=1e-5)

    # What is fitted on the batches of another machine, too
    path.unlink()
    cohort.config.data.sequences_per_eval_batch = 2
    try:
        fresh = refer(TrainedNetwork(network.run, network.state), cohort)
    finally:
        cohort.config.data.sequences_per_eval_batch = 3
    np.testing.assert_allclose(fresh.distance(evaluation.embeddings), evaluation.distance, rtol=1e-5)
    np.testing.assert_allclose(fresh.usual, kept.usual, rtol=1e-5)
    assert not capsys.readouterr().err

    assert np.mean(evaluation.distance <= kept.usual_at(FRAMES)) > 0.9
    noise = np.random.default_rng(0).integers(0, 2, (1, FRAMES, 64, 44)) * 255  # no walker
    judged = kept.judge(float(kept.distance(np.asarray(head(pool(jnp.asarray(noise))).embeddings))[0]), FRAMES)
    assert judged.beyond
    assert judged.distance > 10 * evaluation.distance.max()


@pytest.mark.slow
def test_where_it_cannot_be_kept_a_warning_says_so(network, cohort, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reference, "write", full)
    assert refer(network, cohort, keep=False) is not None
    assert not capsys.readouterr().err
    assert refer(network, cohort) is not None
    assert "warning: the reference of the distances is not kept; " in capsys.readouterr().err


def test_too_few_validation_subjects_and_a_network_without_embeddings_have_none(network, cohort):
    few = Cohort(cohort.config)
    few.data, few.partition = cohort.data, replace(cohort.partition, validation=cohort.partition.validation[:9])
    assert refer(network, few) is None
    none = replace(cohort.partition, validation=cohort.partition.validation[:0])
    few.partition = none
    assert refer(network, few) is None
    blank = network.state.replace(params=jax.tree.map(jnp.zeros_like, network.state.params))
    assert refer(TrainedNetwork(network.run, blank), cohort) is None
    assert not (network.directory / "reference").exists()


def test_an_older_calibration_gets_what_prediction_sets_need_and_keeps_its_threshold(network, cohort):
    new = calibrate(network, cohort)
    path = calibration.calibration_file(network.directory, network.step)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["margins"]
    path.write_text(json.dumps(content | {"threshold": 0.123}), encoding="utf-8")
    opened = TrainedNetwork(network.run, network.state)
    assert opened.calibration.prediction_set(np.full((1, 3), 1 / 3), 0.9)[0] is None
    mended = calibrate(opened, cohort)
    assert mended == replace(new, threshold=0.123)
    assert calibration.read(path, network.digest) == mended
    assert sum(map(len, mended.margins)) == len(cohort.partition.validation)
    shutil.rmtree(path.parent)
    assert calibrate(TrainedNetwork(network.run, network.state), cohort) == new


@pytest.mark.parametrize("command", [("scoliojax.main", "--mode", "eval"), ("scoliojax.report",)])
@pytest.mark.parametrize("value", ["0", "1", "90", "nan", "-0.5"])
def test_a_coverage_that_is_no_share_is_one_line(command, value, tmp_path, tiny_config):
    from scoliojax.runs import directory as run_directory

    run_directory.claim(tmp_path, tiny_config.to_dict(), "digest", {"train": ["a"], "validation": [], "test": ["b"]})
    module, *options = command
    result = run_here(module, *options, "--workdir", tmp_path, f"--coverage={value}")
    assert_one_clear_error(result, "--coverage=", "must lie between 0 and 1")
