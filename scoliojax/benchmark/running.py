"""What a whole run costs beside its steps: the time until the first is done, and memory that grows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from configs import sconet_mt
from scoliojax.benchmark.timing import Row
from scoliojax.errors import RunError

RECIPE = f"{sconet_mt.__file__}:quickstart"


@contextmanager
def _run(workdir: Path, options: list[str]) -> Iterator[Iterator[tuple[int, int]]]:
    """Start the quickstart; yields its process id and the steps that it has logged, again and again, and ends it afterwards."""
    workdir.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "scoliojax.main", f"--config={RECIPE}", f"--workdir={workdir}", *options]
    environment = os.environ | {"SCOLIOJAX_CACHE": str(workdir.parent / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # the cold start is to be cold
    with (workdir.parent / f"{workdir.name}.log").open("w+", encoding="utf-8", errors="replace") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

        def watch() -> Iterator[tuple[int, int]]:
            lines = workdir / "metrics.jsonl"
            while True:
                if run.poll() is not None:
                    log.seek(0)
                    raise RunError(f"the quickstart ended early:\n{log.read()[-2000:]}")
                found = lines.read_text(encoding="utf-8").splitlines() if lines.exists() else []
                yield run.pid, (json.loads(found[-1])["step"] if found else 0)
                time.sleep(0.02)

        try:
            yield watch()
        finally:
            run.kill()
            run.wait()


def first_step(rounds: int) -> list[Row]:
    """Seconds from the command to the quickstart's first finished step, with an empty compilation cache and a filled one."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            for kind, found in seconds.items():
                start = time.perf_counter()
                with _run(Path(folder) / kind, ["--config.train.log_every=1"]) as watch:
                    next(step for _, step in watch if step)
                found.append(time.perf_counter() - start)
    return [Row(f"time to first step, quickstart, {kind}", "s", found, []) for kind, found in seconds.items()]


def memory(steps: int) -> list[Row]:
    """Resident memory of the quickstart, run for so many steps, from a tenth of them on."""
    options = [f"--config.train.steps={steps + 10}", "--config.train.log_every=1", "--config.train.eval_every=0"]
    resident: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, _run(Path(folder) / "run", options) as watch:
        for process, step in watch:
            if step >= steps // 10:
                pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
                resident[step] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            if step >= steps:
                break
    early, late = np.array_split(np.array([resident[step] for step in sorted(resident)]), 2)
    growth = f"second half against first: {100.0 * (np.median(late) / np.median(early) - 1.0):+.1f} %"
    return [Row(f"resident memory over {steps} steps, quickstart", "MiB", list(resident.values()), [], growth)]


def recipe(options: list[str]) -> list[Row]:
    """Minutes of the published recipe from the command to the evaluation, on walkers as many and as long as Scoliosis1K's."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        whole = ["--config.data.synthetic.subjects=1493", "--config.data.synthetic.frames=300", *options]
        command = [sys.executable, "-m", "scoliojax.main", f"--config={sconet_mt.__file__}", f"--workdir={folder}/run", *whole]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="replace")
        minutes = (time.perf_counter() - start) / 60.0
    if done.returncode:
        raise RunError(f"the recipe ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    accuracy = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["accuracy"])
    return [Row(f"published recipe, end to end {' '.join(options)}".strip(), "min", [minutes], [], " ".join(accuracy))]
