"""Files given as checkpoints: what can be read is read whatever it wears, and anything else is refused as what it is."""

import argparse
import gzip
import io
import os
import pickle
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
from scoliojax.interop.opengait import checkpoint as opengait  # noqa: E402
from scoliojax.interop.torch_reference import TorchScoNet  # noqa: E402
from tests.conftest import ROOT  # noqa: E402

SIZES = opengait.Sizes((2, 3, 4, 5), 4, (4, 2), 3)


def make_content(step: int = 3) -> dict:
    """A checkpoint as OpenGait writes it, whose numbers all float16 holds, after one step of momentum."""
    torch.manual_seed(0)
    net = TorchScoNet(*SIZES)
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
    "channels last": (lambda c, p: save(converted(c, channels_last), p), {}),
    "slices of one buffer, without counts": (lambda c, p: save(shared_buffer(c), p), {}),
    "a namespace beside": (beside(args=argparse.Namespace(lr=1)), {}),
    "a numpy number beside": (beside(best=np.float64(0.5)), {}),
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


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


class Calling:
    """Pickles as a call of anything, with any arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


NAMES = {
    "fc": "FCs.fc_bin", "neck": "BNNecks.fc_bin", "var": "BNNecks.bn1d.running_var", "scale": "BNNecks.bn1d.weight",
    "stem": "Backbone.forward_block.conv1.conv.weight", "fc_again": "module.FCs.fc_bin",
}  # fmt: skip


def tensors(**changed):
    """Save a checkpoint with these tensors in the place of others, or beside them."""
    model = {NAMES[key]: value for key, value in changed.items()}
    return lambda content, path: save(content | {"model": content["model"] | model}, path)


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


LEGACY = {"_use_new_zipfile_serialization": False}
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
    ("group", "nesterov", True, "nesterov"),
]  # fmt: skip
REFUSED = {  # what the file is: how it is made, and words of the line
    "empty": (lambda c, p: written(p, b""), "is empty"),
    "zeros": (lambda c, p: written(p, bytes(5000)), "full of zeros"),
    "folder": (lambda c, p: p.mkdir(), "is a folder"),
    "pipe": (lambda c, p: os.mkfifo(p), "no regular file"),
    "device": (lambda c, p: p.symlink_to("/dev/zero"), "no regular file"),
    "dead link": (lambda c, p: p.symlink_to(p.parent / "none"), "does not exist"),
    "text": (lambda c, p: written(p, "grüße\n".encode() * 300), "a text file that begins 'grüße"),
    "UTF-16 text": (lambda c, p: written(p, "hello\n".encode("utf-16")), "a text file that begins 'hello"),
    "web page": (lambda c, p: written(p, b"\n<!DOCTYPE html><html>sign in"), "a web page"),
    "git-lfs": (lambda c, p: written(p, b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), "git lfs pull"),
    "gzip": (lambda c, p: written(p, gzip.compress(b"x" * 99)), "is a gzip file; unpack it"),
    "tar": (tarred, "a tar archive"),
    "ONNX": (lambda c, p: written(p, b"\x08\x07\x12\x07pytorch\x1a\x032.1:"), "an ONNX network"),
    "safetensors": (lambda c, p: written(p, struct.pack("<Q", 30) + b'{"a":{"dtype":"F32"}}'), "a safetensors file"),
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
    "cut in the pickle, before PyTorch 1.6": (lambda c, p: cut(c, p, 0.05, **LEGACY), "is damaged"),
    "a network object": (lambda c, p: save(torch.nn.Linear(2, 2), p), "state_dict() alone"),
    "a network object, before PyTorch 1.6": (lambda c, p: save(torch.nn.Linear(2, 2), p, **LEGACY), "state_dict()"),
    "a tensor": (lambda c, p: save(torch.zeros(3), p), "a tensor (3,) float32, expected a dictionary"),
    "a list": (lambda c, p: save([c], p), "a list, expected a dictionary"),
    "a number": (lambda c, p: save(3, p), "holds 3, expected a dictionary"),
    "an empty dictionary": (lambda c, p: save({}, p), "holds nothing, and no tensors"),
    "an optimiser": (lambda c, p: save(c["optimizer"], p), "holds state, param_groups, and no tensors"),
    "two networks": (lambda c, p: save(c | {"state_dict": c["model"]}, p), "model and state_dict"),
    "both names": (tensors(fc_again=torch.zeros(6, 5, 4)), "FCs.fc_bin and module.FCs.fc_bin"),
    "other wrappers' names": (
        lambda c, p: save({"_orig_mod.FCs.fc_bin": torch.zeros(1), "module.FCs.fc_bin": torch.zeros(1)}, p),
        "_orig_mod.FCs.fc_bin and module.FCs.fc_bin",
    ),
    "DeepGaitV2": (lambda c, p: save(other_network(c, "layer0", "layer1"), p), "named like DeepGaitV2"),
    "DRF": (lambda c, p: save(renamed(c, lambda n: n.replace("FCs.", "PGA.")), p), "a DRF"),
    "two channels": (tensors(stem=torch.zeros(2, 2, 3, 3)), "two channels"),
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
    "a tensor as step": (beside(iteration=torch.tensor(3)), "iteration is a tensor"),
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
    repack(content, folder / "bomb.pt", change=lambda n, d: {n: bytes(2**28) if n.endswith("data/0") else d})
    lying = folder / "lying.pt"  # says 72 bytes, and unfolds to a quarter of a gigabyte
    lying.write_bytes((folder / "bomb.pt").read_bytes().replace(struct.pack("<L", 2**28), first))
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
    twice = b"".join(b"h%c\x86q%c" % (n, n + 1) for n in range(60))  # pairs of pairs of ...: 2**60 to compare
    for name, pickled in {
        "hash": b"\x80\x02})q\0" + twice + b"K\x01s.",
        "deep": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
        "bytearray": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R.",
        "text": b"\x80\x02\x8d" + struct.pack("<Q", 2**40) + b"x.",
        "memo": b"\x80\x02]r\xff\xff\xff\xff.",
    }.items():
        repack(content, folder / f"{name}.pt", change=lambda n, d, data=pickled: {n: data if n.endswith("pkl") else d})


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
def test_hostile_files_allocate_nothing_and_end_soon(content, tmp_path):
    """The peak is that of one process that opens all of them, with jax and PyTorch in it; the largest asks for 64 GB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process's memory is read from /proc")
    bombs(tmp_path, content)
    result = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path)], cwd=ROOT, capture_output=True, timeout=200, check=True, encoding="utf-8"
    )
    peaks = {name: (int(peak), float(seconds)) for name, peak, seconds in re.findall(r"PEAK (\S+) (\d+) (\S+)", result.stdout)}
    beginning, _ = peaks.pop("beginning")
    assert peaks.keys() == {path.name for path in tmp_path.iterdir()}
    assert max(peak for peak, _ in peaks.values()) < min(1000, beginning + 150), (beginning, peaks)  # megabytes
    assert max(seconds for _, seconds in peaks.values()) < 20, peaks
    assert re.findall(r"^(\S+): taken$", result.stdout, re.M) == ["sparse-legacy.pt"], result.stdout  # zeros behind its end
