"""The mesh: one axis, `data`, over all devices. The batch is sharded over it, everything else is replicated."""

import os

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

AXIS = "data"
# KiB of a TPU core's fast memory that one fusion may take, by the beginning of the device's name: libtpu's 16,384 leave most of
# it unused. `docs/performance.md` has what other values give.
FUSION_MEMORY = {"TPU v5 lite": 24_576, "TPU v6": 24_576}
FUSION_OPTION = "xla_tpu_scoped_vmem_limit_kib"


def data_mesh() -> Mesh:
    """All devices of all processes, those of a process adjacent, so that its share of a batch is contiguous."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The first axis (clips, or sequences) split over `AXIS`."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def compiler_options(sharding: Sharding | None) -> dict[str, int] | None:
    """Options for `jax.jit` of a step on the devices of a sharding, or on the default device; None where there are none.

    What `LIBTPU_INIT_ARGS` sets is left to it.
    """
    kind = (next(iter(sharding.device_set)) if sharding else jax.devices()[0]).device_kind
    limit = next((limit for name, limit in FUSION_MEMORY.items() if kind.startswith(name)), None)
    return None if limit is None or FUSION_OPTION in os.environ.get("LIBTPU_INIT_ARGS", "") else {FUSION_OPTION: limit}


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's share of a batch, `[n / processes, ...]`, as global arrays `[n, ...]` sharded over the devices."""
    with jax.transfer_guard_host_to_device("allow"):  # this is the copy that is asked for
        return {name: jax.make_array_from_process_local_data(sharded(mesh), array) for name, array in batch.items()}
