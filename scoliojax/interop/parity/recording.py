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

    `RunError` when one of them is missing.
    """

    def __init__(self, folder: Path):
        missing = [name for name in ("train.npz", "eval.npz", "metrics.npz") if not (folder / name).is_file()]
        checkpoints = sorted(folder.glob("*.pt"))
        if missing or not checkpoints:
            raise RunError(f"{folder} is no recording: {', '.join(missing) or 'a checkpoint (*.pt)'} is missing")
        self.checkpoint = checkpoints[-1]
        self.evaluation, self.metrics = (dict(np.load(folder / f"{name}.npz")) for name in ("eval", "metrics"))
        self._train = dict(np.load(folder / "train.npz"))
        self.start = {name: value for name, value in self._named("init/").items() if not name.endswith("num_batches_tracked")}
        self.sizes = infer_sizes({name: value.shape for name, value in self.start.items()})
        if not self._named("grad0/"):
            raise RunError(f"{folder} is no recording: train.npz holds no gradients of step 0 (grad0/)")
        self._count = sum(name.endswith("/sils") for name in self._train)

    def _named(self, prefix: str) -> Arrays:
        return {name.removeprefix(prefix): value for name, value in self._train.items() if name.startswith(prefix)}

    def run(self) -> Run:
        """Network sizes, training batches and optimiser settings: its milestones are where the recorded rate falls."""
        recorded = [self._named(f"step{i}/") for i in range(self._count)]
        batches = [
            Batch(np.ascontiguousarray(cut_sides(one["sils"])), one["labels"].astype(np.int32), one["pids"].astype(np.int32))
            for one in recorded
        ]
        rates = [float(one["lr"]) for one in recorded]
        falls = [i for i in range(1, self._count) if rates[i] < rates[i - 1]]
        settings = PUBLISHED_OPTIMIZER | {"learning_rate": rates[0], "milestones": tuple(falls)}
        return self.sizes, batches, settings

    def steps(self) -> list[Step]:
        """Results that the original recorded, one a step."""
        trained, found = self._named("grad0/").keys(), []
        for i in range(self._count):
            values, after = self._named(f"step{i}/"), self._named(f"after{i + 1}/")
            strips = (values["triplet_loss"], values["triplet_num"], values["mean_dist"])  # p each
            parameters = {name: value for name, value in after.items() if name in trained}
            losses = float(values["ce_loss"]), float(values["total"])
            numbers = (values["embeddings"], values["logits"], *strips, *losses)
            found.append(Step(*numbers, self._named(f"grad{i}/"), parameters, only_statistics(after)))
        return found
