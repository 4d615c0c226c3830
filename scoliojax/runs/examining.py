"""What a compiler states of a run's program: figures, a table, and whether a device has room for it. Nothing is measured."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax

from scoliojax.devices.program import Instruction, read_collectives, read_instructions
from scoliojax.devices.targets import HERE, Target
from scoliojax.errors import RunError
from scoliojax.runs.compiling import Program

SHOWN = 10  # most expensive instructions
# What libtpu says, in one of two ways: bytes that are needed, and that there are.
_NO_ROOM = re.compile(r"(?:Used |\()([\d.]+)([GM])\)? (?:of|exceeds available HBM) \(?([\d.]+)([GM])")
GPU_SHARE = 0.75  # of a GPU's memory that jax takes; XLA_PYTHON_CLIENT_MEM_FRACTION is another


@dataclass(frozen=True)
class Figures:
    """The content of `--json FILE`: what a compiler states of a program, not what was measured."""

    target: str
    device: str  # as jax names it
    devices: int
    program: str  # in words
    jax: str  # version
    numbers: dict[str, float]  # by name with unit, as the table has it, of one device
    collectives: dict[str, list[int]]  # by kind: calls, arrays, bytes of results on one device
    costly: list[dict[str, Any]]  # the most expensive instructions, the first first
    fits: bool
    memory: float  # bytes of a device that a program can have


def examine(target: Target, program: Program, compiled: Any) -> Figures:
    """What the compiler states of a compiled program. Of a CPU's that is its memory alone: it counts what loops do once."""
    text, machine, count = compiled.as_text(), target.machine, len(target.devices)
    instructions = read_instructions(text)
    numbers = _memory(compiled) | {"convolutions of the network (GFLOP)": program.flops / count / 1e9}
    known = target.platform != "cpu"
    costs = compiled.cost_analysis() or {} if known else {}  # of GPUs there are none
    if flops := costs.get("flops"):
        numbers["all operations by the compiler (GFLOP)"] = flops / 1e9
    if moved := costs.get("bytes accessed"):
        numbers["bytes moved by the compiler (GB)"] = moved / 1e9
    if target.platform == "tpu" and machine.clock:
        numbers |= _cycles(instructions, machine.clock)
    elif known and machine.bandwidth:
        numbers |= _traffic(instructions, machine.bandwidth, program.flops / count / machine.peak)
    if seconds := numbers.get("estimated time (ms)", 0.0) / 1e3:
        numbers["share of the peak (%)"] = 100.0 * program.flops / count / machine.peak / seconds
    collectives: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in read_collectives(text):
        collectives[one.kind] = [sum(pair) for pair in zip(collectives[one.kind], (1, one.arrays, one.bytes), strict=True)]
    available = target.memory or machine.memory * (GPU_SHARE if target.platform == "cuda" else 1.0)
    total = numbers["memory: total (MB)"] * 1e6
    costly = [one._asdict() for one in _costly(instructions)[:SHOWN]] if known else []
    device, version = target.devices[0].device_kind, jax.__version__
    return Figures(
        target.name, device, count, program.what, version, numbers, dict(collectives), costly, total <= available, available
    )


def _memory(compiled: Any) -> dict[str, float]:
    """Megabytes of a device by purpose; the memory of what is donated counts once."""
    used = compiled.memory_analysis()
    parts = {
        "arguments": used.argument_size_in_bytes,
        "outputs": used.output_size_in_bytes,
        "of these in the place of arguments": used.alias_size_in_bytes,
        "temporaries": used.temp_size_in_bytes,
        "code": used.generated_code_size_in_bytes,
    }
    parts["total"] = sum(parts.values()) - 2 * parts["of these in the place of arguments"]
    return {f"memory: {name} (MB)": size / 1e6 for name, size in parts.items()}


def _cycles(instructions: list[Instruction], clock: float) -> dict[str, float]:
    """Cycles and their time, as if nothing overlapped; gathers, sorts and collectives have no estimate."""
    total = sum(one.cycles for one in instructions)
    convolutions = sum(one.cycles for one in instructions if one.kind == "convolution")
    return {
        "estimated cycles (million)": total / 1e6,
        "of these with convolutions (million)": convolutions / 1e6,
        "estimated time (ms)": 1e3 * total / clock,
        "gathers, scatters, sorts over 1 MiB, without an estimate": sum(map(_is_unknown, instructions)),
    }


def _is_unknown(one: Instruction) -> bool:
    """True for work of more than a moment that has no estimate; of copies ahead of their use none is expected."""
    work = one.kind in ("fusion", "gather", "scatter", "sort") and not one.name.startswith("async-")
    return work and not one.cycles and one.bytes > 2**20


def _traffic(instructions: list[Instruction], bandwidth: float, seconds: float) -> dict[str, float]:
    """Gigabytes that kernels read and write, and their time at the memory's bandwidth; of convolutions at least `seconds`."""
    total = sum(one.bytes for one in instructions)
    convolutions = sum(one.bytes for one in instructions if one.kind == "convolution")
    return {
        "traffic of all kernels (GB)": total / 1e9,
        "of these convolutions (GB)": convolutions / 1e9,
        "estimated time (ms)": 1e3 * ((total - convolutions) / bandwidth + max(convolutions / bandwidth, seconds)),
        "kernels": sum(one.times for one in instructions),
    }


def _costly(instructions: list[Instruction]) -> list[Instruction]:
    return sorted(instructions, key=lambda one: (one.cycles, one.bytes), reverse=True)


def table(found: Figures, other: Figures | None = None) -> list[str]:
    """Lines of Markdown; with `other`, its figures and the ratio beside them."""
    head = f"{found.program}; {found.devices} x {found.device} ({found.target}), jax {found.jax}; compiled, not run"
    columns = ["of one device", "here"] + (["the other", "here / other"] if other else [])
    lines = [head, ""] + ([f"the other: {other.program}; {other.devices} x {other.device}", ""] if other else [])
    lines += [_row(columns), _row(["---"] * len(columns))]
    mine, theirs = ({**one.numbers, **_flat(one.collectives)} if one else {} for one in (found, other))
    for name in dict.fromkeys([*mine, *theirs]):
        cells = [name, _number(mine.get(name))]
        if other:
            ratio = mine[name] / theirs[name] if mine.get(name) is not None and theirs.get(name) else None
            cells += [_number(theirs.get(name)), "" if ratio is None else f"{ratio:.2f}"]
        lines.append(_row(cells))
    if not found.costly:
        return lines
    lines += ["", _row(["most expensive", "Mcycles" if any(one["cycles"] for one in found.costly) else "GB", "result", "line"])]
    lines.append(_row(["---"] * 4))
    for one in found.costly:
        cost = f"{one['cycles'] / 1e6:.2f}" if one["cycles"] else f"{one['bytes'] / 1e9:.2f}"
        lines.append(_row([f"{one['name']} ({one['kind']})", cost, one["result"], one["line"]]))
    return lines


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _flat(collectives: dict[str, list[int]]) -> dict[str, float]:
    return {
        f"{kind}: {unit}": size / scale
        for kind, sizes in sorted(collectives.items())
        for unit, size, scale in zip(("calls", "arrays", "MB"), sizes, (1, 1, 1e6), strict=True)
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or value >= 1e4 else f"{value:.4g}"


def room(found: Figures, config: Any, evaluation: bool) -> str:
    """Whether the program fits into a device, and what to lower where it does not."""
    used, there = found.numbers["memory: total (MB)"] / 1e3, found.memory / 1e9
    share = f" ({GPU_SHARE:.0%} of the device's, which jax takes)" if found.device.startswith("NVIDIA") else ""
    if found.target == HERE:
        share = " (of the machine's memory an equal part)" if found.device == "cpu" else ""
    if found.memory == math.inf:
        return f"{used:.1f} GB; how much memory a device has is not known here"
    if found.fits:
        return f"fits: {used:.1f} GB of {there:.1f} GB{share}"
    return f"does not fit: {used:.1f} GB, {used - there:.1f} GB more than the {there:.1f} GB of a device{share}; " + lower(
        config, evaluation, there / used
    )


def lower(config: Any, evaluation: bool, share: float) -> str:
    """What to lower so that about this share of the memory is used."""
    data = config.data
    if not evaluation:
        fewer = int(data.subjects_per_batch * share * 0.95)
        hint = f", e.g. to {fewer}" if 0 < fewer < data.subjects_per_batch else ""
        return f"lower data.subjects_per_batch={data.subjects_per_batch}{hint}, or take more devices"
    if data.sequences_per_eval_batch > 1:
        fewer = max(1, int(data.sequences_per_eval_batch * share * 0.95))
        return f"lower data.sequences_per_eval_batch={data.sequences_per_eval_batch}, e.g. to {fewer}"
    return f"lower data.max_eval_frames={data.max_eval_frames}"


def compile_program(program: Program, target: Target, config: Any, evaluation: bool) -> Any:
    """The compiled program; raises `RunError` where the compiler finds no room for it."""
    try:
        return program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        said = _NO_ROOM.search(str(error))
        if not said:
            where = target.name if target.name == HERE else f"--target={target.name}"
            raise RunError(f"{where}: the compiler ends with {' '.join(str(error).split())[:300]}") from None
        used, there = (float(said[place]) / (1 if said[place + 1] == "G" else 1024) for place in (1, 3))
        raise RunError(
            f"{program.what} does not fit into {target.devices[0].device_kind}: {used:.1f} GiB, {used - there:.1f} GiB more "
            f"than the {there:.1f} GiB of a device; {lower(config, evaluation, there / used)}"
        ) from None
