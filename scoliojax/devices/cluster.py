"""Several processes of one run: joining, printing once, waiting for each other and stopping together."""

import hashlib
import importlib.metadata
import itertools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache

from scoliojax.errors import RunError, one_line

# How launchers tell the number of processes; jax recognises SLURM and Open MPI by further variables beside these.
TASK_COUNTS = ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
UNSEEN = TASK_COUNTS[1:]  # SLURM_NTASKS is also set where no step with several processes was started, as in a batch script
RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # the number of this process, from 0
ALONE = "to run one process alone, unset that variable, or give --processes=1"
JOIN_NOTICE, JOIN_TIMEOUT = 3.0, 300.0  # seconds of waiting for the other processes: until a line says so, and until the end
BARRIER_TIMEOUT = 3600  # seconds
_TURN = itertools.count()  # makes the name of every barrier unique


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join the other processes of this run, before any use of a device; do nothing where this is the only process.

    jax recognises Cloud TPU, SLURM and Open MPI. Elsewhere all arguments are needed: `host:port` of process 0, the number of
    processes, and the number of this one, from 0; `processes` = 1 alone means that there are no others, whatever a launcher's
    variables say, and so does a launcher's own count of 1. Raises `RunError` when some are missing, or a process cannot be
    reached for `JOIN_TIMEOUT` seconds; after `JOIN_NOTICE` a line says for whom it waits.
    """
    if processes == 1 and coordinator is None and process in (None, 0):
        return
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise RunError(
            f"{', '.join(missing)} is missing; --coordinator, --processes and --process belong together (or give --processes=1 "
            "alone, for one process)"
        )
    if jax.distributed.is_initialized():  # by an earlier command in this process
        return
    if coordinator is not None and not re.fullmatch(r"\S+:[0-9]{1,5}", coordinator):
        raise RunError(f"--coordinator={coordinator!r} is no address; give host:port of process 0, e.g. node1:1234")
    if missing and (counts := _announced()) and max(counts.values()) == 1:  # one task of a launcher, which has no others
        return
    how = f"--processes={processes}" if not missing else ", ".join(f"{name}={count}" for name, count in _announced().items())
    how = how or "the cluster that jax found"
    try:
        _initialize(coordinator, processes, process, how)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if not missing:
            raise RunError(f"--coordinator={coordinator} --processes={processes} --process={process}: {error}") from None
        if not str(error).endswith(
            ("should be defined.", "must be defined.")
        ):  # jax recognised a launcher, whose variables it cannot use
            raise RunError(f"the variables of the launcher do not fit ({one_line(error)}; {how}); {ALONE}") from None
        if others := [name for name, count in _announced().items() if name in UNSEEN and count > 1]:
            raise RunError(
                f"{others[0]}={os.environ[others[0]]} announces several processes, but jax does not recognise the launcher; "
                f"give --coordinator, --processes and --process; {ALONE}"
            ) from None
    except RuntimeError as error:
        if missing and "must be called before" in str(error):  # an earlier command in this process found itself alone
            return
        which = "this process" if process is None else f"process {process}"
        raise RunError(f"{which} cannot join the others ({one_line(error)}; {how})") from None


def _announced() -> dict[str, int]:
    """The numbers of processes that launchers' variables announce; raises `RunError` for one that is no number."""
    counts = {}
    for name in TASK_COUNTS:
        if text := os.environ.get(name, "").strip():
            if not re.fullmatch("[0-9]{1,9}", text):
                raise RunError(f"{name}={text[:50]!r} is no number of processes; {ALONE}")
            counts[name] = int(text)
    return counts


def _initialize(coordinator: str | None, processes: int | None, process: int | None, how: str) -> None:
    """As `jax.distributed.initialize`, in a thread: jaxlib does not heed Ctrl-C while it waits, and its own end is an abort."""
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            jax.distributed.initialize(coordinator, processes, process, initialization_timeout=int(2 * JOIN_TIMEOUT) + 60)
        except BaseException as error:  # for the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(JOIN_NOTICE)
    if thread.is_alive():
        own = next((os.environ[name] for name in RANKS if name in os.environ), "") if process is None else process
        count = processes or max(_announced().values(), default=0)
        others = f"{count - 1} other process{'es' * (count > 2)}" if count > 1 else "the others"
        whom = f"process {own} waits for {others}{f' at {coordinator}' if coordinator else ''}, because of {how}"
        rest = ALONE if coordinator is None else "to run one process alone, leave these options out"
        print(f"{whom}; {rest}", file=sys.stderr, flush=True)
        thread.join(max(JOIN_TIMEOUT - JOIN_NOTICE, 0.0))
    if thread.is_alive():
        raise RunError(f"{whom}: in vain for {JOIN_TIMEOUT:g} seconds; start them, or correct that; {rest}")
    if outcome:
        raise outcome[0]


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
    return bool(np.all(_gather(np.array(yes))))


def _gather(mine: np.ndarray) -> np.ndarray:
    """The arrays of all processes, stacked; jax fetches the result unasked, which the guard of the training loop forbids."""
    with jax.transfer_guard("allow"):
        return np.asarray(multihost_utils.process_allgather(mine))  # processes ...


def refuse_difference(text: str, what: str, remedy: str) -> None:
    """Raise `RunError`, in every process, where their texts differ; it names those that have another than process 0.

    All processes must call this. `what`: the text in words, for the message.
    """
    if jax.process_count() == 1:
        return
    mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)  # 32
    barrier("compare")
    everyone = _gather(mine)  # processes 32
    if others := [str(process) for process in np.flatnonzero((everyone != everyone[0]).any(axis=1))]:
        names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        have = "has" if len(others) == 1 else "have"
        raise RunError(f"of {len(everyone)} processes number {names} {have} another {what} than process 0; {remedy}")


def refuse_other_program(lowered: jax.stages.Lowered) -> None:
    """As `refuse_difference`, of a program before it is compiled: with different ones the processes would wait for ever."""
    versions = f"jax {jax.__version__}, jaxlib {importlib.metadata.version('jaxlib')}"
    refuse_difference(
        f"{versions}\n{lowered.as_text()}", "program", "start all with the same config, package and version of jax"
    )


def compile_in_step(function: Callable) -> Callable:
    """The jitted function, compiled in step with the other processes: none runs it before all have compiled the same program.

    A process that is alone gets the function itself. The function raises `RunError` as `refuse_other_program`.
    """
    programs: dict = {}

    def call(*arguments):
        key = str(jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), arguments))
        if key not in programs:
            lowered = function.lower(*arguments)
            refuse_other_program(lowered)
            programs[key] = lowered.compile()
            barrier("compiled")
        return programs[key](*arguments)

    return call if jax.process_count() > 1 else function


def keep_programs(folder: Path) -> None:
    """From now on several processes keep compiled programs in this folder, which all must see, for when they start again.

    jax lets process 0 alone write programs, so in a cache of its own another process would find nothing. A process that is
    alone keeps its cache, and so do those that have one by `JAX_COMPILATION_CACHE_DIR`.
    """
    if jax.process_count() > 1 and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        compilation_cache.reset_cache()  # it may be in use elsewhere


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
