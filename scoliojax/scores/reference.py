"""How unlike the walks of training a walk is: the distance of its embeddings, and what distance is usual at its length.

The distance is Mahalanobis's (1936), squared: per strip, from the mean of the training part's embeddings, with a precision that
is shrunk (Ledoit & Wolf 2004), because there are few walks for so many channels; then the mean over channels and strips. A mean
tells other things from walkers as well as the largest strip does, and one odd strip of a good walk moves it less. Set pooling
takes a maximum over frames, so a short walk lies further away: what is usual is measured on validation walks cut to several
lengths.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special

from data_pipelines.files import read_regular
from scoliojax.errors import RunError, one_line
from scoliojax.files import whole_file

SHARE = 0.99  # of validation walks, and so of walks like them, that are at most `usual` away
BEYOND = 2.5  # multiple of `usual` beyond which there is no answer; docs/evaluation.md says why
SHORTEST = 15  # frames of the shortest cut
FRAMES = 60  # evenly spaced frames of each training walk that are read
FEWEST = 10  # validation subjects without whom there are no bounds
MOST_BYTES = 2**30  # of a file; the published sizes take 4 MB
REMEDY = "delete it, then evaluate again"


class NoSpreadError(ValueError):
    """A strip of the network gives all walks one embedding, as an untrained one may: no distance means anything."""


class Typicality(NamedTuple):
    """The distance of one walk, and the bounds at its length."""

    distance: float
    usual: float  # 99 of 100 walks like those of training are at most that far away
    bound: float  # beyond it there is no answer
    frames: int
    unlike: bool  # beyond `usual`
    beyond: bool  # beyond `bound`


@dataclass(frozen=True, eq=False)
class Reference:
    """The embeddings that one network learnt from, and how far from them validation walks lie, by length.

    Raises `ValueError` where the arrays do not fit each other or hold what no fit gives.
    """

    network: str  # digest of the parameters and batch statistics
    synthetic: bool  # the walks are synthetic walkers
    mean: np.ndarray  # p c; float32, of the training part's embeddings
    factor: np.ndarray  # p c c; float32, F of the precision F F^T
    sequences: int  # training walks
    lengths: np.ndarray  # l; int64, frames, ascending
    usual: np.ndarray  # l; float64, 99 % point of the distance of validation walks of that length
    walks: np.ndarray  # l; int64, validation walks of that length, one of each subject

    def __post_init__(self):
        p, c = self.mean.shape if self.mean.ndim == 2 else (0, 0)
        count = len(self.lengths)
        for name, kind, shape in (
            ("mean", np.float32, (p, c)),
            ("factor", np.float32, (p, c, c)),
            ("lengths", np.int64, (count,)),
            ("usual", np.float64, (count,)),
            ("walks", np.int64, (count,)),
        ):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != kind or not array.size:
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not {np.dtype(kind)} {list(shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has a number that is not finite")
        if self.lengths[0] < 1 or (np.diff(self.lengths) <= 0).any():
            raise ValueError("lengths do not ascend")
        if not (self.usual > 0).all() or not (self.walks >= 1).all() or self.sequences < 1:
            raise ValueError("usual, walks and sequences must be above 0")

    def distance(self, embeddings: np.ndarray) -> np.ndarray:
        """The distance of each walk, float64 `[n]`, from its embeddings `[n, p, c]`; raises `ValueError` for other sizes."""
        if embeddings.shape[1:] != self.mean.shape:
            raise ValueError(f"the embeddings are {list(embeddings.shape)}, not [n, {', '.join(map(str, self.mean.shape))}]")
        apart = embeddings.astype(np.float64) - self.mean  # n p c
        return np.square(np.einsum("npc,pcd->npd", apart, self.factor.astype(np.float64))).mean(axis=(1, 2))  # n

    def usual_at(self, frames: np.ndarray | int) -> np.ndarray:
        """The usual distance at a number of frames, as its shape.

        Straight between the measured lengths over the logarithm of the frames; the nearest length's beyond them.
        """
        return np.interp(np.log(np.maximum(frames, 1)), np.log(self.lengths), self.usual)

    def judge(self, distance: float, frames: int) -> Typicality:
        """The distance of a walk of so many usable frames against the bounds of that length."""
        usual = float(self.usual_at(frames))
        bound = BEYOND * usual
        return Typicality(float(distance), usual, bound, int(frames), not distance <= usual, not distance <= bound)

    @property
    def notes(self) -> list[str]:
        """What limits the bounds, in sentences."""
        needed = math.ceil(SHARE / (1.0 - SHARE) - 1e-9)
        few = [f"{walks} at {length} frames" for length, walks in zip(self.lengths, self.walks, strict=True) if walks < needed]
        if not few:
            return []
        return [
            f"bounds of the distance rest on few validation walks ({', '.join(few)}; a share of {SHARE:.0%} needs {needed}): "
            "these are those of a log-normal distribution through their distances"
        ]


def cut_lengths(frames: np.ndarray) -> list[int]:
    """The lengths to measure: the longest that half of the walks have, and 15, 30, 60, ... up to half of that.

    `frames`: int `[n]`, of each validation walk.
    """
    longest = int(np.sort(frames)[::-1][(len(frames) - 1) // 2])
    doubled = [SHORTEST * 2**power for power in range(32)]
    return [length for length in doubled if 2 * length <= longest] + [longest]


def usual_distance(distances: np.ndarray) -> float:
    """The distance that one more walk of the kind exceeds with a probability of 1 %; `distances`: `[n]`, n at least 2.

    Where there are 99 walks this is an order statistic and holds for any distribution (as split conformal prediction does).
    Fewer determine no such share: then it is the prediction limit of a log-normal distribution, with Student's quantile.
    """
    count = len(distances)
    rank = math.ceil(SHARE * (count + 1) - 1e-9)
    if rank <= count:
        return float(np.sort(distances)[rank - 1])
    logs = np.log(distances)
    reach = special.stdtrit(count - 1, SHARE) * math.sqrt(1.0 + 1.0 / count)
    return float(np.exp(logs.mean() + reach * logs.std(ddof=1)))


def fit(training: np.ndarray, cuts: dict[int, np.ndarray], network: str, synthetic: bool = False) -> Reference:
    """Fit a reference: `training` are embeddings `[n, p, c]`, `cuts` those of validation walks `[m, p, c]` by length.

    `network`: digest of the network. Raises `NoSpreadError` where a strip gives all walks one embedding.
    """
    mean, factor = fit_precision(training)
    lengths = sorted(cuts)
    bare = Reference(
        network=network,
        synthetic=synthetic,
        mean=mean,
        factor=factor,
        sequences=len(training),
        lengths=np.array(lengths, np.int64),
        usual=np.ones(len(lengths)),
        walks=np.array([len(cuts[length]) for length in lengths], np.int64),
    )
    return replace(bare, usual=np.array([usual_distance(bare.distance(cuts[length])) for length in lengths]))


def fit_precision(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[p, c]` and factor `[p, c, c]` of the shrunk precision of embeddings `[n, p, c]`.

    Raises `NoSpreadError` where a strip gives all walks one embedding.
    """
    from sklearn.covariance import ledoit_wolf  # here: its import takes a second

    wide = embeddings.astype(np.float64)  # n p c
    mean = wide.mean(axis=0)  # p c
    factors = []
    for strip in (wide - mean).transpose(1, 0, 2):  # n c
        size = float(np.sqrt(np.mean(np.square(strip)))) or 1.0
        covariance, _ = ledoit_wolf(strip / size, assume_centered=True)  # c c
        try:
            lower = np.linalg.cholesky(covariance)  # c c
        except np.linalg.LinAlgError:
            raise NoSpreadError("a strip gives all training walks the same embedding") from None
        factors.append(np.linalg.inv(lower).T / size)  # c c
    return mean.astype(np.float32), np.stack(factors).astype(np.float32)


def reference_file(workdir: Path, step: int) -> Path:
    return workdir / "reference" / f"step-{step:06d}.npz"


def write(path: Path, reference: Reference) -> None:
    """Write a reference as a whole or not at all."""
    with whole_file(path) as fresh, fresh.open("wb") as file:
        np.savez(file, **vars(reference))


def read(path: Path, network: str) -> Reference | None:
    """The stored reference of a network, None without one of this network; `RunError` where the file cannot be read."""
    try:
        stored = _parse(read_regular(path, MOST_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror or one_line(error)}); {REMEDY}") from None
    except Exception as error:  # numpy and zipfile raise many kinds for damaged bytes
        raise RunError(f"{path} cannot be read ({one_line(error)}); {REMEDY}") from None
    return stored if stored.network == network else None


def _parse(content: bytes) -> Reference:
    """A reference from the bytes of its file; no array is larger than the file, and nothing in it is unpickled."""
    names = Reference.__dataclass_fields__
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != sorted(f"{name}.npy" for name in names):
            raise ValueError(f"it does not hold {', '.join(names)}")
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(content) for entry in entries):
            raise ValueError("it is compressed")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in names}
    for name, kind in (("network", "U"), ("synthetic", "b"), ("sequences", "i")):
        if found[name].shape != () or found[name].dtype.kind != kind:
            raise ValueError(f"{name} is {found[name].dtype} {list(found[name].shape)}")
        found[name] = found[name].item()
    return Reference(**found)
