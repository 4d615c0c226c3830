"""The PyTorch reference for `stepping` and `convolving`; needs PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from scoliojax.benchmark.timing import Work
from scoliojax.build import Config
from scoliojax.interop import torch_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Theirs:
    """Training step and evaluation pass of the PyTorch reference; on a GPU with autocast and channels last."""

    def __init__(self, config: Config):
        self.config = config
        model = config.model
        self.net: Any = torch_reference.TorchScoNet(model.channels, model.embedding_dim, model.strips).to(DEVICE)
        if DEVICE == "cuda":
            self.net = self.net.to(memory_format=torch.channels_last)
        self.optimizer, _ = torch_reference.sgd(self.net, config.optimizer)

    def _ways(self, work: Callable[[Any], None]) -> dict[str, Work]:
        """`work` applied to the network, and on a GPU also to the compiled network."""
        nets = {"PyTorch": self.net}
        if DEVICE == "cuda":
            nets["PyTorch compiled"] = torch.compile(self.net)
        return {name: functools.partial(work, net) for name, net in nets.items()}

    def _autocast(self):
        return torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda" and self.config.precision == "bfloat16")

    def steps(self, batch: dict[str, np.ndarray]) -> dict[str, Work]:
        fields = ("frames", "labels", "identities")
        silhouettes, labels, identities = (torch.from_numpy(batch[field]).to(DEVICE) for field in fields)
        loss = self.config.loss

        def work(net: Any) -> None:
            net.train()
            with self._autocast():
                embeddings, logits = net(silhouettes)
            triplet, *_ = torch_reference.triplet_loss(embeddings.float(), identities, loss.margin)
            entropy = torch_reference.cross_entropy(logits.float(), labels.long(), loss.scale, loss.label_smoothing)
            self.optimizer.zero_grad()
            (triplet.mean() + entropy).backward()
            self.optimizer.step()
            _finish()

        return self._ways(work)

    def evaluations(self, silhouettes: np.ndarray) -> dict[str, Work]:
        placed = torch.from_numpy(silhouettes).to(DEVICE)

        def work(net: Any) -> None:
            net.eval()
            with torch.no_grad(), self._autocast():
                net(placed)
            _finish()

        return self._ways(work)

    def peak_mebibytes(self) -> list[float]:
        """Largest memory in use on a GPU since the last call; empty on a CPU."""
        if DEVICE != "cuda":
            return []
        peak = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return [peak]


def _finish() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def convolution(x: np.ndarray, kernel: np.ndarray, gradient: np.ndarray, stride: int) -> Work:
    """PyTorch's convolution of `[b, h, w, c]` with `[e, e, c, d]` in PyTorch's own layout, and both gradients."""
    frames, cotangent = (torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().to(DEVICE) for array in (x, gradient))
    weight = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous().to(DEVICE)
    inputs = (frames.requires_grad_(), weight.requires_grad_())

    def work() -> None:
        result = torch.nn.functional.conv2d(frames, weight, stride=stride, padding=kernel.shape[0] // 2)
        torch.autograd.grad(result, inputs, cotangent)
        _finish()

    return work
