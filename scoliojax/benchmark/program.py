"""A run's step, compiled for an accelerator that is not there: `python -m scoliojax.benchmark.program --target v5e:2x2 ...`.

The compilers of the accelerators run on any machine; what they state of the program is printed as a table. Nothing is measured.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.command import Parser, expanded_path, make_parser, whole_number
from scoliojax.errors import RunError
from scoliojax.runs.command import add_recipe, refuse_rest, report_errors

if TYPE_CHECKING:
    from scoliojax.devices.program import Instruction
    from scoliojax.devices.targets import Target
    from scoliojax.runs.compiling import Program

# Settings of this process, unless jax is there already: no accelerator of this machine is used, nor asked for by libtpu.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # it keeps programs of devices that are there
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run, so several processes may compile at a time
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # without a type and a name libtpu prints warnings; no target depends on them
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
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


def examine(target: "Target", program: "Program", compiled: Any) -> Figures:
    """What the compiler states of a compiled program."""
    import jax

    from scoliojax.devices.program import read_collectives, read_instructions

    text, machine, count = compiled.as_text(), target.machine, len(target.devices)
    instructions = read_instructions(text)
    numbers = _memory(compiled) | {"convolutions of the network (GFLOP)": program.flops / count / 1e9}
    costs = compiled.cost_analysis() or {}  # of GPUs there are none
    if flops := costs.get("flops"):
        numbers["all operations by the compiler (GFLOP)"] = flops / 1e9
    if moved := costs.get("bytes accessed"):
        numbers["bytes moved by the compiler (GB)"] = moved / 1e9
    if target.platform == "tpu":
        numbers |= _cycles(instructions, machine.clock)
    else:
        numbers |= _traffic(instructions, machine.bandwidth, program.flops / count / machine.peak)
    if seconds := numbers["estimated time (ms)"] / 1e3:
        numbers["share of the peak (%)"] = 100.0 * program.flops / count / machine.peak / seconds
    collectives: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in read_collectives(text):
        collectives[one.kind] = [sum(pair) for pair in zip(collectives[one.kind], (1, one.arrays, one.bytes), strict=True)]
    available = machine.memory * (GPU_SHARE if target.platform == "cuda" else 1.0)
    total = numbers["memory: total (MB)"] * 1e6
    costly = [one._asdict() for one in _costly(instructions)[:SHOWN]]
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


def _cycles(instructions: Iterable["Instruction"], clock: float) -> dict[str, float]:
    """Cycles and their time, as if nothing overlapped; gathers, sorts and collectives have no estimate."""
    groups: dict[bool, int] = {True: 0, False: 0}
    for one in instructions:
        groups[one.kind == "convolution"] += one.cycles
    return {
        "estimated cycles (million)": sum(groups.values()) / 1e6,
        "of these with convolutions (million)": groups[True] / 1e6,
        "estimated time (ms)": 1e3 * sum(groups.values()) / clock,
        "gathers, scatters, sorts over 1 MiB, without an estimate": sum(map(_is_unknown, instructions)),
    }


def _is_unknown(one: "Instruction") -> bool:
    """True for work of more than a moment that has no estimate; of copies ahead of their use none is expected."""
    work = one.kind in ("fusion", "gather", "scatter", "sort") and not one.name.startswith("async-")
    return work and not one.cycles and one.bytes > 2**20


def _traffic(instructions: Iterable["Instruction"], bandwidth: float, seconds: float) -> dict[str, float]:
    """Gigabytes that kernels read and write, and their time at the memory's bandwidth; of convolutions at least `seconds`."""
    groups: dict[bool, int] = {True: 0, False: 0}
    for one in instructions:
        groups[one.kind == "convolution"] += one.bytes
    return {
        "traffic of all kernels (GB)": sum(groups.values()) / 1e9,
        "of these convolutions (GB)": groups[True] / 1e9,
        "estimated time (ms)": 1e3 * (groups[False] / bandwidth + max(groups[True] / bandwidth, seconds)),
        "kernels": sum(one.times for one in instructions),
    }


def _costly(instructions: list["Instruction"]) -> list["Instruction"]:
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


def compile_program(program: "Program", target: "Target", config: Any, evaluation: bool) -> Any:
    """The compiled program; raises `RunError` where the compiler finds no room for it."""
    import jax

    try:
        return program.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        said = _NO_ROOM.search(str(error))
        if not said:
            raise RunError(f"--target={target.name}: the compiler ends with {' '.join(str(error).split())[:300]}") from None
        used, there = (float(said[place]) / (1 if said[place + 1] == "G" else 1024) for place in (1, 3))
        raise RunError(
            f"{program.what} does not fit into {target.devices[0].device_kind}: {used:.1f} GiB, {used - there:.1f} GiB more "
            f"than the {there:.1f} GiB of a device; {lower(config, evaluation, there / used)}"
        ) from None


def arguments() -> Parser:
    parser = make_parser(
        "scoliojax.benchmark.program",
        "Compile a run's step for a TPU slice or for GPUs that need not be there, and print what the compiler states of it.",
        "--target TARGET --config FILE [options]",
        "scoliojax.benchmark.program --target v5e:2x2 --config configs/sconet_mt.py",
        "scoliojax.benchmark.program --target h100:8 --config configs/sconet_mt.py --evaluation",
    )
    add = parser.add_argument
    add("--target", required=True, metavar="TARGET", help="v4:2x2x1, v5e:2x2, v5p:2x2x1, v6e:2x2, h100, h200:8, a100:2x8, ...")
    add_recipe(parser, required=True)
    add("--evaluation", action="store_true", help="the evaluation of the longest sequences instead of the training step")
    help_text = "frames that the clips of a sequence share; default as a run draws them from 300 frames"
    add("--shared-frames", type=whole_number(2), metavar="N", help=help_text)
    add("--json", type=expanded_path, metavar="FILE", help="write the figures here as well")
    add("--save", type=expanded_path, metavar="DIR", help="keep the program's text and its figures in this new folder")
    add("--against", type=expanded_path, metavar="FILE", help="print the figures of an earlier --json FILE beside these")
    return parser


def _refuse_mistakes(parser: Parser, args: Any) -> None:
    """End with an error now, not after minutes of compilation."""
    if args.shared_frames and args.evaluation:
        parser.error(f"--shared-frames={args.shared_frames} is for a training step; leave it out with --evaluation")
    if args.json and (args.json.is_dir() or not os.access(args.json.parent, os.W_OK)):
        parser.error(f"--json={args.json} cannot be written; give a file in a folder that exists")
    if args.save and args.save.exists() and (not args.save.is_dir() or any(args.save.iterdir())):
        parser.error(f"--save={args.save} is there already; give a new folder")


def read_figures(file: Path) -> Figures:
    from scoliojax.files import read_json

    try:
        return read_json(file, Figures, "give a file that --json wrote", f"--against={file}")
    except FileNotFoundError:
        raise RunError(f"--against={file} does not exist; give a file that --json wrote") from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args, changes = parser.parse_known_args(argv)
    refuse_rest(parser, changes)
    _refuse_mistakes(parser, args)
    with report_errors("nothing was written"):
        if "jax" not in sys.modules:
            os.environ |= SETTINGS
        import numpy as np
        from jax.sharding import Mesh

        from scoliojax.devices.mesh import AXIS
        from scoliojax.devices.targets import find_target
        from scoliojax.files import whole_folder, write_json
        from scoliojax.runs.compiling import evaluation_program, training_program
        from scoliojax.runs.recipe import read_recipe

        config = read_recipe(args.config, changes)
        other = read_figures(args.against) if args.against else None
        target = find_target(args.target)
        mesh = Mesh(np.array(target.devices), (AXIS,))
        if args.evaluation:
            program = evaluation_program(config, mesh, target.platform)
        else:
            program = training_program(config, mesh, target.platform, args.shared_frames or True)
        compiled = compile_program(program, target, config, args.evaluation)
        found = examine(target, program, compiled)
        print("\n".join([*table(found, other), "", room(found, config, args.evaluation)]))
        if args.json:
            write_json(args.json, asdict(found))
        if args.save:
            with whole_folder(args.save, replace=False) as folder:
                (folder / "program.txt").write_text(compiled.as_text(), encoding="utf-8")
                write_json(folder / "figures.json", asdict(found))


if __name__ == "__main__":
    main()
