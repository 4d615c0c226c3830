"""What a compiler states of a program it has compiled: its instructions with cycles, bytes and source lines.

The text is that of `compiled.as_text()`, in XLA's language HLO.
"""

import functools
import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

_BEGIN = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*?)\)(?=,|$)(.*)$")
_COLLECTIVE = re.compile(r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:body|condition|to_apply|calls|branch_computations)=\{?(%[^,}]*(?:, %[^,}]*)*)")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# No work of a device's: names of values, and instructions whose own parts are counted.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "opt-barrier", "partition-id", "replica-id", "async-done", "async-update",
}  # fmt: skip


class Instruction(NamedTuple):
    """An instruction that devices carry out, such as a fusion of many operations."""

    name: str
    kind: str  # "convolution", a collective such as "all-reduce", or XLA's name of the operation
    result: str  # type and shape, without layout
    times: int  # how often it is carried out
    cycles: int  # all times, as a TPU's compiler estimates them; 0 where none does
    bytes: int  # all times: what it reads and writes, each operand once
    line: str  # of the source, such as "kernels/batch_norm.py:43, from models/resnet9.py:25"


class Collective(NamedTuple):
    kind: str  # name in XLA, such as all-reduce
    arrays: int
    bytes: int  # size of its results on one device


class _Raw(NamedTuple):
    name: str
    result: str
    kind: str
    arguments: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.arguments)


def read_collectives(text: str) -> Iterator[Collective]:
    """Collectives in the text of a compiled program; one inside a loop counts once."""
    for result, kind, start in _COLLECTIVE.findall(text):
        sizes = _sizes(result)
        if start and kind != "all-reduce":  # an asynchronous collective lists its operands before its results
            sizes = sizes[len(sizes) // 2 :]
        yield Collective(kind, len(sizes), sum(sizes))


def read_instructions(text: str) -> list[Instruction]:
    """All instructions that are carried out. A branch counts as if it were taken, and a loop without a stated count once."""
    computations, entry = _computations(text)
    lines = _SourceLines(text)
    shapes = {raw.name: raw.result for raws in computations.values() for raw in raws}
    found: list[Instruction] = []

    def visit(computation: str, times: int) -> None:
        for raw in computations.get(computation, []):
            called = [name.strip().lstrip("%") for names in _CALLED.findall(raw.rest) for name in names.split(",")]
            if raw.kind in ("while", "conditional", "call"):
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', raw.rest) if raw.kind == "while" else None
                for name in called:
                    visit(name, times * int(trips[1] if trips else 1))
            cycles = re.search(r'"estimated_cycles":"(\d+)"', raw.rest)
            if raw.kind in FREE or (raw.kind.endswith("-done") and not cycles):
                continue
            inside = [part for name in called for part in computations.get(name, [])] if raw.kind == "fusion" else [raw]
            moved = _written(raw, inside) + sum(_read(raw, place, shapes, inside) for place in range(len(raw.operands)))
            found.append(
                Instruction(
                    raw.name,
                    _kind(raw, inside),
                    re.sub(r"\{[^}]*\}|/\*.*?\*/", "", raw.result),
                    times,
                    times * int(cycles[1] if cycles else 0),
                    times * moved,
                    lines.of(raw.rest),
                )
            )

    visit(entry, 1)
    return found


def _computations(text: str) -> tuple[dict[str, list[_Raw]], str]:
    """The instructions of every computation by its name, and the name of the one that is the program."""
    computations: dict[str, list[_Raw]] = {}
    entry, current = "", []
    for line in text.splitlines():
        if begin := _BEGIN.match(line):
            current = computations.setdefault(begin[2], [])
            entry = begin[2] if begin[1] else entry
        elif match := _INSTRUCTION.match(line):
            current.append(_Raw(*match.groups()))
    return computations, entry


def _sizes(shape: str) -> list[int]:
    """Bytes of each array in a type such as `(f32[2,3]{1,0}, bf16[])`."""
    bare = re.sub(r"\{[^}]*\}", "", shape)
    arrays = [(8 if kind == "pred" else int(bits), size) for kind, bits, size in _ARRAY.findall(bare)]
    return [math.prod(int(length) for length in size.split(",") if length) * bits // 8 for bits, size in arrays]


def _written(raw: _Raw, inside: list[_Raw]) -> int:
    """Bytes that an instruction writes, without the workspace of a library's kernel; into an array, only what changes."""
    if raw.kind == "custom-call":
        return sum(_sizes(re.sub(r"\b[su]8\[\d+\]", "", raw.result)))
    if raw.kind == "copy-start":  # source, target and a signal
        return _sizes(raw.result)[0]
    updates = [part for part in inside if part.kind == "dynamic-update-slice"]
    if raw.kind == "fusion" and updates and len(_sizes(raw.result)) == 1:
        shapes = {part.name: part.result for part in inside}
        return sum(sum(_sizes(shapes.get(part.operands[1], ""))) for part in updates if len(part.operands) > 1)
    return sum(_sizes(raw.result))


def _read(raw: _Raw, place: int, shapes: dict[str, str], inside: list[_Raw]) -> int:
    """Bytes that an instruction reads of an operand: all of it, once, or the parts that slices and gathers take."""
    operand = raw.operands[place]
    whole = sum(_sizes(shapes.get(operand, "")))
    if raw.kind != "fusion":
        return whole if operand not in raw.operands[:place] else 0
    numbers = {part.name for part in inside if part.kind == "parameter" and part.arguments == str(place)}
    users = [part for part in inside if numbers & set(part.operands)]
    if users and all(part.kind in ("dynamic-slice", "slice", "gather") and part.operands[0] in numbers for part in users):
        return min(whole, sum(sum(_sizes(part.result)) for part in users))
    if users and all(part.kind == "dynamic-update-slice" and part.operands[0] in numbers for part in users):
        return 0
    return whole


def _kind(raw: _Raw, inside: list[_Raw]) -> str:
    kind = raw.kind.removesuffix("-start").removesuffix("-done")
    if kind in COLLECTIVES:
        return kind
    kinds = {part.kind for part in inside}
    return "convolution" if "convolution" in kinds or "__cudnn$conv" in raw.rest else raw.kind


class _SourceLines:
    """The tables at the beginning of a program's text that lead from an instruction to lines of the source."""

    def __init__(self, text: str):
        self._files = dict(re.findall(r'^(\d+) "(.*)"$', text.partition("FileNames")[2].partition("\n\n")[0], re.M))
        self._places = {a: (b, c) for a, b, c in re.findall(r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)", text, re.M)}
        self._frames = {
            a: (b, c) for a, b, c in re.findall(r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)", text, re.M)
        }
        self._of = functools.cache(self._line)

    def of(self, rest: str) -> str:
        """The innermost line of this package, and the line of the network that it works for; "" where neither is stated."""
        frame = re.search(r"\bstack_frame_id=(\d+)", rest)
        return self._of(frame[1]) if frame else ""

    def _line(self, frame: str) -> str:
        lines = []
        while frame in self._frames:
            place, parent = self._frames[frame]
            file, line = self._places.get(place, ("", ""))
            parts = PurePosixPath(self._files.get(file, "")).parts
            if "scoliojax" in parts:
                last = len(parts) - parts[::-1].index("scoliojax")
                lines.append(f"{'/'.join(parts[last:])}:{line}")
            if parent == frame:
                break
            frame = parent
        layer = next((line for line in lines if line.startswith("models/") and not line.startswith("models/layers")), "")
        return ", from ".join(dict.fromkeys(filter(None, [*lines[:1], layer])))
