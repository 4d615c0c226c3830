"""OpenGait checkpoints; `load(path)` gives the network of one."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`load`, `read` and `save` of `checkpoint`, which imports PyTorch; the command answers --help without it."""
    if name in ("load", "read", "save"):
        from scoliojax.interop.opengait import checkpoint

        return getattr(checkpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
