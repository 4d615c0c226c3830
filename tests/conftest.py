"""Shared fixtures. Four simulated devices, so that sharding is tested in the same process as everything else."""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import tests.site.sitecustomize  # noqa: F401, refuses TensorFlow
from configs import sconet_mt
from data_pipelines.schema import CLASSES, SilhouetteSet

# Before jax is imported: nothing above does.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # programs compiled by one test serve the next, other workers and subprocesses
    CACHE = tempfile.TemporaryDirectory(prefix="scoliojax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores: torch's threads would wait for each other

ROOT = Path(__file__).resolve().parents[1]
# Every Python that a test starts refuses TensorFlow, too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "tests" / "site"), os.environ.get("PYTHONPATH")]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the long tests to the workers, each of which begins with its own: then all end at about the same time."""
    long, short = ([item for item in items if bool(item.get_closest_marker("long")) is kind] for kind in (True, False))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cuts = [len(short) * worker // workers for worker in range(workers + 1)]
    items[:] = [item for worker in range(workers) for item in long[worker::workers] + short[cuts[worker] : cuts[worker + 1]]]


def shared_folder(variable: str, name: str) -> Path:
    """A folder that lies beside the project, or where the environment variable says; skips where it is missing."""
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set {variable} to the folder of {name}")
    return folder


@pytest.fixture(scope="session")
def silhouettes() -> Path:
    """Real walkers: raw masks, and what the published preprocessing makes of them."""
    return shared_folder("SCOLIOJAX_SILHOUETTES", "silhouettes")


@pytest.fixture
def tiny_config(tmp_path):
    """The main recipe at the smallest size that still has every part."""
    config = sconet_mt.get_config("quickstart")
    config.data.partition = "1:1:1"
    config.data.validation_fraction = 0.0
    config.train.eval_every = 0
    config.data.subjects_per_batch = 2
    config.data.clips_per_subject = 2
    config.data.frames_per_clip = 3
    config.data.synthetic.subjects = 18
    config.data.synthetic.frames = 6
    config.model.channels = (2, 3, 4, 5)
    config.model.embedding_dim = 4
    config.train.steps = 6
    config.train.log_every = 1
    config.train.checkpoint_every = 3
    return config


def make_set(per_class: int = 4, frames: int = 5, seed: int = 0, subjects: list[str] | None = None) -> SilhouetteSet:
    """Random silhouettes in memory."""
    count = per_class * len(CLASSES)
    rng = np.random.default_rng(seed)
    clips = rng.integers(0, 256, (count, frames, 64, 64), dtype=np.uint8)
    names = tuple(f"{row:05d}" for row in range(count))
    return SilhouetteSet(
        name="random",
        synthetic=True,
        sequences=names,
        subjects=tuple(subjects or names),
        labels=np.arange(count, dtype=np.int32) % len(CLASSES),
        n_frames=np.full(count, frames, np.int32),
        read=clips.__getitem__,
    )


def write_tree(root: Path, per_class: int = 2, frames: int = 5, seed: int = 0) -> Path:
    """A small released tree of pickles."""
    data = make_set(per_class, frames, seed)
    for row, sequence in enumerate(data.sequences):
        folder = root / sequence / CLASSES[data.labels[row]].capitalize() / "000_180"
        folder.mkdir(parents=True)
        (folder / "000_180.pkl").write_bytes(pickle.dumps(data.read(row)))
    return root


def run_module(module: str, *arguments: object, devices: int = 1, **kwargs) -> subprocess.CompletedProcess:
    """Run `python -m module arguments` as a user would, on so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags} | kwargs.pop("env", {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **kwargs,
    )


def assert_one_clear_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """A user's mistake: status not 0, no traceback, one line that says what and how to mend it."""
    assert result.returncode != 0, result.stdout
    assert "Traceback" not in result.stderr, result.stderr
    lines = [line for line in result.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


def damage(rng: np.random.Generator, path: Path) -> None:
    """Spoil a file in one of five ways."""
    content = bytearray(path.read_bytes())
    kind = rng.integers(5)
    if kind == 0:
        path.unlink()
        return
    if kind == 1:
        content = content[: rng.integers(len(content) + 1)]
    elif kind == 2 and content:
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    elif kind == 3:
        content = bytearray()
    elif kind == 4 and content:
        begin = rng.integers(len(content))
        content[begin : begin + 16] = rng.bytes(len(content[begin : begin + 16]))
    path.write_bytes(content)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float(np.count_nonzero((one > 0) & (other > 0)) / max(np.count_nonzero((one > 0) | (other > 0)), 1))
