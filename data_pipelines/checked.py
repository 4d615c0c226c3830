"""What a check of released trees or of a prepared set found: lines for a terminal, and JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from data_pipelines.files import remarks
from data_pipelines.poses.reading import Poses
from data_pipelines.schema import FEWEST_FRAMES, RATIO_ORDER, abbreviate
from data_pipelines.scoliosis1k.metadata import counted

TREE, SET = "released tree", "prepared set"
Counts = dict[str, dict[str, int]]  # by class: number of sequences, of people and of frames


@dataclass
class PoseCheck:
    """What was found of poses, complete."""

    root: str
    frames: dict[str, int] = field(default_factory=dict)  # number of frames by sequence, as all that follow
    dropped: dict[str, int] = field(default_factory=dict)  # frames in which no joint is seen
    crowded: dict[str, int] = field(default_factory=dict)  # frames that show several people
    gaps: dict[str, int] = field(default_factory=dict)  # frames missing between others by their numbers
    never: dict[str, list[str]] = field(default_factory=dict)  # joints that are seen in no frame
    unused: dict[str, Any] = field(default_factory=dict)  # as that of silhouettes
    without_poses: list[str] = field(default_factory=list)  # sequences that have silhouettes alone
    without_silhouettes: list[str] = field(default_factory=list)  # sequences that have poses alone, where there are silhouettes

    def add(self, name: str, poses: Poses) -> None:
        """Note what was read of a sequence."""
        self.frames[name] = len(poses.joints)
        counts = poses.given - len(poses.joints), poses.crowded, poses.gaps
        for column, count in zip((self.dropped, self.crowded, self.gaps), counts, strict=True):
            if count:
                column[name] = count
        if poses.never:
            self.never[name] = poses.never

    def lines(self) -> Iterator[str]:
        yield f"  poses of {self.root}: {len(self.frames)} sequences that can be used, {sum(self.frames.values())} frames"
        never = [f"{name} ({', '.join(joints)})" for name, joints in self.never.items()]
        for title, names in (
            ("sequences without poses", self.without_poses),
            ("sequences without silhouettes", self.without_silhouettes),
            ("sequences with joints that are seen in no frame", never),
            ("sequences with frames in which no joint is seen", counted(self.dropped)),
            ("sequences with frames that show several people", counted(self.crowded)),
            ("sequences with gaps in the numbers of their poses", counted(self.gaps)),
        ):
            if names:
                yield f"  {title} ({len(names)}): {abbreviate(names, 3)}"
        for line in remarks(self.unused):
            yield f"  {line}"


@dataclass
class Check:
    """What was found; every list is complete, but of what a prepared set does not hold, three names are known."""

    root: str
    kind: str  # `TREE` or `SET`
    problems: list[str] = field(default_factory=list)  # why something cannot be used, one line each, with the remedy
    skippable: int = 0  # number of problems without which --skip-bad goes on
    left_out: list[str] = field(default_factory=list)  # of a prepared set: what --skip-bad left out, and why
    remarks: list[str] = field(default_factory=list)  # about the partition and the subjects file; what training would say, too
    unused: dict[str, Any] = field(default_factory=dict)  # number and paths by the reason why they are not used; harmless
    classes: Counts = field(default_factory=dict)
    parts: dict[str, Counts] = field(default_factory=dict)  # of a partition; empty without one
    frames: dict[str, int] = field(default_factory=dict)  # number of frames by sequence, of silhouettes if it has them
    dropped: dict[str, int] = field(default_factory=dict)  # number of masks with (almost) nobody in them, by sequence
    gaps: dict[str, int] = field(default_factory=dict)  # number of masks missing between others by their numbers, by sequence
    short: dict[str, int] = field(default_factory=dict)  # sequences of fewer than `FEWEST_FRAMES` frames
    near_duplicates: list[dict[str, Any]] = field(default_factory=list)  # sequence, twin, distance in grey levels
    poses: PoseCheck | None = None  # of poses, where there are

    def as_json(self) -> str:
        content = {"schema": "scoliojax.check/1", "usable": not self.problems, **asdict(self), "distribution": self.spread()}
        return json.dumps(content, indent=2) + "\n"

    def spread(self) -> dict[str, float]:
        """Distribution of the number of frames of a sequence."""
        if not self.frames:
            return {}
        names = ("minimum", "lower quartile", "median", "upper quartile", "maximum")
        values = np.percentile(list(self.frames.values()), [0, 25, 50, 75, 100])
        return {name: float(value) for name, value in zip(names, values, strict=True)}

    def lines(self) -> Iterator[str]:
        """The table for a terminal: names are abbreviated where they are harmless, problems are all there."""
        total = {unit: sum(one[unit] for one in self.classes.values()) for unit in ("sequences", "frames")}
        yield f"{self.root}: a {self.kind}, {total['sequences']} sequences that can be used, {total['frames']} frames"
        columns = {"all": self.classes, **self.parts}
        yield f"  {'':<10}" + "".join(f"{f'{name}: sequences':>22}{'people':>8}" for name in columns)
        for name in RATIO_ORDER:
            cells = [counts.get(name, {"sequences": 0, "people": 0}) for counts in columns.values()]
            yield f"  {name:<10}" + "".join(f"{cell['sequences']:>22}{cell['people']:>8}" for cell in cells)
        if spread := self.spread():
            yield "  frames of a sequence: " + ", ".join(f"{name} {value:g}" for name, value in spread.items())
        for title, names in (
            (f"sequences under {FEWEST_FRAMES} frames", counted(self.short)),
            ("sequences with masks of (almost) nobody", counted(self.dropped)),
            ("sequences with gaps in the numbers of their masks", counted(self.gaps)),
        ):
            if names:
                yield f"  {title} ({len(names)}): {abbreviate(names, 3)}"
        yield from self.poses.lines() if self.poses else ()
        for line in [*remarks(self.unused), *self.remarks]:
            yield f"  {line}"
        for pair in self.near_duplicates:
            yield f"  near-duplicates: {pair['sequence']} and {pair['twin']}, {pair['distance']:.2f} grey levels apart"
        for line in self.left_out:
            yield f"  left out when it was prepared: {line}"
        for line in self.problems:
            yield f"  problem: {line}"
        count = len(self.problems)
        left = f"; with --skip-bad prepare goes on without what {self.skippable} of them are about"
        yield f"{count} problem{'s' * (count != 1)}" + (left if self.skippable and self.frames else "")
