"""What a file of `torch.save` describes: tensors by the place of their numbers, and anything else by its name."""

import math
from typing import Any, NamedTuple


class Storage(NamedTuple):
    """A row of numbers in a file; `count` as the file states it."""

    key: str
    dtype: str
    size: int  # bytes of one number
    count: int


class Stored(NamedTuple):
    """A tensor as its file describes it: a view of a storage; no number of it has been read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers
    negated: bool = False  # its numbers are stored with the other sign, PyTorch's "neg" bit

    @property
    def end(self) -> int:
        """The place in the storage behind its last number."""
        return self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)) + 1

    def misfit(self) -> str | None:
        """Why this is no view of different numbers of its storage; None where it is."""
        asked, reach = math.prod(self.shape), 0
        for stride, n in sorted((stride, n) for n, stride in zip(self.shape, self.strides, strict=True) if n > 1):
            if stride <= reach:
                return f"repeats its numbers ({asked} from {self.storage.count} stored: an expanded view)"
            reach += (n - 1) * stride
        if asked and self.end > self.storage.count:
            return f"asks for {self.end} numbers of {self.storage.count} stored"
        return None


class Other(NamedTuple):
    """Anything else that a file names, by its name or kind; nothing was called to make it."""

    name: str
    code: Any = None  # of a numpy.dtype: its first argument


def label(name: Any) -> str:
    """A name out of a file, fit to stand in a message."""
    name = str(name)[:80] if isinstance(name, (str, int)) else type(name).__name__
    return name if name.isprintable() else repr(name)


def shown(value: Any) -> str:
    """A value out of a file, for a message: short, and without what could hide in it."""
    if value is None or isinstance(value, float | bool) or (isinstance(value, int) and abs(value) < 2**63):
        return repr(value)
    if isinstance(value, Stored):
        return f"a tensor {value.shape} {value.storage.dtype}"
    return f"a {label(value.name)}" if isinstance(value, Other) else f"a {type(value).__name__}"
