"""The PyTorch reference as `stepping` has ours; needs PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scoliojax.benchmark.timing import Work
from scoliojax.build import Config
from scoliojax.interop import torch_reference


class Theirs:
    """The same of the PyTorch reference, on its GPU under autocast and with channels last where it has one."""

    def __init__(self, config: Config):
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = config.model
        self.net: Any = torch_reference.TorchScoNet(model.channels, model.embedding_dim, model.strips).to(self.device)
        if self.device == "cuda":
            self.net = self.net.to(memory_format=torch.channels_last)
        self.rule, _ = torch_reference.sgd(self.net, config.optimizer)

    def _autocast(self):
        half = self.device == "cuda" and self.config.precision == "bfloat16"
        return torch.autocast(self.device, torch.bfloat16, enabled=half)

    def _finish(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _nets(self) -> dict[str, Any]:
        """As it is, and on a GPU compiled as well."""
        nets = {"PyTorch": self.net}
        if self.device == "cuda":
            nets["PyTorch compiled"] = torch.compile(self.net)
        return nets

    def steps(self, batch: dict[str, np.ndarray]) -> dict[str, Work]:
        return {name: self._step(net, batch) for name, net in self._nets().items()}

    def evaluations(self, silhouettes: np.ndarray) -> dict[str, Work]:
        return {name: self._evaluation(net, silhouettes) for name, net in self._nets().items()}

    def peak_mebibytes(self) -> list[float]:
        """The most that was in use on a GPU since the last call."""
        if self.device != "cuda":
            return []
        peak = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.reset_peak_memory_stats()
        return [peak]

    def _step(self, net: Any, batch: dict[str, np.ndarray]) -> Work:
        fields = ("silhouettes", "labels", "identities")
        silhouettes, labels, identities = (torch.from_numpy(batch[field]).to(self.device) for field in fields)
        loss = self.config.loss

        def work() -> None:
            net.train()
            with self._autocast():
                embeddings, logits = net(silhouettes)
            triplet, *_ = torch_reference.triplet_loss(embeddings.float(), identities, loss.margin)
            entropy = torch_reference.cross_entropy(logits.float(), labels.long(), loss.scale, loss.label_smoothing)
            self.rule.zero_grad()
            (triplet.mean() + entropy).backward()
            self.rule.step()
            self._finish()

        return work

    def _evaluation(self, net: Any, silhouettes: np.ndarray) -> Work:
        placed = torch.from_numpy(silhouettes).to(self.device)

        def work() -> None:
            net.eval()
            with torch.no_grad(), self._autocast():
                net(placed)
            self._finish()

        return work


def convolution(x: np.ndarray, kernel: np.ndarray, gradient: np.ndarray, stride: int) -> Work:
    """PyTorch's convolution of `[b, h, w, c]` and `[e, e, c, d]`, in its own layout, and both gradients."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frames, cotangent = (torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().to(device) for array in (x, gradient))
    weight = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous().to(device)
    inputs = (frames.requires_grad_(), weight.requires_grad_())

    def work() -> None:
        result = torch.nn.functional.conv2d(frames, weight, stride=stride, padding=kernel.shape[0] // 2)
        torch.autograd.grad(result, inputs, cotangent)
        if device == "cuda":
            torch.cuda.synchronize()

    return work
