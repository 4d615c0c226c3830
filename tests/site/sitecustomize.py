"""Refuses TensorFlow in every Python of a test session: this process through conftest, those that it starts by their path.

Nothing of ours may need it at any size, and the libraries that we lean on ask for it only beyond some limit. Whether it is
there may be asked, for some of them do; whoever imports it fails, also where it is installed.
"""

import sys
from importlib.abc import MetaPathFinder


class RefuseTensorFlow(MetaPathFinder):
    """Comes before all other finders."""

    def find_spec(self, fullname, path=None, target=None):
        """Raise `AssertionError` where TensorFlow is imported; leave everything else to the other finders."""
        if fullname.split(".")[0] == "tensorflow" and not _only_asks():
            raise AssertionError("something asks for TensorFlow, which nothing may need")


def _only_asks() -> bool:
    """Whether this comes from `importlib.util.find_spec`, and not from an import, which may have been begun there."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != "_find_and_load":
        if frame.f_code.co_name == "find_spec" and frame.f_globals.get("__name__") == "importlib.util":
            return True
        frame = frame.f_back
    return False


if not any(type(finder).__name__ == RefuseTensorFlow.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, RefuseTensorFlow())
