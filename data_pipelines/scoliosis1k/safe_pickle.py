"""Safe unpickling: the only code that opens a pickle. It rebuilds numpy arrays from their own bytes and does nothing else.

Names in a pickle become inert notes, never something that is called. No dictionary, set or object is built. The arrays are made
at the end, as views of bytes that the file holds, so a short file cannot ask for much memory or time.
"""

import contextlib
import gzip
import io
import pickle
import pickletools
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.files import kind_of, read_file
from data_pipelines.masks import judged
from data_pipelines.schema import FRAME_SIZE, FRAME_WIDTH, SIDE_CUT, DataError
from data_pipelines.scoliosis1k.levels import as_levels

MOST_BYTES = 2**27  # of a pickle, also of one in gzip: 32,768 frames of one byte a pixel
LARGE = 2**24  # bytes, unpacked; larger pickles are read one at a time, so that memory does not grow with the number of threads
LARGE_ONES = threading.RLock()
MOST_OPERATIONS = 10**6  # of a pickle; one of an array has 40, a list of 300 frames 4,000
WANTED = f"[frames, {FRAME_SIZE}, {FRAME_SIZE}], uint8"
GZIP = b"\x1f\x8b"
GZIP_DEFLATE = GZIP + b"\x08"  # begins a member
MOST_MEMBERS = 10_000  # blocks of 64 kB, as some programs write them, would be 2,000 at most
OPCODES = frozenset(  # of protocols 0 to 5: numbers, text, bytes, tuples, lists, names, and what refers to them
    """PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET
    LONG_BINGET""".split()  # noqa: SIM905, one name a line otherwise
)
CODES = {operation.code: operation for operation in pickletools.opcodes}
OTHERS = {"DICT": "a dict", "EMPTY_DICT": "a dict", "SETITEM": "a dict", "EMPTY_SET": "a set", "FROZENSET": "a set",
          "FLOAT": "numbers", "BINFLOAT": "numbers", "NEWOBJ": "an object", "INST": "an object", "OBJ": "an object",
          "NEXT_BUFFER": "an array whose bytes lie elsewhere", "PERSID": "an object that lies elsewhere",
          "BINPERSID": "an object that lies elsewhere, as in PyTorch's files"}  # fmt: skip
KINDS = {"torch": "a PyTorch tensor", "jax": "a JAX array", "jaxlib": "a JAX array", "pandas": "a pandas table",
         "scipy": "a SciPy object", "PIL": "a picture of PIL", "cupy": "a CuPy array", "tensorflow": "a TensorFlow tensor",
         "collections": "a dict"}  # fmt: skip


BEGINNING = 512  # bytes in which a maker shows
MAKERS = {pickle.dumps(0x1950A86A20F9469CFC6C, 2)[:-1]: "torch.save", b"joblib.numpy_pickle": "joblib.dump"}


class _Refused(Exception):  # noqa: N818, a verdict, not a fault of ours
    """A readable pickle of something else; the message is for the user."""


class _Note:
    """A name in a pickle, what it was called with, and the state that it was given."""

    def __init__(self, name: str, *arguments: Any):
        self.name, self.arguments, self.state = name, arguments, ()

    def __call__(self, *arguments: Any) -> "_Note":
        return _Note(self.name, *arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


_ALLOWED = {("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): "dtype", ("_codecs", "encode"): "encode"}
for _package in ("numpy.core", "numpy._core"):  # the names before and after numpy 2
    _ALLOWED[f"{_package}.multiarray", "_reconstruct"] = "reconstruct"
    _ALLOWED[f"{_package}.numeric", "_frombuffer"] = "frombuffer"  # protocol 5


class _Notes(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Note:
        try:
            return _Note(_ALLOWED[module, name])
        except KeyError:
            kind = KINDS.get(module.partition(".")[0], "")
            what = f"which is {kind}, no numpy array" if kind else "which is no numpy array"
            raise _Refused(f"it asks for {module}.{name}, {what}; refused") from None


def _check(content: bytes) -> None:
    """Walk over the operations of a pickle without any being done; raises for one that no array needs."""
    for mark, what in MAKERS.items():
        if mark in content[:BEGINNING]:
            raise _Refused(f"is a file of {what}, which is more than a pickle")
    if not content.rstrip().endswith(b"."):
        raise pickle.UnpicklingError("it does not end as a pickle does")
    stream, count = io.BytesIO(content), 0
    while True:
        code = stream.read(1)
        operation = CODES.get(code.decode("latin-1"))
        if operation is None:
            raise pickle.UnpicklingError(f"byte {code!r} at {count:,} begins no operation")
        count += 1
        if count > MOST_OPERATIONS:
            raise pickle.UnpicklingError(f"more than {MOST_OPERATIONS:,} operations")
        if operation.name not in OPCODES:
            raise _Refused(f"holds {OTHERS.get(operation.name, f'the operation {operation.name}')}; refused")
        # The library's reader of a Python 2 text knows ASCII alone.
        reader = io.BytesIO.readline if operation.name == "STRING" else operation.arg and operation.arg.reader
        argument: Any = reader(stream) if reader else None
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= count:
            raise pickle.UnpicklingError(f"{argument:,} as the number of what is kept")
        if operation.name == "FRAME" and argument > len(content):
            raise pickle.UnpicklingError(f"a frame of {argument:,} bytes in a file of {len(content):,}")
        if operation.name == "STOP":
            if stream.read().strip():
                raise _Refused("holds more than one pickle, of which only the first would be read; refused")
            return


def _bytes(value: Any) -> bytes:
    """The bytes of an array, whichever way a protocol writes them."""
    if isinstance(value, _Note) and value.name == "encode" and len(value.arguments) == 2:
        text, encoding = value.arguments
        if isinstance(text, str) and encoding in ("latin1", b"latin1"):
            return text.encode("latin-1")
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise pickle.UnpicklingError("an array without bytes of its own")


def _dtype(note: Any) -> np.dtype:
    """A number type; object arrays and records are none."""
    if not isinstance(note, _Note) or note.name != "dtype" or not note.arguments:
        raise pickle.UnpicklingError("an array without a type")
    text = note.arguments[0]
    text = text.decode("ascii") if isinstance(text, bytes) else text
    if not isinstance(text, str) or len(text) > 3 or text[:1] not in "biuf":
        raise _Refused("holds an array of something else than numbers; refused")
    order = note.state[1] if isinstance(note.state, tuple) and len(note.state) > 1 else "|"
    order = order.decode("ascii") if isinstance(order, bytes) else order
    return np.dtype(text).newbyteorder(order if order in ("<", ">") else "=")


class _Parts(NamedTuple):
    content: Any  # bytes, or a note of them
    dtype: np.dtype
    shape: tuple[int, ...]
    order: str
    axes: tuple[int, ...] | None  # in whose order the array is then seen


def _parts(note: Any) -> _Parts:
    """What an array is made of, as its note has it."""
    axes = None
    if isinstance(note, _Note) and note.name == "frombuffer" and len(note.arguments) in (4, 5):
        content, kind, shape, order, *more = note.arguments
        if order == "K" and more:  # as numpy 2.4 writes it: the order of the axes follows
            order, axes = "C", more[0]
    elif isinstance(note, _Note) and note.name == "reconstruct" and isinstance(note.state, tuple) and len(note.state) == 5:
        kind, shape = (*note.arguments, None, None)[:2]
        if not isinstance(kind, _Note) or kind.name != "ndarray" or shape != (0,):
            raise pickle.UnpicklingError("an array that does not begin empty")
        _, shape, kind, by_columns, content = note.state
        order = "F" if by_columns else "C"
        if isinstance(content, list):
            raise _Refused("holds an array of something else than numbers; refused")
    elif isinstance(note, _Note):
        raise _Refused(f"holds numpy's {note.name} without the bytes of an array; refused")
    else:
        raise _Refused(f"holds a {type(note).__name__}")
    sizes = isinstance(shape, tuple) and len(shape) <= 8 and all(type(size) is int and 0 <= size < 2**31 for size in shape)
    if not sizes or order not in ("C", "F", b"C", b"F"):
        raise pickle.UnpicklingError("an array without a shape")
    if axes is not None and not (
        isinstance(axes, tuple) and all(type(axis) is int for axis in axes) and sorted(axes) == [*range(len(shape))]
    ):
        raise pickle.UnpicklingError("an array without an order of its axes")
    return _Parts(content, _dtype(kind), shape, order if isinstance(order, str) else order.decode("ascii"), axes)


def _array(part: _Parts) -> np.ndarray:
    """A view of the bytes of one array."""
    content, size = _bytes(part.content), part.dtype.itemsize
    for extent in part.shape:
        size *= extent
    if len(content) != size:
        raise pickle.UnpicklingError(f"shape {part.shape} needs {size:,} bytes, and there are {len(content):,}")
    array = np.frombuffer(content, part.dtype).reshape(part.shape, order="F" if part.order == "F" else "C")
    return array if part.axes is None else array.transpose(part.axes)


def _rebuild(content: bytes) -> np.ndarray:
    """The array of a pickle, or the frames of its list one upon another."""
    _check(content)
    found = _Notes(io.BytesIO(content), encoding="bytes").load()
    if not isinstance(found, (list, tuple)):
        return _array(_parts(found))
    if not found:
        raise _Refused("holds an empty list")
    if not isinstance(found[0], _Note):
        raise _Refused(f"holds a {type(found).__name__} of {type(found[0]).__name__}")
    if odd := [type(one).__name__ for one in found if not isinstance(one, _Note)]:
        raise _Refused(f"holds a {type(found).__name__} of {len(found)}, among them {odd[0]}, not only arrays")
    parts = [_parts(note) for note in found]
    if len({(part.shape, part.dtype) for part in parts}) > 1:
        shapes = sorted({str(part.shape) for part in parts})
        raise _Refused(f"holds a list of arrays of different shapes or types ({' and '.join(shapes[:2])})")
    claimed = len(found) * parts[0].dtype.itemsize * int(np.prod(parts[0].shape, dtype=object))
    if claimed > len(content):
        raise pickle.UnpicklingError(f"its arrays need {claimed:,} bytes, and the file has {len(content):,}")
    frames = [_array(part) for part in parts]
    return np.stack(frames) if frames[0].ndim < 3 else np.concatenate(frames)


def _unzip(content: bytes, path: Path, alone: contextlib.ExitStack) -> bytes:
    """What a gzip file holds: all its members one after another; more than `LARGE` bytes with `LARGE_ONES`, in `alone`."""
    if content.count(GZIP_DEFLATE) > MOST_MEMBERS:
        raise _Refused(f"is a gzip file of more than {MOST_MEMBERS:,} members; refused")
    file = gzip.GzipFile(fileobj=io.BytesIO(content))
    plain = file.read(LARGE + 1)
    if len(plain) > LARGE:  # its own claim could be a lie
        alone.enter_context(LARGE_ONES)
        plain += file.read(MOST_BYTES + 1 - len(plain))
    if len(plain) > MOST_BYTES:
        raise DataError(f"{path}: unpacks to more than {MOST_BYTES:,} bytes; give one sequence")
    return plain


def _as_frames(array: np.ndarray, path: Path) -> np.ndarray:
    """The array as `[s, 64, 64]`, or `[s, 64, 44]` without the columns that nobody reads."""
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):  # one channel, first or last
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]  # s h w
    expected = f"give [frames, {FRAME_SIZE}, {FRAME_SIZE}] with at least one frame"
    shape = array.shape
    if array.ndim == 3 and shape[1] in (17, 18) and shape[2] in (2, 3):
        raise DataError(f"{path}: shape {shape} is the pose release; give the silhouette release")
    if array.ndim != 3 or shape[1:] not in ((FRAME_SIZE, FRAME_SIZE), (FRAME_SIZE, FRAME_WIDTH)) or len(array) == 0:
        what = ""
        if array.ndim == 4 and 3 in (shape[1], shape[3]):
            what = " is in colour"
        elif array.ndim == 2:
            what = " is one picture or none"
        elif array.ndim == 3 and len(array) and min(shape[1:]) > FRAME_SIZE:
            what = " is of another size: write raw masks as PNG, one file a frame, which are then cut and scaled as in training"
        raise DataError(f"{path}: shape {shape}{what}; {expected}")
    return array


def load_silhouettes(path: Path) -> np.ndarray:
    """One released sequence: uint8 `[s, 64, 64]`, 0..255, `s` >= 1; raises `DataError` naming a file that is anything else.

    Read as well, because nothing is lost: gzip, the pickles of Python 2, lists of frames, `[s, 64, 44]`, other number types
    with whole values or fractions of 255, and masks of any two values.
    """
    content = read_file(path, MOST_BYTES)
    with contextlib.ExitStack() as alone:
        if len(content) > LARGE:
            alone.enter_context(LARGE_ONES)
        return as_silhouettes(_load(content, path, alone, WANTED), path)


def as_silhouettes(array: np.ndarray, path: Path) -> np.ndarray:
    """What a pickle held, as `load_silhouettes` gives it; raises `DataError` naming the file `path` for anything else."""
    levels = judged(np.ascontiguousarray(as_levels(_as_frames(array, path), path)), path)  # s 64 w
    if levels.shape[2] == FRAME_SIZE:
        return levels
    return np.pad(levels, ((0, 0), (0, 0), (SIDE_CUT, SIDE_CUT)))  # s 64 64


def load_array(path: Path, most: int, wanted: str) -> np.ndarray:
    """The array of a pickle of at most `most` bytes; raises `DataError` naming a file of anything else, with what is `wanted`.

    A list of arrays of one shape becomes one array, of one more axis where they have less than three.
    """
    with contextlib.ExitStack() as alone:
        return _load(read_file(path, most), path, alone, wanted)


def _load(content: bytes, path: Path, alone: contextlib.ExitStack, wanted: str) -> np.ndarray:
    zipped = content.startswith(GZIP)
    try:
        if zipped:
            content = _unzip(content, path, alone)
        return _rebuild(content)
    except DataError:
        raise
    except _Refused as error:
        raise DataError(f"{path}: {error}; give numpy's array {wanted}") from error
    except Exception as error:  # damaged or hostile bytes can make an unpickler raise anything
        kind, remedy = kind_of(content.removeprefix(GZIP)) if content else ("empty", "")  # gzip is no other kind, but damaged
        what = f"it is {kind}{' in gzip' * zipped}{'; ' * bool(remedy)}{remedy}" if kind else f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: not a readable pickle of a numpy array ({what})") from error
