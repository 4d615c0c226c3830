"""Posture of one walk as the content of `posture.json`, of a row of the summary, and of the curves over the frames."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines.findings import Finding
from data_pipelines.poses.asymmetry import ENTRIES, MEASURES, UNITS, asymmetry_vector
from data_pipelines.poses.camera import TILTED, Tilt, camera_tilt, levelled
from data_pipelines.poses.posture import Measure, posture
from data_pipelines.quality import Quality
from data_pipelines.video.walk import Flag, Walk, quality_flags

SCHEMA = "scoliojax.posture/1"  # with its version; described in docs/posture.md
DISCLAIMER = "Research software: not a medical device and not a diagnosis."
SLUGS = {  # names of the measures in columns, with their units
    "shoulder line": "shoulder_line_degrees", "pelvis line": "pelvis_line_degrees", "trunk lean": "trunk_lean_degrees",
    "lateral shift": "lateral_shift_percent_of_height", "arm swing left": "arm_swing_left_percent_of_height",
    "arm swing right": "arm_swing_right_percent_of_height", "cadence": "cadence_steps_per_minute",
    "step symmetry": "step_symmetry_percent_of_stride",
}  # fmt: skip
TURNED = ("shoulder line", "pelvis line", "trunk lean", "lateral shift")  # measures that a tilted camera changes
LIMITS = (
    "No number is a Cobb angle, and none can be turned into one: that angle lies between vertebrae, on an X-ray.",
    "One camera sees a picture. Somebody who turns the trunk looks like somebody who shifts it, and one shoulder nearer to the "
    "camera than the other looks higher or lower (perspective).",
    "A tilted camera tilts every line by the same angle. Its tilt is estimated from where the walker's legs stand upright, "
    "which takes a lean of the whole body for a tilt of the camera.",
    "Places of joints are those of a detector. How far it is off, walk by walk, is not known.",
)
DIGITS = 4


@dataclass(frozen=True)
class Posture:
    """The posture of one walk; without `measures` where it is no walk."""

    walk: Walk
    quality: Quality
    tilt: Tilt
    measures: tuple[Measure, ...]  # in the picture, of the frames that are not damaged
    level: tuple[Measure, ...]  # the same with the camera's tilt taken off; empty where it is not known
    asymmetry: np.ndarray  # float32 [8, 3]; of all frames, as a network reads it

    @property
    def damaged(self) -> np.ndarray:
        """The frames that were not measured, bool `[s]`."""
        return np.any(list(self.quality.bad.values()), axis=0)  # s

    @property
    def strides(self) -> int:
        """The largest number of strides in which something was measured."""
        return max((measure.strides for measure in self.measures), default=0)


def posture_of(walk: Walk) -> Posture:
    """The posture of a walk that has poses; raises `DataError` for one that has none."""
    quality, poses = walk.pose_quality, walk.poses
    assert poses is not None  # or its quality had raised
    if quality.grave:
        return Posture(walk, quality, Tilt(np.nan, np.nan, False, "this is no walk"), (), (), asymmetry_vector(poses))
    damaged = np.any(list(quality.bad.values()), axis=0)  # s
    seen = np.where(damaged[:, None, None], 0, poses)  # s 17 3
    tilt = camera_tilt(seen, walk.times, walk.shape)
    level = posture(levelled(seen, tilt.degrees), walk.times) if tilt.known else ()
    return Posture(walk, quality, tilt, posture(seen, walk.times), level, asymmetry_vector(poses))


def flags_of(found: Posture) -> Iterator[Flag]:
    """Remarks about a posture: of the input, of its poses, and of the camera; none about silhouettes."""
    walk = found.walk
    of_quality = quality_flags(len(walk.frames), walk.quality)  # of a video that of its silhouettes
    yield from (flag for flag in walk.flags if flag not in of_quality)
    yield from quality_flags(len(walk.frames), found.quality)
    if not found.measures:
        return
    if not found.tilt.known:
        yield Flag("horizon unknown", None, f"the camera's tilt cannot be told: {found.tilt.why}; hold the camera level")
    elif abs(found.tilt.degrees) >= TILTED:
        message = (
            f"the picture is turned by about {abs(found.tilt.degrees):.1f} degrees, and so is every line in it: read the "
            "levelled numbers, and hold the camera level"
        )
        yield Flag("tilted camera", None, message)


def as_dict(found: Posture, backend: str | None, models: dict[str, str]) -> dict[str, Any]:
    """The content of `posture.json`; `backend` found the joints with `models` (SHA-256 by name), None where they were given."""
    walk = found.walk
    heading = {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "synthetic": bool(walk.source.get("synthetic")),
        "input": {"name": walk.name, "kind": walk.kind, **walk.source},
        "joints": {"backend": backend, "models": models, "frames": len(walk.frames)},
    }
    return heading | section(found)


def section(found: Posture) -> dict[str, Any]:
    """What is known of a posture, also as the key `posture` of a screening's `result.json`."""
    walk, quality = found.walk, found.quality
    grave: list[Finding] = quality.grave
    level = {measure.name: measure for measure in found.level if measure.name in TURNED}
    gait = quality.gait
    return {
        "quality": {
            "frames": len(walk.frames),
            "bad_frames": quality.bad_frames,
            "damage": {kind: int(frames.sum()) for kind, frames in quality.bad.items()},
            "gait_cycles": _rounded(gait.cycles),
            "cadence": _rounded(gait.cadence),
        },
        "no_measures": [{"name": one.name, "message": one.message} for one in grave],
        "camera": {
            "tilt": _rounded(found.tilt.degrees),
            "error": _rounded(found.tilt.error),
            "known": found.tilt.known,
            "why_not": found.tilt.why,
        },
        "measures": [_measure(one, level.get(one.name)) for one in found.measures],
        "asymmetry": [
            {"entry": entry, "unit": UNITS[number % len(MEASURES)], "value": float(value)}
            for number, (entry, value) in enumerate(zip(ENTRIES, found.asymmetry.ravel(), strict=True))
        ]
        if found.measures
        else [],
        "limits": list(LIMITS),
        "flags": [flag._asdict() for flag in flags_of(found)],
    }


def _measure(measure: Measure, level: Measure | None) -> dict[str, Any]:
    return {
        "name": measure.name,
        "unit": measure.unit,
        "about": measure.about,
        "median": _rounded(measure.median),
        "spread": _rounded(measure.spread),
        "strides": measure.strides,
        "frames": int(np.isfinite(measure.curve).sum()),
        "levelled": None if level is None else _rounded(level.median),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), DIGITS)


FRAME_COLUMNS = ("frame", "time_seconds", "damaged", *SLUGS.values())
MEASURE_COLUMNS = ("measure", "unit", "median", "spread_over_strides", "strides", "frames", "levelled_median")
SUMMARY_COLUMNS = (
    "input", "frames", "damaged_frames", "strides",
    *(f"{slug}_{what}" for slug in SLUGS.values() for what in ("median", "spread")),
    *(f"{SLUGS[name]}_levelled" for name in TURNED),
    "camera_tilt_degrees", "horizon", "flags", "no_measures", "synthetic", "error",
)  # fmt: skip


def frame_rows(found: Posture) -> Iterator[list[Any]]:
    """The rows of `frames.csv`: what each frame shows, in the picture; empty where it cannot be told."""
    times = found.walk.times
    for row, (number, bad) in enumerate(zip(found.walk.frames, found.damaged, strict=True)):
        values = [_rounded(float(measure.curve[row])) for measure in found.measures]
        yield [int(number), "" if times is None else f"{times[row]:.3f}", "yes" if bad else "no", *map(_cell, values)]


def measure_rows(result: dict[str, Any]) -> Iterator[list[Any]]:
    """The rows of `measures.csv`: the measures, then the entries of the asymmetry vector, which have a value alone."""
    for one in result["measures"]:
        cells = (one[key] for key in ("median", "spread", "strides", "frames", "levelled"))
        yield [one["name"], one["unit"], *map(_cell, cells)]
    for one in result["asymmetry"]:
        yield [f"asymmetry, {one['entry']}", one["unit"], f"{one['value']:.6g}", "", "", "", ""]


def as_row(name: str, result: dict[str, Any] | None, error: str = "") -> dict[str, Any]:
    """A row of `posture.csv`: with measures, with the reasons why there are none, or with the error."""
    row: dict[str, Any] = dict.fromkeys(SUMMARY_COLUMNS, "") | {"input": name, "error": error}
    if result is None:
        return row
    row |= {
        "frames": result["quality"]["frames"],
        "damaged_frames": result["quality"]["bad_frames"],
        "strides": max((one["strides"] for one in result["measures"]), default=0),
        "flags": "; ".join(flag["name"] for flag in result["flags"]),
        "no_measures": "; ".join(reason["name"] for reason in result["no_measures"]),
        "synthetic": "yes" if result["synthetic"] else "no",
    }
    if not result["measures"]:
        return row
    row |= {
        "camera_tilt_degrees": _cell(result["camera"]["tilt"]),
        "horizon": "known" if result["camera"]["known"] else "unknown",
    }
    for one in result["measures"]:
        slug = SLUGS[one["name"]]
        row |= {f"{slug}_median": _cell(one["median"]), f"{slug}_spread": _cell(one["spread"])}
        if one["name"] in TURNED:
            row[f"{slug}_levelled"] = _cell(one["levelled"])
    return row


def _cell(value: Any) -> Any:
    return "" if value is None else value
