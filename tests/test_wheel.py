"""The package as it is installed from a wheel, away from any checkout."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT, quick_flags


def run(*words: object, **settings) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, check=False, encoding="utf-8", **settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_an_installed_package_finds_its_recipes_and_trains(tmp_path):
    source, target, elsewhere = tmp_path / "source", tmp_path / "installed", tmp_path / "elsewhere"
    for name in ("scoliojax", "data_pipelines", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    elsewhere.mkdir()
    pip = ("pip", "--disable-pip-version-check", "--no-cache-dir")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("scoliojax-*.whl")
    run(*pip, "install", "--no-deps", "--no-compile", "--target", target, wheel)
    small = [f"--config.{key}" for key in (
        "train.steps=2", "train.log_every=1", "train.eval_every=0", "data.validation_fraction=0.0", "data.subjects_per_batch=2",
        "data.frames_per_clip=3", "data.sequences_per_eval_batch=3", "data.synthetic.subjects=18", "data.synthetic.frames=4",
        "model.channels=(2,3,4,5)",
    )]  # fmt: skip
    workdir = elsewhere / "run"
    command = ("scoliojax.main", "--config", "configs/sconet_mt.py:quickstart", "--workdir", workdir, *small)
    path = os.pathsep.join([str(ROOT / "tests" / "site"), str(target)])
    there = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": quick_flags()}
    packages = "configs, data_pipelines, scoliojax"
    where = f"import {packages}; print(*(module.__file__ for module in ({packages})), sep='\\n')"
    found = subprocess.check_output([sys.executable, "-c", where], cwd=elsewhere, env=there, encoding="utf-8").splitlines()
    assert all(file.startswith(str(target)) for file in found), found  # not a checkout that is installed here, too
    printed = run(*command, cwd=elsewhere, env=there)
    assert "results:" in printed
    assert len((workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    (page,) = (target / "scoliojax" / "templates").glob("report.html.j2")  # what is no module is installed, too
    assert page.stat().st_size > 0
    lines = json.loads((workdir / "environment.json").read_text(encoding="utf-8"))
    assert lines["git_commit"] == "unknown"
