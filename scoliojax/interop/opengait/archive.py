"""Files of `torch.save`, both formats, opened so that a file can neither run code nor ask for more memory than it fills.

PyTorch's own safe loader builds every tensor while it reads, of any size that a file states. Here a file is first described:
the pickle inside is read sign by sign, nothing it names is called, and a tensor is the place of its numbers. Only tensors
that were asked for, and fit, are read, each number against the archive's checksums.
"""

import io
import itertools
import math
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_pipelines.command import remedy
from data_pipelines.files import open_regular
from data_pipelines.schema import abbreviate
from scoliojax.errors import RunError, one_line
from scoliojax.interop.opengait.description import Pickle, Refused
from scoliojax.interop.opengait.kinds import GIVE, refuse_others
from scoliojax.interop.opengait.stored import Storage, Stored, label

DESCRIPTION_LIMIT = 2**21  # bytes of a pickle or of an archive's directory; the published network's have about 20 kB each
NUMBERS_LIMIT = 2**28  # bytes of all tensors read; those of the published network and its momentum have 56 MB
MAGIC = 0x1950A86A20F9469CFC6C  # the first number in a file of the format before PyTorch 1.6

FLOATS = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}  # bfloat16: the upper half of a float32
INTEGERS = {"int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "<i1", "uint8": "<u1"}
MOST_BESIDE = 1000  # numbers in the storage of a tensor that stands for one integer


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
                f"{self.path} has {asked / 1e9:.1f} GB of tensors; at most {NUMBERS_LIMIT / 1e9:.2f} GB are read (a "
                "published checkpoint has 0.06 GB)"
            )
        for views in groups.values():
            views.sort(key=lambda view: view[0].offset)
            for (one, name), (other, twin) in itertools.pairwise(views):
                if other.offset < one.end:
                    raise RunError(f"{self.path}: {name} and {twin} share numbers in the file; save a clone() of each")
        found = {}
        for storage, views in groups.items():
            with _reported(self.path):
                stored = np.frombuffer(self.load(storage), FLOATS[storage.dtype])
            for tensor, name in views:
                strides = [stride * storage.size for stride in tensor.strides]
                array = np.array(np.lib.stride_tricks.as_strided(stored[tensor.offset :], tensor.shape, strides))
                array = (array.astype(np.uint32) << 16).view(np.float32) if storage.dtype == "bfloat16" else array
                found[name] = -array if tensor.negated else array
        return found

    def plain(self, value: Any) -> Any:
        """The integer in a tensor that holds nothing else; any other value as it is."""
        if not isinstance(value, Stored) or value.storage.dtype not in INTEGERS or math.prod(value.shape) != 1:
            return value
        if value.storage.count > MOST_BESIDE or value.misfit():
            return value
        with _reported(self.path):
            number = int(np.frombuffer(self.load(value.storage), INTEGERS[value.storage.dtype])[value.offset])
        return -number if value.negated else number


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Whatever the bytes of a file raise, as a `RunError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path} does not exist; {GIVE}") from None
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror or one_line(error)}); {remedy(error)}") from None
    except Refused as error:
        raise RunError(f"{path} is refused: {error}") from None
    except Exception as error:  # bytes from outside can make zip and pickle raise anything; all of it means the same
        raise RunError(f"{path} is damaged ({type(error).__name__}: {one_line(error)}); copy it again") from error


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except ValueError as error:
        raise RunError(f"{path}: {error}; {GIVE}") from None


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Describe a file of `torch.save`; `RunError` says what the file is where it is none, or what is wrong with it."""
    with ExitStack() as stack:
        with _reported(path):
            file = stack.enter_context(_open(path))
            refuse_others(path, file)
            open_format = _open_zip if file.read(4) == b"PK\3\4" else _open_legacy
            archive = stack.enter_context(open_format(path, file))
        yield archive


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
                raise RunError(f"{path}: {name} is packed by method {info.compress_type}; pack it without compression")
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
        content = Pickle(io.BytesIO(read(pickles[0], size, DESCRIPTION_LIMIT))).content()
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
    magic, version, system = (Pickle(head).content() for _ in range(3))
    if magic != MAGIC or version != 1001 or system.get("little_endian") is not True:
        raise RunError(f"{path} is of an unknown version ({label(version)}) or of a machine with another byte order")
    main = Pickle(head)
    content, keys = main.content(), Pickle(head).content()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its last pickle is no list of the names of storages")
    position, places = head.tell(), {}
    for key in keys:
        storage = main.storages[key]
        file.seek(position)
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise RunError(f"{path} is damaged: storage {key:.20} has {count} numbers, expected {storage.count}")
        places[key] = position + 8
        position += 8 + count * storage.size
        if position > length:
            raise RunError(f"{path} is cut off: it has {length} bytes and needs {position} or more; copy or download it again")

    def load(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.count * storage.size)

    yield Archive(path, content, load)
