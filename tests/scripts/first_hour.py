"""What the first hour on a GPU, a TPU host or a pod should check; prints the column *measured* beside the compiled one.

    python -m tests.scripts.first_hour --workdir FOLDER                    on the accelerator, at the published sizes
    python -m tests.scripts.first_hour --workdir FOLDER --small            on this CPU, two simulated devices, some minutes
    python -m tests.scripts.first_hour --workdir FOLDER --config FILE --config.KEY=VALUE

On several hosts start it on each of them at once, with one FOLDER that all see, and where JAX does not recognise the cluster
with --coordinator, --processes and --process, as `scoliojax.main`. Every check is a process of its own, one after the other,
because a TPU is of one process at a time; this one uses no device. Each prints a line: what is checked, and the outcome.
FOLDER gets `first_hour.md`, `first_hour.json`, the runs, a profiler trace, and what each process printed (`*.log`). The exit
status is 1 if a check failed.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.scripts import chaos, pods

RECIPE = "configs/sconet_mt.py"
TINY = ("--config.model.channels=(4,6,8,8)", "--config.model.embedding_dim=8", "--config.data.subjects_per_batch=4",
        "--config.data.clips_per_subject=2", "--config.data.frames_per_clip=4", "--config.data.max_eval_frames=60")  # fmt: skip
TEN = ("--config.train.steps=10", "--config.train.checkpoint_every=10")
CPU = {"JAX_PLATFORMS": "cpu"}
ALONE = {  # variables with which a process sees one device, by platform
    "cpu": {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
    "gpu": {"CUDA_VISIBLE_DEVICES": "0"},
    "tpu": {"TPU_VISIBLE_CHIPS": "0", "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"},
}
HOSTS = ("coordinator", "processes", "process")
CLOSE = {"float32": 1e-3, "bfloat16": 0.1}  # largest relative difference of losses that is no finding
WORD = "first-hour "  # how the line begins with which a process of `CHILDREN` gives its result


class Row(NamedTuple):
    """A figure that the compilers, or the arithmetic of a run, state, and what was measured."""

    what: str
    compiled: float | None
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Measured over compiled; None where one of them is not known."""
        return self.measured / self.compiled if self.measured and self.compiled else None


class Check(NamedTuple):
    what: str
    outcome: str
    passed: bool | None  # None: nothing to pass, or not checked


def table(rows: list[Row]) -> list[str]:
    """Lines of Markdown."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    lines = ["| what | compiled | measured | measured / compiled |", "|---|---|---|---|"]
    return lines + [f"| {one.what} | {' | '.join(map(cell, (one.compiled, one.measured, one.ratio)))} |" for one in rows]


def apart(one: list[dict[str, float]], other: list[dict[str, float]], steps: int) -> tuple[bool, float]:
    """Whether the batches of the first steps in two logs are the same, and the largest relative difference of their losses."""
    pairs = list(zip(one[:steps], other[:steps], strict=True))
    same = all(here["batch_fingerprint"] == there["batch_fingerprint"] for here, there in pairs)
    return same, max(abs(here["loss"] / there["loss"] - 1) for here, there in pairs)


def furthest(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> tuple[str, float]:
    """The array that differs most, by the norm of the difference over the norm, and by how much."""
    distances = {
        name: float(np.linalg.norm(one[name] - other[name]) / max(np.linalg.norm(other[name]), 1e-30)) for name in other
    }
    name = max(distances, key=lambda name: distances[name])
    return name, distances[name]


def share_of_peak(what: str, share: float | None, estimated: float | None, measured: float) -> Row:
    """The share of the devices' peak in percent, of the estimated milliseconds (`share`) and of the measured ones."""
    return Row(f"share of the peak, {what} (%)", share, share * estimated / measured if share and estimated else None)


def stated_memory(printed: str) -> float | None:
    """Gigabytes of the host's memory that a run said it would need."""
    found = re.search(r"host memory of each process: about ([\d.]+) GB", printed)
    return float(found[1]) if found else None


def given_hosts(args: argparse.Namespace) -> list[str]:
    """The options that say which processes there are."""
    return [f"--{name}={value}" for name in HOSTS if (value := getattr(args, name)) is not None]


# ---------------------------------------------------------------------------------------- in processes with the devices


def devices(args: argparse.Namespace, changes: list[str]) -> dict[str, Any]:
    """What jax finds."""
    import jax

    one = jax.local_devices()[0]
    limit = (one.memory_stats() or {}).get("bytes_limit")
    names = {"platform": jax.default_backend(), "kind": one.device_kind, "jax": jax.__version__}
    return names | {
        "count": jax.device_count(), "local": jax.local_device_count(), "processes": jax.process_count(),
        "process": jax.process_index(), "memory": limit,
    }  # fmt: skip


def program(args: argparse.Namespace, changes: list[str]) -> dict[str, Any]:
    """The compiler's figures of step and evaluation on these devices, their times, the peak of memory, and a trace."""
    import jax

    from scoliojax import build
    from scoliojax.benchmark.stepping import Ours, random_batch
    from scoliojax.devices.targets import devices_here
    from scoliojax.runs import compiling, examining
    from scoliojax.runs.recipe import read_recipe

    config = read_recipe(args.config, changes)
    ours = Ours(config)
    target = devices_here()
    lowered = compiling.training_program(config, ours.mesh, target.platform), compiling.evaluation_program(config, ours.mesh)
    found = [examining.examine(target, each, each.lowered.compile()) for each in lowered]
    data = config.data
    clips = build.clips_per_batch(config)
    together = compiling.frames_shared(config, jax.device_count())[0]
    batch = random_batch(data.subjects_per_batch, data.clips_per_subject, data.frames_per_clip, together)
    share = {name: np.array_split(array, jax.process_count())[jax.process_index()] for name, array in batch.items()}
    step = ours.step(share)
    sequences = data.sequences_per_eval_batch * jax.local_device_count()
    evaluation = ours.evaluation(np.zeros((sequences, data.max_eval_frames, *batch["frames"].shape[2:]), np.uint8))
    measured = []
    for work in (step, evaluation):
        work()
        times = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - start))
        measured.append(float(np.median(times)))
    with jax.profiler.trace(Path(args.workdir) / "trace"):
        for _ in range(3):
            step()
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return {
        "figures": [{"what": each.program, **each.numbers} for each in found],
        "milliseconds": measured,
        "peak": max(filter(None, peaks), default=None),
        "clips": clips,
        "loads": {"subjects": data.subjects_per_batch // jax.process_count(), "clips": data.clips_per_subject},
    }


def outputs(args: argparse.Namespace, changes: list[str]) -> dict[str, Any]:
    """One training step on 4 x 2 clips of 8 frames, and the network after it; arrays go to the file `--file`."""
    import jax

    from scoliojax import build
    from scoliojax.benchmark.stepping import random_batch
    from scoliojax.runs.recipe import read_recipe
    from scoliojax.training.evaluate import make_eval_step
    from scoliojax.training.state import create_state
    from scoliojax.training.step import make_train_step

    config = read_recipe(args.config, [*changes, "--config.precision=float32"])
    optimizer, schedule = build.build_optimizer(config)
    graph, params, batch_stats = build.build_model(config)
    step = make_train_step(graph, build.build_loss(config), optimizer, schedule)
    batch = jax.device_put(random_batch(4, 2, 8), jax.local_devices()[0])
    state, metrics = step(create_state(params, batch_stats, optimizer), batch)
    clips = batch["frames"]  # n s 64 44
    after = make_eval_step(graph)(state.params, state.batch_stats, clips, np.ones(clips.shape[:2], bool))
    leaves = jax.tree_util.tree_leaves_with_path({"statistics": state.batch_stats, "momentum": state.opt_state, "after": after})
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves if leaf.size > 1}
    np.savez(args.file, loss=np.asarray(metrics["loss"]), **arrays)
    return {"loss": float(metrics["loss"])}


def training(args: argparse.Namespace, changes: list[str]) -> dict[str, Any]:
    """A run, as `scoliojax.main` has it; the most bytes of the host's memory that it took."""
    from scoliojax.main import main

    main([f"--config={args.config}", f"--workdir={args.workdir}", *given_hosts(args), *changes])
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {"peak": 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])}


CHILDREN: dict[str, Callable[[argparse.Namespace, list[str]], dict[str, Any]]] = {
    "devices": devices, "program": program, "outputs": outputs, "training": training,
}  # fmt: skip


def child(args: argparse.Namespace, changes: list[str]) -> None:
    from scoliojax.devices import cluster
    from scoliojax.runs.command import configure_runtime

    configure_runtime()
    cluster.join(*(getattr(args, name) for name in HOSTS))
    print(WORD + json.dumps(CHILDREN[args.child](args, changes)), flush=True)


# ------------------------------------------------------------------------------------------- in this process, without


class Hour:
    """The checks, in order, with what they found."""

    def __init__(self, args: argparse.Namespace, changes: list[str]):
        self.args, self.changes, self.folder = args, changes, args.workdir
        self.checks: list[Check] = []
        self.rows: list[Row] = []
        flags = f"--xla_force_host_platform_device_count=2 {os.environ.get('SCOLIOJAX_TEST_FLAGS', '')}"
        self.environment = dict(os.environ) | (CPU | {"XLA_FLAGS": flags} if args.small else {})
        self.hosts = given_hosts(args)
        self.found: dict[str, Any] = {}
        self.count = 0  # processes so far

    def note(self, what: str, outcome: str, passed: bool | None = None) -> None:
        self.checks.append(Check(what, outcome, passed))
        print(f"{'' if passed is None else 'ok: ' if passed else 'FAILED: '}{what}: {outcome}", flush=True)

    def start(self, module: str, *arguments: object, alone: bool = False, **more: str) -> subprocess.Popen:
        """Begin a process, with all devices and the other hosts, or alone with one device; it prints to a file."""
        environment = self.environment | (ALONE[self.found["platform"]] if alone else {}) | more
        own = ["--processes=1"] if alone else self.hosts
        command = [sys.executable, "-m", module, *map(str, arguments), *(own if module != "scoliojax.benchmark" else [])]
        self.count += 1
        with self.printed().open("w", encoding="utf-8") as log:
            return subprocess.Popen(command, cwd=chaos.ROOT, env=environment, stdout=log, stderr=log)

    def printed(self) -> Path:
        """What the newest process printed; its name has the number of the process of this host, where there are several."""
        return self.folder / f"{self.count:02d}-{self.found.get('process', self.args.process or 0)}.log"

    def finish(self, job: subprocess.Popen, *statuses: int) -> str:
        """Wait for a process; returns what it printed. Ends with that where its status is another than 0 or `statuses`."""
        status = job.wait()
        printed = self.printed().read_text(encoding="utf-8", errors="replace")
        if status not in (0, *statuses):
            raise SystemExit(f"{' '.join(map(str, job.args))} ended with status {status}:\n{printed[-3000:]}")
        return printed

    def child(self, name: str, *arguments: object, **how: Any) -> tuple[dict[str, Any], str]:
        """What a function of `CHILDREN` returns, and what its process printed."""
        printed = self.finish(self.start(__spec__.name, f"--child={name}", f"--rounds={self.args.rounds}", *arguments, **how))
        return json.loads(printed.rpartition(WORD)[2].splitlines()[0]), printed

    def given(self) -> list[str]:
        return [f"--workdir={self.folder}", f"--config={self.args.config}", *self.changes]

    def run(self, name: str, *arguments: object, **how: Any) -> tuple[dict[str, Any], str]:
        """A training of a narrow network, on synthetic walkers, in the folder `name`."""
        return self.child("training", *self.options(name), *arguments, **how)

    def options(self, name: str) -> list[str]:
        subjects = 4 * self.found["count"]  # a multiple of the devices, of which each has clips
        return [*pods.RUN, f"--config.data.subjects_per_batch={subjects}", f"--config.data.synthetic.subjects={7 * subjects}",
                f"--config.train.steps={self.args.steps}", f"--config.train.checkpoint_every={self.args.steps}",
                f"--workdir={self.folder / name}"]  # fmt: skip

    def log(self, name: str) -> list[dict]:
        return pods.log(self.folder / name)

    # -- with the other hosts

    def look(self) -> None:
        self.found, _ = self.child("devices", *self.given())
        found = self.found
        memory = f", {found['memory'] / 1e9:.1f} GB each" if found["memory"] else ""
        what = f"{found['count']} x {found['kind']} ({found['platform']}){memory}, {found['processes']} process(es)"
        self.note("devices", f"{what}, jax {found['jax']}")

    def compare_with_compiler(self) -> None:
        got, _ = self.child("program", *self.given())
        for what, figures, measured in zip(("training step", "evaluation"), got["figures"], got["milliseconds"], strict=True):
            estimated = figures.get("estimated time (ms)")
            self.rows.append(Row(f"{figures['what']} (ms)", estimated, measured))
            self.rows.append(share_of_peak(what, figures.get("share of the peak (%)"), estimated, measured))
            said = f"the compiler's estimate is {estimated:.4g} ms" if estimated else "its compiler has no estimate"
            self.note(f"time of {what}", f"{measured:.4g} ms; {said}")
        stated = max(figures["memory: total (MB)"] for figures in got["figures"])
        peak = got["peak"] and got["peak"] / 1e6
        self.rows.append(Row("memory of a device, the larger of both programs (MB)", stated, peak))
        said = f"{peak:,.0f} MB at most" if peak else "the runtime does not say"
        self.note("memory of a device", f"{said}; the compiler states {stated:,.0f} MB for the larger program")
        self.note_trace("profiler trace of the step", self.folder / "trace")
        self.load(1e3 / got["milliseconds"][0], got["loads"]["subjects"])

    def note_trace(self, what: str, folder: Path) -> None:
        kinds = sorted({"".join(path.suffixes[-2:]) for path in folder.rglob("*.*") if path.is_file()})
        self.note(what, f"{folder} has {', '.join(kinds) or 'nothing'}", any(kind.endswith(".pb") for kind in kinds))

    def load(self, needed: float, subjects: int) -> None:
        """The loader of this host, by the section of the benchmark, whose clips are 8 of a sequence and 30 frames."""
        subjects = min(max(subjects, 1), 40)
        file = self.folder / f"loader-{self.found['process']}.json"
        options = ["--only=loader", f"--rounds={min(self.args.rounds, 3)}", f"--subjects={subjects}", f"--json={file}"]
        self.finish(self.start("scoliojax.benchmark", *options, **CPU))
        for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
            if "one core" not in row["what"]:
                delivered = float(np.median(row["ours"]))
                self.rows.append(Row(f"{row['what']} (batches/s; compiled: what the measured step takes)", needed, delivered))
                self.note(row["what"], f"{delivered:.4g} batches/s delivered, {needed:.4g} needed", delivered > needed)

    def run_dry(self) -> None:
        """All that comes before the first step; nothing is left of it."""
        _, printed = self.run("dry", "--dry-run")
        left = (self.folder / "dry").exists()
        could = "dry run: the run could start; nothing was written" in printed
        said = "could not start" if not could else "left something" if left else "could start, and nothing is left"
        self.note("dry run of a small run", said, could and not left)

    def train_on_all(self) -> None:
        got, printed = self.run("all", "--profile=5:8")
        what = "host memory of a process, small run (GB; compiled: as the run states it)"
        self.rows.append(Row(what, stated_memory(printed), got["peak"] / 1e9))
        self.note_trace("profiler trace of a run", self.folder / "all" / "profile")
        self.run("bfloat16", "--config.precision=bfloat16", *TEN)
        if not self.found["process"]:
            same, losses = apart(self.log("bfloat16"), self.log("all"), 10)
            close = same and losses < CLOSE["bfloat16"]
            self.note("losses of ten steps, bfloat16 and float32", f"{losses:.1e} apart", close)

    def stop_and_go_on(self) -> None:
        """SIGTERM to one process in the midst of the steps; all of them stop, and go on where they were."""
        folder = self.folder / "stopped"
        job = self.start("scoliojax.main", *self.options("stopped"))
        if not self.found["process"]:
            while chaos.steps_logged(folder) < 3 and job.poll() is None:
                time.sleep(0.02)
            job.send_signal(signal.SIGTERM)
        self.finish(job, chaos.STOPPED)
        steps, stopped = chaos.steps_logged(folder), job.returncode == chaos.STOPPED
        self.run("stopped")
        if self.found["process"]:
            return
        if not stopped:
            self.note("resume after SIGTERM", "the run ended before the signal; give more --steps")
            return
        equal = chaos.outcome(folder) == chaos.outcome(self.folder / "all")
        said = f"checkpoint and log are {'equal to the bit' if equal else 'DIFFERENT'}"
        self.note("resume after SIGTERM", f"stopped after step {steps} of {self.args.steps}; {said}", equal)

    # -- the first host by itself

    def compare_with_one_device(self) -> None:
        self.run("one", *TEN, alone=True)
        same, losses = apart(self.log("all"), self.log("one"), 10)
        self.note("batches on all devices and on one", "equal by fingerprint" if same else "DIFFERENT", same)
        self.note("losses of ten steps, all devices and one", f"{losses:.1e} apart", losses < CLOSE["float32"])
        all_of_them = pods.predictions(self.folder / "all")
        self.finish(self.start("scoliojax.main", "--mode=eval", f"--workdir={self.folder / 'all'}", alone=True))
        equal = pods.predictions(self.folder / "all") == all_of_them
        self.note("evaluation on all devices and on one", f"predictions.csv is {'identical' if equal else 'DIFFERENT'}", equal)

    def compare_with_cpu(self) -> None:
        got = []
        for name, variables in (("device", {}), ("cpu", CPU)):
            file = self.folder / f"outputs-{name}.npz"
            self.child("outputs", *self.given(), f"--file={file}", alone=True, **variables)
            with np.load(file) as arrays:
                got.append(dict(arrays))
        name, distance = furthest(*got)
        what = "one float32 step and the network after it, this device and the CPU"
        self.note(what, f"{distance:.1e} apart at most ({name})", distance < CLOSE["float32"])

    def write(self) -> None:
        lines = [f"- {check.what}: {check.outcome}" for check in self.checks]
        (self.folder / "first_hour.md").write_text("\n".join([*table(self.rows), "", *lines]) + "\n", encoding="utf-8")
        content = {"devices": self.found, "rows": [row._asdict() | {"ratio": row.ratio} for row in self.rows],
                   "checks": [check._asdict() for check in self.checks]}  # fmt: skip
        (self.folder / "first_hour.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0], allow_abbrev=False)
    parser.add_argument("--workdir", required=True, type=Path, help="new folder, which all hosts see")
    parser.add_argument("--config", default=RECIPE, help="recipe whose programs are compiled and timed")
    parser.add_argument("--small", action="store_true", help="on this CPU, two simulated devices, at a tiny size")
    parser.add_argument("--steps", type=int, default=1000, help="of the small runs that are compared")
    parser.add_argument("--rounds", type=int, default=20, help="timed steps")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args, changes = arguments().parse_known_args()
    args.workdir = args.workdir.absolute()
    if args.child:
        child(args, changes)
        return
    args.workdir.mkdir(parents=True, exist_ok=True)
    if args.small:
        changes = [*TINY, *changes]
    hour = Hour(args, changes)
    hour.look()
    hour.compare_with_compiler()
    hour.run_dry()
    hour.train_on_all()
    hour.stop_and_go_on()
    if not hour.found["process"]:
        hour.compare_with_one_device()
        hour.compare_with_cpu()
        hour.write()
        print("\n".join(["", *table(hour.rows)]))
    sys.exit(int(any(check.passed is False for check in hour.checks)))


if __name__ == "__main__":
    main()
