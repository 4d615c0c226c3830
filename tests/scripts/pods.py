"""Run the same training on different numbers of processes and devices of this machine, and compare.

python -m tests.scripts.pods [NETWORK]  2 and 4 processes x 1 and 2 devices, moves between them, evaluation under 1, 2 and 3

NETWORK: a recipe of configs, sconet_mt if none is given.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scoliojax.runs.run import open_run
from tests.scripts import chaos

RUN = (
    *chaos.SMALL,
    "--config.data.subjects_per_batch=8",
    "--config.data.synthetic.subjects=56",  # 29 of them to be evaluated: divisible by neither 2 nor 3
    "--config.data.sequences_per_eval_batch=2",
    "--config.model.channels=(4,6,8,8)",
    "--config.model.embedding_dim=8",
    "--config.optimizer.learning_rate=1e-4",  # so that rounding stays rounding over ten steps
    "--config.loss.margin=10.0",  # all triplets count: one more or less in so small a batch is a jump of the loss
)


def options(network: str) -> list[str]:
    """`RUN` of another recipe; 12 sequences of a batch can be shared by three classes and by four devices."""
    return [
        f"--config=configs/{network}.py:quickstart",
        *RUN[1:],
        *["--config.data.subjects_per_batch=12"] * (network == "drf"),
    ]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(processes: int, devices: int, *arguments: object) -> list[subprocess.Popen]:
    """Begin so many processes as one job on this machine, each with so many simulated devices."""
    port = free_port()
    command = [sys.executable, "-m", "scoliojax.main", *map(str, arguments)]
    if processes > 1:
        command += [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
    flags = f"--xla_force_host_platform_device_count={devices} {os.environ.get('SCOLIOJAX_TEST_FLAGS', '')}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    return [
        subprocess.Popen(
            [*command, *([f"--process={index}"] if processes > 1 else [])],
            cwd=chaos.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        for index in range(processes)
    ]


def finish(jobs: list[subprocess.Popen], status: int = 0) -> list[str]:
    """Wait for a job; returns what each process printed."""
    printed = [job.communicate(timeout=600)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [status] * len(jobs), "\n".join(printed)
    return printed


def run(processes: int, devices: int, *arguments: object) -> list[str]:
    return finish(start(processes, devices, *arguments))


def log(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def parameters(workdir: Path) -> np.ndarray:
    """All parameters of the newest checkpoint, in a row."""
    state = open_run(workdir).network("newest").state
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])


def compare(workdir: Path, truth: Path, steps: int = 10) -> tuple[bool, float, float]:
    """Whether all batches are the same; how far apart the losses of the first steps are; and the parameters, of their norm."""
    mine, theirs = ([line for line in log(folder) if "loss" in line] for folder in (workdir, truth))  # of steps
    same = [line["batch_fingerprint"] for line in mine] == [line["batch_fingerprint"] for line in theirs]
    apart = max(abs(one["loss"] / other["loss"] - 1) for one, other in zip(mine[:steps], theirs[:steps], strict=True))
    here, there = parameters(workdir), parameters(truth)
    return same, apart, float(np.linalg.norm(here - there) / np.linalg.norm(there))


def predictions(workdir: Path) -> bytes:
    (folder,) = (workdir / "evaluation").iterdir()
    return (folder / "predictions.csv").read_bytes()


def perturbations(workdir: Path) -> dict[str, Any]:
    (folder,) = (workdir / "evaluation").iterdir()
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["perturbations"]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pods-") as temporary:
        folder = Path(temporary)
        truth = folder / "1x1"
        chosen = options(sys.argv[1] if sys.argv[1:] else "sconet_mt")
        ten, five = ([*chosen, f"--config.train.steps={steps}"] for steps in (10, 5))
        run(1, 1, *ten, f"--workdir={truth}")
        print("processes x devices | batches | losses | parameters")
        for processes, devices in ((1, 4), (2, 1), (2, 2), (4, 1), (4, 2)):
            workdir = folder / f"{processes}x{devices}"
            run(processes, devices, *ten, f"--workdir={workdir}")
            same, losses, apart = compare(workdir, truth)
            print(f"{processes} x {devices} | {'equal' if same else 'DIFFERENT'} | {losses:.1e} | {apart:.1e}", flush=True)
        moved = folder / "moved"
        run(2, 1, *five, f"--workdir={moved}")
        for processes, devices in ((1, 1), (4, 1), (2, 2)):
            workdir = folder / f"moved-{processes}x{devices}"
            shutil.copytree(moved, workdir)
            printed = run(processes, devices, *ten, f"--workdir={workdir}")[0]
            assert "going on from step 5" in printed, printed
            same, losses, apart = compare(workdir, truth)
            print(
                f"2 x 1, then {processes} x {devices} | {'equal' if same else 'DIFFERENT'} | {losses:.1e} | {apart:.1e}",
                flush=True,
            )
        expected = predictions(truth)
        for processes in (1, 2, 3):
            run(processes, 1, "--mode=eval", f"--workdir={truth}")
            print(
                f"predictions.csv under {processes}: {'identical' if predictions(truth) == expected else 'DIFFERENT'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
