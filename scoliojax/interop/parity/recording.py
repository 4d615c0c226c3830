"""Recorded numbers of the original, as `scoliojax.interop.parity.replay` states them."""

from pathlib import Path

import numpy as np

from data_pipelines.silhouettes import cut_sides
from scoliojax.errors import RunError
from scoliojax.interop.opengait.checkpoint import PUBLISHED_OPTIMIZER
from scoliojax.interop.opengait.names import infer_sizes
from scoliojax.interop.parity.replay import Arrays, Batch, Run, Step, only_statistics


class Recording:
    """A folder with recorded numbers of the original: `train.npz`, `eval.npz`, `metrics.npz` and one checkpoint.

    Raises:
      RunError: when one of them is missing.
    """

    def __init__(self, folder: Path):
        missing = [name for name in ("train.npz", "eval.npz", "metrics.npz") if not (folder / name).is_file()]
        checkpoints = sorted(folder.glob("*.pt"))
        if missing or not checkpoints:
            raise RunError(f"{folder} is no recording: {', '.join(missing) or 'a checkpoint (*.pt)'} is missing")
        self.checkpoint = checkpoints[-1]
        self.evaluation, self.metrics = (dict(np.load(folder / f"{name}.npz")) for name in ("eval", "metrics"))
        self._train = dict(np.load(folder / "train.npz"))
        self.start = self._named("init/")
        self.sizes = infer_sizes({name: value.shape for name, value in self.start.items()})
        self.start = {name: value for name, value in self.start.items() if not name.endswith("num_batches_tracked")}
        self._count = sum(name.endswith("/sils") for name in self._train)

    def _named(self, prefix: str) -> Arrays:
        return {name.removeprefix(prefix): value for name, value in self._train.items() if name.startswith(prefix)}

    def batches(self) -> list[Batch]:
        """The recorded training batches, one a step."""
        return [
            Batch(
                np.ascontiguousarray(cut_sides(self._train[f"step{i}/sils"])),
                self._train[f"step{i}/labels"].astype(np.int32),
                self._train[f"step{i}/pids"].astype(np.int32),
            )
            for i in range(self._count)
        ]

    def run(self) -> Run:
        """Network sizes, training batches and optimiser settings: its milestones are where the recorded rate falls."""
        rates = [float(self._train[f"step{i}/lr"]) for i in range(self._count)]
        falls = [i for i in range(1, self._count) if rates[i] < rates[i - 1]]
        settings = PUBLISHED_OPTIMIZER | {"learning_rate": rates[0], "milestones": tuple(falls)}
        return self.sizes, self.batches(), settings

    def steps(self) -> list[Step]:
        """Results that the original recorded, one a step."""
        found, trained = [], self._named("grad0/").keys()
        for i in range(self._count):
            values, after = self._named(f"step{i}/"), self._named(f"after{i + 1}/")
            found.append(
                Step(
                    embeddings=values["embeddings"],
                    logits=values["logits"],
                    triplet=values["triplet_loss"],
                    violations=values["triplet_num"],
                    mean_distance=values["mean_dist"],
                    cross_entropy=float(values["ce_loss"]),
                    loss=float(values["total"]),
                    gradients=self._named(f"grad{i}/"),
                    parameters={name: value for name, value in after.items() if name in trained},
                    statistics=only_statistics(after),
                )
            )
        return found
