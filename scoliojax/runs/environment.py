"""The environment of a run: versions, devices and commit, kept in `environment.json`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.files import write_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets", "scoliojax")


def describe_move(workdir: Path) -> str | None:
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
