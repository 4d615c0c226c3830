"""Files and folders that appear as a whole or not at all."""

import codecs
import csv
import functools
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from data_pipelines.files import read_regular
from data_pipelines.interrupts import let_imports_end
from data_pipelines.locks import alone, wait_for_holder
from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError, one_line

T = TypeVar("T")

OURS = re.compile(r"\..+\.(lock|unfinished|replaced)")  # names of locks, and of what a killed process may leave
ABANDONED = 86_400  # seconds without a change, after which what a writer of a file left is removed


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The place to write a file that replaces `path` at the end; after an error `path` is unchanged.

    Of several processes nobody waits, and the file is that of the last to end: a rename is whole without a lock.
    """
    let_imports_end()
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
    for other in [other for other in path.parent.iterdir() if _leftover(path).fullmatch(other.name)]:
        with suppress(OSError):  # another process removes it, or may not
            if time.time() - other.lstat().st_mtime > ABANDONED:
                other.unlink(missing_ok=True)
    fresh = _fresh(path)
    try:
        yield fresh
        fresh.replace(path)
    finally:
        _remove(fresh)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as a whole or not at all."""
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, kind: type[T], remedy: str, name: str = "") -> T:
    """The content of a JSON file of ours as a `kind`: a dataclass, or a type such as `dict[str, Any]`.

    Numbers must be finite, types must fit without conversion, and no key may stand twice. Raises `FileNotFoundError` where
    there is no file, and else `RunError` with the file, under its `name` if given, the key and the `remedy`.
    """
    import pydantic

    try:
        content = read_regular(path).removeprefix(codecs.BOM_UTF8)  # of an editor; pydantic takes none
        found = _schema(kind).validate_json(content, strict=True)
        json.loads(content, object_pairs_hook=_check_section)  # what pydantic lets pass
        return found
    except FileNotFoundError:
        raise
    except pydantic.ValidationError as errors:
        error = errors.errors(include_url=False)[0]
        key, said = ".".join(map(str, error["loc"]))[:200], error["msg"].removeprefix("Value error, ")
        why = f"key {key}: {said}, not {repr(error['input'])[:60]}" if key else said
    except OSError as error:
        why = error.strerror or one_line(error)
    except (ValueError, RecursionError) as error:
        why = one_line(error)
    raise RunError(f"{name or path} cannot be read ({why}); {remedy}")


@functools.cache
def _schema(kind: Any) -> Any:
    import pydantic  # here: commands have to start without it

    return pydantic.TypeAdapter(kind)


def _check_section(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A section of a JSON file; raises `ValueError` for a key that stands there twice, and for a number that is not finite."""
    section: dict[str, Any] = {}
    for key, value in pairs:
        if key in section:
            raise ValueError(f"key {key} stands twice")
        if not _finite(value):
            raise ValueError(f"key {key}: a number is not finite")
        section[key] = value
    return section


def _finite(value: Any) -> bool:
    """False for a number that is not, also in lists within lists; sections within were looked at before."""
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file as a whole or not at all."""
    with whole_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([header, *rows])


@contextmanager
def whole_folder(folder: Path, replace: bool = True) -> Iterator[Path]:
    """The place to write a folder that replaces `folder` at the end; after an error `folder` is unchanged.

    Without `replace` it takes the place of an empty folder or none, and raises `OSError` where there is something else.
    Of several processes one writes at a time, the others say for whom they wait, and the folder is that of the last.
    """
    with _place(folder, wait_for_holder(str(folder))) as fresh:
        fresh.mkdir()
        yield fresh
        old = fresh.with_suffix(".replaced")
        if replace and folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _place(path: Path, busy: Callable[[str], None]) -> Iterator[Path]:
    """A name of this process's own beside `path`, free again at the end; what killed ones left beside it is removed.

    `busy` as in `locks.alone`.
    """
    leftover, fresh = _leftover(path), _fresh(path)
    with alone(path.with_name(f".{path.name}.lock"), busy) as locked:
        for other in [other for other in path.parent.iterdir() if locked and leftover.fullmatch(other.name)]:
            if other.suffix == ".replaced" and not path.exists():  # killed between two renames
                other.rename(path)
            else:
                _remove(other)
        try:
            yield fresh
        finally:
            _remove(fresh)


def _fresh(path: Path) -> Path:
    """A name of this process's own beside `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


def _leftover(path: Path) -> re.Pattern[str]:
    """The names of what killed processes may have left beside `path`."""
    return re.compile(rf"\.{re.escape(path.name)}(\.[0-9a-f]{{8}})?\.(unfinished|replaced)")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def refuse_foreign(folder: Path, ours: set[str], kind: str) -> None:
    """Raise `RunError` when a folder to be replaced holds anything but files of the kind that replaces them."""
    if folder.is_file():
        raise RunError(f"--output={folder} is a file; give a new folder")
    around = next(parent for parent in folder.parents if parent.exists())
    for place in (around, folder):
        if place.exists() and not os.access(place, os.W_OK | os.X_OK):
            raise RunError(f"--output={folder} cannot be made: you may not write in {place}; give another folder with --output")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if other := sorted(name for name in names - ours if not OURS.fullmatch(name)):
        raise RunError(f"--output={folder} holds something else than {kind} ({abbreviate(other)}); give a new folder")
