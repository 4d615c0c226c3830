from pathlib import Path

import numpy as np
import pytest

from tests.conftest import shared_folder


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Poses, maps and asymmetry vectors of a run of the public implementations."""
    folder: Path = shared_folder("SCOLIOJAX_GOLDEN_POSE", "golden/pose")
    with np.load(folder / "poses.npz") as content:
        return dict(content)
