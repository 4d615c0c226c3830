"""The table of a program that is compiled and not run; where a compiler for TPUs or GPUs is installed, a real one."""

import importlib.util
import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from configs import drf, sconet_mt
from scoliojax.devices.targets import MACHINES, Target
from scoliojax.errors import RunError
from scoliojax.models.cost import train_flops_per_step
from scoliojax.runs.compiling import evaluation_program, frames_shared, training_program
from scoliojax.runs.examining import Figures, compile_program, examine, lower, room, table
from tests.benchmark.test_collectives import arithmetic
from tests.conftest import assert_one_clear_error, run_here, run_module

RECIPE = "--config=configs/sconet_mt.py"
NARROW = (  # the published recipe with few channels and clips
    RECIPE, "--config.model.channels=(8,8,8,8)", "--config.model.embedding_dim=16", "--config.data.frames_per_clip=8",
    "--config.data.subjects_per_batch=4", "--config.data.clips_per_subject=2",
)  # fmt: skip
COSTLY = {
    "name": "fusion.1",
    "kind": "fusion",
    "result": "f32[2]",
    "times": 1,
    "cycles": 2_500_000,
    "bytes": 8,
    "line": "a.py:1",
}
FIGURES = Figures(
    target="v5e:2x2", device="TPU v5 lite", devices=4, program="training step", jax="0.0", fits=True, memory=16e9,
    numbers={"memory: total (MB)": 2_000.0, "estimated cycles (million)": 50.0},
    collectives={"all-reduce": [24, 90, 28_000_000]}, costly=[COSTLY],
)  # fmt: skip


@pytest.fixture
def mesh():
    return Mesh(np.array(jax.devices()), ("data",))


def here(platform: str) -> Target:
    """The four simulated devices, as if they were others."""
    return Target("here", platform, jax.devices(), MACHINES["TPU v5 lite" if platform == "tpu" else "NVIDIA H100"])


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_training_step_is_examined_from_shapes_alone(platform, tiny_config, mesh):
    program = training_program(tiny_config, mesh, "cpu", share=False)
    assert program.what == "training step, float32, 4 clips x 3 frames"
    assert program.flops == train_flops_per_step(tiny_config.model.channels, 4, 3)
    found = examine(here(platform), program, program.lowered.compile())
    assert found.devices == 4
    assert found.fits
    assert found.collectives["all-reduce"][2] == arithmetic(tiny_config, 4)["all-reduce"]
    numbers = found.numbers
    parts = ("arguments", "outputs", "temporaries", "code")
    total = sum(numbers[f"memory: {part} (MB)"] for part in parts) - numbers["memory: of these in the place of arguments (MB)"]
    assert numbers["memory: total (MB)"] == pytest.approx(total)
    assert ("estimated cycles (million)" in numbers) == (platform == "tpu")
    assert ("traffic of all kernels (GB)" in numbers) == (platform == "cuda")
    assert len(found.costly) == 10
    assert any(one["line"] for one in found.costly)


def test_the_batch_has_the_shapes_of_a_run(mesh):
    config = sconet_mt.get_config("quickstart")
    config.data.subjects_per_batch, config.data.clips_per_subject, config.data.frames_per_clip = 4, 8, 30
    assert frames_shared(config, 4) == (1, 0)  # each clip is changed in its own way
    config.data.augment = sconet_mt.get_config().data.augment
    assert frames_shared(config, 4) == (8, 192)
    config.data.share_frames = False
    assert frames_shared(config, 4) == (1, 0)
    config.data.share_frames = True
    assert training_program(config, mesh, "cpu", share=184).flops == train_flops_per_step(config.model.channels, 4, 184)
    program = training_program(config, mesh, "cpu")
    assert program.what == "training step, float32, 32 clips x 30 frames, every 8 share 192 of 240"
    assert program.flops == train_flops_per_step(config.model.channels, 4, 192)
    program = evaluation_program(config, mesh, "cpu")
    assert program.what == "evaluation, float32, 32 sequences x 720 frames"
    assert 3 * program.flops == train_flops_per_step(config.model.channels, 32, 720)


def test_the_batch_of_drf_has_two_channels_and_vectors(mesh):
    config = drf.get_config("quickstart")
    program = training_program(config, mesh, "cpu")
    clips, frames = config.data.subjects_per_batch * config.data.clips_per_subject, config.data.frames_per_clip
    assert program.what == f"training step, float32, {clips} clips x {frames} frames"
    assert program.flops == train_flops_per_step(config.model.channels, clips, frames, 2)
    shapes = {str(array) for array in jax.tree.leaves(program.lowered.in_avals)}
    assert shapes >= {f"uint8[{clips},{frames},2,64,44]", f"float32[{clips},8,3]"}
    evaluated = evaluation_program(config, mesh, "cpu", longest=60)
    shapes = {str(array) for array in jax.tree.leaves(evaluated.lowered.in_avals)}
    assert shapes >= {"uint8[32,60,2,64,44]", "bool[32,60]", "float32[32,8,3]"}


def test_the_table_has_another_program_beside_it():
    lines = table(FIGURES)
    assert lines[0].endswith("(v5e:2x2), jax 0.0; compiled, not run")
    assert "| estimated cycles (million) | 50 |" in lines
    assert "| all-reduce: calls | 24 |" in lines
    assert "| fusion.1 (fusion) | 2.50 | f32[2] | a.py:1 |" in lines
    other = replace(FIGURES, numbers={"memory: total (MB)": 4_000.0, "traffic (GB)": 1.5}, collectives={})
    lines = table(FIGURES, other)
    assert "| memory: total (MB) | 2,000 | 4,000 | 0.50 |" in lines
    assert "| estimated cycles (million) | 50 |  |  |" in lines
    assert "| traffic (GB) |  | 1.5 |  |" in lines


def test_a_config_that_does_not_fit_says_by_how_much_and_what_to_lower():
    config = sconet_mt.get_config()
    assert room(FIGURES, config, False) == "fits: 2.0 GB of 16.0 GB"
    large = replace(FIGURES, fits=False, numbers={"memory: total (MB)": 32_000.0})
    assert "does not fit: 32.0 GB, 16.0 GB more than the 16.0 GB" in room(large, config, False)
    assert "data.subjects_per_batch=8, e.g. to 3, or take more devices" in room(large, config, False)
    assert "data.sequences_per_eval_batch=8, e.g. to 3" in room(large, config, True)
    config.data.sequences_per_eval_batch = 1
    assert lower(config, True, 0.5) == "lower data.max_eval_frames=720"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Ran out of memory in hbm. Used 20.10G of 15.75G hbm. Exceeded", ["20.1 GiB, 4.4 GiB more than the 15.8 GiB"]),
        ("the total memory required for HLO temporaries (22.58G) exceeds available HBM (15.75G).", ["22.6 GiB, 6.8 GiB more"]),
        ("something else\n entirely", ["the compiler ends with", "something else entirely"]),
    ],
)  # fmt: skip
def test_a_compiler_that_finds_no_room_is_understood(said, words):
    def fail():
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {said}")

    program = SimpleNamespace(what="training step", lowered=SimpleNamespace(compile=fail))
    with pytest.raises(RunError) as caught:
        compile_program(program, here("tpu"), sconet_mt.get_config(), False)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


MISTAKES = [
    (["--target=v9:2x2"], ["--target='v9:2x2'", "v5e:SHAPE", "h100"]),
    ([], ["--target"]),
    (["--target=v5e:2x2", "--config.data.subjects_per_batch=0"], ["subjects_per_batch"]),
    (["--target=v5e:2x2", "stray"], ["stray"]),
    (["--target=v5e:2x2", "--shared-frames=1"], ["--shared-frames"]),
    (["--target=v5e:2x2", "--shared-frames=9", "--evaluation"], ["--shared-frames=9", "--evaluation"]),
    (["--target=v5e:2x2", "--json=/nowhere/x.json"], ["--json=/nowhere/x.json"]),
    (["--target=v5e:2x2", "--save=tests"], ["--save=", "new folder"]),
    (["--target=v5e:2x2", "--against=/nowhere/x.json"], ["--against=/nowhere/x.json", "does not exist"]),
    (["--target=v5e:2x2", "--against=pyproject.toml"], ["--against=", "--json wrote"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_a_mistake_is_said_before_anything_is_compiled(arguments, words):
    assert_one_clear_error(run_here("scoliojax.benchmark.program", RECIPE, *arguments), *words)


@pytest.mark.parametrize(
    ("target", "words"), [("v5e:2x2", ["libtpu", "scoliojax[tpu]"]), ("h100", ["jax_cuda13_plugin", "scoliojax[cuda]"])]
)
def test_a_missing_compiler_says_what_to_install(target, words, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert_one_clear_error(run_here("scoliojax.benchmark.program", RECIPE, f"--target={target}"), *words)


COMPILERS = [
    ("v5e:2x2", "libtpu", "estimated cycles (million)"),
    ("h100:4", "jax_cuda13_plugin", "traffic of all kernels (GB)"),
]


@pytest.mark.long
@pytest.mark.parametrize(("target", "package", "figure"), COMPILERS)
def test_a_narrow_step_compiles_for_an_accelerator_that_is_not_there(target, package, figure, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; it compiles for {target.partition(':')[0]}")
    command = ("scoliojax.benchmark.program", f"--target={target}", *NARROW)
    result = run_module(*command, f"--json={tmp_path}/one.json", f"--save={tmp_path}/kept")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "training step, bfloat16, 8 clips x 8 frames; 4 x " in result.stdout
    found = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert asdict(Figures(**found)) == found == json.loads((tmp_path / "kept" / "figures.json").read_text(encoding="utf-8"))
    assert (tmp_path / "kept" / "program.txt").read_text(encoding="utf-8").startswith("HloModule")
    assert found["numbers"][figure] > 0
    assert any("kernels/" in one["line"] or "models/" in one["line"] for one in found["costly"])
    uneven = run_module(*command, "--config.data.subjects_per_batch=3", "--config.data.clips_per_subject=3")
    assert_one_clear_error(uneven, "9 clips do not divide evenly over 4 devices")
