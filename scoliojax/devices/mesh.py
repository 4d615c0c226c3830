"""The mesh: one axis, `data`, over all devices. The batch is sharded over it, everything else is replicated."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def data_mesh() -> Mesh:
    """All devices of all processes, those of a process adjacent, so that its share of a batch is contiguous."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The first axis (clips, or sequences) split over `AXIS`."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's share of a batch, `[n / processes, ...]`, as global arrays `[n, ...]` sharded over the devices."""
    with jax.transfer_guard_host_to_device("allow"):  # this is the copy that is asked for
        return {name: jax.make_array_from_process_local_data(sharded(mesh), array) for name, array in batch.items()}
