"""Data behind a URL: a prepared set, which is copied once into this machine's cache, and single files."""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipelines.files import read_regular
from data_pipelines.locks import alone
from data_pipelines.schema import URL, DataError, cache_folder, local_path, remedy

STORES = {"file": "", "gs": "gcsfs", "s3": "s3fs"}  # by scheme: the package that reads it
CHUNK = 2**23  # bytes that are read at a time
MOST_METADATA = 2**28  # bytes; those of 1,493 walks have 0.2 MB, with poses 1 MB
FILES = re.compile(r"(dataset_info|features|metadata)\.json|.*\.array_record-[0-9]+-of-[0-9]+")  # of a prepared set
UNFINISHED = ".unfinished"  # end of the name of a copy that is being made


def check_url(url: str, field: str) -> None:
    """Raise `DataError` for a URL of data that cannot be read by anybody; `field` is the key or option that gave it."""
    scheme = _scheme(url)
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise DataError(f"{field}={url!r} cannot be read from there; give one of {known}, or copy the data to this machine")
    if scheme == "file":
        local_path(url, field)
    elif not re.fullmatch(rf"{scheme}://[^/\s]+(/[^\0]*)?", url):
        raise DataError(f"{field}={url!r} names no bucket; write {scheme}://BUCKET/FOLDER")


def read_url(url: str, field: str, most: int) -> bytes:
    """The content of one file of at most `most` bytes.

    Raises `FileNotFoundError` where there is none, else `DataError`, and of a `file://` URL what `read_regular` raises.
    """
    check_url(url, field)
    if _scheme(url) == "file":
        return read_regular(Path(local_path(url, field)), most)
    return b"".join(_pieces(_place(url, field), url, field, most))


def copied(url: str, field: str, parts: tuple[str, ...], report: Callable[[str], None], check: Callable[[Path], Any]) -> Path:
    """The folder of this machine's cache that holds a copy of the prepared set at `url`; it is made where it is missing.

    A copy is found by its metadata, which have the checksum of every record: another set at the same place is copied anew, and
    the same set at another place is not. It appears as a whole, after `check` has passed it. Of several processes of a machine
    one copies, and the others wait.

    Args:
      url: the folder that `data_pipelines.prepare --output` made.
      field: the key or option that gave `url`, for messages.
      parts: folders from there to the files of the set.
      report: receives lines for the user.
      check: called with the copy; raises `DataError` where it is not whole.

    Raises `DataError` where nothing can be read there, or the copy cannot be written.
    """
    check_url(url, field)
    place = _place(url, field).joinpath(*parts)
    try:
        metadata = b"".join(_pieces(place / "metadata.json", url, field, MOST_METADATA))
        json.loads(metadata)
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise DataError(
            f"{field}={url!r} holds no prepared set (no {'/'.join(parts)}/metadata.json that can be read); run "
            "data_pipelines.prepare on a disk, and copy its whole output there"
        ) from None
    folder = cache_folder() / f"copied-{hashlib.sha256(metadata).hexdigest()[:16]}"
    if folder.exists():
        return folder

    def wait(holder: str) -> None:
        report(f"{field}={url} is being copied into {folder} ({holder}); waiting for it")

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(folder.with_name(f".{folder.name}.lock"), wait, report):
            if not folder.exists():
                _copy(place, folder, parts, (url, field), report, check)
    except OSError as error:
        raise DataError(
            f"{field}={url!r} cannot be copied into {folder} ({error.strerror or error}); {remedy(error)}, or set "
            "SCOLIOJAX_CACHE to another folder"
        ) from None
    return folder


def _copy(
    place: Any,
    folder: Path,
    parts: tuple[str, ...],
    names: tuple[str, str],
    report: Callable[[str], None],
    check: Callable[[Path], Any],
) -> None:
    """Copy the files of a prepared set, check them, and give them their name; `names`: the URL, and what gave it."""
    url, field = names
    with _explained(url, field):
        files = sorted(file for file in place.iterdir() if FILES.fullmatch(file.name))
        sizes = {file.name: file.stat().length for file in files}
    fresh, total = folder.with_name(folder.name + UNFINISHED), sum(sizes.values())
    shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed
    free = shutil.disk_usage(folder.parent).free
    if free < total:
        raise DataError(
            f"{field}={url!r}: no room for its copy in {folder.parent} ({free / 1e6:,.0f} MB free, {total / 1e6:,.0f} MB "
            "needed); make room, or set SCOLIOJAX_CACHE to another folder"
        )
    report(f"{field}={url} is copied once into {folder} ({len(sizes)} files, {total / 1e6:,.1f} MB)")
    try:
        target = fresh.joinpath(*parts)
        target.mkdir(parents=True)
        for name, size in sizes.items():
            with (target / name).open("wb") as file:
                for piece in _pieces(place / name, url, field):
                    file.write(piece)
                if file.tell() != size:
                    raise DataError(f"{field}={url!r}: {name} ended after {file.tell():,} of {size:,} bytes; start again")
        try:
            check(fresh)
        except DataError as error:
            raise DataError(
                f"{field}={url!r} is damaged, or was changed while it was copied ({str(error).partition(';')[0]}); copy the "
                "prepared set there again"
            ) from None
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _place(url: str, field: str) -> Any:
    """A path of this machine, or of a store."""
    for package in filter(None, STORES.values()):
        if not (log := logging.getLogger(package)).level:
            log.setLevel(logging.CRITICAL)  # gcsfs prints the traceback of an error that it raises as well
    os.environ.setdefault("EPATH_USE_TF", "false")  # where TensorFlow is installed, etils would import it for gs://
    import tensorflow_datasets as tfds  # its paths are those of etils

    return tfds.core.Path(local_path(url, field) if _scheme(url) == "file" else url)


def _scheme(url: str) -> str:
    found = URL.match(url)
    return found[1].lower() if found else ""


def _pieces(place: Any, url: str, field: str, most: int | None = None) -> Iterator[bytes]:
    """The content of a file, piece by piece; raises `FileNotFoundError`, and `DataError` for more than `most` bytes."""
    with _explained(url, field):
        file = place.open("rb")
    read = 0
    with file:
        while True:
            with _explained(url, field):
                piece = file.read(CHUNK)
            if not piece:
                return
            read += len(piece)
            if most is not None and read > most:
                raise DataError(f"{field}={url!r}: {place} has more than {most:,} bytes; at most so many are read")
            yield piece


@contextmanager
def _explained(url: str, field: str) -> Iterator[None]:
    """Turn whatever a store's package raises, apart from `FileNotFoundError`, into a `DataError`."""
    scheme = _scheme(url)
    try:
        yield
    except (FileNotFoundError, DataError):
        raise
    except ImportError as error:
        if (package := STORES[scheme]) not in str(error):
            raise
        raise DataError(
            f'{field}={url!r}: {package} is not installed, which this needs: pip install "scoliojax[{scheme}]"'
        ) from None
    except Exception as error:  # of the network, of credentials, of the store: each package has its own
        said = " ".join(str(error).split())[:200] or "it gives no reason"
        hint = "check the path" if scheme == "file" else "check the address, your credentials for it and the network"
        raise DataError(f"{field}={url!r} cannot be read ({type(error).__name__}: {said}); {hint}") from None
