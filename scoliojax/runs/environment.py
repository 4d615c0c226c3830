"""The environment of a run, `environment.json`: versions, devices and commit; and changes of its learning rate."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.files import read_json, write_json

RATES = "learning_rates.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets", "scoliojax")


@dataclass(frozen=True)
class Environment:
    """The content of `environment.json`; every version of it has some of these, and None is not known."""

    __pydantic_config__ = {"extra": "allow"}  # noqa: RUF012, read by pydantic

    command: list[str] | None = None
    python: str | None = None
    platform: str | None = None
    packages: dict[str, str] | None = None
    devices: list[str] | None = None
    processes: int | None = None
    git_commit: str | None = None
    imported_from: str | None = None  # the checkpoint of another implementation


@dataclass(frozen=True)
class RateChange:
    """A learning rate that was lowered when the run went on."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012, read by pydantic

    step: int  # the last finished one before the change
    old: float
    new: float


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
    path, origin = workdir / "environment.json", imported_from
    if path.exists():
        try:
            origin = origin or _recorded(workdir).imported_from
        except RunError as error:
            aside = path.with_name("damaged-environment.json")
            path.replace(aside)
            print(f"{error}; it is set aside as {aside}", flush=True)
    write_json(path, environment() | ({"imported_from": origin} if origin else {}))


def read_environment(workdir: Path) -> dict[str, Any]:
    """The environment in which a run was trained, and as `learning_rates` the changes of its learning rate, if any.

    Raises `RunError` where it cannot be read.
    """
    found = vars(_recorded(workdir))
    changes = [asdict(change) for change in read_rates(workdir)]
    return {key: value for key, value in found.items() if value is not None} | ({"learning_rates": changes} if changes else {})


def _recorded(workdir: Path) -> Environment:
    """The content of `environment.json`; raises `RunError` where it cannot be read."""
    name, remedy = f"--workdir={workdir}: environment.json", "restore it from a copy, or train on there, which writes it anew"
    try:
        return read_json(workdir / "environment.json", Environment, remedy, name)
    except FileNotFoundError:
        raise RunError(f"{name} is missing; {remedy}") from None


def read_rates(workdir: Path) -> list[RateChange]:
    """The changes of a run's learning rate, in order; raises `RunError` where their file cannot be read."""
    name, remedy = f"--workdir={workdir}: {RATES}", "restore it from a copy, or delete it: then the changes are not known"
    try:
        return read_json(workdir / RATES, list[RateChange], remedy, name)
    except FileNotFoundError:
        return []


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
