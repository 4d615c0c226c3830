"""Names of accelerators: those that exist, and what is said of others."""

import importlib.util
import math
import os
from types import SimpleNamespace

import jax
import pytest

from scoliojax.devices import targets
from scoliojax.devices.targets import GPUS, MACHINES, SLICES, describe, devices_here, find_target, machine_of
from scoliojax.errors import RunError

NO_TARGETS = [  # a name, and what the error says besides
    ("v9:2x2", "known are"), ("v5e", "v5e:SHAPE"), ("v5e:", "v5e:SHAPE"), ("v5e:2", "2x2"), ("v5e:2x2x1", "known are"),
    ("v5p:2x2", "v5p:SHAPE"), ("v5e:0x0", "known are"), ("v5e:2x-2", "known are"), ("v5e:99x99", "at most 256"),
    ("v5e:2x2 ", "known are"), ("V5E:2x2", "known are"), ("", "known are"), (":", "known are"), ("h100:0", "known are"),
    ("h100:9", "at most 8 GPUs"), ("h100:2x9", "h100:2x8"), ("h100:1x1x1", "known are"), ("h100:", "known are"),
    ("b200", "a100, h100, h200"), ("h100:99999", "known are"), ("v5e:2x2\n", "known are"), ("v5e:٢x٢", "known are"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words"), NO_TARGETS)
def test_a_target_that_does_not_exist_lists_those_that_do(name, words):
    with pytest.raises(RunError) as caught:
        find_target(name)
    assert words in str(caught.value)
    assert "--target=" in str(caught.value)


@pytest.mark.parametrize(("name", "package"), [("v5e:2x2", "libtpu"), ("v4:2x2x1", "libtpu"), ("h100:8", "jax_cuda13_plugin")])
def test_a_missing_compiler_is_named(name, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        find_target(name)
    assert caught.value.name == package


def test_every_machine_has_figures_and_the_longer_name_counts_first():
    assert machine_of("TPU v5 lite") == MACHINES["TPU v5 lite"] != machine_of("TPU v5")
    assert machine_of("NVIDIA H100 PCIe") == MACHINES["NVIDIA H100"]
    assert machine_of("cpu") is None
    assert set(SLICES) == set(targets.MOST_CHIPS) == set(targets.DOWN)
    for gpu in GPUS.values():
        text = describe(gpu)
        assert text.count("{") == text.count("}") == 4
        assert f'device_description_str: "{gpu.name}"' in text


@pytest.mark.parametrize(
    ("kind", "platform", "limit", "name", "memory", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "gpu", 5e10, "cuda", 5e10, True),  # what jax may take of it
        ("NVIDIA H100 80GB HBM3", "gpu", None, "cuda", 0.0, True),
        ("TPU v5 lite", "tpu", 1.6e10, "tpu", 1.6e10, True),
        ("TPU v3", "tpu", 3e10, "tpu", 3e10, False),
        ("another", "rocm", None, "cuda", math.inf, False),
        ("cpu", "cpu", None, "cpu", 5e5, False),
    ],
)
def test_devices_that_are_there_say_what_they_have(kind, platform, limit, name, memory, known, monkeypatch):
    one = SimpleNamespace(device_kind=kind, platform=platform, memory_stats=lambda: limit and {"bytes_limit": limit})
    monkeypatch.setattr(jax, "devices", lambda: [one] * 8)
    monkeypatch.setattr(jax, "local_devices", lambda: [one] * 2)
    monkeypatch.setattr(os, "sysconf", lambda asked: 1000)  # pages, and bytes of each
    found = devices_here()
    assert (found.name, found.platform, len(found.devices), found.memory) == ("this machine", name, 8, memory)
    assert bool(found.machine.peak) is known
