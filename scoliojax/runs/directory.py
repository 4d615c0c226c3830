"""The run directory: which config and which data it belongs to, and in what environment it ran."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from data_pipelines.schema import abbreviate
from scoliojax.devices import cluster
from scoliojax.errors import RunError

# Keys that may change between a run's restarts: none changes what a step computes.
FREE_KEYS = {
    "data.root",  # the data may move; its digest is compared instead
    "data.max_eval_frames",
    "data.sequences_per_eval_batch",
    "data.loader_threads",
    "data.cache_gigabytes",
    "train.steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoints_to_keep",
    "train.eval_every",
}
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets", "scoliojax")


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config sections to `{"data.root": ...}`, in JSON's types."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: json.loads(json.dumps(value))}
    return flat


def read_config(workdir: Path) -> dict[str, Any]:
    """The config that a run directory belongs to; raises `RunError` where there is none."""
    try:
        return json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"--workdir={workdir} holds no run (no config.json); train there first") from None
    except (OSError, ValueError) as error:
        raise RunError(f"--workdir={workdir}: config.json cannot be read ({error})") from None


def claim(workdir: Path, config: dict[str, Any], data_digest: str | None) -> None:
    """Make `workdir` the directory of a run with this config and these data, or check that it already is.

    Writes `config.json`, `data.json` and `environment.json`. A run that came from elsewhere has no data here yet
    (`data_digest` None): the first training run ties it to the data that it sees.

    Raises:
      RunError: when it cannot be written, or belongs to another config or other data; names what differs.
    """
    if (workdir / "config.json").exists():
        check_config(workdir, config)
        check_data(workdir, data_digest)
    if not cluster.is_first():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "data.json", {"digest": data_digest})
        if not (workdir / "environment.json").exists():
            write_json(workdir / "environment.json", environment())
        write_json(workdir / "config.json", config)
    except OSError as error:
        raise RunError(f"--workdir={workdir} cannot be written ({error.strerror}); give another folder") from None


def check_config(workdir: Path, config: dict[str, Any]) -> None:
    """Raise `RunError` naming every key in which `config` does not fit the run in `workdir`."""
    recorded, wanted = flatten(read_config(workdir)), flatten(config)
    differing = [
        f"{key} ({recorded.get(key, 'absent')!r} there, {wanted.get(key, 'absent')!r} here)"
        for key in sorted(recorded.keys() | wanted.keys())
        if key not in FREE_KEYS and recorded.get(key) != wanted.get(key)
    ]
    if differing:
        raise RunError(f"--workdir={workdir} belongs to another config: {', '.join(differing)}; give another --workdir")


def check_data(workdir: Path, data_digest: str | None) -> None:
    """Raise `RunError` when the run in `workdir` began with other data."""
    recorded = read_data(workdir)
    if recorded not in (None, data_digest):  # None: imported, and not trained here yet
        raise RunError(
            f"--workdir={workdir} belongs to other data (other sequences, subjects, labels or frame counts); give the "
            "data.root it began with, or another --workdir"
        )


def read_data(workdir: Path) -> str | None:
    """Digest of the data that a run was trained on; None where it came from elsewhere and was not trained here yet."""
    try:
        return json.loads((workdir / "data.json").read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"--workdir={workdir}: data.json cannot be read ({error}); give another folder") from None


def moved(workdir: Path) -> str | None:
    """What to tell a user whose run goes on on other machines than it began; None when it does not."""
    try:
        then, now = read_environment(workdir), environment()
        there, here = (f"{len(one['devices'])} device(s) of {one['processes']} process(es)" for one in (then, now))
    except (RunError, KeyError):  # new, or unreadable: only a remark depends on it
        return None
    return None if there == here else f"this run was on {there} and goes on on {here}, with the same batches"


def environment() -> dict[str, Any]:
    """Versions, devices and commit, for the record."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "git_commit": git_commit(),
    }


def record_environment(workdir: Path, imported_from: str | None = None) -> None:
    """Write down in what the next steps of a run are trained, or from which file an untrained run came."""
    if not cluster.is_first():
        return
    try:
        came = read_environment(workdir).get("imported_from")
    except RunError:  # new, or unreadable: then it is written anew
        came = None
    origin = imported_from or came
    write_json(workdir / "environment.json", environment() | ({"imported_from": origin} if origin else {}))


def read_environment(workdir: Path) -> dict[str, Any]:
    """In what a run was trained; raises `RunError` where that cannot be read."""
    try:
        return json.loads((workdir / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"--workdir={workdir}: environment.json cannot be read ({error})") from None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_commit() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=20, encoding="utf-8").stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Where to write what is to become `folder`: it replaces an earlier one as a whole, or nothing happens."""
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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file as a whole or not at all."""
    fresh = path.with_name(f".{path.name}.unfinished")
    fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)
