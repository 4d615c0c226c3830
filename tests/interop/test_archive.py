"""Files given as checkpoints: what can be read is read whatever it wears, and anything else is refused as what it is."""

import argparse
import functools
import gzip
import io
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; install the extra `torch`")

from scoliojax.errors import RunError  # noqa: E402
from scoliojax.interop.opengait import archive, description  # noqa: E402
from scoliojax.interop.opengait import checkpoint as opengait  # noqa: E402
from scoliojax.interop.opengait.contents import MOST_MILESTONES  # noqa: E402
from scoliojax.interop.torch_reference import TorchScoNet  # noqa: E402
from tests.conftest import ROOT  # noqa: E402

SIZES = opengait.Sizes((2, 3, 4, 5), 4, (4, 2), 3)
DRF = SIZES._replace(inputs=2, gates=True)


def make_content(step: int = 3, sizes: opengait.Sizes = SIZES) -> dict:
    """A checkpoint as OpenGait writes it, whose numbers all float16 holds, after one step of momentum."""
    torch.manual_seed(0)
    net = TorchScoNet(*sizes)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.randint(1, 9, value.shape) / 8)
    rule, schedule = opengait.torch_reference.sgd(net, opengait.PUBLISHED_OPTIMIZER)
    for value in net.parameters():
        value.grad = torch.ones_like(value) / 4
    rule.step()
    for _ in range(step):
        schedule.step()
    for value in net.parameters():
        value.data = torch.round(value.data * 8) / 8
        rule.state[value]["momentum_buffer"] = torch.round(rule.state[value]["momentum_buffer"] * 8) / 8
    state = {name: value.clone() for name, value in net.state_dict().items()}
    return {"model": state, "optimizer": rule.state_dict(), "scheduler": schedule.state_dict(), "iteration": step}


def renamed(content: dict, rename) -> dict:
    return content | {"model": {rename(name): value for name, value in content["model"].items()}}


def converted(content: dict, convert) -> dict:
    return content | {"model": {name: convert(value) for name, value in content["model"].items()}}


def save(content, path: Path, **options) -> None:
    torch.save(content, path, **options)


def repack(content, path: Path, method: int = zipfile.ZIP_DEFLATED, change=lambda name, data: {name: data}) -> None:
    """Save, and write the archive's members again, as unpacking and packing does; `change` gives other members."""
    plain = io.BytesIO()
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", method) as target:
        for name in source.namelist():
            for other, data in change(name, source.read(name)).items():
                target.writestr(other, data)


def beside(**values):
    """Save a checkpoint with further keys, or others."""
    return lambda content, path: save(content | values, path)


def shared_buffer(content: dict) -> dict:
    """Every tensor a slice of one long one, as some trainers keep them."""
    floats = {name: value for name, value in content["model"].items() if value.is_floating_point()}
    flat = torch.cat([value.flatten() for value in floats.values()])
    parts = flat.split([value.numel() for value in floats.values()])
    return content | {"model": {name: part.view(floats[name].shape) for name, part in zip(floats, parts, strict=True)}}


def channels_last(value):
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def middle(name: str) -> str:
    return name.replace("forward_block.", "_orig_mod.forward_block.module.")


class Calling:
    """Pickles as a call of anything, with any arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PLAIN = {  # what trainers keep beside a network, nothing of which is built
    "names": {"a", "b"}, "frozen": frozenset({1}), "array": np.arange(99.0), "columns": np.eye(3, order="F")[:, 1:],
    "texts": np.array(["a", "bc"]), "objects": np.array([{}, "x"], object), "place": Path("runs"),
    "device": torch.device("cpu"), "layout": torch.strided, "type": np.dtype("f4"), "bytes": b"x" * 99,
    "torch": torch.get_rng_state(), "state": np.random.get_state(), "python": random.getstate(),
    "generator": np.random.default_rng(0),
    "old": np.random.RandomState(0),
}  # fmt: skip
LEGACY = {"_use_new_zipfile_serialization": False}
WEIGHTS = {"step": 0}  # what a file of weights alone has instead of the whole checkpoint's
TAKEN = {  # name of the clothes: how they are put on, and what is different afterwards
    "as OpenGait writes it": (save, {}),
    "before PyTorch 1.6": (lambda c, p: save(c, p, _use_new_zipfile_serialization=False), {}),
    "before PyTorch 1.6, weights alone, module.": (
        lambda c, p: save(renamed(c, lambda n: f"module.{n}")["model"], p, _use_new_zipfile_serialization=False), WEIGHTS,
    ),
    "pickle protocol 4": (lambda c, p: save(c, p, pickle_protocol=4), {}),
    "pickle protocol 5": (lambda c, p: save(c, p, pickle_protocol=5), {}),
    "packed again with compression": (repack, {}),
    "module.": (lambda c, p: save(renamed(c, lambda n: f"module.{n}"), p), {}),
    "_orig_mod.": (lambda c, p: save(renamed(c, lambda n: f"_orig_mod.{n}"), p), {}),
    "module._orig_mod.module.": (lambda c, p: save(renamed(c, lambda n: f"module._orig_mod.module.{n}"), p), {}),
    "_orig_mod.module. in the middle": (lambda c, p: save(renamed(c, middle), p), {}),
    "bare state dict": (lambda c, p: save(c["model"], p), WEIGHTS),
    "state_dict": (lambda c, p: save({"state_dict": c["model"], "epoch": 7}, p), WEIGHTS),
    "model_state_dict": (lambda c, p: save({"model_state_dict": c["model"]}, p), WEIGHTS),
    "a whole checkpoint as a model": (lambda c, p: save({"model": c}, p), {}),
    "weights alone with their step": (lambda c, p: save({"model": c["model"], "iteration": 3}, p), {}),
    "float16": (lambda c, p: save(converted(c, torch.Tensor.half), p), {}),
    "bfloat16": (lambda c, p: save(converted(c, torch.Tensor.bfloat16), p), {}),
    "float64": (lambda c, p: save(converted(c, torch.Tensor.double), p), {}),
    "parameters": (lambda c, p: save(converted(c, lambda v: torch.nn.Parameter(v, v.is_floating_point())), p), {}),
    "numbers with the other sign": (
        lambda c, p: save(converted(c, lambda v: torch._neg_view(-v) if v.is_floating_point() else v), p), {},
    ),
    "bfloat16 with the other sign": (
        lambda c, p: save(converted(c, lambda v: torch._neg_view(-v.bfloat16()) if v.dim() == 4 else v), p), {},
    ),
    "model.": (lambda c, p: save(renamed(c, lambda n: f"model.{n}"), p), {}),
    "Lightning": (lambda c, p: save({"state_dict": renamed(c, lambda n: f"net.{n}")["model"], "global_step": 3}, p), WEIGHTS),
    "any prefix, with what wrappers add": (lambda c, p: save(renamed(c, lambda n: f"module.a_b.c._orig_mod.{n}"), p), {}),
    "checkpoint: model": (lambda c, p: save({"checkpoint": c}, p), {}),
    "many inside each other": (lambda c, p: save({"a": {"b": {"state_dict": {"module": c["model"]}}}, "d": 1}, p), WEIGHTS),
    "optimiser beside what holds the model": (lambda c, p: save(c | {"model": {"net": c["model"]}}, p), {}),
    "ema_state_dict": (lambda c, p: save({"ema_state_dict": c["model"]}, p), WEIGHTS),
    "model and its average": (lambda c, p: save(c | {"ema": converted(c, torch.zeros_like)["model"]}, p), {}),
    "model and its average by prefix": (
        lambda c, p: save({"state_dict": renamed(c, lambda n: f"model.{n}")["model"] | renamed(
            converted(c, torch.zeros_like), lambda n: f"model_ema.{n}")["model"]}, p), WEIGHTS,
    ),
    "a loss with tensors beside": (
        lambda c, p: save({"state_dict": renamed(c, lambda n: f"net.{n}")["model"] | {"loss.weight": torch.ones(3)}}, p),
        WEIGHTS,
    ),
    "the same model twice": (lambda c, p: save(c | {"state_dict": c["model"]}, p), {}),
    "a step of numpy": (beside(iteration=np.int64(3)), {}),
    "a step of numpy, protocol 5": (lambda c, p: save(c | {"iteration": np.uint8(3)}, p, pickle_protocol=5), {}),
    "a step of numpy, before PyTorch 1.6": (lambda c, p: save(c | {"iteration": np.int32(3)}, p, **LEGACY), {}),
    "a tensor as step": (beside(iteration=torch.tensor(3)), {}),
    "a slice of a negated tensor as step": (beside(iteration=torch._neg_view(torch.tensor([1, -3]))[1:]), {}),
    "numbers of numpy in the optimiser": (
        lambda c, p: save(
            with_setting(with_setting(c, "group", "lr", np.float64(0.1)), "scheduler", "last_epoch", np.int64(3)), p
        ),
        {},
    ),
    "channels last": (lambda c, p: save(converted(c, channels_last), p), {}),
    "slices of one buffer, without counts": (lambda c, p: save(shared_buffer(c), p), {}),
    "a namespace beside": (beside(args=argparse.Namespace(lr=1)), {}),
    "a numpy number beside": (beside(best=np.float64(0.5)), {}),
    **{
        f"plain data beside, pickle protocol {protocol}": (
            lambda c, p, protocol=protocol: save(c | PLAIN, p, pickle_protocol=protocol), {},
        )
        for protocol in (2, 3, 4, 5)
    },
    "sixteen inside each other": (lambda c, p: save(functools.reduce(lambda one, _: {"a": one}, range(16), c), p), {}),
    "a call with many arguments beside": (beside(x=Calling(argparse.Namespace, *range(description.MOST_ARGUMENTS))), {}),
    "a long key": (beside(**{"k" * description.LONGEST_KEY: 1}), {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def content() -> dict:
    return make_content()


@pytest.mark.parametrize("clothes", TAKEN)
def test_the_right_content_is_read_in_any_clothes(clothes, content, tmp_path):
    write, changed = TAKEN[clothes]
    save(content, tmp_path / "plain.pt")
    write(content, tmp_path / "dressed.pt")
    whole, found = opengait.read(tmp_path / "plain.pt", (4, 2)), opengait.read(tmp_path / "dressed.pt", (4, 2))
    for tree in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(whole, tree), getattr(found, tree))
    assert found.step == changed.get("step", whole.step)
    if found.optimizer is not None:
        jax.tree.map(np.testing.assert_array_equal, whole.momentum, found.momentum)
        assert found.optimizer == whole.optimizer
    else:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(found.momentum))
        assert "weights alone" in found.notes[-1]
    if clothes in ("float16", "bfloat16", "float64"):
        assert f"{clothes} became float32; nothing is lost" in found.notes


@functools.cache
def drf() -> dict:
    """A DRF's checkpoint, in which no two parameters have the same momentum."""
    content = make_content(sizes=DRF)
    for number, state in content["optimizer"]["state"].items():
        state["momentum_buffer"].fill_(number / 8)
    return content


def authors(name: str) -> str:
    return name.replace("PGA.", "attention_layer.")


def reordered(content: dict, key, listed: bool = True) -> dict:
    """The same parameters, made in another order; `listed`: the names of the file stand in it, too."""
    model, optimizer = content["model"], content["optimizer"]
    old = [name for name in model if not name.endswith(("mean", "var", "tracked"))]
    new = sorted(old, key=key)  # stable
    state = {new.index(name): optimizer["state"][number] for number, name in enumerate(old)}
    names = sorted(model, key=key) if listed else sorted(model)
    return content | {"model": {name: model[name] for name in names}, "optimizer": optimizer | {"state": state}}


DRF_TAKEN = {  # clothes of a DRF's checkpoint
    "names of its authors": lambda: renamed(drf(), authors),
    "names of its authors below a prefix": lambda: renamed(drf(), lambda name: f"module.net.{authors(name)}"),
    "before PyTorch 1.6": lambda: drf(),
    "convolution of the stem first": lambda: reordered(drf(), lambda name: "block.conv1" not in name),
    "convolution of the stem first, names sorted": lambda: reordered(drf(), lambda name: "block.conv1" not in name, False),
    "names sorted": lambda: reordered(drf(), lambda name: 0, False),
    "gates made first": lambda: reordered(drf(), lambda name: not name.startswith("PGA.")),
    "neck made before the backbone": lambda: reordered(drf(), lambda name: not name.startswith("BNN")),
}


@pytest.mark.parametrize("clothes", DRF_TAKEN)
def test_a_drf_is_read_in_any_clothes(clothes, tmp_path):
    save(drf(), tmp_path / "plain.pt")
    save(DRF_TAKEN[clothes](), tmp_path / "dressed.pt", **(LEGACY if "1.6" in clothes else {}))
    whole, found = (opengait.read(tmp_path / f"{name}.pt", (4, 2)) for name in ("plain", "dressed"))
    assert found.sizes == whole.sizes == DRF
    for tree in ("params", "batch_stats", "momentum"):
        jax.tree.map(np.testing.assert_array_equal, getattr(whole, tree), getattr(found, tree))
    moved = [float(np.ravel(leaf)[0]) * 8 for leaf in jax.tree.leaves(found.momentum)]
    assert sorted(moved) == list(range(len(moved)))
    assert not np.any(found.batch_stats["gates"]["high"])


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


NAMES = {
    "fc": "FCs.fc_bin", "neck": "BNNecks.fc_bin", "var": "BNNecks.bn1d.running_var", "scale": "BNNecks.bn1d.weight",
    "stem": "Backbone.forward_block.conv1.conv.weight", "fc_again": "module.FCs.fc_bin",
    "gate": "PGA.channel_attention.weight", "strips": "PGA.spatial_attention.weight", "bias": "PGA.spatial_attention.bias",
    "again": "attention_layer.spatial_attention.bias", "other": "PGA.temporal_attention.weight",
}  # fmt: skip


def tensors(**changed):
    """Save a checkpoint with these tensors in the place of others, or beside them."""
    model = {NAMES[key]: value for key, value in changed.items()}
    return lambda content, path: save(content | {"model": content["model"] | model}, path)


def gated(**changed):
    """As `tensors`, with a DRF's checkpoint."""
    return lambda content, path: tensors(**changed)(drf(), path)


def members(change):
    """Save a checkpoint, and write its archive again with other members."""
    return lambda content, path: repack(content, path, change=lambda name, data: change(name.split("/", 1)[1], name, data))


def with_setting(content: dict, where: str, key: str, value) -> dict:
    """A number of the optimiser or the schedule changed."""
    if where == "group":
        optimizer = content["optimizer"]
        return content | {"optimizer": optimizer | {"param_groups": [optimizer["param_groups"][0] | {key: value}]}}
    return content | {where: content[where] | {key: value}}


def written(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def without(content: dict, key: str) -> dict:
    return {name: value for name, value in content.items() if name != key}


def miscounted(content, path: Path) -> None:
    """In the format before PyTorch 1.6, a storage that has another count before it than its description says."""
    torch.save({"a": torch.ones(3)}, path, **LEGACY)
    raw = path.read_bytes()
    assert raw.count(struct.pack("<q", 3)) == 1
    path.write_bytes(raw.replace(struct.pack("<q", 3), struct.pack("<q", 2)))


def script(content, path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def tarred(content, path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "sys_info")


def zipped(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def cut(content, path: Path, share: float, **options) -> None:
    torch.save(content, path, **options)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def changed_bytes(content, path: Path, old: bytes, new: bytes) -> None:
    """Save, with some bytes of the pickle changed."""
    repack(content, path, zipfile.ZIP_STORED, lambda name, data: {name: data.replace(old, new)})


def other_network(content: dict, *names: str) -> dict:
    return {"model": {f"{name}.{number}.weight": torch.zeros(3) for name in names for number in range(40)}}


BAD_NUMBERS = [  # section, key, value, words
    *(("group", key, value, "learning" if key[-2:] == "lr" and value == -1.0 else key)
      for key in ("lr", "initial_lr", "momentum", "weight_decay")
      for value in (float("nan"), float("inf"), -1.0, "0.1", None, True)),
    *(("scheduler", "gamma", value, "") for value in (float("nan"), float("inf"), -0.1, "0.1")),
    ("scheduler", "milestones", {float("nan"): 1}, "number"),
    ("scheduler", "milestones", {10.5: 1}, "number"),
    ("scheduler", "milestones", {-1: 1}, "milestones"),
    ("scheduler", "milestones", {10: 2}, "several times"),
    ("scheduler", "last_epoch", 99, "at step 99"),
    *(("group", key, value, "--weights-only") for key, value in {"nesterov": True, "maximize": True, "dampening": 0.5}.items()),
    ("group", "lr", 0.5, "--weights-only"),
]  # fmt: skip
REFUSED = {  # what the file is: how it is made, and words of the line
    "empty": (lambda c, p: written(p, b""), "is empty"),
    "zeros": (lambda c, p: written(p, bytes(5000)), "full of zeros"),
    "folder": (lambda c, p: p.mkdir(), "it is a folder, no file; give a checkpoint"),
    "pipe": (lambda c, p: os.mkfifo(p), "it is a FIFO, no file"),
    "device": (lambda c, p: p.symlink_to("/dev/zero"), "it is a device, no file"),
    "link in a circle": (lambda c, p: p.symlink_to(p), "links run in a circle"),
    "dead link": (lambda c, p: p.symlink_to(p.parent / "none"), "does not exist"),
    "text": (lambda c, p: written(p, "grüße\n".encode() * 300), "a text file that begins 'grüße"),
    "UTF-16 text": (lambda c, p: written(p, "hello\n".encode("utf-16")), "a text file that begins 'hello"),
    "web page": (lambda c, p: written(p, b"\n<!DOCTYPE html><html>sign in"), "a web page"),
    "git-lfs": (lambda c, p: written(p, b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), "git lfs pull"),
    "gzip": (lambda c, p: written(p, gzip.compress(b"x" * 99)), "is a gzip file; unpack it"),
    "tar": (tarred, "a tar archive"),
    "ONNX": (lambda c, p: written(p, b"\x08\x07\x12\x07pytorch\x1a\x032.1:"), "an ONNX network"),
    "safetensors": (lambda c, p: written(p, struct.pack("<Q", 30) + b'{"a":{"dtype":"F32"}}'), "a safetensors file"),
    "safetensors, of a length that begins as gzip does": (
        lambda c, p: written(p, struct.pack("<Q", 0x8B1F) + b'{"a":{"dtype":"F32"}}'), "a safetensors file",
    ),
    "HDF5": (lambda c, p: written(p, b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5"),
    "numpy": (lambda c, p: np.save(p.open("wb"), np.zeros(3)), "a numpy array"),
    "npz": (lambda c, p: np.savez(p.open("wb"), a=np.zeros(3)), "an .npz"),
    "zip around it": (lambda c, p: zipped(p, **{"ScoNet.pt": b"x", "readme": b"y"}), "a zip archive that holds ScoNet.pt"),
    "TorchScript": (script, "a TorchScript archive"),
    "random bytes": (lambda c, p: written(p, np.random.default_rng(0).bytes(999)), "no file of torch.save"),
    "pickle": (lambda c, p: written(p, pickle.dumps({"model": 1})), "a Python pickle that torch.save did not write"),
    "hostile pickle": (lambda c, p: written(p, pickle.dumps(Hostile())), "a Python pickle that torch.save did not write"),
    "cut": (lambda c, p: cut(c, p, 0.5), "is cut off"),
    "cut, before PyTorch 1.6": (lambda c, p: cut(c, p, 0.8, **LEGACY), "is cut off"),
    "another count of numbers, before PyTorch 1.6": (
        miscounted, "has 2 numbers, expected 3",
    ),
    "cut in the pickle, before PyTorch 1.6": (lambda c, p: cut(c, p, 0.05, **LEGACY), "is damaged"),
    "a network object": (lambda c, p: save(torch.nn.Linear(2, 2), p), "state_dict() alone"),
    "a network object, before PyTorch 1.6": (lambda c, p: save(torch.nn.Linear(2, 2), p, **LEGACY), "state_dict()"),
    "a tensor": (lambda c, p: save(torch.zeros(3), p), "a tensor (3,) float32, expected a dictionary"),
    "a list": (lambda c, p: save([c], p), "a list, expected a dictionary"),
    "a number": (lambda c, p: save(3, p), "holds 3, expected a dictionary"),
    "an empty dictionary": (lambda c, p: save({}, p), "holds nothing, and no network"),
    "an optimiser": (lambda c, p: save(c["optimizer"], p), "holds state, param_groups, and no network"),
    "two networks": (lambda c, p: save(c | {"state_dict": dict(c["model"])}, p), "model and state_dict, which may be two"),
    "two averages": (lambda c, p: save({"ema": c["model"], "swa": dict(c["model"])}, p), "holds ema and swa, which"),
    "two networks by prefix": (
        lambda c, p: save(renamed(c, lambda n: f"a.{n}")["model"] | renamed(c, lambda n: f"b.{n}")["model"], p),
        "a and b, which",
    ),
    "another network inside others": (lambda c, p: save({"a": {"b": other_network(c, "layer0")}}, p), "like DeepGaitV2"),
    "a prefix that one name lacks": (
        lambda c, p: save(renamed(c, lambda n: n if n == NAMES["fc"] else f"net.{n}"), p), "missing: FCs.fc_bin",
    ),
    "conjugate": (
        tensors(fc=torch.ones(6, 5, 4, dtype=torch.complex64).conj()), "is a tensor with the bit conj",
    ),
    "a network changed after it was made": (
        lambda c, p: repack(c, p, change=lambda n, d: {n: d.replace(b"R", b"R}b", 2) if n.endswith("pkl") else d}),
        "changes a tensor",
    ),
    "both names": (tensors(fc_again=torch.zeros(6, 5, 4)), "FCs.fc_bin and module.FCs.fc_bin"),
    "other wrappers' names": (
        lambda c, p: save({"_orig_mod.FCs.fc_bin": torch.zeros(1), "module.FCs.fc_bin": torch.zeros(1)}, p),
        "_orig_mod.FCs.fc_bin and module.FCs.fc_bin",
    ),
    "DeepGaitV2": (lambda c, p: save(other_network(c, "layer0", "layer1"), p), "named like DeepGaitV2"),
    "DeepGaitV2 below a prefix": (
        lambda c, p: save({f"net.{name}": value for name, value in other_network(c, "layer0", "layer1")["model"].items()}, p),
        "named like DeepGaitV2",
    ),
    "DeepGaitV2 of one block below a prefix": (
        lambda c, p: save({f"a.b.{name}": value for name, value in other_network(c, "layer0")["model"].items()}, p),
        "named like DeepGaitV2",
    ),
    "a stem of three channels": (tensors(stem=torch.zeros(2, 3, 3, 3)), "of 3 channels; 1 (silhouettes) or 2 (skeleton maps)"),
    "a stem of no channel": (tensors(stem=torch.zeros(2, 0, 3, 3)), "is (2, 0, 3, 3), expected 4 axes of at least 1"),
    "a DRF's stem of three channels": (gated(stem=torch.zeros(2, 3, 3, 3)), "of 3 channels; 1 (silhouettes) or 2"),
    "gates and a stem of one channel": (gated(stem=torch.zeros(2, 1, 3, 3)), "gates (PGA.*) and Backbone.forward_block.conv1"),
    "gates beside a ScoNet": (tensors(gate=torch.zeros(4, 24)), "of 1 channel; a DRF reads 2, skeleton maps"),
    "gates of more entries": (gated(gate=torch.zeros(4, 25)), "channel_attention.weight is (4, 25), expected (4, 24)"),
    "gates of more channels": (gated(gate=torch.zeros(5, 24)), "channel_attention.weight is (5, 24), expected (4, 24)"),
    "gates of a wider kernel": (gated(strips=torch.zeros(1, 3, 3)), "is (1, 3, 3), expected (1, 3, 1)"),
    "gates of a number": (gated(bias=torch.zeros(())), "spatial_attention.bias is (), expected (1,)"),
    "gates that are not finite": (gated(gate=torch.full((4, 24), float("nan"))), "not finite: PGA.channel_attention.weight"),
    "a gate less": (lambda c, p: save(drf() | {"model": without(drf()["model"], NAMES["bias"])}, p), "missing: PGA.spatial"),
    "a gate more": (gated(other=torch.zeros(3)), "unknown: PGA.temporal_attention.weight"),
    "gates by two names": (gated(again=torch.zeros(1)), "attention_layer.spatial_attention.bias, gates by two names"),
    "halves of gates by two names": (
        lambda c, p: save(renamed(drf(), lambda n: authors(n) if "spatial" in n else n), p), "gates by two names; keep those",
    ),
    "gates alone": (
        lambda c, p: save({n: v for n, v in drf()["model"].items() if n.startswith("PGA")}, p), "missing: Backbone.forward",
    ),
    "a DRF with the optimiser of a ScoNet": (
        lambda c, p: save(drf() | {"optimizer": c["optimizer"]}, p), "groups of 40 tensors, expected one of 44",
    ),
    "a DRF's momentum of other shapes": (
        lambda c, p: save(with_setting(drf(), "optimizer", "state", {2: {"momentum_buffer": torch.zeros(5, 5)}}), p),
        "another shape: momentum of",
    ),
    "another network": (lambda c, p: save(other_network(c, "features", "head"), p), "and 77 more"),
    "hostile": (beside(x=Hostile()), "nothing was run"),
    "hostile, before PyTorch 1.6": (lambda c, p: save(c | {"x": Hostile()}, p, **LEGACY), "nothing was run"),
    "hostile in a tensor's place": (tensors(fc=Hostile()), "mkdir"),
    "a tensor of eval": (tensors(fc=Calling(eval, "__import__('os').mkdir('hostile-was-here')")), "eval"),
    "sparse": (tensors(fc=torch.ones(6, 5, 4).to_sparse()), "a sparse tensor"),
    "meta": (tensors(fc=torch.empty(6, 5, 4, device="meta")), "a meta tensor, which has no numbers"),
    "integers": (tensors(fc=torch.zeros(6, 5, 4, dtype=torch.int32)), "is int32, expected float32"),
    "complex": (tensors(fc=torch.zeros(6, 5, 4, dtype=torch.complex64)), "is complex64"),
    "float8": (tensors(fc=torch.zeros(6, 5, 4).to(torch.float8_e4m3fn)), "float8_e4m3fn"),
    "a number for a tensor": (tensors(neck=0.5), "BNNecks.fc_bin is 0.5"),
    "digits of float64": (tensors(fc=torch.full((6, 5, 4), 0.1, dtype=torch.float64)), ".float()"),
    "too large for float32": (tensors(fc=torch.full((6, 5, 4), 1e300, dtype=torch.float64)), "float32 does not hold"),
    "NaN": (tensors(fc=torch.full((6, 5, 4), float("nan"))), "not finite: FCs.fc_bin"),
    "negative variance": (tensors(var=torch.full((24,), -1.0)), "negative variances: BNNecks.bn1d"),
    "an expanded view": (tensors(fc=torch.zeros(1).expand(6, 5, 4)), "an expanded view"),
    "an overlapping view": (tensors(fc=torch.zeros(200).as_strided((6, 5, 4), (2, 1, 30))), "an expanded view"),
    "shared numbers": (tensors(var=(ones := torch.ones(24)), scale=ones), "share numbers in the file"),
    "NaN as step": (beside(iteration=float("nan")), "iteration is nan"),
    "part of a step": (beside(iteration=2.5), "iteration is 2.5"),
    "a negative step": (beside(iteration=-1), "iteration is -1"),
    "tensors as step": (beside(iteration=torch.tensor([3, 4])), "iteration is a tensor"),
    "no step": (lambda c, p: save(without(c, "iteration"), p), "iteration, the number of finished steps, is missing; save"),
    "one of many numbers as step": (
        beside(iteration=torch.full((archive.MOST_BESIDE + 1,), 3)[:1]), "iteration is a tensor (1,) int64",
    ),
    "a part in a tensor as step": (beside(iteration=torch.tensor(3.5)), "--weights-only leaves them out): iteration"),
    "a step of numpy with a part": (beside(iteration=np.float64(3.5)), "iteration is 3.5"),
    "another byte order of numpy": (
        lambda c, p: changed_bytes(c | {"iteration": np.int64(3)}, p, b"X\1\0\0\0<", b"X\1\0\0\0>"),
        "another byte order",
    ),
    "momentum that is not finite": (
        lambda c, p: save(
            with_setting(c, "optimizer", "state", {0: {"momentum_buffer": torch.full((2, 1, 3, 3), float("inf"))}}), p
        ),
        "--weights-only leaves the momentum out",
    ),
    "momentum of a parameter that is not there": (
        lambda c, p: save(with_setting(c, "optimizer", "state", {99: {"momentum_buffer": torch.zeros(3)}}), p),
        "unknown: momentum of parameter 99",
    ),
    "many milestones": (
        lambda c, p: save(with_setting(c, "scheduler", "milestones", {10 + n: 1 for n in range(MOST_MILESTONES + 1)}), p),
        f"{MOST_MILESTONES + 1} milestones, expected {MOST_MILESTONES} or fewer",
    ),
    "a call with too many arguments": (
        beside(x=Calling(argparse.Namespace, *range(description.MOST_ARGUMENTS + 1))),
        f"a call with {description.MOST_ARGUMENTS + 1} arguments",
    ),
    "too long a key": (
        beside(**{"k" * (description.LONGEST_KEY + 1): 1}), f"a key of {description.LONGEST_KEY + 1} signs",
    ),
    "Adam": (lambda c, p: save(with_setting(c, "group", "betas", (0.9, 0.99)) | {"scheduler": {}}, p), "--weights-only"),
    "two groups": (
        lambda c, p: save(with_setting(c, "optimizer", "param_groups", c["optimizer"]["param_groups"] * 2), p), "groups of",
    ),
    "a storage of two kinds": (
        lambda c, p: changed_bytes({"a": torch.zeros(3), "b": torch.zeros(3).int()}, p, b"X\x01\0\0\x001", b"X\x01\0\0\x000"),
        "described in two ways",
    ),
    "a member twice": (
        lambda c, p: repack(c, p, change=lambda n, d: {n: d} | ({f"{n[:-1]}1": d} if n.endswith("data/0") else {})), "twice",
    ),
    "a member missing": (members(lambda n, name, data: {} if n == "data/0" else {name: data}), "is damaged"),
    "a member too short": (members(lambda n, name, data: {name: data[:-4] if n == "data/0" else data}), "is damaged"),
    "another byte order": (members(lambda n, name, data: {name: b"big" if n == "byteorder" else data}), "byte order"),
    "rare compression": (lambda c, p: repack(c, p, zipfile.ZIP_LZMA), "method 14"),
    "names with signs of terminals": (lambda c, p: save(renamed(c, lambda n: f"\x1b[2J\n{n}"), p), r"'\x1b[2J\nBack"),
    **{
        f"{where} {key} {value}": (
            lambda c, p, where=where, key=key, value=value: save(with_setting(c, where, key, value), p), words,
        )
        for where, key, value, words in BAD_NUMBERS
    },
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Detected pickle protocol", "ignore:Duplicate name")
@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_as_what_it_is(kind, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, words = REFUSED[kind]
    write(content, tmp_path / "given.pt")
    with pytest.raises(RunError) as caught:
        opengait.read(tmp_path / "given.pt", (4, 2))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'given.pt'}")
    assert words in message
    assert "\n" not in message
    assert len(re.sub(r"/\S+", "", message)) < 700, message
    assert not (tmp_path / "hostile-was-here").exists()


def test_a_step_that_is_none_is_not_blamed_on_the_schedule(content, tmp_path):
    save(content | {"iteration": 2.5}, tmp_path / "given.pt")
    with pytest.raises(RunError) as caught:
        opengait.read(tmp_path / "given.pt", (4, 2))
    assert "scheduler" not in str(caught.value)
    assert opengait.read(tmp_path / "given.pt", (4, 2), weights_only=True).step == 0


@pytest.mark.parametrize(
    ("clothes", "note"),
    [
        ("ema_state_dict", "the network is that of ema_state_dict"),
        ("model and its average", "the network is that of model; left out: ema"),
        ("model and its average by prefix", "the network is that of state_dict.model; left out: state_dict.model_ema"),
        ("a loss with tensors beside", "left out, because their names do not begin with net.: loss.weight"),
    ],
)
def test_a_choice_among_tensors_is_said(clothes, note, content, tmp_path):
    TAKEN[clothes][0](content, tmp_path / "given.pt")
    assert note in opengait.read(tmp_path / "given.pt", (4, 2)).notes


@pytest.mark.parametrize("name", sorted(description.PLAIN_DATA))
def test_plain_data_beside_is_only_named(name, content, tmp_path):
    """Whatever is called with; and under each other name that the module has had."""
    module, _, function = name.rpartition(".")
    marked = b"X\x06\0\0\0MARKED"
    for known in (module, *(old for old, new in description.RENAMED.items() if new == module)):
        call = f"c{known}\n{function}\n".encode() + b")R"
        changed_bytes(content | {"x": "MARKED"}, tmp_path / "given.pt", marked, call)
        assert opengait.read(tmp_path / "given.pt", (4, 2)).step == 3
        with archive.opened(tmp_path / "given.pt") as file:
            assert file.content["x"] == description.Other(name)


def test_all_tensors_together_have_a_limit(content, tmp_path, monkeypatch):
    save(content, tmp_path / "given.pt")
    asked = sum(tensor.nbytes for tensor in content["model"].values() if tensor.is_floating_point())
    asked += sum(state["momentum_buffer"].nbytes for state in content["optimizer"]["state"].values())
    monkeypatch.setattr(archive, "NUMBERS_LIMIT", asked)
    opengait.read(tmp_path / "given.pt", (4, 2))
    monkeypatch.setattr(archive, "NUMBERS_LIMIT", asked - 1)
    with pytest.raises(RunError, match="GB of tensors; at most"):
        opengait.read(tmp_path / "given.pt", (4, 2))


def test_momentum_that_is_not_there_is_counted(content, tmp_path):
    """As of frozen parameters, or of a file that has lost some; at step 0, and without momentum, there is none."""
    states = content["optimizer"]["state"]
    some = with_setting(content, "optimizer", "state", {number: states[number] for number in range(5)})
    save(some, tmp_path / "given.pt")
    assert f"{len(states) - 5} of {len(states)} parameters have no momentum at step 3: Backbone" in " ".join(
        opengait.read(tmp_path / "given.pt", (4, 2)).notes
    )
    beginning = with_setting(with_setting(some, "scheduler", "last_epoch", 0), "optimizer", "state", {}) | {"iteration": 0}
    for quiet in (content, beginning, with_setting(some, "group", "momentum", 0.0)):
        save(quiet, tmp_path / "given.pt")
        assert opengait.read(tmp_path / "given.pt", (4, 2)).notes == ()


def test_the_optimiser_may_be_left_out(content, tmp_path):
    save(with_setting(content, "group", "weight_decay", float("nan")), tmp_path / "given.pt")
    found = opengait.read(tmp_path / "given.pt", (4, 2), weights_only=True)
    assert (found.step, found.optimizer) == (0, None)
    save(content, tmp_path / "plain.pt")
    jax.tree.map(np.testing.assert_array_equal, found.params, opengait.read(tmp_path / "plain.pt", (4, 2)).params)


def bombs(folder: Path, content: dict) -> None:
    """Files that ask for gigabytes, or for ever."""
    wide, model = 2**34 // (6 * 5 * 4), content["model"]  # so that FCs.fc_bin asks for 64 GB
    expanded = {
        name: torch.zeros(1).expand(*({4: wide, 24: wide * 6}.get(n, n) for n in value.shape))
        if name.startswith(("FCs", "BNN")) and value.ndim
        else value
        for name, value in model.items()
    }
    torch.save({"model": expanded}, folder / "expanded.pt")
    torch.save({"model": expanded}, folder / "expanded-legacy.pt", **LEGACY)
    count = b"Kxt"  # how the pickle ends the description of the 120 numbers of FCs.fc_bin
    claimed = b"\x8a\x05\0\0\0\0\x04t"  # 2**34 numbers
    first = struct.pack("<L", model["Backbone.forward_block.conv1.conv.weight"].numel() * 4)
    repack(content, folder / "claimed.pt", change=lambda n, d: {n: d.replace(count, claimed) if n.endswith("pkl") else d})
    large = 2**28 + 0x1234567
    repack(content, folder / "bomb.pt", change=lambda n, d: {n: bytes(large) if n.endswith("data/0") else d})
    lying = folder / "lying.pt"  # says 72 bytes, and unfolds to a quarter of a gigabyte
    raw = (folder / "bomb.pt").read_bytes()
    assert raw.count(struct.pack("<L", large)) == 2  # before the member, and in the directory
    lying.write_bytes(raw.replace(struct.pack("<L", large), first))
    half = content | {
        "model": model | {"FCs.fc_bin": torch.zeros(2**26 + 1)[:120].view(6, 5, 4)}
    }  # a quarter of a gigabyte, for 120 numbers
    repack(half, folder / "half.pt")
    repack(content, folder / "pickle-bomb.pt", change=lambda n, d: {n: b"}" * 2**27 if n.endswith("pkl") else d})
    with zipfile.ZipFile(folder / "members.pt", "w") as archive:
        for number in range(40_000):
            archive.writestr(f"archive/data/{number}", b"")
    with (folder / "sparse.pt").open("wb") as file:  # takes no room on the disk
        file.truncate(2**36)
    torch.save(content, folder / "sparse-legacy.pt", **LEGACY)
    with (folder / "sparse-legacy.pt").open("r+b") as file:
        file.truncate(2**36)
    long = b"(X" + struct.pack("<L", 500_000) + b"x" * 500_000 + b"q\x01"
    twice = b"".join(b"h%c\x86q%c" % (n, n + 1) for n in range(60))  # pairs of pairs of ...: 2**60 to compare
    for name, pickled in {
        "hash": b"\x80\x02})q\0" + twice + b"K\x01s.",
        "deep": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
        "bytearray": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R.",
        "text": b"\x80\x02\x8d" + struct.pack("<Q", 2**40) + b"x.",
        "memo": b"\x80\x02]r\xff\xff\xff\xff.",
        "names": b"\x80\x02" + long + b"j\x01\0\0\0h\x01\x93" * 50_000 + b"t.",  # a megabyte each
        "sizes": b"\x80\x02" + b"((" + b"N" * 100_000 + b"lq\x01" + b"ctorch\nSize\nh\x01\x85R" * 50_000 + b"t.",
        "orders": b"\x80\x02" + b"(}q\x01" + b"ccollections\nOrderedDict\n(h\x01" + b"N" * 50_000 + b"tR" + b"t.",
        "keys": b"\x80\x02" + long + b"}" + b"h\x01Ns" * 200_000 + b"t.",
    }.items():
        repack(content, folder / f"{name}.pt", change=lambda n, d, data=pickled: {n: data if n.endswith("pkl") else d})


def again(number: int, sign: bytes) -> bytes:
    """In a pickle: remember a value (`r`), or take one from memory (`j`)."""
    return sign + struct.pack("<L", 10_000 + number)


PAIRS = b"".join(again(n, b"j") + b"\x86" + again(n + 1, b"r") for n in range(60))
WIDE = b"".join(b"(" + again(n, b"j") * 300 + b"%c" + again(n + 1, b"r") for n in range(8))
NESTED = {  # values of a pickle, small where they are written, endless where they are printed, compared or hashed
    "pairs": b")" + again(0, b"r") + PAIRS,
    "wide": b"(K\0" + again(0, b"r") + WIDE.replace(b"%c", b"t") + b"t",
    "deep": b")" + b"\x85" * 200_000,
    "lists": b"(K\0" + again(0, b"r") + WIDE.replace(b"%c", b"l") + b"l",
    "deep-lists": b"]" * 100_000 + b"a" * 99_999,
}
AROUND = {  # where such a value stands: before and after it
    "content": (b"", b""), "module": (b"", b"X\1\0\0\0n\x93"), "name": (b"X\1\0\0\0n", b"\x93"), "key": (b"}", b"Ns"),
    "many-keys": (b"}(", b"Nu"), "value": (b"}K\1", b"s"), "storage": (b"", b"Q"), "call": (b"", b")R"), "arguments":
    (b"cbuiltins\nset\n", b"R"), "tensor": (b"ctorch._utils\n_rebuild_tensor_v2\n(", b"NNNtR"), "size":
    (b"ctorch\nSize\n", b"\x85R"), "order": (b"ccollections\nOrderedDict\n]", b"a\x85R"), "state": (b"}", b"b"),
}  # fmt: skip
WITHIN = {  # in a whole checkpoint, the bytes for which the value stands, once; and what the checkpoint is
    "step": lambda c, mark: c | {"iteration": mark},
    "params": lambda c, mark: with_setting(c, "group", "params", [mark] * len(c["optimizer"]["param_groups"][0]["params"])),
    "states": lambda c, mark: c | {"optimizer": c["optimizer"] | {"state": mark}},
    "groups": lambda c, mark: c | {"optimizer": c["optimizer"] | {"param_groups": mark}},
    "rate": lambda c, mark: with_setting(c, "group", "lr", mark),
    "milestones": lambda c, mark: with_setting(c, "scheduler", "milestones", [mark]),
    "last": lambda c, mark: with_setting(c, "scheduler", "last_epoch", mark),
    "weights": lambda c, mark: c | {"model": c["model"] | {NAMES["fc"]: mark}},
    "networks": lambda c, mark: c | {"model": mark},
}


def nests(folder: Path, content: dict) -> None:
    """Nested values wherever a pickle, or what reads it, might look at one."""
    marked = b"X\x06\0\0\0MARKED"
    for kind, value in NESTED.items():
        for place, (before, after) in AROUND.items():
            zipped(folder / f"{kind}-{place}.pt", **{"a/data.pkl": b"\x80\x02" + before + value + after + b"."})
        for place, change in WITHIN.items():
            changed = change(content, "MARKED")
            repack(changed, folder / f"{kind}-{place}.pt", change=lambda n, d, v=value: {n: d.replace(marked, v)})
        path = folder / f"{kind}-legacy.pt"
        torch.save(content, path, **LEGACY)
        raw = path.read_bytes()
        (folder / f"{kind}-version.pt").write_bytes(raw.replace(b"M\xe9\x03", value, 1))
        start = raw.rindex(b"]q\0(X") + 4
        path.write_bytes(raw[:start] + value + raw[start:])


READING = """
import re, sys, time
from pathlib import Path
from scoliojax.errors import RunError
from scoliojax.interop.opengait import checkpoint

def peak():
    status = Path("/proc/self/status").read_text()  # getrusage has the peak of the process that started this one, too
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024

print(f"PEAK beginning {peak()} 0")
for path in sorted(Path(sys.argv[1]).iterdir()):
    before = time.monotonic()
    try:
        checkpoint.read(path, (4, 2))
        print(f"{path.name}: taken")
    except RunError as error:
        print(f"{path.name}: {error}")
    print(f"PEAK {path.name} {peak()} {time.monotonic() - before:.1f}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("make", [bombs, nests])
def test_hostile_files_allocate_nothing_and_end_soon(make, content, tmp_path):
    """The peak is that of one process that opens all of them, with jax and PyTorch in it; the largest asks for 64 GB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process's memory is read from /proc")
    make(tmp_path, content)
    result = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path)], cwd=ROOT, capture_output=True, timeout=200, check=True, encoding="utf-8"
    )
    peaks = {name: (int(peak), float(seconds)) for name, peak, seconds in re.findall(r"PEAK (\S+) (\d+) (\S+)", result.stdout)}
    beginning, _ = peaks.pop("beginning")
    assert peaks.keys() == {path.name for path in tmp_path.iterdir()}
    assert max(peak for peak, _ in peaks.values()) < min(1000, beginning + 150), (beginning, peaks)  # megabytes
    assert max(seconds for _, seconds in peaks.values()) < 20, peaks
    taken = ["sparse-legacy.pt"] if make is bombs else []  # it has zeros behind its end
    assert re.findall(r"^(\S+): taken$", result.stdout, re.M) == taken, result.stdout
