"""The data of a run: all sequences, their partition, and the batches drawn from them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.leaks import NearDuplicate, near_duplicates, refuse_shared_subjects
from data_pipelines.pipelines import SequenceCache, TrainSampler, eval_batches, train_batches
from data_pipelines.poses.asymmetry import Normalisation
from data_pipelines.schema import SKELETONS, DataError, SequenceSet
from data_pipelines.splits import Partition
from scoliojax import build
from scoliojax.devices import cluster
from scoliojax.devices.mesh import to_devices
from scoliojax.errors import RunError
from scoliojax.files import write_json
from scoliojax.models.drf import knows_ranges
from scoliojax.runs.run import Run
from scoliojax.scores.evaluation import Provenance
from scoliojax.training.state import TrainState

Cut = Callable[[int, int], Any]  # row and number of frames to an index of frames


class Cohort:
    """The sequences of a run, as the section `data` of its config describes them; raises `RunError` or `DataError`."""

    def __init__(self, config: build.Config):
        self.config = config
        with cluster.first_alone("data"):  # the first process may prepare the data
            self.data: SequenceSet = build.build_data(config, report=cluster.print_once)
        self.cache: SequenceCache = build.build_cache(config, self.data)
        # Sequences that are read once are not kept in memory, except what is slow to draw: synthetic walkers, skeleton maps.
        self.read_once = self.cache if self.slow else self.cache.read_once
        self.partition: Partition = build.build_partition(config, self.data, cluster.print_once)

    @property
    def slow(self) -> bool:
        """Whether reading a sequence means drawing it, so that all are kept as far as there is room."""
        return self.data.synthetic or self.data.modality == SKELETONS

    @cached_property
    def sampler(self) -> TrainSampler:
        """This process's sampler of training batches; raises `RunError` where the devices cannot share a batch evenly."""
        return build.build_sampler(self.config, self.data, self.partition, self.cache)

    @cached_property
    def ranges(self) -> Normalisation | None:
        """The ranges of asymmetry vectors over the training part; None where the network reads none.

        Raises `DataError` where all are 0, because no pair of joints is seen.
        """
        if self.data.asymmetry is None:
            return None
        found = Normalisation.fit(self.data.asymmetry[self.partition.train])
        if not found.high.any():
            raise DataError(
                f"{self.data.name}: no pair of a left and a right joint is seen in any training sequence, so DRF has "
                "nothing to read of their posture; find the joints anew, or train configs/sconet_mt_ske.py"
            )
        return found

    def train_batches(self, start: int, mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
        """Training batches from step `start` on, sharded over the mesh."""
        batches = train_batches(self.sampler, start, self.config.train.steps, self.config.data.loader_threads)
        return (to_devices(batch, mesh) for batch in batches)

    def eval_batches(
        self,
        rows: np.ndarray,
        mesh: Mesh,
        keep: bool = False,
        cut: Cut | None = None,
        most: int | None = None,
        perturb: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Padded batches of the sequences `rows`, sharded over the mesh; `keep`: keep them in memory, to be read again.

        `cut`: given a row and its number of frames, the frames to take, `most` or all if there are fewer. `perturb`: uint8
        `[s, 64, 44]` to the same, with at most s frames, applied to the frames that are looked at.
        """
        data, read, limit = self.data, self.cache if keep else self.read_once, self.config.data.max_eval_frames
        counts = np.minimum(data.n_frames, limit)

        def reader(row: int) -> np.ndarray:
            clip = read(row)[:limit]  # s 64 44
            clip = clip if cut is None else clip[cut(row, int(counts[row]))]  # s 64 44
            return clip if perturb is None else perturb(clip)

        if cut:
            data = replace(data, n_frames=np.minimum(counts, most or limit))
        batcher = build.build_eval_batcher(self.config, data, rows, reader)
        for batch in eval_batches(batcher, self.config.data.loader_threads):
            yield {"rows": batch.pop("rows"), **to_devices(batch, mesh)}

    def near_duplicates(self) -> list[NearDuplicate]:
        """Held-out sequences that nearly equal a training sequence; raises `DataError` when a subject is in two parts."""
        refuse_shared_subjects(self.data, self.partition)
        duplicates = near_duplicates(self.data, self.partition, self.read_once) if cluster.is_first() else []
        cluster.barrier("leaks")
        return duplicates

    @cached_property
    def parts(self) -> dict[str, list[str]]:
        """Ids of the sequences by part."""
        return parts_of(self.data, self.partition)

    def rows(self, part: str) -> np.ndarray:
        """Indices of the sequences of a part; raises `RunError` where the part is empty."""
        rows = getattr(self.partition, part)
        if not len(rows):
            raise RunError(f"--part={part} is empty; data.validation_fraction={self.config.data.validation_fraction}")
        return rows

    def provenance(self, step: int, duplicates: list[NearDuplicate]) -> Provenance:
        """The facts that are reported with the scores of the network of a step."""
        return Provenance(
            step=step,
            partition=self.config.data.partition,
            subjects_known=self.data.synthetic or self.data.subjects != self.data.sequences,
            parts={
                part: {"sequences": len(rows), "subjects": len({self.data.subjects[row] for row in rows})}
                | self.data.class_counts(rows)
                for part, rows in vars(self.partition).items()
            },
            near_duplicates=[duplicate._asdict() for duplicate in duplicates],
        )


def fit_ranges(state: TrainState, cohort: Cohort) -> TrainState:
    """A state with the ranges of asymmetry vectors over the training part, where its network has such and nobody knows them."""
    if knows_ranges(state.batch_stats):
        return state
    gates, found = state.batch_stats["gates"], cohort.ranges
    assert found is not None  # as `build.build_data` gives such a network its vectors
    ranges = {"low": found.low, "high": found.high}  # each 8 3
    fitted = {name: jax.device_put(ranges[name], gates[name].sharding) for name in ranges}
    return replace(state, batch_stats=state.batch_stats | {"gates": gates | fitted})


def parts_of(data: SequenceSet, partition: Partition) -> dict[str, list[str]]:
    """Ids of the sequences of a partition by part."""
    return {part: [data.sequences[row] for row in rows] for part, rows in vars(partition).items()}


def examine_batch(run: Run, cohort: Cohort, step: int) -> str:
    """Write the sequences and frames of a finished step's batch to the run directory; returns a message with the path."""
    rows, frames = cohort.sampler.draw(step - 1)
    path = run.directory / f"not-finite-step-{step:06d}.json"
    if cluster.is_first():
        sequences = [cohort.data.sequences[row] for row in rows]
        write_json(path, {"step": step, "sequences": sequences, "frames": frames.tolist()})
    return f"its sequences and frames are in {path}"
