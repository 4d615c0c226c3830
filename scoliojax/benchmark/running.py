"""Cost of a whole run: time to the first step, growth of memory, time of the published recipe, time of the scores."""

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
from data_pipelines.schema import CLASSES
from scoliojax.benchmark.timing import Row, interleave
from scoliojax.errors import RunError
from scoliojax.scores.bootstrap import DRAWS, estimates
from scoliojax.scores.metrics import Scored, Scorer

RECIPE = f"{sconet_mt.__file__}:quickstart"
SEQUENCES = 10_000  # scored


@contextmanager
def _run(workdir: Path, options: list[str]) -> Iterator[Iterator[tuple[int, int]]]:
    """Run the quickstart; yields an iterator of its process id and last logged step, and kills the run at the end."""
    workdir.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "scoliojax.main", f"--config={RECIPE}", f"--workdir={workdir}", *options]
    environment = os.environ | {"SCOLIOJAX_CACHE": str(workdir.parent / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # otherwise the cold start would find compiled programs
    with (workdir.parent / f"{workdir.name}.log").open("w+", encoding="utf-8", errors="replace") as log:
        run = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

        def watch() -> Iterator[tuple[int, int]]:
            lines = workdir / "metrics.jsonl"
            while True:
                if run.poll() is not None:
                    log.seek(0)
                    raise RunError(f"the quickstart ended early:\n{log.read()[-2000:]}")
                logged = lines.read_text(encoding="utf-8").splitlines() if lines.exists() else []
                yield run.pid, (json.loads(logged[-1])["step"] if logged else 0)
                time.sleep(0.02)

        try:
            yield watch()
        finally:
            run.kill()
            run.wait()


def first_step(rounds: int) -> list[Row]:
    """Seconds from the command to the first step of the quickstart, with an empty and with a filled compilation cache."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            for kind, times in seconds.items():
                start = time.perf_counter()
                with _run(Path(folder) / kind, ["--config.train.log_every=1"]) as watch:
                    next(step for _, step in watch if step)
                times.append(time.perf_counter() - start)
    return [Row(f"time to first step, quickstart, {kind}", "s", times, []) for kind, times in seconds.items()]


def memory(steps: int) -> list[Row]:
    """Resident memory of the quickstart, run for `steps` steps, after the first tenth of them."""
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
    """Minutes of the published recipe including its evaluation, on synthetic walkers of the size of Scoliosis1K."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        size = ["--config.data.synthetic.subjects=1493", "--config.data.synthetic.frames=300"]
        run = ["scoliojax.main", f"--config={sconet_mt.__file__}", f"--workdir={folder}/run", *size, *options]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", *run], capture_output=True, encoding="utf-8", errors="replace")
        minutes = (time.perf_counter() - start) / 60.0
    if done.returncode:
        raise RunError(f"the recipe ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    accuracy = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["accuracy"])
    return [Row(f"published recipe, end to end {' '.join(options)}".strip(), "min", [minutes], [], " ".join(accuracy))]


def scores(rounds: int) -> list[Row]:
    """Seconds of all scores with intervals for random predictions of two sequences per subject."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet((1.0, 1.0, 1.0), SEQUENCES)  # n k
    labels = rng.integers(0, 3, SEQUENCES)  # n
    scored = Scored(labels, probabilities, probabilities.argmax(1), probabilities[:, 0] < 0.5)
    subjects = [str(number // 2) for number in range(SEQUENCES)]
    seconds = interleave({"ours": lambda: estimates(Scorer(scored, CLASSES, 0.05), subjects)}, rounds)["ours"]
    return [Row(f"scores with intervals, {SEQUENCES} sequences, {DRAWS} draws", "s", seconds, [])]
