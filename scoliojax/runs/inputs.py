"""Inputs of the commands that read walks: which there are, a folder's name for each, and that none of them is overwritten."""

import hashlib
import itertools
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.command import expanded_path
from data_pipelines.schema import DataError, printable
from scoliojax.errors import RunError
from scoliojax.files import read_json, refuse_foreign

LONGEST_NAME = 150  # bytes of a folder's name; file systems allow 255, and hidden files beside the folder have longer names


def walk_path(text: str) -> Path:
    """The type of an option that names a walk or a folder of results."""
    return expanded_path(text).resolve()


def walks_of(arguments: list[Path]) -> list[Path]:
    """The walks of all arguments; of several, one that cannot be used is kept, to have its error as a row."""
    return [path for argument in arguments for path in _walks_of(argument, alone=len(arguments) == 1)]


def _walks_of(argument: Path, alone: bool) -> list[Path]:
    from data_pipelines.video.walk import inputs_of

    try:
        return inputs_of(argument, lambda line: print(printable(line), file=sys.stderr))
    except (DataError, OSError):
        if alone:
            raise
        return [argument]


def folder_names(inputs: list[Path]) -> list[str]:
    """A folder name for each input: its name without the suffix, with it where two would be equal, then with a number.

    A long name is cut and gets a piece of its checksum, so that the names of files beside the folder fit, too.
    """
    stems = [path.stem for path in inputs]
    wanted = [path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "-") for path in inputs]
    shortened, names = [_short(name) for name in wanted], []
    for name in shortened:
        others = {other.casefold() for other in (*names, *(one for one in shortened if one != name))}  # some disks ignore case
        numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        names.append(next(one for one in numbered if one.casefold() not in others))
    return names


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    return f"{encoded[:LONGEST_NAME].decode('utf-8', 'ignore')}-{hashlib.sha256(encoded).hexdigest()[:8]}"


@dataclass(frozen=True)
class _Input:
    sha256: str


@dataclass(frozen=True)
class _Result:
    """What is read of an earlier result."""

    input: _Input


def refuse_within(folder: Path, arguments: list[Path]) -> None:
    """Raise `RunError` where the folder of the results lies in a folder of inputs."""
    if within := [path for path in arguments if path.is_dir() and path in folder.parents]:
        raise RunError(
            f"--output={folder} lies in the input {within[0]}, and would be taken for a part of it; give a folder apart"
        )


def check_target(folder: Path, inputs: list[Path], files: Collection[str], kind: str, earlier: str = "") -> None:
    """Raise `RunError` where a result of this `kind` would replace one of the inputs, or anything but the `files` of another.

    Where the user did not name the folder, `earlier` is the name of the JSON file in it: it has to be of the first input.
    """
    refuse_foreign(folder, {*files}, kind)
    if within := [path for path in inputs if path == folder or folder in path.parents]:
        raise RunError(f"--output={folder} would replace the input {within[0]}; give a folder apart from it")
    if earlier and os.path.lexists(folder / earlier):
        from data_pipelines.video.walk import checksum

        remedy = "say where this answer goes with --output, or delete that folder"
        if read_json(folder / earlier, _Result, remedy).input.sha256 != checksum(inputs[0]):
            raise RunError(f"{folder} holds the answer for another input of this name; say where this one goes with --output")
