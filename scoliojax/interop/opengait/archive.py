"""Files of `torch.save`, both formats, opened so that a file can neither run code nor ask for more memory than it fills.

PyTorch's own safe loader builds every tensor while it reads, of any size that a file states. Here a file is first described:
the pickle inside is read sign by sign, nothing it names is called, and a tensor is the place of its numbers. Only tensors
that were asked for, and fit, are read, each number against the archive's checksums.
"""

import io
import itertools
import math
import pickletools
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError, one_line

DESCRIPTION_LIMIT = 2**22  # bytes of a pickle or of an archive's directory; the published network's pickle has 60 kB
NUMBERS_LIMIT = 2**30  # bytes of all tensors read; those of the published network and its momentum have 56 MB
MAGIC = 0x1950A86A20F9469CFC6C  # the first number in a file of the format before PyTorch 1.6

STORAGES = {  # bytes of a number and its type, by the name of its storage class
    "Float": (4, "float32"), "Double": (8, "float64"), "Half": (2, "float16"), "BFloat16": (2, "bfloat16"),
    "Long": (8, "int64"), "Int": (4, "int32"), "Short": (2, "int16"), "Char": (1, "int8"), "Byte": (1, "uint8"),
    "Bool": (1, "bool"), "ComplexFloat": (8, "complex64"), "ComplexDouble": (16, "complex128"), "Untyped": (1, "bytes"),
    "QInt8": (1, "qint8"), "QUInt8": (1, "quint8"), "QInt32": (4, "qint32"),
}  # fmt: skip
FLOATS = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}  # bfloat16: the upper half of a float32
TENSORS = {"_rebuild_tensor", "_rebuild_tensor_v2"}
PARAMETERS = {"_rebuild_parameter", "_rebuild_parameter_with_state"}
OTHER_TENSORS = {  # what the others of PyTorch's functions rebuild
    "_rebuild_tensor_v3": "tensor of a rare type", "_rebuild_sparse_tensor": "sparse tensor",
    "_rebuild_sparse_csr_tensor": "sparse tensor", "_rebuild_qtensor": "quantised tensor",
    "_rebuild_nested_tensor": "nested tensor", "_rebuild_meta_tensor_no_storage": "meta tensor, which has no numbers",
    "_rebuild_wrapper_subclass": "tensor of a subclass", "_rebuild_from_type_v2": "tensor of a subclass",
    "_rebuild_device_tensor_from_numpy": "tensor of another device",
    "_rebuild_device_tensor_from_cpu_tensor": "tensor of another device",
}  # fmt: skip
DICTIONARIES = {"collections.OrderedDict", "collections.Counter", "collections.defaultdict"}
PLAIN_DATA = {  # beside tensors, in files of common trainers; never built
    "argparse.Namespace", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "_codecs.encode",
    "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device", "builtins.set",
}  # fmt: skip

SIGNS = (  # how files of other kinds begin
    (b"version https://git-lfs", "a git-lfs pointer, which stands for a file that was not fetched; run git lfs pull"),
    (b"\x1f\x8b", "compressed (gzip); unpack it first"),
    (b"BZh", "compressed (bzip2); unpack it first"),
    (b"\xfd7zXZ", "compressed (xz); unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd); unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (b"\x93NUMPY", "a numpy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
)
GIVE = "give a checkpoint that torch.save wrote, e.g. ScoNet-20000.pt"


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


class _Refused(ValueError):  # noqa: N818, as the pickle is
    """The pickle asks for what no checkpoint needs."""


@dataclass(frozen=True)
class Archive:
    """An open file: what it holds, and where the numbers are."""

    path: Path
    content: Any  # dicts with str and int keys, lists, tuples, plain values, `Stored` and `Other`
    load: Callable[[Storage], bytes]

    def numbers(self, tensors: Mapping[str, Stored]) -> dict[str, np.ndarray]:
        """The numbers of tensors that fit (`Stored.misfit`) and have a type of `FLOATS`, bfloat16 as float32.

        `RunError` when together they are larger than `NUMBERS_LIMIT`, or two of them share numbers; nothing was read then.
        """
        groups: dict[Storage, list[tuple[Stored, str]]] = {}
        for name, tensor in tensors.items():
            groups.setdefault(tensor.storage, []).append((tensor, name))
        if (asked := sum(storage.count * storage.size for storage in groups)) > NUMBERS_LIMIT:
            raise RunError(
                f"{self.path} has {asked / 1e9:.1f} GB of tensors; at most {NUMBERS_LIMIT / 1e9:.1f} GB are read (a "
                "published checkpoint has 0.06 GB)"
            )
        for views in groups.values():
            views.sort(key=lambda view: view[0].offset)
            for (one, name), (other, twin) in itertools.pairwise(views):
                if other.offset < one.end:
                    raise RunError(f"{self.path}: {name} and {twin} share numbers in the file; save a clone() of each")
        found = {}
        for storage, views in groups.items():
            stored = np.frombuffer(self.load(storage), FLOATS[storage.dtype])
            for tensor, name in views:
                strides = [stride * storage.size for stride in tensor.strides]
                array = np.array(np.lib.stride_tricks.as_strided(stored[tensor.offset :], tensor.shape, strides))
                found[name] = (array.astype(np.uint32) << 16).view(np.float32) if storage.dtype == "bfloat16" else array
        return found


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Describe a file of `torch.save`; `RunError` says what the file is where it is none, or what is wrong with it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "no regular file (a pipe, a device or a socket)"
            raise RunError(f"{path} is {kind}; {GIVE}")
        with path.open("rb") as file:
            _refuse_others(path, file)
            with _open_zip(path, file) if file.read(4) == b"PK\3\4" else _open_legacy(path, file) as archive:
                yield archive
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; {GIVE}") from None
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror or one_line(error)})") from None
    except _Refused as error:
        raise RunError(f"{path} is refused: {error}") from None
    except Exception as error:  # bytes from outside can make zip and pickle raise anything; all of it means the same
        raise RunError(f"{path} is damaged ({type(error).__name__}: {one_line(error)}); copy it again") from error


def _refuse_others(path: Path, file: BinaryIO) -> None:
    """Raise `RunError` with what the file is, where its first bytes are those of another kind."""
    head = file.read(1024)
    kind = next((kind for sign, kind in SIGNS if head.startswith(sign)), None)
    if not head:
        kind = "empty; copy or download it again"
    elif not any(head):
        kind = "full of zeros where it begins: it was not written to its end; copy or download it again"
    elif head[257:262] == b"ustar":
        kind = "a tar archive; unpack it first"
    elif head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**40:
        kind = "a safetensors file"
    elif head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a", b"\x3a"):
        kind = "an ONNX network"
    elif head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        kind = "a web page, such as a download gives where it needs a login; download it with the browser"
    elif not kind and _is_text(head):
        kind = f"a text file that begins {head[:40].decode(errors='replace')!r}"
    if kind:
        raise RunError(f"{path} is {kind}" + ("" if ";" in kind else f"; {GIVE}"))
    file.seek(0)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError as error:  # a sign that the end of `head` divides
        text = head.decode(errors="ignore") if error.start > len(head) - 4 else "\0"
    return all(sign.isprintable() or sign.isspace() or sign == "\ufeff" for sign in text)


@contextmanager
def _open_zip(path: Path, file: BinaryIO) -> Iterator[Archive]:
    """The format since PyTorch 1.6: a pickle, and one member for each storage."""
    _judge_directory(path, file)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise RunError(f"{path} is damaged: it holds {abbreviate(twice, 3)} twice")
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise RunError(f"{path} is a TorchScript archive (a program); save the network's state_dict() with torch.save")
        if any(name.endswith(("serialized_exported_program.json", "archive_format")) for name in names):
            raise RunError(f"{path} is a program of torch.export; save the network's state_dict() with torch.save")
        pickles = [name for name in names if name.split("/")[-1] == "data.pkl" and name.count("/") <= 1]
        if len(pickles) != 1:
            kind = "an .npz of numpy arrays" if all(name.endswith(".npy") for name in names) else "a zip archive"
            raise RunError(f"{path} is {kind} that holds {abbreviate(names, 3) or 'nothing'}; unpack it, or {GIVE}")
        root = pickles[0].removesuffix("data.pkl")

        def read(name: str, size: int, limit: int) -> bytes:
            info = archive.getinfo(name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RunError(
                    f"{path}: {name} is compressed in a rare way ({info.compress_type}); pack it without compression"
                )
            if info.file_size != size or size > limit:
                raise RunError(f"{path} is damaged: {name} has {info.file_size} bytes, expected {min(size, limit)}")
            with archive.open(info) as member:
                content = member.read(size)  # with a number: never more, whatever the compressed bytes unfold to
            if len(content) != size:
                raise RunError(f"{path} is damaged: {name} ends after {len(content)} of {size} bytes")
            return content

        order = f"{root}byteorder"
        if order in names and read(order, archive.getinfo(order).file_size, 16) != b"little":
            raise RunError(f"{path} was written on a machine with another byte order; save it on a common one")
        size = archive.getinfo(pickles[0]).file_size
        if size > DESCRIPTION_LIMIT:
            raise RunError(f"{path}: {pickles[0]} has {size} bytes, that of a ScoNet less than {DESCRIPTION_LIMIT}")
        content = _Pickle(io.BytesIO(read(pickles[0], size, DESCRIPTION_LIMIT))).content()
        yield Archive(
            path, content, lambda storage: read(f"{root}data/{storage.key}", storage.count * storage.size, NUMBERS_LIMIT)
        )


def _judge_directory(path: Path, file: BinaryIO) -> None:
    """Raise `RunError` for an archive that is cut off, or whose directory alone would take gigabytes of memory."""
    length = file.seek(0, io.SEEK_END)
    start = file.seek(max(0, length - 66_000))
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise RunError(f"{path} is cut off: {length} bytes of an archive without its end; copy or download it again")
    (size,) = struct.unpack_from("<L", tail, end + 12)
    if tail[max(0, end - 20) : end].startswith(b"PK\6\7"):  # with a record for large archives, which PyTorch always writes
        (place,) = struct.unpack_from("<Q", tail, end - 12)
        if end < 76 or place != start + end - 76 or not tail[end - 76 :].startswith(b"PK\6\6"):
            raise RunError(f"{path} is damaged: its directory is not where it says; copy it again")
        (size,) = struct.unpack_from("<Q", tail, end - 76 + 40)
    if size > DESCRIPTION_LIMIT:
        raise RunError(f"{path}: its directory has {size} bytes, that of a ScoNet less than {DESCRIPTION_LIMIT}")
    file.seek(0)


@contextmanager
def _open_legacy(path: Path, file: BinaryIO) -> Iterator[Archive]:
    """The format before PyTorch 1.6: five pickles, then the storages, each with its count before it."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = io.BytesIO(file.read(DESCRIPTION_LIMIT))
    if MAGIC.to_bytes(10, "little") not in head.getvalue()[:32]:
        kind = "a Python pickle that torch.save did not write" if head.getvalue()[0] == 0x80 else "no file of torch.save"
        raise RunError(f"{path} is {kind}; {GIVE}")
    magic, version, system = (_Pickle(head).content() for _ in range(3))
    if magic != MAGIC or version != 1001 or system.get("little_endian") is not True:
        raise RunError(f"{path} is of an unknown version {version!r:.40} or of a machine with another byte order")
    main = _Pickle(head)
    content, keys = main.content(), _Pickle(head).content()
    position, places = head.tell(), {}
    for key in keys:
        storage = main.storages[key]
        file.seek(position)
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count or key in places:
            raise RunError(f"{path} is damaged: storage {key:.20} has {count} numbers, expected {storage.count}")
        places[key] = position + 8
        position += 8 + count * storage.size
        if position > length:
            raise RunError(f"{path} is cut off: it has {length} bytes and needs {position} or more; copy or download it again")

    def load(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.count * storage.size)

    yield Archive(path, content, load)


class _Pickle:
    """One pickle, read sign by sign: a machine that knows data, and of names those that describe tensors."""

    def __init__(self, file: BinaryIO):
        self.storages: dict[str, Storage] = {}
        self._file, self._memo, self._stack, self._marks = file, {}, [], []

    def content(self) -> Any:
        """What the pickle describes; the file is then at its end. `_Refused` for what it may not ask for."""
        for sign, argument, _ in pickletools.genops(self._file):
            if sign.name == "STOP":
                return self._stack.pop()
            step = _STEPS.get(sign.name)
            if step is None:
                raise _Refused(f"its pickle has the sign {sign.name}, which torch.save does not write for tensors")
            step(self, argument)
        raise ValueError("a pickle without end")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        found, self._stack = self._stack, self._marks.pop()
        return found

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _keep(self, number: int | None) -> None:
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def _get(self, number: int) -> None:
        self._push(self._memo[number])

    def _tuple(self, count: int) -> None:
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _Refused("its pickle appends to what is no list")
        self._stack[-1].extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise _Refused("its pickle sets items of what is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[_key(key)] = value

    def _name(self, _: Any = None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._push(Other(f"{module}.{name}"))

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Other) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no name")
        module, _, name = function.name.rpartition(".")
        if module == "torch._utils" and name in TENSORS:
            self._push(_tensor(*arguments[:4]))
        elif module == "torch._utils" and name in PARAMETERS:
            self._push(arguments[0])
        elif name in OTHER_TENSORS and module in ("torch._utils", "torch._tensor"):
            kind = next((part.name for part in arguments if isinstance(part, Other)), "")
            self._push(Other(OTHER_TENSORS[name] + (f" ({kind})" if name == "_rebuild_tensor_v3" else "")))
        elif function.name in DICTIONARIES:
            (given,) = [part for part in arguments if isinstance(part, (dict, list))] or [{}]
            self._push({_key(key): value for key, value in (given.items() if isinstance(given, dict) else given)})
        elif function.name == "torch.Size":
            self._push(tuple(arguments[0]))
        elif function.name in PLAIN_DATA:
            self._push(Other(function.name))
        else:
            raise _Refused(
                f"it asks to call {label(function.name)}, which rebuilds no tensor (nothing was run); save the network's "
                "state_dict() alone with torch.save"
            )

    def _build(self, _: Any) -> None:
        self._stack.pop()  # attributes of a dictionary or of what is not built

    def _storage(self, _: Any) -> None:
        kind, *rest = self._stack.pop()
        if kind != "storage":
            raise _Refused("it holds a network as a Python object; save its state_dict() with torch.save")
        type_name, key, _, count, *view = rest
        size, dtype = STORAGES[type_name.name.rpartition(".")[2].removesuffix("Storage")]
        if not isinstance(key, str) or not _is_count(count) or (view and view[0] is not None):
            raise ValueError("a storage without key or count")
        storage = Storage(key, dtype, size, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key:.20} is described in two ways")
        self._push(storage)


def _key(key: Any) -> str | int:
    """A key of a dictionary; others are refused, because some take for ever to compare."""
    if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**63):
        raise _Refused(f"a dictionary in it has a {type(key).__name__} as key, expected text or a small number")
    return key


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Stored:
    whole = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
    if not whole or not all(map(_is_count, [offset, *shape, *strides])) or not len(shape) == len(strides) <= 8:
        raise ValueError("a tensor without storage, shape or strides")
    return Stored(storage, offset, shape, strides)


def label(name: Any) -> str:
    """A name out of a file, fit to stand in a message."""
    name = str(name)[:80] if isinstance(name, (str, int)) else type(name).__name__
    return name if name.isprintable() else repr(name)


_STEPS: dict[str, Callable[[_Pickle, Any], None]] = {
    "PROTO": lambda pickle, _: None,
    "FRAME": lambda pickle, _: None,
    "MARK": _Pickle._mark,
    "NONE": lambda pickle, _: pickle._push(None),
    "NEWTRUE": lambda pickle, _: pickle._push(True),
    "NEWFALSE": lambda pickle, _: pickle._push(False),
    "EMPTY_DICT": lambda pickle, _: pickle._push({}),
    "EMPTY_LIST": lambda pickle, _: pickle._push([]),
    "EMPTY_TUPLE": lambda pickle, _: pickle._push(()),
    "TUPLE": lambda pickle, _: pickle._push(tuple(pickle._marked())),
    "LIST": lambda pickle, _: pickle._push(pickle._marked()),
    "APPEND": lambda pickle, _: pickle._extend([pickle._stack.pop()]),
    "APPENDS": lambda pickle, _: pickle._extend(pickle._marked()),
    "SETITEM": lambda pickle, _: pickle._set([pickle._stack.pop(), pickle._stack.pop()][::-1]),
    "SETITEMS": lambda pickle, _: pickle._set(pickle._marked()),
    "GLOBAL": lambda pickle, argument: pickle._push(Other(argument.replace(" ", ".", 1))),
    "STACK_GLOBAL": _Pickle._name,
    "REDUCE": _Pickle._call,
    "NEWOBJ": _Pickle._call,
    "BUILD": _Pickle._build,
    "BINPERSID": _Pickle._storage,
    **{f"TUPLE{count}": lambda pickle, _, count=count: pickle._tuple(count) for count in (1, 2, 3)},
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), _Pickle._keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Pickle._get),
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
            *("BINBYTES", "SHORT_BINBYTES"),
        ),
        _Pickle._push,
    ),
}
