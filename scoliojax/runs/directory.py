"""The run directory, and checks that a config and data belong to it."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from data_pipelines.command import unwritable
from data_pipelines.schema import abbreviate, is_url
from data_pipelines.splits import RATIO
from scoliojax.devices import cluster
from scoliojax.errors import RunError
from scoliojax.files import read_json, write_json
from scoliojax.runs import settings
from scoliojax.runs.environment import RATES, RateChange, environment, read_rates
from scoliojax.runs.settings import FREE_KEYS

UNKNOWN_PARTS = "an older version trained this run without recording which sequences it trained on"
REMEDY = "restore it from a copy, or start again in another folder"
FOLDERS = ("checkpoints", "best", "evaluation", "calibration", "reference", "tensorboard", "profile", "compiled")
RATE = "optimizer.learning_rate"  # may be lowered when a run goes on
Parts = Mapping[str, Sequence[str]]  # ids of the sequences by part


@dataclass(frozen=True)
class RunData:
    """The content of `data.json`: what a run was trained on. An older version did not write the parts."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012, read by pydantic

    digest: str | None  # of the data; None for an imported run that was not trained here
    parts: dict[str, list[str]] | None = None  # sorted ids of the sequences by part
    parts_digest: str | None = None  # of `parts`

    def __post_init__(self):
        if self.parts is not None and self.parts_digest != digest_of(self.parts):
            raise ValueError("parts does not match parts_digest")


def digest_of(parts: Parts) -> str:
    """Sixteen hexadecimal digits that change with any id of any part, whatever its place."""
    content = {part: sorted(ids) for part, ids in parts.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Nested config sections as a flat dictionary, `{"data.root": ...}`, with the types of JSON."""
    return json.loads(json.dumps(flatten_dict(config, sep=".")))


def read_config(workdir: Path, field: str = "--workdir") -> dict[str, Any]:
    """The config of a run directory, its lists as tuples, as recipes have them; keys of newer versions get their default.

    A relative `data.root` or partition file, as older versions wrote it, is sought from the present folder and from `workdir`
    on. Raises `RunError`, which names the option `field`, where there is no config.
    """
    name = f"{field}={workdir}: config.json"
    try:
        config = settings.with_tuples(read_json(workdir / "config.json", dict[str, Any], REMEDY, name))
    except FileNotFoundError:
        raise RunError(f"{field}={workdir} holds no run (no config.json); train there first") from None
    if isinstance(data := config.get("data"), dict):
        data.setdefault("share_frames", False)  # as before there was this key: sharing changes the last digits
    settings.complete(config)
    if problem := settings.no_config(config):
        raise RunError(f"{name} cannot be read ({problem}); {REMEDY}")
    if isinstance(data := config.get("data"), dict):
        data |= {key: _place(value, workdir) for key, value in data.items() if key in _places(data)}
    return config


def _places(data: Mapping[str, Any]) -> dict[str, str]:
    """The keys of the section `data` that hold the path of a file or folder, and the paths."""
    found = {key: data[key] for key in ("root", "partition") if isinstance(data.get(key), str) and data[key]}
    return {key: path for key, path in found.items() if not (key == "partition" and RATIO.fullmatch(path))}


def _place(path: str, workdir: Path) -> str:
    """An absolute path, or a URL; a relative path is sought from the present folder and from `workdir` on."""
    if is_url(path):
        return path
    try:
        places = [base / Path(path).expanduser() for base in (Path.cwd(), workdir)]
    except RuntimeError:  # the home of a user that there is not; `settings.check` says so
        return path
    return str(next(filter(os.path.exists, places), places[0]))


def check_places(workdir: Path, config: dict[str, Any], field: str = "--workdir") -> None:
    """Raise `RunError` with the remedy where the data or the partition file of a run is no longer there."""
    for key, path in _places(config["data"]).items():
        if not is_url(path) and not os.path.exists(_place(path, workdir)):
            raise RunError(
                f"{field}={workdir}: data.{key}={path!r} is not there; say where with --config.data.{key}=PATH: to each "
                "scoliojax.main --mode eval, or once to a training, which records it"
            )


def check_layout(workdir: Path) -> None:
    """Raise `RunError` where something stands in the way of a folder of the run, or checkpoints stand there without config."""
    for name in FOLDERS:
        if os.path.lexists(workdir / name) and not (workdir / name).is_dir():
            raise RunError(f"--workdir={workdir}: {name} is no folder; move it away, or give another --workdir")
    if not (workdir / "config.json").exists():
        for name in ("checkpoints", "best"):
            if any(path.name.isdigit() for path in workdir.glob(f"{name}/*")):
                raise RunError(
                    f"--workdir={workdir} has {name} and no config.json, so nothing says what they were trained on; restore "
                    "config.json and data.json from a copy, or give another --workdir"
                )


def claim(workdir: Path, config: dict[str, Any], data_digest: str | None, parts: Parts | None = None) -> None:
    """Make `workdir` the directory of a run with this config and these data, or check that it already is.

    Writes `config.json`, `data.json` and `environment.json`. An imported run has no data yet (`data_digest` and `parts` None);
    its first training run records them. A learning rate that is lower than the recorded one is not recorded yet: see
    `record_rate`. Raises `RunError` when the directory cannot be written, or with the differences when it belongs to another
    config or other data.
    """
    rate = None
    if (workdir / "config.json").exists():
        check_config(workdir, config, lower=True)
        check_data(workdir, data_digest, parts)
        rate = rate_of(read_config(workdir))
        if parts is not None and not parts_known(workdir):
            cluster.print_once(f"{UNKNOWN_PARTS}; those of today's partition are recorded now")
    if not cluster.is_first():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        record_data(workdir, data_digest, parts)
        if not (workdir / "environment.json").exists():
            write_json(workdir / "environment.json", environment())
        _write_config(workdir, config, rate)
    except OSError as error:
        raise RunError(f"--workdir={workdir} {unwritable(error)}") from None


def origin_of(config: dict[str, Any], data_digest: str | None, parts: Parts | None) -> str | None:
    """What the checkpoints of a run are marked with, so that another run's are told; None where the data are not known."""
    if data_digest is None or parts is None:
        return None
    return f"seed {config['seed']}, data {data_digest}, parts {digest_of(parts)}"


def record_data(workdir: Path, data_digest: str | None, parts: Parts | None) -> None:
    """Write `data.json`."""
    ids = None if parts is None else {part: sorted(parts[part]) for part in parts}
    write_json(workdir / "data.json", asdict(RunData(data_digest, ids, None if ids is None else digest_of(ids))))


def parts_known(workdir: Path) -> bool:
    """False for a run that an older version trained without recording the ids of its parts."""
    recorded = read_data(workdir)
    return recorded.digest is None or recorded.parts is not None


def rate_of(config: dict[str, Any]) -> float | None:
    """The learning rate of a config; None where its optimiser has no such key."""
    return config["optimizer"].get("learning_rate")


def _write_config(workdir: Path, config: dict[str, Any], rate: float | None = None) -> None:
    """Write `config.json` with absolute paths, so that the run can be opened from any folder."""
    content = config | {"data": config["data"] | {key: _place(path, workdir) for key, path in _places(config["data"]).items()}}
    if rate is not None:
        content["optimizer"] = config["optimizer"] | {"learning_rate": rate}
    write_json(workdir / "config.json", content)


def record_rate(workdir: Path, config: dict[str, Any], step: int) -> str | None:
    """Record the learning rate of the steps after `step`, where it is lower than before; returns a remark for the user.

    The history is `learning_rates.json`; where a run goes on from an earlier step than before, it is cut there.
    """
    old, new = rate_of(read_config(workdir)), rate_of(config)
    if old is None or new is None:
        return None
    known, latest = read_rates(workdir), RateChange(step, old, new)
    changes = [replace(change, step=min(change.step, step)) for change in known]
    if old != new:
        changes = [change for change in changes if change != latest] + [latest]  # it is there after a crash in these lines
    if changes != known and cluster.is_first():
        write_json(workdir / RATES, [asdict(change) for change in changes])
    cluster.barrier("rate")
    if old == new:
        return None
    if cluster.is_first():
        _write_config(workdir, config)
    return f"{RATE} is lowered from {old:g} to {new:g} after step {step}"


def check_config(workdir: Path, config: dict[str, Any], lower: bool = False, field: str = "--workdir") -> None:
    """Raise `RunError` with every key in which `config` differs from that of the run in `workdir`.

    `lower`: the learning rate may be lower than it was; `field`: option that named the directory, for messages. A partition
    under another name is judged by `check_data`.
    """
    recorded, given = flatten(read_config(workdir, field)), flatten(config)
    differing = [key for key in sorted((recorded.keys() | given.keys()) - FREE_KEYS) if recorded.get(key) != given.get(key)]
    if "data.partition" in differing and _same_partition(workdir, recorded["data.partition"], given["data.partition"], field):
        differing.remove("data.partition")
    lowered = lower and RATE in differing and isinstance(recorded.get(RATE), (int, float))
    if lowered and given.get(RATE, math.inf) < recorded[RATE]:
        differing.remove(RATE)
    if not differing:
        return
    texts = [f"{key} ({recorded.get(key, 'absent')!r} there, {given.get(key, 'absent')!r} here)" for key in differing]
    hint = ""
    if RATE in differing:
        hint = (
            f"; {RATE} may only be lowered, and only in training: leave --config out, which takes the recorded one, or "
            f"give --config.{RATE}={recorded.get(RATE)}"
        )
    raise RunError(f"{field}={workdir} belongs to another config: {', '.join(texts)}; give another {field}{hint}")


def _same_partition(workdir: Path, there: Any, here: Any, field: str) -> bool:
    """True where two values of data.partition are two ways to name one file, or their ids are compared."""
    if read_data(workdir, field).parts is not None:
        return True
    paths = [_places({"partition": value}).get("partition") for value in (there, here)]
    return None not in paths and len({os.path.realpath(_place(str(path), workdir)) for path in paths}) == 1


def check_data(workdir: Path, data_digest: str | None, parts: Parts | None = None, field: str = "--workdir") -> None:
    """Raise `RunError` when the run in `workdir` was started with other data, or with other sequences in a part."""
    recorded = read_data(workdir, field)
    if recorded.digest not in (None, data_digest):
        raise RunError(
            f"{field}={workdir} belongs to other data (other sequences, subjects, labels or frame counts); give the "
            f"data.root it began with, or another {field}"
        )
    if parts is None or recorded.parts is None or recorded.parts_digest == digest_of(parts):
        return
    there, here = ({one: part for part, ids in side.items() for one in ids} for side in (recorded.parts, parts))
    moved = sorted(one for one in there.keys() | here.keys() if there.get(one) != here.get(one))
    shown = [f"{one} ({there.get(one, 'in no part')} there, {here.get(one, 'in no part')} here)" for one in moved]
    raise RunError(
        f"{field}={workdir} belongs to another data.partition, although its name may be the same: {abbreviate(shown, 3)}; "
        f"give the partition it began with, or another {field}"
    )


def read_data(workdir: Path, field: str = "--workdir") -> RunData:
    """What a run was trained on."""
    name = f"{field}={workdir}: data.json"
    try:
        return read_json(workdir / "data.json", RunData, REMEDY, name)
    except FileNotFoundError:
        raise RunError(f"{name} is missing; {REMEDY}") from None
