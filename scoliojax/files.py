"""Files and folders that appear as a whole or not at all."""

import csv
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipelines.locks import alone, wait_for_holder
from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError

OURS = re.compile(r"\..+\.(lock|unfinished|replaced)")  # names of locks, and of what a killed process may leave


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The place to write a file that replaces `path` at the end; after an error `path` is unchanged.

    Of several processes one writes at a time, and the file is that of the last.
    """
    with _place(path, lambda holder: None, lambda line: None) as fresh:  # a rename is whole without locks, too
        yield fresh
        fresh.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as a whole or not at all."""
    with whole_file(path) as fresh:
        fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file as a whole or not at all."""
    with whole_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([header, *rows])


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """The place to write a folder that replaces `folder` at the end; after an error `folder` is unchanged.

    Of several processes one writes at a time, the others say for whom they wait, and the folder is that of the last.
    """
    with _place(folder, wait_for_holder(str(folder))) as fresh:
        fresh.mkdir()
        yield fresh
        old = fresh.with_suffix(".replaced")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _place(path: Path, busy: Callable[[str], None], report: Callable[[str], None] | None = None) -> Iterator[Path]:
    """A name of this process's own beside `path`, free again at the end; what killed ones left beside it is removed.

    `busy` and `report` as in `locks.alone`.
    """
    leftover = re.compile(rf"\.{re.escape(path.name)}(\.[0-9a-f]{{8}})?\.(unfinished|replaced)")
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")
    with alone(path.with_name(f".{path.name}.lock"), busy, report) as locked:
        for other in [other for other in path.parent.iterdir() if locked and leftover.fullmatch(other.name)]:
            if other.suffix == ".replaced" and not path.exists():  # killed between two renames
                other.rename(path)
            else:
                _remove(other)
        try:
            yield fresh
        finally:
            _remove(fresh)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def refuse_foreign(folder: Path, ours: set[str], kind: str) -> None:
    """Raise `RunError` when a folder to be replaced holds anything but files of the kind that replaces them."""
    if folder.is_file():
        raise RunError(f"--output={folder} is a file; give a new folder")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if other := sorted(name for name in there - ours if not OURS.fullmatch(name)):
        raise RunError(f"--output={folder} holds something else than {kind} ({abbreviate(other)}); give a new folder")
