"""Recorded runs of the original: one of each network beside the project, or those that SCOLIOJAX_GOLDEN names."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, shared_folder

VARIABLE = "SCOLIOJAX_GOLDEN"  # the folder of a recorded run, or one that holds some
SETS = ("sconet_tiny", "sconet_ske_tiny", "drf_tiny")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Parity is measured on programs as users compile them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("optimised")


def recorded_runs() -> list[str]:
    """The recorded runs by their names beside the project, or by their folders."""
    if VARIABLE not in os.environ:
        return list(SETS)
    given = Path(os.environ[VARIABLE])
    return [str(path.parent) for path in sorted(given.glob("*/train.npz"))] or [str(given)]


def folder_of(run: str) -> Path:
    """The folder of one of `recorded_runs`; skips where it is not there."""
    folder = shared_folder(VARIABLE, f"golden/{run}")
    return Path(run) if VARIABLE in os.environ else folder


@pytest.fixture(scope="module", params=recorded_runs())
def golden(request) -> Path:
    """The folder of each recorded run in turn."""
    return folder_of(request.param)


@pytest.fixture(scope="module")
def recorded(golden) -> Path:
    """The checkpoint of each recorded run in turn."""
    return next(golden.glob("*.pt"))


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """That of a network which reads silhouettes."""
    beside = ROOT.parent / "shared" / "golden" / SETS[0]
    folders = [*map(folder_of, recorded_runs()), beside]
    silhouettes = [folder for folder in folders if folder.is_dir() and "step0/sils" in np.load(folder / "train.npz").files]
    if not silhouettes:
        pytest.skip(f"{beside} is not there, and {VARIABLE} names no recorded run of a network that reads silhouettes")
    return next(silhouettes[0].glob("*.pt"))
