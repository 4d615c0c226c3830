"""Files and folders that appear as a whole or not at all."""

import csv
import functools
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from data_pipelines.schema import abbreviate, read_regular
from scoliojax.errors import RunError, one_line

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
    import pydantic

    try:
        content = read_regular(path)
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
        if any(isinstance(one, float) and not math.isfinite(one) for one in (value if isinstance(value, list) else [value])):
            raise ValueError(f"key {key}: a number is not finite")
        section[key] = value
    return section


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
