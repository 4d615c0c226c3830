"""Several processes of one run: joining, printing once, waiting for each other and stopping together."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from scoliojax.errors import RunError, one_line

TASK_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # set by programs that start several processes
BARRIER_TIMEOUT = 3600  # seconds
_TURN = itertools.count()  # makes the name of every barrier unique


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes of this run, before any use of a device; do nothing where this is the only process.

    jax recognises Cloud TPU, SLURM and Open MPI. Elsewhere all arguments are needed: `host:port` of process 0, the number of
    processes, and the number of this one, from 0. Raises `RunError` when some are missing or a process cannot be reached.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise RunError(f"{', '.join(missing)} is missing; --coordinator, --processes and --process belong together")
    if jax.distributed.is_initialized():  # by an earlier command in this process
        return
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except ValueError as error:  # without arguments: no cluster that jax knows
        others = [name for name in TASK_COUNTS if int(os.environ.get(name, "1")) > 1]
        if missing and others:
            raise RunError(
                f"{others[0]}={os.environ[others[0]]} announces several processes, but jax does not recognise the launcher; "
                "give --coordinator, --processes and --process"
            ) from None
        if not missing:
            raise RunError(f"--coordinator={coordinator} --processes={processes} --process={process}: {error}") from None
    except RuntimeError as error:
        if missing and "must be called before" in str(error):  # an earlier command in this process found itself alone
            return
        which = "this process" if process is None else f"process {process}"
        raise RunError(f"{which} cannot join the others ({one_line(error)})") from None


def is_first() -> bool:
    """True in the one process that writes files and prints."""
    return jax.process_index() == 0


def print_once(line: str, stream: TextIO | None = None) -> None:
    """Print a line once for all processes, on standard output or another stream."""
    if is_first():
        print(line, file=stream, flush=True)


def barrier(name: str) -> None:
    """Wait until all processes have called this, for up to `BARRIER_TIMEOUT`.

    The wait uses the coordinator, not the devices, whose collectives end with an error after half a minute.
    """
    if jax.process_count() > 1:
        everybody = set(range(jax.process_count()))
        ocp.multihost.sync_global_processes(f"{name} {next(_TURN)}", timeout=BARRIER_TIMEOUT, processes=everybody)


def all_agree(yes: bool) -> bool:
    """True when `yes` is true in every process; all of them must call this."""
    if jax.process_count() == 1:
        return yes
    barrier("vote")
    return bool(np.all(multihost_utils.process_allgather(np.array(yes))))


def compile_in_step(function: Callable) -> Callable:
    """The jitted function, compiled in step with the other processes: none runs it before all have compiled it.

    A process that is alone gets the function itself.
    """
    programs: dict = {}

    def call(*arguments):
        key = str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), arguments))
        if key not in programs:
            programs[key] = function.lower(*arguments).compile()
            barrier("compiled")
        return programs[key](*arguments)

    return call if jax.process_count() > 1 else function


@contextmanager
def first_alone(name: str) -> Iterator[None]:
    """Run the body in the first process before the others, for example to fill a cache that they share."""
    if not is_first():
        barrier(name)
    yield
    if is_first():
        barrier(name)


@contextmanager
def preemption() -> Iterator[Callable[[int], bool]]:
    """Detection of SIGTERM, which schedulers send before they take a machine away.

    The function must be called after every step; it returns True when the run must stop after that step. A signal to one of
    several processes is enough: all of them stop after the same step.
    """
    if jax.process_count() > 1:  # jax handles the signal
        yield multihost_utils.reached_preemption_sync_point
        return
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    try:
        yield lambda step: bool(signals)
    finally:
        signal.signal(signal.SIGTERM, before)
