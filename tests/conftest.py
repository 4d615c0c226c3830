"""Shared fixtures, and what surrounds every test: a home of the session's own, no settings of the user's, no accelerator.

Four simulated devices, so that sharding is tested in the same process as everything else.
"""

import contextlib
import functools
import importlib
import importlib.util
import inspect
import io
import os
import pickle
import signal
import site
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tests.site.sitecustomize  # noqa: F401, refuses TensorFlow
from configs import sconet_mt
from data_pipelines.schema import CLASSES, DataError, SequenceSet
from data_pipelines.video.fetch import model_folder

ROOT = Path(__file__).resolve().parents[1]

THOROUGH = os.environ.get("SCOLIOJAX_TESTS") == "thorough"  # all programs optimised as for users, and large random draws

# Settings of whoever starts the tests that would change what they see, by how their names begin. The locale and the folder
# for temporary files stay: with these, everything has to work.
SETTINGS = (
    "JAX_", "XLA_", "TF_", "TPU_", "PJRT_", "CUDA_", "HIP_", "TORCH_", "PYTORCH_",  # libraries of arrays
    "SLURM_", "OMPI_", "PMI_", "PMIX_", "MPI_", "K8S_", "KUBERNETES_",  # launchers: this is one process, whoever started it
    "SCOLIOJAX_CACHE", "XDG_", "GIT_", "MPL", "MATPLOTLIB", "GRADIO_", "OPENCV_", "TFDS_", "TQDM_",  # where things lie
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "PYTHONWARNINGS", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES",
)  # fmt: skip


def _isolate(home: Path) -> None:
    """Give this process, and all that it will start, surroundings that are the same everywhere; to be called before jax comes.

    Args:
      home: an empty folder, which takes the place of the user's.
    """
    try:
        os.environ.setdefault("SCOLIOJAX_MODELS", str(model_folder()))  # the user's, for the test that compares backends
    except DataError:  # no home, so none there
        os.environ.setdefault("SCOLIOJAX_MODELS", str(home / "models"))
    os.environ.setdefault("PYTHONUSERBASE", site.getuserbase())  # it is sought from the home; packages may be installed there
    for name in list(os.environ):
        if name.upper().startswith(SETTINGS):
            del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script; what tests start would ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    further = [str(ROOT / "tests" / "site"), str(ROOT)]  # every Python refuses TensorFlow, also a process elsewhere
    os.environ |= {
        "HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",  # a torch for GPUs computes on the CPU, too
        "HIP_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),  # what one test compiles serves the next, and other processes
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(not THOROUGH)),  # see pytest_runtest_setup
        "OMP_NUM_THREADS": "1",  # the workers share the cores: torch's threads would wait for each other
        "PYTHONPATH": os.pathsep.join([*further, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        # For processes that tests start: without XLA's newer code generator; from jaxlib 0.11 on there is no other, and an
        # unknown flag would end the process.
        "SCOLIOJAX_TEST_FLAGS": "--xla_cpu_use_fusion_emitters=false"
        * (not THOROUGH and version("jaxlib").startswith("0.10.")),
    }


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a worker is started by a process that came by here
        home = tempfile.TemporaryDirectory(prefix="scoliojax-tests-")
        config.add_cleanup(home.cleanup)
        _isolate(Path(home.name))


@pytest.fixture(scope="session", autouse=True)
def in_the_project() -> None:
    """Wherever pytest was called, commands and tests name files from the project's folder on."""
    os.chdir(ROOT)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the long tests to the workers, each of which begins with its own: then all end at about the same time."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")
    long, short = ([item for item in items if bool(item.get_closest_marker("long")) is kind] for kind in (True, False))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cuts = [len(short) * worker // workers for worker in range(workers + 1)]
    items[:] = [item for worker in range(workers) for item in long[worker::workers] + short[cuts[worker] : cuts[worker + 1]]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Here and in the processes that a test starts, programs are optimised as for users only where the test's mark says so."""
    _compile_quickly()
    few = str(int(not (THOROUGH or item.get_closest_marker("optimised"))))
    if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != few:
        import jax

        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = few
        jax.config.update("jax_disable_most_optimizations", few == "1")
        jax.clear_caches()  # what was compiled the other way; the cache on disk tells them apart


@functools.cache
def _compile_quickly() -> None:
    """Have this process compile as `quick_flags` says, where few optimisations are made.

    There is no public way to give the compiler an option for some programs and not for others. Without the one used here
    tests only take longer.
    """
    from jax._src import compiler

    get = getattr(compiler, "get_compile_options", None)

    def get_quick(*arguments, env_options_overrides=None, **named):
        if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and os.environ["SCOLIOJAX_TEST_FLAGS"]:
            env_options_overrides = {"xla_cpu_use_fusion_emitters": False, **(env_options_overrides or {})}
        return get(*arguments, env_options_overrides=env_options_overrides, **named)

    if get is not None and "env_options_overrides" in inspect.signature(get).parameters:
        compiler.get_compile_options = get_quick


def quick_flags(devices: int = 1) -> str:
    """`XLA_FLAGS` for a process of so many devices whose program is not what is tested: three seconds less to compile."""
    return f"--xla_force_host_platform_device_count={devices} {os.environ['SCOLIOJAX_TEST_FLAGS']}"


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


def make_tiny_config():
    """The main recipe at the smallest size that still has every part."""
    config = sconet_mt.get_config("quickstart")
    config.data.partition = "1:1:1"
    config.data.validation_fraction = 0.0
    config.train.eval_every = 0
    config.data.subjects_per_batch = 2
    config.data.clips_per_subject = 2
    config.data.frames_per_clip = 3
    config.data.sequences_per_eval_batch = 3  # whose 60 frames, padding above all, are computed on each of four devices
    config.data.synthetic.subjects = 18
    config.data.synthetic.frames = 6
    config.model.channels = (2, 3, 4, 5)
    config.model.embedding_dim = 4
    config.train.steps = 6
    config.train.log_every = 1
    config.train.checkpoint_every = 3
    return config


@pytest.fixture
def tiny_config():
    return make_tiny_config()


def make_set(per_class: int = 4, frames: int = 5, seed: int = 0, subjects: list[str] | None = None) -> SequenceSet:
    """Random silhouettes in memory."""
    count = per_class * len(CLASSES)
    rng = np.random.default_rng(seed)
    clips = rng.integers(0, 256, (count, frames, 64, 64), dtype=np.uint8)
    names = tuple(f"{row:05d}" for row in range(count))
    return SequenceSet(
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
        (folder / "000_180.pkl").write_bytes(pickle.dumps(as_silhouettes(data.read(row), np.random.default_rng((seed, row)))))
    return root


def as_silhouettes(noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White figures of a random outline with noise at their edges, uint8 `[s, 64, 64]`: noise alone is no mask."""
    left, right = (rng.integers(low, low + 12, (16, 1)).repeat(4, axis=0) for low in (14, 38))  # 64 1
    columns = np.arange(64)  # 64
    edges = np.where((columns == left) | (columns == right), noise, 0)  # s 64 64
    return np.where((columns > left) & (columns < right), 240 + noise // 16, edges).astype(np.uint8)  # s 64 64


HELD = """
import sys, time
from pathlib import Path
from data_pipelines.scoliosis1k import release_tree
load = release_tree.load_silhouettes

def wait(path):
    while path.parts[-4] == sys.argv[1] and Path(sys.argv[2]).exists():
        time.sleep(0.01)
    return load(path)

release_tree.load_silhouettes = wait
"""
PREPARE = """
from data_pipelines import prepare
prepare.main(["--input", sys.argv[3], "--output", sys.argv[4]])
"""
OPEN = """
from data_pipelines.sources import open_root
data = open_root(sys.argv[3], lambda line: print(line, flush=True))
print(len(data), data.digest())
"""


def start_held(tree: Path, *arguments: object, work: str = PREPARE, **options) -> tuple[subprocess.Popen, Path]:
    """A process of `PREPARE` or `OPEN` that waits before the tree's last sequence until the returned file is removed."""
    hold, last = tree.with_suffix(".hold"), f"{len(list(tree.iterdir())) - 1:05d}"
    command = [sys.executable, "-c", HELD + work, last, hold, tree, *arguments]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, encoding="utf-8", **options), hold


def held_preparation(tree: Path, output: Path) -> tuple[subprocess.Popen, Path]:
    """A preparation in a process group of its own that waits before its last sequence until the returned file is removed."""
    tree.with_suffix(".hold").touch()
    process, hold = start_held(tree, output, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(output.glob("scoliosis1k/incomplete*")):
        assert process.poll() is None
        time.sleep(0.01)
    return process, hold


def run_module(module: str, *arguments: object, devices: int = 1, **kwargs) -> subprocess.CompletedProcess:
    """Run `python -m module arguments` as a user would, on so many simulated devices."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": quick_flags(devices)} | kwargs.pop("env", {}),
        capture_output=True,
        timeout=300,
        check=False,
        encoding="utf-8",
        errors="replace",  # where the locale is another one, what is not ASCII reads otherwise
        **kwargs,
    )


def command_module(module: str) -> ModuleType:
    """The module that `python -m module` runs."""
    package = importlib.util.find_spec(module)
    return importlib.import_module(f"{module}.__main__" if package and package.submodule_search_locations else module)


def run_here(module: str, *arguments: object) -> subprocess.CompletedProcess:
    """As `run_module`, within this process and on its devices: for what does not need a process of its own."""
    main = command_module(module).main
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code
    return subprocess.CompletedProcess([module, *arguments], status, out.getvalue(), err.getvalue())


def assert_one_clear_error(result: subprocess.CompletedProcess, *words: str) -> None:
    """A user's mistake: status not 0, no traceback, one line that says what and how to fix it."""
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
