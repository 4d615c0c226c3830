"""Preparing a data set of the release's size when something goes wrong near its end.

    python -m tests.scripts.full_size_faults --folder FOLDER --scale 1      on the tree of tests.scripts.release

Each fault has to end in one line and its exit status, to leave nothing that could be taken for a data set, and to leave the
set that was prepared before as it was.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from data_pipelines.sources import open_prepared, prepare
from tests.scripts.full_size import ROOT
from tests.scripts.release import make_release

BROKEN = 1400 / 1493  # of the sequences come before the one whose pickle is broken


def command(tree: Path, output: Path, *further: str) -> list[str]:
    return [sys.executable, "-m", "data_pipelines.prepare", "--input", str(tree), "--output", str(output), *further]


def state(folder: Path) -> str:
    """Changes with any byte, name or time in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path} {path.stat().st_mtime_ns}".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def finish(words: list[str], stop: tuple[float, signal.Signals] | None = None) -> tuple[int, list[str]]:
    """Run to the end, or send a signal at a share of the sequences; returns the status, and the lines but for the progress."""
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        printed = b""
        while chunk := process.stdout.read1():
            printed += chunk
            progress = re.findall(rb"(\d+)/(\d+) \[", printed)
            if stop and progress and int(progress[-1][0]) >= stop[0] * int(progress[-1][1]):
                process.send_signal(stop[1])
                stop = None
        status = process.wait()
    lines = re.split(r"[\r\n]+", printed.decode(errors="replace"))
    return status, [line for line in lines if line.strip() and "preparing sequences:" not in line]


def expect(what: str, found: tuple[int, list[str]], status: int, *words: str) -> None:
    """Print what a fault ended in; raise `SystemExit` where it is not one line with these words and that status."""
    lines = found[1]
    print(f"{what}: status {found[0]}, {len(lines)} line(s): {' | '.join(lines)[:300]}", flush=True)
    if found[0] != status or len(lines) != (1 if words else 0) or any(word not in lines[0] for word in words):
        raise SystemExit(f"{what} should end with status {status} and one line with {words}")


def gone(output: Path) -> None:
    if output.exists():
        raise SystemExit(f"left behind: {sorted(output.rglob('*'))[:5]}")


def faults(tree: Path, folder: Path) -> None:
    """Every fault in turn, in new folders beside the set that is prepared in `folder`."""
    before = folder / "prepared"
    if not before.exists():
        prepare(str(tree), before)
    untouched = state(before)
    output, broken = folder / "faulty", folder / "broken"
    for leftover in (output, broken):
        shutil.rmtree(leftover, ignore_errors=True)

    expect("output that is prepared already", finish(command(tree, before)), 2, "already prepared")

    shutil.copytree(tree, broken, copy_function=os.link)
    pickles = sorted(broken.glob("*/*/*/*.pkl"))
    bad = next(path for path in pickles if int(path.parts[-4]) >= BROKEN * len(os.listdir(broken)))
    bad.unlink()
    bad.write_bytes(b"\x80\x04broken")
    expect("a broken pickle", finish(command(broken, output)), 2, str(bad), "--skip-bad")
    gone(output)
    status, lines = finish(command(broken, output, "--skip-bad"))
    count = len(os.listdir(broken)) - 1
    print(f"a broken pickle left out: status {status}: {' | '.join(lines)[:300]}", flush=True)
    if status or len(lines) != 2 or str(bad) not in lines[0] or f"{count} sequences" not in lines[1]:
        raise SystemExit("--skip-bad should leave out and list one sequence")
    whole, rest = open_prepared(before), open_prepared(output)
    if set(whole.sequences) - set(rest.sequences) != {bad.parts[-4]}:
        raise SystemExit("--skip-bad left out something else")
    shutil.rmtree(output)
    shutil.rmtree(broken)

    expect("Ctrl-C at 90 %", finish(command(tree, output), (0.9, signal.SIGINT)), 130, "interrupted; nothing was written")
    gone(output)

    expect("SIGKILL at 90 %", finish(command(tree, output), (0.9, signal.SIGKILL)), -signal.SIGKILL)
    halves = list(output.glob("scoliosis1k/incomplete*"))
    evaluate = [sys.executable, "-m", "scoliojax.main", "--config=configs/sconet_mt.py", f"--config.data.root={output}"]
    expect("a run on what was left", finish([*evaluate, f"--workdir={folder / 'nowhere'}"]), 2, "was not prepared to its end")
    status, lines = finish(command(tree, output))
    print(f"the same command again: status {status}: {' | '.join(lines)[:300]}", flush=True)
    if status or not halves or any(half.exists() for half in halves):
        raise SystemExit("the same command should prepare the set and remove what was left")
    if open_prepared(output).content != whole.content:
        raise SystemExit("the set prepared after a kill is another one")
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    shutil.rmtree(output)

    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={int(0.8 * size)} tmpfs {shlex.quote(str(disk))}"
    script = f"{mount} && {shlex.join(command(tree, disk / 'out'))}; status=$?; ls -A {shlex.quote(str(disk))}; exit $status"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode:
        print("a disk that fills at 80 %: not tried, this machine does not let a test mount a file system")
    else:
        found = finish(["unshare", "-rm", "sh", "-c", script])
        expect("a disk that fills at 80 %", found, 2, "No space left on device", "--output")

    if state(before) != untouched:
        raise SystemExit("the set that was prepared before is not what it was")
    print("the set that was prepared before is untouched")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    folder = args.folder.expanduser().absolute()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it is ignored
    tree = make_release(folder, args.scale)
    began = time.monotonic()
    faults(tree, folder)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
