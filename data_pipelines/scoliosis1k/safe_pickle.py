"""Safe unpickling: the only code that opens a pickle. It can build numpy arrays and nothing else."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import numeric

from data_pipelines.schema import FRAME_SIZE, DataError


def _reconstruct(kind: type, shape: tuple[int, ...], typecode: Any) -> np.ndarray:
    """Build the empty array that a numpy pickle fills later; a larger one would take memory before any data is read."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError(f"an array is rebuilt from {kind!r} and shape {shape!r}")
    return np.ndarray(shape, typecode)


_ALLOWED = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): codecs.encode}
for _package in ("numpy.core", "numpy._core"):  # the names before and after numpy 2
    _ALLOWED[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_package}.numeric", "_frombuffer"] = numeric._frombuffer  # pyright: ignore[reportAttributeAccessIssue]; protocol 5


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no numpy array; refused") from None


def load_silhouettes(path: Path) -> np.ndarray:
    """One released sequence: uint8 `[s, 64, 64]`, 0..255, `s` >= 1; raises `DataError` naming a file that is anything else."""
    try:
        with path.open("rb") as file:
            array = _ArrayUnpickler(file).load()
    except Exception as error:  # damaged or hostile bytes can make an unpickler raise anything
        raise DataError(f"{path}: not a readable pickle of a numpy array ({type(error).__name__}: {error})") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: holds a {type(array).__name__}; expected a numpy array")
    if array.ndim == 3 and array.shape[1:] == (17, 3):
        raise DataError(f"{path}: shape {array.shape} is the pose release; give the silhouette release")
    if array.ndim != 3 or array.shape[1:] != (FRAME_SIZE, FRAME_SIZE) or len(array) == 0:
        raise DataError(f"{path}: shape {array.shape}; expected [frames, {FRAME_SIZE}, {FRAME_SIZE}] with at least one frame")
    if array.dtype != np.uint8:
        raise DataError(f"{path}: dtype {array.dtype}; expected uint8 with values 0..255")
    if array.max() <= 1:
        raise DataError(f"{path}: largest value {array.max()}; expected 0..255 (multiply a 0/1 mask by 255)")
    return np.ascontiguousarray(array)  # s 64 64
