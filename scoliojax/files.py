"""Files and folders that appear as a whole or not at all."""

import codecs
import csv
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError, one_line

MOST_BYTES = 2**28  # of a file of ours that is read as a whole
T = TypeVar("T")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The place to write a file that replaces `path` at the end; after an error `path` is unchanged."""
    fresh = path.with_name(f".{path.name}.unfinished")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as a whole or not at all."""
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, kind: type[T], remedy: str, name: str = "") -> T:
    """The content of a JSON file of ours as a `kind`: a dataclass, or a type such as `dict[str, Any]`.

    Numbers must be finite, types must fit without conversion, and no key may stand twice. Raises `FileNotFoundError` where
    there is no file, and else `RunError` with the file, under its `name` if given, the key and the `remedy`.
    """
    import pydantic  # here: commands have to start without it

    try:
        content = read_regular(path)
        found = pydantic.TypeAdapter(kind).validate_json(content, strict=True)
        json.loads(content, object_pairs_hook=_refuse_twice, parse_constant=_refuse_constant)  # what pydantic lets pass
        return found
    except FileNotFoundError:
        raise
    except pydantic.ValidationError as errors:
        error = errors.errors(include_url=False)[0]
        key = ".".join(map(str, error["loc"]))
        value = repr(error["input"])[:60]
        why = f"key {key}: {error['msg'].lower()}, not {value}" if key else error["msg"]
    except OSError as error:
        why = error.strerror or one_line(error)
    except (ValueError, RecursionError) as error:
        why = one_line(error)
    raise RunError(f"{name or path} cannot be read ({why}); {remedy}")


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file, without a byte order mark; raises `ValueError` for a pipe or device, or a huge file."""
    # Without blocking, because a pipe would wait for whoever writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > MOST_BYTES:
            raise ValueError(f"it has {status.st_size} bytes, more than any file of ours")
        return file.read().removeprefix(codecs.BOM_UTF8)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    section: dict[str, Any] = {}
    for key, value in pairs:
        if key in section:
            raise ValueError(f"key {key} stands twice")
        section[key] = value
    return section


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file as a whole or not at all."""
    with whole_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """The place to write a folder that replaces `folder` at the end; after an error `folder` is unchanged."""
    fresh, old = (folder.with_name(f".{folder.name}.{state}") for state in ("unfinished", "replaced"))
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def refuse_foreign(folder: Path, ours: set[str], kind: str) -> None:
    """Raise `RunError` when a folder to be replaced holds anything but files of the kind that replaces them."""
    if folder.is_file():
        raise RunError(f"--output={folder} is a file; give a new folder")
    if folder.exists() and (other := sorted({path.name for path in folder.iterdir()} - ours)):
        raise RunError(f"--output={folder} holds something else than {kind} ({abbreviate(other)}); give a new folder")
