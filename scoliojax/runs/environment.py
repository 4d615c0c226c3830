"""The environment of a run, `environment.json`: versions, devices and commit."""

import functools
import importlib.metadata
import json
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.files import write_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets", "scoliojax")


def describe_move(workdir: Path) -> str | None:
    """A remark for the user where a run continues on other devices than it started on; None otherwise."""
    try:
        then, now = read_environment(workdir), environment()
        there, here = (f"{len(record['devices'])} device(s) of {record['processes']} process(es)" for record in (then, now))
    except (RunError, KeyError):  # new or unreadable; the remark is left out
        return None
    return None if there == here else f"this run was on {there} and continues on {here}, with the same batches"


def environment() -> dict[str, Any]:
    """Versions, devices and commit of this process."""
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
    """Record the environment of a run's next steps, and the file from which the run was imported."""
    if not cluster.is_first():
        return
    origin = imported_from
    with suppress(RunError):  # a new or unreadable record is written again
        origin = origin or read_environment(workdir).get("imported_from")
    write_json(workdir / "environment.json", environment() | ({"imported_from": origin} if origin else {}))


def read_environment(workdir: Path) -> dict[str, Any]:
    """The environment in which a run was trained; raises `RunError` where it cannot be read."""
    try:
        return json.loads((workdir / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"--workdir={workdir}: environment.json cannot be read ({error})") from None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def git_commit() -> str:
    """The commit of this checkout, with `-dirty` where files differ from it; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=20, encoding="utf-8").stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
