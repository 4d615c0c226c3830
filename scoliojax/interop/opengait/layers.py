"""Layer-by-layer comparison of a checkpoint's network, here and in our PyTorch reference."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from data_pipelines.poses.asymmetry import Normalisation
from scoliojax.interop.torch_reference import TorchScoNet
from scoliojax.models.drf import DRF
from scoliojax.models.layers import convolve_normalise
from scoliojax.models.sconet import ScoNet, horizontal_pyramid_pooling, set_pooling

BLOCKS = ("layer1", "layer2", "layer3", "layer4")


def our_layers(net: ScoNet, clips: jax.Array, vectors: jax.Array | None) -> dict[str, jax.Array]:
    """Output of each layer for clips `[n, s, 64, 44]`, or `[n, s, 2, 64, 44]`, in PyTorch's order of axes.

    `vectors`: the asymmetry vectors of a DRF, `[n, 8, 3]`.
    """
    n, s, *_, h, w = clips.shape
    backbone = net.backbone
    x = jnp.moveaxis((clips.astype(jnp.float32) / 255.0).reshape(n * s, net.inputs, h, w), 1, 3)  # b h w inputs
    x = nnx.relu(convolve_normalise(backbone.stem_conv, backbone.stem_norm, x, train=False))  # b h w c
    found = {"stem": x}
    for name in BLOCKS:
        x = getattr(backbone, name)(x, train=False)  # b h w c
        found[name] = x
    found = {name: jnp.moveaxis(value, -1, 1) for name, value in found.items()}  # b c h w
    pooled = horizontal_pyramid_pooling(set_pooling(x.reshape(n, s, *x.shape[1:])), net.strips)  # n p c
    outputs = net(clips, asymmetry=vectors, train=False)._asdict()  # n p c, n p k; by the network's own call
    if isinstance(net, DRF):
        assert vectors is not None
        channels, strips = net.gates.values(vectors, pooled.shape[1])  # n c, n p
        found |= {"channel gate": channels[:, :, None], "strip gate": strips[:, None]}  # n c 1, n 1 p
    heads = {"pooling": pooled, **outputs}
    return found | {name: jnp.swapaxes(value, 1, 2) for name, value in heads.items()}  # n c p


def their_layers(net: TorchScoNet, clips: torch.Tensor, vectors: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The same layers in PyTorch; `vectors` are normalised."""
    x = net.backbone.stem(net.images(clips))  # b c h w
    found = {"stem": x}
    for name in BLOCKS:
        x = getattr(net.backbone, name)(x)  # b c h w
        found[name] = x
    pooled = net.pool(x.unflatten(0, clips.shape[:2]))  # n c p
    if net.PGA is not None:
        found["channel gate"], found["strip gate"] = net.PGA(vectors, pooled.shape[-1])  # n c 1, n 1 p
    embeddings, logits = net(clips, vectors)  # n c p, n k p
    return found | {"pooling": pooled, "embeddings": embeddings, "logits": logits}


def layer_distances(
    model: ScoNet, reference: TorchScoNet, sequences: Iterable[np.ndarray], vectors: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Largest distance of each layer over sequences `[s, 64, 44]`, or `[s, 2, 64, 44]`.

    In three units: absolute; of its largest value; of its largest value where that exceeds 1. NaN stays NaN. `vectors`: the
    asymmetry vectors of the sequences of a DRF, `[n, 8, 3]`, which here the network normalises, and numpy for PyTorch.
    """
    found: dict[str, np.ndarray] = {}
    for row, sequence in enumerate(sequences):
        clips = np.ascontiguousarray(sequence)[None]  # 1 s (2) 64 44
        vector, normalised = None, None
        if isinstance(model, DRF):
            assert vectors is not None
            ranges = Normalisation(*(np.asarray(value[...]) for value in (model.gates.low, model.gates.high)))
            vector = jnp.asarray(vectors[row : row + 1])  # 1 8 3
            normalised = torch.from_numpy(ranges(vectors[row : row + 1]))  # 1 8 3
        with torch.no_grad():
            theirs = their_layers(reference, torch.from_numpy(clips), normalised)
        for name, ours in our_layers(model, jnp.asarray(clips), vector).items():
            expected = theirs[name].numpy()
            absolute, largest = np.max(np.abs(np.asarray(ours) - expected)), np.max(np.abs(expected))
            units = absolute / np.array([1.0, max(largest, 1e-30), max(largest, 1.0)])
            found[name] = np.maximum(units, found.get(name, 0.0))  # numpy's maximum keeps a NaN
    return found
