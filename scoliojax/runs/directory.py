"""The run directory, and checks that a config and data belong to it."""

import json
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.files import write_json
from scoliojax.runs.environment import environment

# Keys that may change between restarts of a run, because no step depends on them.
FREE_KEYS = {
    "data.root",  # the data may move; its digest is compared instead
    "data.allow_missing",  # without it the same partition is refused; it changes nothing else
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


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Nested config sections as a flat dictionary, `{"data.root": ...}`, with the types of JSON."""
    return json.loads(json.dumps(flatten_dict(config, sep=".")))


def read_config(workdir: Path, field: str = "--workdir") -> dict[str, Any]:
    """The config of a run directory, its lists as tuples, as recipes have them.

    Raises `RunError`, which names the option `field`, where there is none.
    """
    try:
        config = json.loads((workdir / "config.json").read_text(encoding="utf-8"), object_hook=_with_tuples)
        if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
            raise ValueError("it has no section 'model'")
        if isinstance(config.get("data"), dict):
            config["data"].setdefault("allow_missing", False)  # a run older than this key
        return config
    except FileNotFoundError:
        raise RunError(f"{field}={workdir} holds no run (no config.json); train there first") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{field}={workdir}: config.json cannot be read ({error})") from None


def _with_tuples(section: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}


def claim(workdir: Path, config: dict[str, Any], data_digest: str | None) -> None:
    """Make `workdir` the directory of a run with this config and these data, or check that it already is.

    Writes `config.json`, `data.json` and `environment.json`. An imported run has no data yet (`data_digest` None); its first
    training run records their digest. Raises `RunError` when the directory cannot be written, or with the differences when it
    belongs to another config or other data.
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
    """Raise `RunError` with every key in which `config` differs from that of the run in `workdir`."""
    recorded, given = flatten(read_config(workdir)), flatten(config)
    differing = [
        f"{key} ({recorded.get(key, 'absent')!r} there, {given.get(key, 'absent')!r} here)"
        for key in sorted((recorded.keys() | given.keys()) - FREE_KEYS)
        if recorded.get(key) != given.get(key)
    ]
    if differing:
        raise RunError(f"--workdir={workdir} belongs to another config: {', '.join(differing)}; give another --workdir")


def check_data(workdir: Path, data_digest: str | None) -> None:
    """Raise `RunError` when the run in `workdir` was started with other data."""
    if read_data(workdir) not in (None, data_digest):
        raise RunError(
            f"--workdir={workdir} belongs to other data (other sequences, subjects, labels or frame counts); give the "
            "data.root it began with, or another --workdir"
        )


def read_data(workdir: Path) -> str | None:
    """Digest of the data that a run was trained on; None for an imported run that was not trained here."""
    try:
        return json.loads((workdir / "data.json").read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"--workdir={workdir}: data.json cannot be read ({error}); give another folder") from None
