"""Recorded numbers of the original, as `scoliojax.interop.parity.replay` states them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_pipelines.schema import CLASSES, abbreviate
from data_pipelines.silhouettes import cut_sides
from scoliojax.errors import RunError, one_line
from scoliojax.interop.opengait.checkpoint import PUBLISHED_OPTIMIZER
from scoliojax.interop.opengait.names import entries, infer_sizes, trained
from scoliojax.interop.parity.replay import Arrays, Batch, Run, Step, only_statistics

AGAIN = "copy or record it again"
Shape = tuple[int | str, ...]  # letters: any length of at least 1, the same wherever the letter stands in a file
FRAMES: dict[str, Shape] = {"sils": (64, 64), "maps": (2, 64, 64)}  # of a network that reads one channel, and two
VECTORS: Shape = ("n", 8, 3)  # asymmetry vectors in 0..1, of a DRF
STEP: dict[str, Shape] = {
    "labels": ("n",), "pids": ("n",), "embeddings": ("n", "c", "p"), "logits": ("n", "k", "p"),
    "triplet_loss": ("p",), "triplet_num": ("p",), "mean_dist": ("p",), "ce_loss": (), "total": (), "lr": (),
}  # fmt: skip
EVALUATION: dict[str, Shape] = {"pred": ("n",), "embeddings": ("n", "c", "p"), "logits": ("n", "k", "p")}
METRICS: dict[str, Shape] = {
    "labels": ("n",), "logits": ("n", "k", "p"), "accuracy": (), "precision": (), "recall": (), "f1": ()
}  # fmt: skip


def _load(path: Path) -> Arrays:
    try:
        with np.load(path) as file:
            return dict(file)
    except Exception as error:  # whatever is wrong with the bytes of an archive of arrays means the same
        raise RunError(f"{path} is damaged ({type(error).__name__}: {one_line(error)}); {AGAIN}") from error


def _refuse(path: Path, arrays: Arrays, shapes: Mapping[str, Shape], axes: Mapping[str, int]) -> None:
    """Raise `RunError` for an array that is missing, holds no numbers or has another shape; `axes` are lengths by letter."""
    if missing := [name for name in shapes if name not in arrays]:
        raise RunError(f"{path} lacks {abbreviate(missing, 3)}; {AGAIN}")
    known, wrong = dict(axes), []
    for name, shape in shapes.items():
        array = arrays[name]
        fits = len(shape) == array.ndim and array.size and array.dtype.kind in "uif"
        if not fits or any(
            known.setdefault(str(axis), axis if isinstance(axis, int) else n) != n
            for axis, n in zip(shape, array.shape, strict=True)
        ):
            expected = ", ".join(str(known.get(str(axis), axis)) for axis in shape)
            wrong.append(f"{name} is {array.dtype} {array.shape}, expected numbers ({expected})")
    if wrong:
        raise RunError(f"{path}: {abbreviate(wrong, 3)}; {AGAIN}")


def _refuse_labels(path: Path, name: str, arrays: Arrays, classes: int) -> None:
    labels = arrays[name]
    if not ((labels >= 0) & (labels < classes)).all():
        raise RunError(f"{path}: {name} are {labels.min()} to {labels.max()}, expected 0 to {classes - 1}; {AGAIN}")


def _refuse_vectors(path: Path, name: str, arrays: Arrays) -> None:
    vectors = arrays[name]
    if not ((vectors >= 0) & (vectors <= 1)).all():
        raise RunError(
            f"{path}: {name} is {vectors.min():g} to {vectors.max():g}, expected normalised asymmetry vectors, 0 to 1; {AGAIN}"
        )


def _refuse_uneven(path: Path, name: str, arrays: Arrays) -> None:
    """Raise `RunError` for classes whose pairs the original cannot cut into equal rows (`replay.mixed_triplet_loss`)."""
    counts = np.unique(arrays[name], return_counts=True)[1]
    if np.sum(counts**2) % np.sum(counts):
        raise RunError(f"{path}: {name} has {abbreviate(counts)} clips of a class, which the original cannot pair; {AGAIN}")


class Recording:
    """A folder with recorded numbers of the original: `train.npz`, `eval.npz`, `metrics.npz` and one checkpoint.

    Recordings of networks that read skeleton maps may lack `metrics.npz` and the mean distances. `RunError` when something else
    is missing or damaged, or lacks an array or has one of another shape.
    """

    def __init__(self, folder: Path):
        missing = [name for name in ("train.npz", "eval.npz", "metrics.npz") if not (folder / name).is_file()]
        checkpoints = sorted(folder.glob("*.pt"))
        incomplete = RunError(f"{folder} is no recording: {', '.join(missing) or 'a checkpoint (*.pt)'} is missing")
        if not checkpoints or missing not in ([], ["metrics.npz"]):
            raise incomplete
        self.checkpoint = checkpoints[-1]
        self._train, self.evaluation = (_load(folder / f"{name}.npz") for name in ("train", "eval"))
        self.metrics = None if missing else _load(folder / "metrics.npz")
        self.start = {name: value for name, value in self._named("init/").items() if not name.endswith("num_batches_tracked")}
        try:
            self.sizes = infer_sizes({name: value.shape for name, value in self.start.items()})
        except ValueError as error:
            raise RunError(f"{folder / 'train.npz'}: init/: {error}; {AGAIN}") from None
        if missing and self.sizes.inputs == 1:
            raise incomplete
        self._frames, self._pixels = list(FRAMES.items())[self.sizes.inputs - 1]
        self._count = max(1, len({name.partition("/")[0] for name in self._train if name.startswith("step")}))
        self._refuse_misfits(folder)

    def _refuse_misfits(self, folder: Path) -> None:
        """Raise `RunError` for an array that is missing, or has another shape than the network's sizes and the others say."""
        every = {entry.name: entry.shape for entry in entries(self.sizes) if entry.tree != "count"}
        moved = {entry.name: entry.shape for entry in trained(self.sizes)}
        vectors: dict[str, Shape] = {"pav": VECTORS} if self.sizes.gates else {}
        of_step: dict[str, Shape] = {self._frames: ("n", "s", *self._pixels)} | STEP | vectors
        if self.sizes.inputs == 2 and not any(name.endswith("/mean_dist") for name in self._train):
            del of_step["mean_dist"]
        needed: dict[str, Shape] = {f"step{i}/{name}": shape for i in range(self._count) for name, shape in of_step.items()}
        for when, shapes in {"init": every, "grad0": moved, "after1": every, f"after{self._count}": every}.items():
            needed |= {f"{when}/{name}": shape for name, shape in shapes.items()}
        unknown = []
        for name in self._train.keys() - needed:
            when, _, tensor = name.partition("/")
            if when.startswith(("init", "grad", "after")) and not tensor.endswith("num_batches_tracked"):
                shape = (moved if when.startswith("grad") else every).get(tensor)
                needed |= {name: shape} if shape else {}
                unknown += [] if shape else [name]
        if unknown:
            raise RunError(f"{folder / 'train.npz'} has {abbreviate(sorted(unknown), 3)}, which no ScoNet has; {AGAIN}")
        axes = {"c": self.sizes.embedding_dim, "k": self.sizes.classes, "p": sum(self.sizes.strips)}
        _refuse(folder / "train.npz", self._train, needed, axes)
        count = np.size(self.evaluation.get("pred", ()))
        sequences: dict[str, Shape] = {f"seq{i}": (f"s{i}", *self._pixels) for i in range(count)}
        _refuse(folder / "eval.npz", self.evaluation, EVALUATION | vectors | sequences, axes)
        if vectors:
            _refuse_vectors(folder / "eval.npz", "pav", self.evaluation)
        for i in range(self._count):
            if vectors:
                _refuse_vectors(folder / "train.npz", f"step{i}/pav", self._train)
                _refuse_uneven(folder / "train.npz", f"step{i}/labels", self._train)
            _refuse_labels(folder / "train.npz", f"step{i}/labels", self._train, self.sizes.classes)
            if not 0.0 < float(rate := self._train[f"step{i}/lr"]) < np.inf:
                raise RunError(f"{folder / 'train.npz'}: step{i}/lr is {rate}, expected a learning rate; {AGAIN}")
        if self.metrics is not None:
            _refuse(folder / "metrics.npz", self.metrics, METRICS, {"k": len(CLASSES)})
            _refuse_labels(folder / "metrics.npz", "labels", self.metrics, len(CLASSES))

    def _named(self, prefix: str) -> Arrays:
        return {name.removeprefix(prefix): value for name, value in self._train.items() if name.startswith(prefix)}

    def run(self) -> Run:
        """Network sizes, training batches and optimiser settings: its milestones are where the recorded rate falls."""
        recorded = [self._named(f"step{i}/") for i in range(self._count)]
        batches = [
            Batch(
                np.ascontiguousarray(cut_sides(one[self._frames])),
                *(one[name].astype(np.int32) for name in ("labels", "pids")),
                asymmetry=one["pav"].astype(np.float32) if self.sizes.gates else None,
            )
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
            strips = (values["triplet_loss"], values["triplet_num"], values.get("mean_dist"))  # p each
            parameters = {name: value for name, value in after.items() if name in trained}
            losses = float(values["ce_loss"]), float(values["total"])
            numbers = (values["embeddings"], values["logits"], *strips, *losses)
            found.append(Step(*numbers, self._named(f"grad{i}/"), parameters, only_statistics(after)))
        return found
