"""The memory of the host that a process of a run will need, before it needs it: derived, not measured."""

import math
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.pipelines import EVAL_LENGTH_STEP
from scoliojax import build
from scoliojax.runs.cohort import Cohort

COPIES = 2  # of the state while a checkpoint is written: one to take its digest from, one that Orbax writes
COMPILER = 0.7e9  # bytes, measured on a CPU: what the compiler takes, and the libraries that an evaluation loads


class HostMemory(NamedTuple):
    """Bytes of the host's memory that one process will need, by purpose, and what there is."""

    parts: dict[str, float]  # by purpose, in words
    there: float  # of the machine, which all its processes share

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def rows(self) -> list[tuple[str, float]]:
        """Names with unit and figures, for a table."""
        return [(f"host memory: {name} (MB)", size / 1e6) for name, size in [*self.parts.items(), ("total", self.total)]]

    def line(self) -> str:
        """One line for the log, which ends with what to lower where a process alone needs more than there is."""
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in self.parts.items())
        line = f"host memory of each process: about {self.total / 1e9:.1f} GB ({parts}); there are {self.there / 1e9:.1f} GB"
        return line + "; too much: lower data.cache_gigabytes" * (self.total > self.there)


def host_memory(config: build.Config, cohort: Cohort, state: Any) -> HostMemory:
    """What a process of this run will need; `state`: the arrays that a checkpoint holds, or their shapes.

    On a CPU the arrays of the steps come on top, which are the devices' elsewhere: `benchmark.program` states those.
    """
    data, counts, threads = config.data, cohort.data.n_frames, config.data.loader_threads
    sampler, frame = cohort.sampler, math.prod(cohort.data.frame_shape)  # bytes of a frame whose sides are removed
    part = cohort.partition
    read = slice(None) if cohort.slow else np.concatenate([part.train, part.validation])  # more than once
    sequences = float(counts[read].sum(dtype=np.int64)) * frame
    kept = min(float(cohort.cache.limit), sequences)
    share = sampler.clips // sampler.process_count
    frames = share // sampler.clips_together * sampler.shared_length or share * sampler.frames_per_clip
    anew = 0.0 if kept == sequences else float(min(share, sampler.subjects_per_batch)) * float(counts.max()) * frame
    length = -(-min(int(counts.max()), data.max_eval_frames) // EVAL_LENGTH_STEP) * EVAL_LENGTH_STEP
    evaluated = float(data.sequences_per_eval_batch * jax.local_device_count() * length) * frame
    parts = {
        "so far": _so_far(),
        "sequences": kept,
        "batches ahead": (2 * threads + 2) * float(frames) * frame + threads * anew,
        "evaluation": (threads + 2) * evaluated,
        "checkpoints": COPIES * float(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))),
        "compiler and libraries": COMPILER,
    }
    return HostMemory(parts, float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))


def _so_far() -> float:
    """Bytes of this process now; where the system does not tell, the most until now."""
    with suppress(OSError):
        return float(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
