"""The answer of a trained network for one walk: for the whole, its windows, as another camera could show it, and by strips."""

from dataclasses import dataclass
from functools import cached_property, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipelines.perturbations import PERTURBATIONS
from data_pipelines.poses.asymmetry import asymmetry_vector
from data_pipelines.poses.maps import never_placed, skeleton_maps
from data_pipelines.quality import Quality
from data_pipelines.schema import CLASSES, SILHOUETTES, SKELETONS, DataError, frame_shape
from data_pipelines.silhouettes import cut_sides
from data_pipelines.video.walk import Report, Walk, silent
from scoliojax.models.sconet import ScoNetOutput
from scoliojax.runs.posture import Posture, posture_of
from scoliojax.runs.run import TrainedNetwork
from scoliojax.scores.calibration import screening_score
from scoliojax.scores.metrics import refuse_not_finite, softmax
from scoliojax.scores.reference import Typicality
from scoliojax.training.state import Tree

CHUNK = 15  # frames in one call of the network
ALSO_READ = {  # perturbations that should change no decision, by modality
    SILHOUETTES: ("shifted left", "shifted right", "mirrored"),
    SKELETONS: ("mirrored", "every second frame"),
}


@dataclass(frozen=True)
class Reading:
    """The outputs for the whole walk or for one window."""

    first: int  # index of the first frame among the usable frames
    last: int  # index of the last frame, inclusive
    strip_logits: np.ndarray  # p k; cosines
    probabilities: np.ndarray  # k; calibrated if the network has a temperature
    referred: bool | None  # decision at the operating point; None without one
    embeddings: np.ndarray  # p c

    @property
    def called(self) -> str:
        """The class of the largest mean logit, as in evaluation."""
        return CLASSES[int(np.argmax(self.strip_logits.mean(axis=0)))]

    @property
    def centred(self) -> np.ndarray:
        """The strip logits minus their mean over the classes, `[p, k]`."""
        return self.strip_logits - self.strip_logits.mean(axis=1, keepdims=True)  # p k

    @property
    def screening(self) -> float:
        """Probability of positive or neutral."""
        return float(screening_score(self.probabilities[None])[0])


@dataclass(frozen=True)
class Answer:
    """The answer of one network for one walk."""

    walk: Walk
    network: TrainedNetwork
    whole: Reading  # of all frames used
    windows: list[Reading]  # in order
    perturbed: dict[str, Reading]  # the whole walk by each perturbation of `ALSO_READ`
    frames: np.ndarray  # uint8 [s, 64, 64], or [s, 2, 64, 64] of skeleton maps; what was read, before the sides were cut

    @property
    def frames_used(self) -> int:
        """Number of frames read, the first ones of the walk, at most as many as evaluation uses."""
        return len(self.frames)

    @property
    def pictures(self) -> np.ndarray:
        """The frames as pictures, uint8 `[s, 64, 64]`; of a skeleton map the brighter one of limbs and joints."""
        return self.frames if self.frames.ndim == 3 else self.frames.max(axis=1)  # s 64 64

    @property
    def qualities(self) -> list[Quality]:
        """The judgements of the walk: of its silhouettes where it has some, and of its poses where the network reads these."""
        walk = self.walk
        read = [walk.pose_quality] if self.network.modality == SKELETONS else []
        return read if walk.kind == "poses" else [walk.quality, *read]

    @cached_property
    def posture(self) -> Posture | None:
        """What a network is not needed for; None where nothing gave joints."""
        return None if self.walk.poses is None else posture_of(self.walk)

    @cached_property
    def never_placed(self) -> list[str]:
        """The joints that a network of skeletons lacks throughout; empty for one of silhouettes."""
        if self.network.modality != SKELETONS or self.walk.poses is None:
            return []
        return never_placed(self.walk.poses, self.network.config.data.maps.body_only)

    @property
    def agreeing(self) -> int:
        """Number of windows with the class of the whole walk."""
        return sum(window.called == self.whole.called for window in self.windows)

    @cached_property
    def typicality(self) -> Typicality | None:
        """The walk's distance from what the network has learnt from; None where nothing was kept to measure it by."""
        reference = self.network.reference
        if reference is None:
            return None
        return reference.judge(float(reference.distance(self.whole.embeddings[None])[0]), self.frames_used)

    @property
    def fragile(self) -> list[str]:
        """The perturbations that change the class called or the decision at the operating point."""
        decided = self.whole.called, self.whole.referred
        return [name for name, reading in self.perturbed.items() if (reading.called, reading.referred) != decided]


# Functions of the graph's value, so that all screeners of networks that are built alike share one compiled program.


@partial(jax.jit, static_argnums=0)
def _pool(graph: nnx.GraphDef, params: Tree, batch_stats: Tree, frames: jax.Array, frame_mask: jax.Array) -> jax.Array:
    return nnx.merge(graph, params, batch_stats, copy=True).pool(frames, frame_mask, train=False)  # 1 16 11 c


@partial(jax.jit, static_argnums=0)
def _read(graph: nnx.GraphDef, params: Tree, batch_stats: Tree, pooled: jax.Array, asymmetry: jax.Array | None) -> ScoNetOutput:
    return nnx.merge(graph, params, batch_stats, copy=True).head(pooled, asymmetry, train=False)


def frames_of(walk: Walk, network: TrainedNetwork) -> np.ndarray:
    """What a network reads of a walk, uint8 `[s, 64, 64]` or `[s, 2, 64, 64]`; `DataError` where the walk has nothing of it."""
    most, name = int(network.config.data.max_eval_frames), network.directory.name
    if network.modality == SKELETONS:
        if walk.poses is None:
            remedy = "give a video with --backend pose, or poses" if walk.kind == "video" else "give poses, or a video"
            raise DataError(f"{walk.name}: the network {name} reads skeletons, and there are silhouettes alone; {remedy}")
        return skeleton_maps(walk.poses, **network.config.data.maps)[:most]  # s 2 64 64
    if walk.kind == "poses":
        raise DataError(
            f"{walk.name}: the network {name} reads silhouettes, and there are poses alone; give masks or a video, or a "
            "network of skeletons, such as one of configs/sconet_mt_ske.py"
        )
    return walk.silhouettes[:most]  # s 64 64


class Screener:
    """Reads walks with one network, compiled once, with windows of `window` frames; few frames are in memory at a time.

    The maximum over the frames of a walk (set pooling) is the maximum over the maxima of its windows, so each frame is computed
    once for the whole and its windows, and once for each perturbation of `ALSO_READ`.
    """

    def __init__(self, network: TrainedNetwork, window: int = 30):
        self._network, self._window = network, window
        graph, state = network.graph, network.state
        self._pool = partial(_pool, graph, state.params, state.batch_stats)
        self._read = partial(_read, graph, state.params, state.batch_stats)

    @property
    def network(self) -> TrainedNetwork:
        return self._network

    def warm(self) -> None:
        """Compile now what every walk needs."""
        shape = frame_shape(self._network.modality)
        blank, asymmetry = np.zeros((CHUNK, *shape), np.uint8), np.zeros((1, 8, 3), np.float32)
        self._read(self._pooled(blank), asymmetry if self._network.reads_asymmetry else None)

    def __call__(self, walk: Walk, report: Report = silent) -> Answer:
        """Read one walk; `report` as in `read_walk`.

        Raises `DataError` where the walk has nothing of what the network reads, and `RunError` where a logit is not finite.
        """
        frames = frames_of(walk, self._network)
        cut = cut_sides(frames)  # s (2) 64 44
        bounds = window_bounds(len(cut), self._window)
        pooled = [self._pooled(cut[first:last]) for first, last in bounds]
        whole = self._reading(walk, 0, len(cut), jnp.max(jnp.stack(pooled), axis=0))
        windows = [self._reading(walk, *bound, maps) for bound, maps in zip(bounds, pooled, strict=True)]
        perturbed = {}
        for name in ALSO_READ[self._network.modality]:
            report("reading the walk", 0, None)
            perturbed[name] = self._reading(walk, 0, len(cut), self._pooled(PERTURBATIONS[name](cut)))
        return Answer(walk, self._network, whole, windows, perturbed, frames)

    def _pooled(self, frames: np.ndarray) -> jax.Array:
        """The pooled feature map of at least one frame, uint8 `[s, ..., 64, 44]` to `[1, 16, 11, c]`."""
        maps = []
        for start in range(0, len(frames), CHUNK):
            piece = frames[start : start + CHUNK]  # s ... 64 44
            padded = np.zeros((1, CHUNK, *piece.shape[1:]), np.uint8)  # 1 s ... 64 44
            padded[0, : len(piece)] = piece
            maps.append(self._pool(padded, np.arange(CHUNK)[None] < len(piece)))  # 1 16 11 c
        return reduce(jnp.maximum, maps)  # 1 16 11 c

    def _asymmetry(self, walk: Walk, first: int, last: int) -> np.ndarray | None:
        """The asymmetry vector `[1, 8, 3]` of frames of the walk; of all its frames, as in training, if all are read."""
        if not self._network.reads_asymmetry:
            return None
        assert walk.poses is not None  # as `frames_of` makes sure
        whole = first == 0 and last >= min(len(walk.poses), int(self._network.config.data.max_eval_frames))
        return asymmetry_vector(walk.poses if whole else walk.poses[first:last])[None]  # 1 8 3

    def _reading(self, walk: Walk, first: int, last: int, pooled: jax.Array) -> Reading:
        network = self._network
        output = jax.device_get(self._read(pooled, self._asymmetry(walk, first, last)))
        embeddings, strip_logits = output.embeddings[0], output.logits[0]  # p c, p k
        logits = strip_logits.mean(axis=0, keepdims=True)  # 1 k
        refuse_not_finite(logits, [walk.name])
        if network.calibration is None:
            return Reading(first, last - 1, strip_logits, softmax(logits, network.scale)[0], None, embeddings)
        probabilities = network.calibration.probabilities(logits, network.scale)  # 1 k
        referred = network.calibration.referred(probabilities)
        referred = None if referred is None else bool(referred[0])
        return Reading(first, last - 1, strip_logits, probabilities[0], referred, embeddings)


def window_bounds(frames: int, window: int) -> list[tuple[int, int]]:
    """First and last (exclusive) frame of every window; a rest shorter than half a window joins the window before it."""
    starts = list(range(0, frames, window))
    if len(starts) > 1 and frames - starts[-1] < window / 2:
        starts.pop()
    return list(zip(starts, [*starts[1:], frames], strict=True))
