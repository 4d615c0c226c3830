"""ScoNet (Zhou et al., MICCAI 2024, arXiv 2407.05726): frames of a walk to class logits and an embedding per strip.

One network serves all published systems: ScoNet trains it with the classification loss alone, ScoNet-MT adds the identity
loss on the embeddings, and ScoNet-MT-ske reads skeleton maps of two channels in place of silhouettes. Axis letters as in
`data_pipelines.schema`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from scoliojax.kernels.batch_norm import RowWeights
from scoliojax.kernels.numerics import widen
from scoliojax.kernels.pooling import maximum, shared_set_pooling
from scoliojax.kernels.rectify import mask_gradient
from scoliojax.models.layers import BatchNorm, xavier_uniform_strips
from scoliojax.models.resnet9 import ResNet9

FEATURE_ROWS = 16  # rows of the backbone's feature map: 64 pixels over two strides of 2
L2_EPSILON = 1e-12  # PyTorch's `normalize`


class ScoNetOutput(NamedTuple):
    embeddings: jax.Array  # n p c, float32; input of the identity loss
    logits: jax.Array  # n p k, float32; cosines, which the classification loss scales


def set_pooling(features: jax.Array, frame_mask: jax.Array | None = None) -> jax.Array:
    """Set pooling (GaitSet, Chao et al. 2019): the maximum over the frames of a clip, `[n, s, h, w, c]` to `[n, h, w, c]`.

    `frame_mask`: bool `[n, s]`, False where a frame is padding; None when every frame counts. Every clip needs one True.
    """
    if frame_mask is not None:
        features = jnp.where(frame_mask[:, :, None, None, None], features, -jnp.inf)  # n s h w c
    return maximum(features, 1)  # n h w c


def horizontal_pyramid_pooling(features: jax.Array, strips: tuple[int, ...]) -> jax.Array:
    """Mean plus maximum over each horizontal strip (HPP, Fu et al. 2019), `[n, h, w, c]` to `[n, p, c]`.

    `strips`: number of strips in each level of the pyramid, divisors of `h`; `p` is their sum.
    """
    n, h, w, c = features.shape
    levels = []
    for count in strips:
        level = features.reshape(n, count, h // count * w, c)  # n count hw c
        largest: jax.Array = maximum(level, 2)  # n count c
        levels.append(jnp.mean(level, axis=2) + largest)  # n count c
    return jnp.concatenate(levels, axis=1)  # n p c


def l2_normalise(x: jax.Array, axis: int) -> jax.Array:
    """Unit length along `axis`; a zero vector stays zero, with zero gradient."""
    square = jnp.sum(jnp.square(x), axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, L2_EPSILON**2))


class SeparateFC(nnx.Module):
    """One matrix per strip, no bias: `[n, p, in]` to `[n, p, out]` (GaitSet's separate fully connected layers)."""

    def __init__(self, parts: int, inputs: int, outputs: int, *, rng: np.random.Generator):
        self.kernel = nnx.Param(xavier_uniform_strips(rng, (parts, inputs, outputs)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.einsum("npc,pcd->npd", x, self.kernel[...], precision=jax.lax.Precision.HIGHEST)  # n p d


class BNNeck(nnx.Module):
    """Batch norm between embedding and classifier (BNNeck, Luo et al. 2019), then cosines to one class vector per strip."""

    def __init__(self, parts: int, inputs: int, classes: int, *, rng: np.random.Generator):
        self.norm = BatchNorm((parts, inputs), rng=rng)
        self.kernel = nnx.Param(xavier_uniform_strips(rng, (parts, inputs, classes)))

    def __call__(self, embeddings: jax.Array, *, train: bool) -> jax.Array:
        features = l2_normalise(self.norm(embeddings, train=train), axis=-1)  # n p c
        columns = l2_normalise(self.kernel[...], axis=1)  # p c k
        return jnp.einsum("npc,pck->npk", features, columns, precision=jax.lax.Precision.HIGHEST)  # n p k


class ScoNet(nnx.Module):
    """The whole network; 7.0 M parameters at the published sizes.

    Args:
      channels: output channels of the backbone's four blocks; published 64, 128, 256, 512.
      embedding_dim: channels of a strip's embedding; published 256.
      strips: number of strips in each level of the horizontal pyramid, divisors of the 16 feature rows; published (16,).
      classes: number of classes; published 3.
      inputs: channels of a frame, 1 of silhouettes and 2 of skeleton maps.
      precision: of the backbone's computation, "float32" or "bfloat16". Parameters, statistics, and everything after set
        pooling (a thousandth of the work) are always float32. "float64", where jax keeps 64 bits and with parameters of that
        type, separates rounding from errors in checks.
      rng: draws the start values.

    Raises:
      ValueError: for a strip count that does not divide 16, sizes that are not positive, or another precision.
    """

    reads_asymmetry = False  # whether it also needs the postural asymmetry vector of a sequence

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        embedding_dim: int,
        strips: tuple[int, ...],
        classes: int = 3,
        inputs: int = 1,
        precision: str = "float32",
        rng: np.random.Generator,
    ):
        if len(channels) != 4 or min(channels) < 1:
            raise ValueError(f"model.channels={tuple(channels)} must be four positive numbers, one per residual block")
        if embedding_dim < 1:
            raise ValueError(f"model.embedding_dim={embedding_dim} must be positive")
        if not strips or any(count < 1 or FEATURE_ROWS % count for count in strips):
            raise ValueError(f"model.strips={tuple(strips)} must be divisors of {FEATURE_ROWS}, e.g. (16,) or (16, 8, 4, 2, 1)")
        wide = jax.dtypes.canonicalize_dtype("float64") == jnp.float64  # where jax is set to keep 64 bits
        if precision not in ("float32", "bfloat16") and not (wide and precision == "float64"):
            raise ValueError(f'precision={precision!r} must be "float32" or "bfloat16"')
        self.strips, self.dtype = tuple(strips), jnp.dtype(precision)
        self.inputs = inputs
        self.backbone = ResNet9(tuple(channels), inputs, rng=rng)
        self.fc = SeparateFC(sum(strips), channels[-1], embedding_dim, rng=rng)
        self.neck = BNNeck(sum(strips), embedding_dim, classes, rng=rng)

    def __call__(
        self,
        frames: jax.Array,
        frame_mask: jax.Array | None = None,
        clip_frames: jax.Array | None = None,
        asymmetry: jax.Array | None = None,
        *,
        train: bool,
    ) -> ScoNetOutput:
        """Run the network.

        Args:
          frames: uint8 `[n, s, 64, 44]` of silhouettes, or `[n, s, 2, 64, 44]` of skeleton maps, 0..255; the network scales
            them to 0..1.
          frame_mask: bool `[n, s]`, False where a frame is padding; None when every frame counts.
          clip_frames: int32 `[g, m, s]` where m clips share frames: the frame numbers of each of the n = g m clips in `frames`,
            which is then `[g, u, ...]`. The result is that of `draw_clips`, but every frame is computed once.
          asymmetry: float32 `[n, 8, 3]`, the postural asymmetry vector of each sequence; None for a network that reads none.
          train: normalise with batch statistics and update the running ones. They include padding, so train on full clips.
        """
        return self.head(self.pool(frames, frame_mask, clip_frames, train=train), asymmetry, train=train)

    def pool(
        self, frames: jax.Array, frame_mask: jax.Array | None = None, clip_frames: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        """Frames to one feature map for each clip, `[n, 16, 11, c]`; arguments as in `__call__`.

        In evaluation the map of a sequence is the maximum over the maps of its pieces, so a long one can be read in pieces.
        """
        groups, (h, w) = frames.shape[:2], frames.shape[-2:]
        scaled = (frames.astype(jnp.promote_types(self.dtype, jnp.float32)) / 255.0).astype(self.dtype)  # n s (c) h w
        images = jnp.moveaxis(scaled.reshape(-1, self.inputs, h, w), 1, 3)  # ns h w c
        weights = None
        if clip_frames is not None:
            drawn = clip_frames[..., None] == jnp.arange(groups[1])  # g m s u
            weights = RowWeights(jnp.sum(drawn, axis=(1, 2), dtype=jnp.float32).reshape(-1), float(clip_frames.size))  # gu
        features = self.backbone(images, weights, train=train)  # ns 16 11 c
        features = features.reshape(*groups, *features.shape[1:])  # n s 16 11 c
        shared = clip_frames is not None
        pooled = shared_set_pooling(features, clip_frames) if shared else set_pooling(features, frame_mask)  # n 16 11 c
        return mask_gradient(pooled)  # n 16 11 c

    def head(self, pooled: jax.Array, asymmetry: jax.Array | None = None, *, train: bool) -> ScoNetOutput:
        """Feature maps of clips, `[n, 16, 11, c]`, to embeddings and logits; `asymmetry` as in `__call__`."""
        embeddings = self.embed(horizontal_pyramid_pooling(widen(pooled), self.strips), asymmetry)  # n p c
        return ScoNetOutput(embeddings, self.neck(embeddings, train=train))

    def embed(self, strips: jax.Array, asymmetry: jax.Array | None) -> jax.Array:
        """Pooled strips `[n, p, c]` to embeddings."""
        del asymmetry  # not read here
        return self.fc(strips)  # n p c
