"""The README's commands on a data set of the release's size: what each takes, and whether it holds at all.

    python -m tests.scripts.full_size --folder FOLDER                        1,493 walks of 300 frames; within an hour
    python -m tests.scripts.full_size --folder FOLDER --scale 0.1            minutes
    python -m tests.scripts.full_size --folder FOLDER --scale 10 --frames 60 for growth; 60 frames of a walk are evaluated
    python -m tests.scripts.full_size --folder FOLDER --only prepare,train   some of them, on what is there

Every command is the README's or one of docs/, as written there, with the data and folders of this rehearsal in place of its
names, a narrower network and fewer steps. The walkers are synthetic: no score of theirs says anything about people. The table
goes to FOLDER/full_size.md and full_size.json: wall time, the most memory that all of a command's processes had resident
together, bytes that they read and wrote through the system, and how much more FOLDER holds afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from data_pipelines.pipelines import SequenceCache, TrainSampler, train_batches
from data_pipelines.sources import open_prepared
from scoliojax.benchmark.timing import interleave
from tests.scripts.release import make_release

ROOT = Path(__file__).resolve().parents[2]
NARROW = [
    "--config.model.channels=(2,4,4,8)",
    "--config.model.embedding_dim=8",
    "--config.precision=float32",  # bfloat16 is for accelerators
    "--config.data.validation_fraction=0.1",
    "--config.train.log_every=1",
    "--config.train.checkpoint_every=4",
    "--config.train.eval_every=8",
]
# As README and docs have them.
PREPARE = "python -m data_pipelines.prepare --input SCOLIOSIS1K --output prepared"
DATA = "--config.data.root=prepared --config.data.partition=Scoliosis1K_118.json"
TRAIN = f"python -m scoliojax.main --config configs/sconet_mt.py {DATA} --workdir runs/sconet_mt"
EVALUATE = "python -m scoliojax.main --mode eval --workdir runs/sconet_mt"
CALIBRATE = "python -m scoliojax.main --mode eval --workdir RUN --sensitivity=0.95"
REPORT = "python -m scoliojax.report --workdir runs/quickstart"
COMPARE = "python -m scoliojax.report --workdir RUN --compare OTHER --prevalence 0.03"
EXPORT = "python -m scoliojax.export --workdir runs/quickstart"
SCREEN = "python -m scoliojax.screen WALK.mp4 --checkpoint runs/sconet_mt"
BACK = "python -m scoliojax.interop.opengait export --workdir runs/imported --output ScoNet-back.pt"
VERIFY = "python -m scoliojax.interop.opengait verify ScoNet-20000.pt"
IMPORT = f"python -m scoliojax.interop.opengait import ScoNet-20000.pt --workdir runs/imported {DATA}"
STUDY = (
    "python -m scoliojax.study --config configs/sconet_mt.py --ratios 1:1:2,1:1:4,1:1:8,1:1:16 --models sconet,sconet_mt "
    "--seeds 3 --workdir runs/study --config.data.root=prepared"
)


@dataclass
class Row:
    """What a command took."""

    name: str
    command: str
    seconds: float
    memory: int  # bytes, resident, all processes together, at most
    read: int  # bytes
    written: int
    left: int  # bytes that the folder has grown by
    remarks: dict[str, float] = field(default_factory=dict)


class Watched:
    """A process and all that it starts, looked at ten times a second."""

    def __init__(self, processes: list[subprocess.Popen]):
        self._roots = [psutil.Process(process.pid) for process in processes]
        self.memory, self._read, self._written = 0, {}, {}

    def look(self) -> None:
        resident = 0
        for root in self._roots:
            for process in _family(root):
                try:
                    resident += process.memory_info().rss
                    counts = process.io_counters()
                except psutil.Error:  # it has ended meanwhile
                    continue
                self._read[process.pid], self._written[process.pid] = counts.read_chars, counts.write_chars
        self.memory = max(self.memory, resident)

    @property
    def read(self) -> int:
        return sum(self._read.values())

    @property
    def written(self) -> int:
        return sum(self._written.values())


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def size_of(folder: Path) -> int:
    """Bytes in a folder, the released tree left out: no command writes there."""
    total = 0
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "SCOLIOSIS1K"]
        total += sum(os.lstat(os.path.join(where, name)).st_size for name in files)
    return total


class Rehearsal:
    """Runs commands in a folder and keeps what they took."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[Row] = []
        pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        self._pages = [" ".join(page.read_text(encoding="utf-8").replace("\\\n", " ").split()) for page in pages]

    def command(self, text: str, *further: str, names: dict[str, str] | None = None) -> list[str]:
        """A command of the README or of docs/, with other names of files in it, and what it is given beside."""
        if not any(" ".join(text.split()) in page for page in self._pages):
            raise SystemExit(f"no page of this project says any more: {text}")
        for theirs, ours in ({"configs/": f"{ROOT}/configs/"} | (names or {})).items():
            text = text.replace(theirs, ours)
        return [sys.executable if word == "python" else word for word in (*shlex.split(text), *further)]

    def run(
        self,
        name: str,
        *jobs: list[str],
        meanwhile: Callable[[float, list[subprocess.Popen]], None] | None = None,
        status: int = 0,
    ) -> Row:
        """Run one command, or the processes of one job, to the end; ends the rehearsal where that is not the expected one."""
        before = size_of(self.folder)
        log = self.folder / "logs" / f"{name.replace(' ', '-').replace(',', '')}.txt"
        log.parent.mkdir(exist_ok=True)
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as out:
            environment = os.environ | {"SCOLIOJAX_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
            processes = [
                subprocess.Popen(words, cwd=self.folder, env=environment, stdout=out, stderr=out, start_new_session=True)
                for words in jobs
            ]
            watched = Watched(processes)
            try:
                while any(process.poll() is None for process in processes):
                    watched.look()
                    if meanwhile:
                        meanwhile(time.monotonic() - began, processes)
                    time.sleep(0.1)
            finally:  # an interrupted rehearsal leaves nothing running
                for process in processes:
                    if process.poll() is None:
                        process.kill()
        seconds = time.monotonic() - began
        ended = [process.returncode for process in processes]
        row = Row(
            name,
            shlex.join(["python" if word == sys.executable else word for word in jobs[0]]).replace(str(self.folder), "."),
            seconds,
            watched.memory,
            watched.read,
            watched.written,
            size_of(self.folder) - before,
        )
        print(
            f"{name:<34} {seconds:7.1f} s  {row.memory / 1e6:7.0f} MB  read {row.read / 1e6:8.0f} MB  "
            f"written {row.written / 1e6:7.0f} MB  left {row.left / 1e6:7.1f} MB",
            flush=True,
        )
        if ended != [status] * len(ended):
            raise SystemExit(f"{name} ended with {ended}, not {status}: see {log}\n{log.read_text(encoding='utf-8')[-3000:]}")
        self.rows.append(row)
        return row


def first_step(workdir: Path, found: dict[str, float], stop_at: int | None = None) -> Callable:
    """Notes when a run has logged its first step of this life, and sends SIGTERM once it has logged step `stop_at`."""
    path = workdir / "metrics.jsonl"
    known = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0

    def look(seconds: float, processes: list[subprocess.Popen]) -> None:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if len(lines) > known:
            found.setdefault("seconds to first step", seconds)
        if stop_at and len(lines) - known >= stop_at and "stopped" not in found:
            found["stopped"] = seconds
            processes[0].send_signal(signal.SIGTERM)

    return look


def together(command: list[str], processes: int) -> list[list[str]]:
    """One job of so many processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    return [[*command, place, f"--processes={processes}", f"--process={index}"] for index in range(processes)]


def loader(folder: Path, rounds: int = 5) -> dict[str, float]:
    """Published batches a second from the whole set and from 40 of its sequences, in turn: medians, and their ratio."""
    data = open_prepared(folder / "prepared")
    found = {}
    for where, limit, batches in (("in memory", 2e9, 100), ("from files", 0, 20)):
        caches = [SequenceCache(data, int(limit)), SequenceCache(data, int(limit))]
        parts = [np.arange(len(data)), np.arange(40)]
        for cache, rows in zip(caches, parts, strict=True):
            for row in rows if limit else []:
                cache(int(row))

        def draw(cache: SequenceCache, rows: np.ndarray, batches: int = batches) -> None:
            sampler = TrainSampler(data, rows, 0, 8, 8, 30, cache=cache, clips_together=8)
            for _ in train_batches(sampler, 0, batches, os.cpu_count() or 1):
                pass

        works = {name: partial(draw, *one) for name, *one in zip(("all", "40"), caches, parts, strict=True)}
        seconds = {name: statistics.median(times) for name, times in interleave(works, rounds).items()}
        found[f"batches/s {where}"] = batches / seconds["all"]
        found[f"of those from 40 sequences, {where}"] = seconds["40"] / seconds["all"]
    return found


def rehearse(folder: Path, only: set[str], frames: int) -> list[Row]:
    """All commands, or those of some groups; so many frames of a walk are evaluated."""
    narrow = [*NARROW, f"--config.data.max_eval_frames={frames}"]
    rehearsal, runs = Rehearsal(folder), folder / "runs"
    command, run = rehearsal.command, rehearsal.run
    steps = "--config.train.steps=16"

    def wanted(group: str) -> bool:
        return not only or group in only

    def timed(name: str, jobs: list[list[str]], workdir: Path, stop_at: int | None = None, status: int = 0) -> None:
        found: dict[str, float] = {}
        run(name, *jobs, meanwhile=first_step(workdir, found, stop_at), status=status).remarks = found

    if wanted("prepare"):
        row = run("prepare", command(PREPARE, "--subjects", "subjects.csv"))
        printed = (folder / "logs" / "prepare.txt").read_text(encoding="utf-8")
        row.remarks = {"frames/s": int(printed.split(" sequences, ")[1].split()[0]) / row.seconds}
    if wanted("train"):
        train = command(TRAIN, *narrow, steps)
        timed("train, stopped by SIGTERM", [train], runs / "sconet_mt", 5, 75)
        timed("train on, two processes", together(train, 2), runs / "sconet_mt")
        warm = command(TRAIN, *narrow, "--config.train.steps=1", names={"runs/sconet_mt": "runs/warm"})
        timed("one step, warm", [warm], runs / "warm")
    if wanted("evaluate"):
        run("validate", command(EVALUATE, "--part=validation"))
        run("evaluate the test part", command(EVALUATE))
        run("calibrate and evaluate", command(CALIBRATE, names={"RUN": "runs/sconet_mt"}))
    ours = {"quickstart": "sconet_mt"}
    if wanted("report"):
        run("report", command(REPORT, "--prevalence=0.03", names=ours))
    if wanted("export"):
        run("export", command(EXPORT, names=ours))
        masks = str(next((folder / "SCOLIOSIS1K" / "00000").glob("*/*")))
        run("screen a folder of masks", command(SCREEN, "--output=screening", names={"WALK.mp4": masks}))
    if wanted("interop"):
        there = {"ScoNet-20000": "ScoNet-back"}
        run("interop export", command(BACK, names={"imported": "sconet_mt"}))
        run("interop verify", command(VERIFY, names=there))
        run("interop import", command(IMPORT, *narrow[3:], steps, names=there))
        run("evaluate the imported run", command(EVALUATE, names={"sconet_mt": "imported"}))
        run("report with comparison", command(COMPARE, names={"RUN": "runs/sconet_mt", "OTHER": "runs/imported"}))
    if wanted("study"):
        cell = {"1:1:2,1:1:4,1:1:8,1:1:16": "Scoliosis1K_118.json", "sconet,sconet_mt": "sconet_mt", "seeds 3": "seeds 1"}
        run("study, one cell", command(STUDY, *narrow, "--config.train.steps=4", names=cell))
    if wanted("tree"):
        names = {"root=prepared": "root=SCOLIOSIS1K", "runs/sconet_mt": "runs/tree"}
        tree = command(TRAIN, *narrow, "--config.train.steps=1", names=names)
        timed("one step on the released tree", [tree], runs / "tree")
        run("the same again, now finished", tree)
    if wanted("loader"):
        rehearsal.rows.append(Row("loader, 8 x 8 clips x 30 frames", "", 0.0, 0, 0, 0, 0, loader(folder)))
        print(rehearsal.rows[-1].remarks)
    return rehearsal.rows


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| command | seconds | MB resident | MB read | MB written | MB left | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        numbers = [f"{row.seconds:.1f}", *(f"{size / 1e6:,.0f}" for size in (row.memory, row.read, row.written, row.left))]
        remarks = "; ".join(f"{name} {value:,.1f}" for name, value in row.remarks.items())
        lines.append(f"| {row.name} | {' | '.join(numbers)} | {remarks} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the tree and all that is made of it")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--frames", type=int, default=720, help="of a walk to evaluate at most; all are read")
    parser.add_argument("--only", default="", help="prepare,train,evaluate,report,export,interop,study,tree,loader")
    args = parser.parse_args()
    folder = args.folder.expanduser().absolute()
    began = time.monotonic()
    make_release(folder, args.scale)
    print(f"release of scale {args.scale:g}, synthetic, in {time.monotonic() - began:.0f} s")
    rows = rehearse(folder, set(filter(None, args.only.split(","))), args.frames)
    (folder / "full_size.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    (folder / "full_size.md").write_text(table(rows), encoding="utf-8")
    print(f"\n{table(rows)}\n{(time.monotonic() - began) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
