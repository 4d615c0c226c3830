"""What a run says of the host's memory that it will need."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.pipelines import SequenceCache
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.memory import HostMemory, host_memory

FRAME = 64 * 44  # bytes
STATE = {"kernel": jax.ShapeDtypeStruct((10, 100), np.float32), "step": jax.ShapeDtypeStruct((), np.int32)}  # 4,004 bytes


@pytest.fixture
def cohort(tiny_config) -> Cohort:
    return Cohort(tiny_config)


def of(cohort: Cohort, **changes) -> dict[str, float]:
    """The parts for a cohort whose config is changed."""
    config = cohort.config.copy_and_resolve_references()
    for key, value in changes.items():
        config.data[key] = value
    cohort.cache = SequenceCache(cohort.data, int(1e9 * config.data.cache_gigabytes))
    return host_memory(config, cohort, STATE).parts


def test_sequences_are_those_that_are_read_again_as_far_as_the_cache_has_room(cohort):
    frames = cohort.data.n_frames
    assert of(cohort)["sequences"] == frames.sum() * FRAME  # walkers are kept, all of them
    assert of(cohort, cache_gigabytes=1e-4)["sequences"] == 1e5
    assert of(cohort, cache_gigabytes=0.0)["sequences"] == 0
    cohort.data = dataclasses.replace(cohort.data, synthetic=False)  # those of the test part are read once
    read = np.concatenate([cohort.partition.train, cohort.partition.validation])
    assert of(cohort)["sequences"] == frames[read].sum() * FRAME < frames.sum() * FRAME


def test_batches_ahead_are_those_that_the_loader_holds(cohort):
    config, sampler = cohort.config, cohort.sampler
    batch = sampler(0)["frames"].nbytes
    for threads in (1, 3):
        assert of(cohort, loader_threads=threads)["batches ahead"] == (2 * threads + 2) * batch
    longest = int(cohort.data.n_frames.max()) * FRAME
    anew = config.data.subjects_per_batch * longest  # decoded by each thread where nothing is kept
    assert of(cohort, loader_threads=3, cache_gigabytes=0.0)["batches ahead"] == 8 * batch + 3 * anew


def test_an_evaluation_holds_padded_sequences_and_a_checkpoint_two_copies(cohort):
    each = cohort.config.data.sequences_per_eval_batch * jax.local_device_count() * 60 * FRAME  # padded to 60 frames
    assert of(cohort, loader_threads=2)["evaluation"] == 4 * each
    assert of(cohort)["checkpoints"] == 2 * 4004
    cohort.data = dataclasses.replace(cohort.data, n_frames=np.full(len(cohort.data), 1000, np.int32))
    assert of(cohort, loader_threads=2, max_eval_frames=121)["evaluation"] == 4 * 3 * each


@pytest.mark.parametrize(("there", "end"), [(8e9, "there are 8.0 GB"), (2e9, "2.0 GB; too much: lower data.cache_gigabytes")])
def test_the_line_names_the_parts_and_what_to_lower(there, end):
    found = HostMemory({"so far": 0.5e9, "sequences": 1.75e9}, there)
    assert found.line().startswith("host memory of each process: about 2.2 GB (so far 0.50, sequences 1.75); ")
    assert found.line().endswith(end)
    assert found.rows()[-1] == ("host memory: total (MB)", 2250.0)


def test_a_process_counts_with_what_it_has_already(cohort):
    assert 0.05e9 < of(cohort)["so far"] < 20e9
