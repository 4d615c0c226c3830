"""Several processes at once on one place, as users start them: who gets it, what the others say, and what is left.

    python -m tests.scripts.together               8 trainings in one run directory, 8 reports and 8 exports of one run

Each time the first is killed while it works (SIGKILL) and all are started again. `tests/runs/test_roads.py` does the same with
starts on one raw tree, `tests/test_files.py` and `tests/data_pipelines/test_locks.py` with light processes.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.scripts import chaos

PROCESSES = 8
TRAIN = ("scoliojax.main", *chaos.RUN, "--config.train.steps=40", "--config.train.checkpoint_every=5")
HELD = re.compile(r"error: --workdir=\S+ is being trained in \(process \d+ on host \S+, since .*\); wait for its end")


def start(module: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=chaos.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def end(jobs: list[subprocess.Popen]) -> Counter:
    """Statuses of all jobs; the error of one that failed has to be the line of a place that is held."""
    statuses: Counter = Counter()
    for job in jobs:
        _, said = job.communicate(timeout=1800)
        statuses[job.returncode] += 1
        if job.returncode not in (0, -9):
            assert HELD.match(said), said
            assert len(said.splitlines()) == 1, said
    return statuses


def trainings(workdir: Path) -> Counter:
    """The first is killed after its first checkpoint, while seven others are refused; then eight come again."""
    first = start(*TRAIN, f"--workdir={workdir}")
    while not list(workdir.glob("checkpoints/[0-9]*")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    others = [start(*TRAIN, f"--workdir={workdir}") for _ in range(PROCESSES - 1)]
    time.sleep(1.0)
    first.kill()
    statuses = end([first, *others])
    again = end([start(*TRAIN, f"--workdir={workdir}") for _ in range(PROCESSES)])
    assert again[0] >= 1, again
    return statuses + again


def writers(module: str, workdir: Path, name: str) -> Counter:
    """Reports or exports of one run, the first killed at its work, leave one whole folder and nothing else."""
    jobs = [start(module, f"--workdir={workdir}") for _ in range(PROCESSES)]
    while not list(workdir.glob(f".{name}.*")) and any(job.poll() is None for job in jobs):
        time.sleep(0.01)
    jobs[0].kill()
    statuses = end(jobs)
    statuses += end([start(module, f"--workdir={workdir}")])
    left = [path.name for path in workdir.iterdir() if path.name.startswith(".")]
    assert not left, left
    return statuses


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        alone, together = Path(scratch) / "alone", Path(scratch) / "together"
        assert end([start(*TRAIN, f"--workdir={alone}")]) == {0: 1}
        print("trainings by exit status", dict(trainings(together)), flush=True)
        same = chaos.outcome(together) == chaos.outcome(alone)
        print("the run is that of one process alone:", same, flush=True)
        assert same
        for module, name, files in (
            ("scoliojax.report", "report", {"report.html", "figures", "cases.csv", "strips.csv", "MODEL_CARD.md"}),
            ("scoliojax.export", "export", {"network.stablehlo", "network.json", "MODEL_CARD.md"}),
        ):
            print(f"{name}s by exit status", dict(writers(module, together, name)), flush=True)
            assert {path.name for path in (together / name).iterdir()} == files


if __name__ == "__main__":
    main()
