"""Kill a training run at random moments, start it again until it is done, and compare with a run left in peace.

    python -m tests.scripts.chaos                                                  50 kills and 20 terms, by hand
    python -m tests.scripts.chaos --kills 1 --terms 1 --steps 200 --every 40        as in the suite

A life of the run ends by SIGKILL or SIGTERM after a random time. The final checkpoint has to be that of the undisturbed run to
the bit, every line of the log has to be there once, and no leftover of a death may confuse the next life.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scoliojax.training.log import is_time

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--config=configs/sconet_mt.py:quickstart",
    "--config.data.partition=1:1:1",
    "--config.data.clips_per_subject=2",
    "--config.data.frames_per_clip=3",
    "--config.data.sequences_per_eval_batch=3",
    "--config.data.synthetic.frames=4",
    "--config.train.log_every=1",
    "--config.data.validation_fraction=0.0",
    "--config.train.eval_every=0",
)
RUN = (
    *SMALL,
    "--config.data.subjects_per_batch=2",
    "--config.data.synthetic.subjects=9",
    "--config.model.channels=(2,3,4,5)",
    "--config.model.embedding_dim=4",
)
STOPPED = 75


def start(workdir: Path, options: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "scoliojax.main", *RUN, *options, f"--workdir={workdir}"]
    flags = f"--xla_force_host_platform_device_count=1 {os.environ.get('SCOLIOJAX_TEST_FLAGS', '')}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    with (workdir.parent / f"{workdir.name}.log").open("a", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def finish(workdir: Path, options: list[str]) -> None:
    status = start(workdir, options).wait()
    if status:
        log = (workdir.parent / f"{workdir.name}.log").read_text(encoding="utf-8")
        raise SystemExit(f"a life ended with status {status}:\n{log[-4000:]}")


def outcome(workdir: Path) -> tuple[str, list]:
    """Digest of the newest checkpoint, and the log without its times."""
    newest = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    digest = json.loads((workdir / "checkpoints" / str(newest) / "meta" / "metadata").read_text(encoding="utf-8"))["digest"]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return digest, [{key: value for key, value in line.items() if not is_time(key)} for line in lines]


def steps_logged(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def chaos(folder: Path, kills: int, terms: int, steps: int, every: int, seed: int) -> dict[str, int]:
    """A run of so many steps, with a checkpoint every so many, ended so many times.

    Returns how many lives ended how; raises `SystemExit` where the outcome differs.
    """
    options = [f"--config.train.steps={steps}", f"--config.train.checkpoint_every={every}"]
    peaceful, troubled = folder / "peaceful", folder / "troubled"
    finish(peaceful, options)
    rng = random.Random(seed)
    ends = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    rng.shuffle(ends)
    counts = {"killed": 0, "stopped after a step": 0, "stopped outside the steps": 0, "finished before its end": 0}
    for end in ends:
        before = steps_logged(troubled)
        life = start(troubled, options)
        if rng.random() < 0.7:  # most deaths during training, the others anywhere: imports, compilation, evaluation
            deadline = time.monotonic() + 120
            while steps_logged(troubled) <= before and life.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 1.0))
        else:
            time.sleep(rng.uniform(0, 8.0))
        life.send_signal(end)
        status = life.wait(timeout=120)
        if status == -signal.SIGKILL:
            counts["killed"] += 1
        elif status == STOPPED:
            counts["stopped after a step"] += 1
        elif status == -signal.SIGTERM:
            counts["stopped outside the steps"] += 1
        elif status == 0:
            counts["finished before its end"] += 1
        else:
            raise SystemExit(f"status {status}:\n{(folder / 'troubled.log').read_text(encoding='utf-8')[-4000:]}")
    finish(troubled, options)
    if outcome(peaceful) != outcome(troubled):
        raise SystemExit(f"the troubled run ended elsewhere: compare {peaceful} and {troubled}")
    if set_aside := [path.name for path in troubled.glob("damaged-*")]:
        raise SystemExit(f"a death left a damaged checkpoint: {set_aside}")
    return counts | {"steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--terms", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=15, help="steps from checkpoint to checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        print(chaos(Path(folder), args.kills, args.terms, args.steps, args.every, args.seed))


if __name__ == "__main__":
    main()
