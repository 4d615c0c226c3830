from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Parity is measured on programs as users compile them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("optimised")
