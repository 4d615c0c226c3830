"""Accelerators that a program can be compiled for without their being there: TPU slices and NVIDIA GPUs.

The compilers are those of the machines themselves; the extras `tpu` and `cuda` bring them. All figures are the vendors'.
"""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax

from scoliojax.errors import RunError, one_line


class Machine(NamedTuple):
    """One device, as jax names it."""

    peak: float  # floating-point operations a second, dense bfloat16 products
    memory: float  # bytes
    bandwidth: float  # bytes a second, of that memory
    clock: float = 0.0  # cycles a second of a TPU, whose compiler estimates cycles; 0 for others


MACHINES = {  # by the beginning of the device's name; of two that fit the first counts
    "NVIDIA H200": Machine(989e12, 141e9, 4.8e12),
    "NVIDIA H100": Machine(989e12, 80 * 2**30, 3.35e12),
    "NVIDIA A100": Machine(312e12, 80 * 2**30, 2.04e12),
    "TPU v4": Machine(275e12, 32 * 2**30, 1.228e12, 1.05e9),
    "TPU v5 lite": Machine(197e12, 16 * 2**30, 0.819e12, 1.5e9),
    "TPU v5": Machine(459e12, 95 * 2**30, 2.765e12, 1.75e9),
    "TPU v6": Machine(918e12, 32 * 2**30, 1.64e12, 1.75e9),
}

SLICES = {
    "v4": "2x2x1, 2x2x2, 4x4x4",
    "v5e": "1x1, 2x2, 4x4, 16x16",
    "v5p": "2x2x1, 2x2x2, 4x4x4",
    "v6e": "1x1, 2x2, 4x4, 16x16",
}
MOST_CHIPS = {"v4": 4096, "v5e": 256, "v5p": 8960, "v6e": 256}  # of one slice
DOWN = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}  # lengths in the name of a slice


class Gpu(NamedTuple):
    """What XLA asks of a GPU that is not there; see NVIDIA's architecture papers and its table of compute capabilities."""

    name: str  # as the driver has it
    capability: int  # major number; the minor one is 0
    cores: int  # multiprocessors
    units: int  # of float32 in each of them
    shared: int  # bytes of shared memory in each
    cache: int  # bytes, level 2
    clock: float  # GHz


GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 8, 108, 64, 164 * 1024, 40 * 2**20, 1.41),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 9, 132, 128, 228 * 1024, 50 * 2**20, 1.98),
    "h200": Gpu("NVIDIA H200", 9, 132, 128, 228 * 1024, 50 * 2**20, 1.98),
}
RESERVED = 1024  # bytes of shared memory that the driver keeps of every block
KNOWN = (
    f"{'; '.join(f'{name}:SHAPE, e.g. {shapes}' for name, shapes in SLICES.items())}; {', '.join(GPUS)}, each also as "
    "NAME:GPUS or NAME:HOSTSxGPUS, e.g. h100:8"
)


class Target(NamedTuple):
    name: str  # as given
    platform: str  # "tpu" or "cuda", as jax lowers for it
    devices: list[Any]  # that can be compiled for and not used
    machine: Machine
    memory: float = 0.0  # bytes of a device that a program can have; 0: as `machine` has it; infinite: not known


def machine_of(kind: str) -> Machine | None:
    """The figures of a device by its `device_kind`; None where they are not known here."""
    return next((machine for name, machine in MACHINES.items() if kind.startswith(name)), None)


HERE = "this machine"  # the name of the target of devices that are there


def devices_here() -> Target:
    """The devices that there are, of all processes. Of a CPU only the memory is known, of which each has an equal part."""
    devices, (first, *others) = jax.devices(), jax.local_devices()
    own = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 + len(others)) if first.platform == "cpu" else 0.0
    machine = machine_of(first.device_kind)
    limit = (first.memory_stats() or {}).get("bytes_limit", 0.0) or own
    if machine is None:
        machine, limit = Machine(0.0, own, 0.0), limit or math.inf
    return Target(HERE, first.platform if first.platform in ("cpu", "tpu") else "cuda", devices, machine, limit)


def find_target(name: str) -> Target:
    """The devices of `v5e:2x2`, `h100`, `h100:8` and so on.

    Raises `RunError`, with what exists, for a name that is none, and `ModuleNotFoundError` where the compiler is not installed.
    """
    kind, colon, shape = name.partition(":")
    lengths = [int(length) for length in shape.split("x")] if re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){0,2}", shape) else []
    if kind in SLICES and len(lengths) == DOWN[kind]:
        return Target(name, "tpu", *_slice(name, kind, lengths))
    if kind in GPUS and (len(lengths) in (1, 2) or not colon):
        return Target(name, "cuda", *_gpus(name, GPUS[kind], lengths or [1]))
    raise RunError(f"--target={name!r} does not exist; known are {KNOWN}")


def _slice(name: str, kind: str, lengths: list[int]) -> tuple[list[Any], Machine]:
    from jax.experimental import topologies

    chips = math.prod(lengths)
    if chips > MOST_CHIPS[kind]:
        raise RunError(f"--target={name}: a slice of {kind} has at most {MOST_CHIPS[kind]} chips, not {chips}")
    _want("libtpu")
    options: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device, as on the real one
    try:
        devices = topologies.get_topology_desc(name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = one_line(error)
        raise RunError(f"--target={name} is no slice that libtpu knows ({reason}); known are {KNOWN}") from None
    return _known(devices)


def _gpus(name: str, gpu: Gpu, lengths: list[int]) -> tuple[list[Any], Machine]:
    from jax.experimental import topologies

    hosts, each = lengths if len(lengths) == 2 else (1, lengths[0])
    if each > 8:
        raise RunError(f"--target={name}: a host has at most 8 GPUs; give HOSTSxGPUS, e.g. {name.partition(':')[0]}:2x8")
    _want("jax_cuda13_plugin")
    try:
        description = describe(gpu)
        return _known(topologies.get_topology_desc("", "cuda", target_config=description, topology=f"1x{hosts}x{each}").devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise RunError(f"--target={name}: XLA's compiler for GPUs does not start ({one_line(error)})") from None


def _want(package: str) -> None:
    """Raise `ModuleNotFoundError` for a compiler that is not installed; jax's own errors do not say what to install."""
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def _known(devices: list[Any]) -> tuple[list[Any], Machine]:
    machine = machine_of(devices[0].device_kind)
    assert machine is not None, devices[0].device_kind
    return devices, machine


def describe(gpu: Gpu) -> str:
    """XLA's description of a GPU (`stream_executor.GpuTargetConfigProto`) as text."""
    machine = machine_of(gpu.name)
    assert machine is not None, gpu.name
    return f"""
gpu_device_info {{
  core_count: {gpu.cores}  fpus_per_core: {gpu.units}  clock_rate_ghz: {gpu.clock}
  cuda_compute_capability {{ major: {gpu.capability} }}
  device_memory_size: {int(machine.memory)}  memory_bandwidth: {int(machine.bandwidth)}  l2_cache_size: {gpu.cache}
  shared_memory_per_core: {gpu.shared}  shared_memory_per_block: {48 * 1024}
  shared_memory_per_block_optin: {gpu.shared - RESERVED}
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  block_dim_limit_x: {2**31 - 1}  block_dim_limit_y: 65535  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 13 }}
device_description_str: "{gpu.name}"
"""
