"""ScoNet-MT and DRF in plain PyTorch: what scoliojax is compared with, and what it matches written out once more.

Written from the published description; the attribute names make `state_dict()` that of an OpenGait checkpoint. Tensors follow
PyTorch's order, channels first: `[n, c, s, h, w]` through the backbone, `[n, c, p]` for strips.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, its usual name


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection; `downsample` where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(y + skip)


class ResNet9(nn.Module):
    """The frame-wise backbone: stem without max pooling, four blocks.

    In files of networks that read two channels the norm of the stem comes first, and so in the optimiser's numbers.
    """

    def __init__(self, channels: Sequence[int], inputs: int):
        super().__init__()
        convolution = nn.ModuleDict({"conv": nn.Conv2d(inputs, channels[0], 3, 1, 1, bias=False)})
        norm = nn.BatchNorm2d(channels[0])
        if inputs == 1:
            self.conv1, self.bn1 = convolution, norm
        else:
            self.bn1, self.conv1 = norm, convolution
        self.layer1 = nn.Sequential(BasicBlock(channels[0], channels[0], 1))
        self.layer2 = nn.Sequential(BasicBlock(channels[0], channels[1], 2))
        self.layer3 = nn.Sequential(BasicBlock(channels[1], channels[2], 2))
        self.layer4 = nn.Sequential(BasicBlock(channels[2], channels[3], 1))

    def stem(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1["conv"](x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))


class SeparateFCs(nn.Module):
    def __init__(self, parts: int, inputs: int, outputs: int):
        super().__init__()
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(torch.empty(parts, inputs, outputs)))

    def forward(self, x: Tensor) -> Tensor:  # n c p
        return torch.einsum("ncp,pcd->ndp", x, self.fc_bin)


class SeparateBNNecks(nn.Module):
    def __init__(self, parts: int, inputs: int, classes: int):
        super().__init__()
        self.fc_bin = nn.Parameter(nn.init.xavier_uniform_(torch.empty(parts, inputs, classes)))
        self.bn1d = nn.BatchNorm1d(inputs * parts)

    def forward(self, x: Tensor) -> Tensor:  # n c p
        n, c, p = x.shape
        features = F.normalize(self.bn1d(x.reshape(n, c * p)).reshape(n, c, p), dim=1)  # n c p
        return torch.einsum("ncp,pck->nkp", features, F.normalize(self.fc_bin, dim=1))  # n k p


class PostureGates(nn.Module):
    """DRF's gates of normalised asymmetry vectors `[n, 8, 3]`: of the channels, `[n, c, 1]`, and of the strips, `[n, 1, p]`."""

    def __init__(self, channels: int):
        super().__init__()
        self.channel_attention = nn.Linear(24, channels)
        self.spatial_attention = nn.Conv1d(3, 1, 1)
        for layer in (self.channel_attention, self.spatial_attention):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, asymmetry: Tensor, parts: int) -> tuple[Tensor, Tensor]:
        channels = torch.sigmoid(self.channel_attention(asymmetry.flatten(1)))  # n c
        pairs = self.spatial_attention(asymmetry.transpose(1, 2))  # n 1 i
        strips = torch.sigmoid(F.interpolate(pairs, size=parts, mode="linear", align_corners=False))  # n 1 p
        return channels[:, :, None], strips


class TorchScoNet(nn.Module):
    """The whole network, `[n, s, 64, 44]` uint8 clips to `(embeddings [n, c, p], logits [n, k, p])`.

    With `inputs` 2 the clips are `[n, s, 2, 64, 44]`; with `gates` it is DRF.
    """

    def __init__(
        self,
        channels: Sequence[int],
        embedding_dim: int,
        strips: Sequence[int],
        classes: int = 3,
        inputs: int = 1,
        gates: bool = False,
    ):
        super().__init__()
        self.strips, self.inputs = tuple(strips), inputs
        parts = sum(strips)
        self.Backbone = nn.ModuleDict({"forward_block": ResNet9(channels, inputs)})
        self.FCs = SeparateFCs(parts, channels[-1], embedding_dim)
        self.BNNecks = SeparateBNNecks(parts, embedding_dim, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
                nn.init.normal_(module.weight, 1.0, 0.02)
        self.PGA = PostureGates(embedding_dim) if gates else None

    @property
    def backbone(self) -> ResNet9:
        return self.Backbone["forward_block"]  # type: ignore[return-value]

    def pool(self, features: Tensor) -> Tensor:
        """Set pooling, then mean plus maximum of each strip: `[n, s, c, h, w]` to `[n, c, p]`."""
        pooled = features.max(dim=1).values  # n c h w
        n, c = pooled.shape[:2]
        levels = [pooled.reshape(n, c, count, -1) for count in self.strips]  # n c count hw
        return torch.cat([level.mean(-1) + level.max(-1).values for level in levels], dim=-1)

    def images(self, frames: Tensor) -> Tensor:
        """uint8 clips to network input, `[n s, inputs, 64, 44]` in 0..1."""
        scaled = frames.to(self.FCs.fc_bin.dtype) / 255.0
        return scaled.reshape(-1, self.inputs, *frames.shape[-2:])

    def forward(self, frames: Tensor, asymmetry: Tensor | None = None) -> tuple[Tensor, Tensor]:
        n, s = frames.shape[:2]
        features = self.backbone(self.images(frames)).unflatten(0, (n, s))  # n s c h w
        embeddings = self.FCs(self.pool(features))  # n c p
        if self.PGA is not None:
            assert asymmetry is not None
            channels, strips = self.PGA(asymmetry.to(embeddings.dtype), embeddings.shape[-1])  # n c 1, n 1 p
            embeddings = embeddings * channels * strips  # n c p
        return embeddings, self.BNNecks(embeddings)


def arrange(pairs: Tensor, alike: Tensor, mixed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of pairs of clips, `[..., n, n]`, as those of positives, `[..., a, i]`, and of negatives, `[..., a, j]`.

    The third are the triplets among them, `[a, i, j]`. Clips with equal numbers in `alike`, `[n]`, are positives. `mixed`: as
    the original cuts the list of all positive pairs, and that of all negative ones, into n equal rows. Where the numbers in
    `alike` are not equally frequent, pairs of several anchors stand in one row.
    """
    same = alike[:, None] == alike[None, :]  # n n
    if not mixed:
        return pairs, pairs, same[:, :, None] & ~same[:, None, :]
    rows = (*pairs.shape[:-2], len(alike), -1)
    positives, negatives = pairs[..., same].reshape(rows), pairs[..., ~same].reshape(rows)  # ... a i, ... a j
    return positives, negatives, torch.ones(len(alike), positives.shape[-1], negatives.shape[-1], dtype=torch.bool)


def triplet_terms(embeddings: Tensor, alike: Tensor, margin: float, mixed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Every `margin + d(a, i) - d(a, j)`, `[p, a, i, j]`; which are triplets, `[a, i, j]`; and the distances, `[p, n, n]`."""
    x = embeddings.permute(2, 0, 1)  # p n c
    square = (x**2).sum(-1)  # p n
    gap = square[:, :, None] + square[:, None, :] - 2.0 * x @ x.transpose(1, 2)  # p n n
    distances = torch.sqrt(F.relu(gap))  # p n n
    positives, negatives, triplets = arrange(distances, alike, mixed)
    return margin + positives[:, :, :, None] - negatives[:, :, None, :], triplets, distances


def triplet_loss(embeddings: Tensor, alike: Tensor, margin: float, mixed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Batch-all, strip by strip: loss, count of violations and mean distance, each `[p]`; arguments as of `arrange`."""
    terms, triplets, distances = triplet_terms(embeddings, alike, margin, mixed)
    hinge = F.relu(terms) * triplets  # p a i j
    total, violations = hinge.sum((1, 2, 3)), (hinge > 0).sum((1, 2, 3))  # p
    return total / violations.clamp(min=1), violations, distances.mean((1, 2))


def cross_entropy(logits: Tensor, labels: Tensor, scale: float, smoothing: float, weights: Sequence[float] = ()) -> Tensor:
    """Smoothed cross entropy of `[n, k, p]` cosines, mean over clips and strips; `weights`: of the classes, `[k]`, or none."""
    targets = labels[:, None].expand(-1, logits.shape[-1])  # n p
    of_classes = torch.tensor(weights, dtype=logits.dtype) if len(weights) else None  # k
    return F.cross_entropy(scale * logits, targets, of_classes, label_smoothing=smoothing)


def sgd(model: nn.Module, optimizer: dict) -> tuple[torch.optim.SGD, torch.optim.lr_scheduler.MultiStepLR]:
    """The published optimiser and schedule from a config's `optimizer` section."""
    rule = torch.optim.SGD(
        model.parameters(), optimizer["learning_rate"], optimizer["momentum"], weight_decay=optimizer["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(rule, list(optimizer["milestones"]), gamma=optimizer["decay"])
    return rule, schedule


def holding(sizes: Sequence, tensors: Mapping, dtype: torch.dtype = torch.float32) -> TorchScoNet:
    """The network of these sizes (the arguments of `TorchScoNet`, in order) with these tensors, loaded strictly by name.

    The numbers of batches that batch norms count may be left out: nothing reads them.
    """
    net = TorchScoNet(*sizes).to(dtype)
    counts = {name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}
    given = {name: torch.as_tensor(value).to(dtype) for name, value in tensors.items()}
    net.load_state_dict(counts | given, strict=True)
    return net
