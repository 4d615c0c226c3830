"""Files and folders that appear as a whole or not at all."""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError


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
