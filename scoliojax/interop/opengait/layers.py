"""Layer-by-layer comparison of a checkpoint's network, here and in our PyTorch reference."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from scoliojax.interop.torch_reference import TorchScoNet
from scoliojax.models.layers import convolve_normalise
from scoliojax.models.sconet import ScoNet, horizontal_pyramid_pooling, set_pooling

BLOCKS = ("layer1", "layer2", "layer3", "layer4")


def our_layers(net: ScoNet, clips: jax.Array) -> dict[str, jax.Array]:
    """Output of each layer for clips `[n, s, 64, 44]`, in PyTorch's order of axes."""
    n, s, h, w = clips.shape
    backbone = net.backbone
    x = (clips.astype(jnp.float32) / 255.0).reshape(n * s, h, w, 1)  # b h w 1
    x = nnx.relu(convolve_normalise(backbone.stem_conv, backbone.stem_norm, x, train=False))  # b h w c
    found = {"stem": x}
    for name in BLOCKS:
        x = getattr(backbone, name)(x, train=False)  # b h w c
        found[name] = x
    found = {name: jnp.moveaxis(value, -1, 1) for name, value in found.items()}  # b c h w
    pooled = horizontal_pyramid_pooling(set_pooling(x.reshape(n, s, *x.shape[1:])), net.strips)  # n p c
    heads = {"pooling": pooled, **net(clips, train=False)._asdict()}  # n p c; the last two by the network's own call
    return found | {name: jnp.swapaxes(value, 1, 2) for name, value in heads.items()}  # n c p


def their_layers(net: TorchScoNet, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same layers in PyTorch."""
    x = net.backbone.stem(net.frames(clips))  # b c h w
    found = {"stem": x}
    for name in BLOCKS:
        x = getattr(net.backbone, name)(x)  # b c h w
        found[name] = x
    embeddings, logits = net(clips)  # n c p, n k p
    return found | {"pooling": net.pool(x.unflatten(0, clips.shape[:2])), "embeddings": embeddings, "logits": logits}


def layer_distances(model: ScoNet, reference: TorchScoNet, sequences: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Largest distance of each layer over sequences `[s, 64, 44]`.

    In three units: absolute; of its largest value; of its largest value where that exceeds 1. NaN stays NaN.
    """
    found: dict[str, np.ndarray] = {}
    for sequence in sequences:
        clips = np.ascontiguousarray(sequence)[None]  # 1 s 64 44
        with torch.no_grad():
            theirs = their_layers(reference, torch.from_numpy(clips))
        for name, ours in our_layers(model, jnp.asarray(clips)).items():
            expected = theirs[name].numpy()
            absolute, largest = np.max(np.abs(np.asarray(ours) - expected)), np.max(np.abs(expected))
            units = absolute / np.array([1.0, max(largest, 1e-30), max(largest, 1.0)])
            found[name] = np.maximum(units, found.get(name, 0.0))  # numpy's maximum keeps a NaN
    return found
