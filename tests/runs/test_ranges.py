"""The ranges that bring asymmetry vectors to 0..1: of the training part alone, and wherever the network goes."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from data_pipelines.poses.asymmetry import Normalisation
from data_pipelines.schema import DataError
from scoliojax import build
from scoliojax.models.drf import knows_ranges
from scoliojax.runs.cohort import Cohort, fit_ranges
from scoliojax.runs.run import Run, open_run
from scoliojax.runs.training import run_training
from scoliojax.study.pairs import read_predicted
from tests.scripts import pods


@pytest.fixture
def drf_config(tiny_config):
    tiny_config.data.modality, tiny_config.model.name = "skeletons", "drf"
    return tiny_config


def ranges(state) -> np.ndarray:
    gates = jax.device_get(state.batch_stats["gates"])
    return np.stack([gates["low"], gates["high"]])  # 2 8 3


def test_ranges_are_those_of_the_training_part_alone(drf_config, tmp_path):
    cohort, start = Cohort(drf_config), Run(tmp_path, drf_config).initial_state()
    assert not knows_ranges(start.batch_stats)
    fitted = fit_ranges(start, cohort)
    assert knows_ranges(fitted.batch_stats)
    vectors = cohort.data.asymmetry
    expected = Normalisation.fit(vectors[cohort.partition.train])
    np.testing.assert_array_equal(ranges(fitted), np.stack([expected.low, expected.high]))

    def of(part: str) -> np.ndarray:
        other = Cohort(drf_config)
        moved = vectors.copy()
        moved[getattr(cohort.partition, part)[0]] += 100.0
        other.data = replace(other.data, asymmetry=moved)
        return ranges(fit_ranges(start, other))

    np.testing.assert_array_equal(of("test"), ranges(fitted))
    assert (of("train")[1] > ranges(fitted)[1]).all()
    known = replace(start, batch_stats=start.batch_stats | {"gates": {"low": vectors[0], "high": vectors[1]}})
    assert fit_ranges(known, cohort) is known, "what a checkpoint has stays"


@pytest.mark.long
def test_two_processes_and_four_devices_are_one_run_of_drf(tmp_path):
    """Skeleton maps, vectors and batches by class; `test_processes` has the rest, which reads nothing of these."""
    alone, moved = tmp_path / "alone", tmp_path / "moved"
    options = [*pods.options("drf"), "--config.data.validation_fraction=0.2", "--config.train.checkpoint_every=4"]
    options.append("--config.data.synthetic.subjects=24")
    steps = [f"--config.train.steps={count}" for count in (4, 6)]
    pods.run(2, 1, *options, steps[0], "--config.train.eval_every=2", f"--workdir={moved}")
    (rest,) = pods.run(1, 4, *options, steps[1], f"--workdir={moved}")
    assert "going on from step 4" in rest
    pods.run(1, 1, *options, steps[1], f"--workdir={alone}")
    same_batches, losses, parameters = pods.compare(moved, alone, steps=4)
    assert same_batches
    assert losses < 1e-5
    assert pods.compare(moved, alone, steps=6)[1] < 1e-3, "rounding grows from step to step"
    assert parameters < 1e-3
    one, other = (open_run(folder) for folder in (alone, moved))
    kept = ranges(one.network("newest").state)
    for network in (one.network("4"), other.network("4"), other.network("newest"), other.network("best")):
        np.testing.assert_array_equal(ranges(network.state), kept)
    cohort = Cohort(one.config)
    found = Normalisation.fit(cohort.data.asymmetry[cohort.partition.train])
    np.testing.assert_array_equal(kept, np.stack([found.low, found.high]))
    tables = [read_predicted(folder, 6) for folder in (alone, moved)]
    assert tables[0].sequences == tables[1].sequences
    np.testing.assert_allclose(tables[0].scored.probabilities, tables[1].scored.probabilities, atol=1e-2)


def changed(monkeypatch, **fields) -> None:
    """Data of a run are then built with other fields."""
    built = build.build_data
    monkeypatch.setattr(build, "build_data", lambda *given, **named: replace(built(*given, **named), **fields))


def test_postures_of_which_nothing_is_seen_are_refused_before_anything_is_written(drf_config, tmp_path, monkeypatch):
    changed(monkeypatch, asymmetry=np.zeros((drf_config.data.synthetic.subjects, 8, 3), np.float32))
    with pytest.raises(DataError, match="no pair of a left and a right joint is seen in any training sequence"):
        run_training(drf_config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("modality", ["silhouettes", "skeletons"])
def test_what_is_slow_to_draw_is_kept_when_it_is_read_once(modality, tiny_config, monkeypatch):
    tiny_config.data.modality = modality
    changed(monkeypatch, synthetic=False)
    cohort = Cohort(tiny_config)
    first = cohort.read_once(0)
    assert (cohort.read_once(0) is first) == (modality == "skeletons")
