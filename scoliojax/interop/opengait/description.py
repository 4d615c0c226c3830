"""The pickle in a file of `torch.save`, read sign by sign into what it describes.

Nothing that it names is called, a tensor is the place of its numbers, and no sign takes longer than it and what it consumes
are long: a pickle of two bytes can ask for what another sign has made, so that whatever a sign copies, compares or puts into a
hash has a limit.
"""

import pickletools
from collections.abc import Callable, Collection
from typing import Any, BinaryIO

import numpy as np

from scoliojax.interop.opengait.stored import Other, Storage, Stored, label

STORAGES = {  # bytes of a number and its type, by the name of its storage class
    "Float": (4, "float32"), "Double": (8, "float64"), "Half": (2, "float16"), "BFloat16": (2, "bfloat16"),
    "Long": (8, "int64"), "Int": (4, "int32"), "Short": (2, "int16"), "Char": (1, "int8"), "Byte": (1, "uint8"),
    "Bool": (1, "bool"), "ComplexFloat": (8, "complex64"), "ComplexDouble": (16, "complex128"), "Untyped": (1, "bytes"),
    "QInt8": (1, "qint8"), "QUInt8": (1, "quint8"), "QInt32": (4, "qint32"),
}  # fmt: skip
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
    "argparse.Namespace", "_codecs.encode", "pathlib.PosixPath", "pathlib.WindowsPath", "torch.device",
    "torch.serialization._get_layout", "builtins.set", "builtins.frozenset",
    "numpy._core.multiarray._reconstruct", "numpy._core.numeric._frombuffer", "numpy.random._pickle.__randomstate_ctor",
    "numpy.random._pickle.__generator_ctor", "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
}  # fmt: skip
RENAMED = {  # modules that had another name in pickles of older protocols or libraries, or of newer ones
    "__builtin__": "builtins", "pathlib._local": "pathlib",
    "numpy.core.multiarray": "numpy._core.multiarray", "numpy.core.numeric": "numpy._core.numeric",
}  # fmt: skip
NUMPY_TYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}

LONGEST_NAME, LONGEST_KEY = 200, 1000  # signs
MOST_ARGUMENTS = 100  # of a call
DEEPEST = 50  # containers inside each other; those of a checkpoint are 6 deep
MOST_NESTED = 100_000  # containers with others inside
LARGEST = 2**21  # places in a container and all those inside, counted as often as they stand there; or in all copies


class Refused(ValueError):  # noqa: N818, as the pickle is
    """The pickle asks for what no checkpoint needs."""


class Pickle:
    """One pickle, read sign by sign: a machine that knows data, and of names those that describe tensors."""

    def __init__(self, file: BinaryIO):
        self.storages: dict[str, Storage] = {}
        self._file, self._memo, self._stack, self._marks = file, {}, [], []
        self._nested: dict[int, tuple[int, int]] = {}  # depth and size of the containers with others inside, by their id
        self._copied = 0

    def content(self) -> Any:
        """What the pickle describes; the file is then at its end. `Refused` for what it may not ask for."""
        for sign, argument, _ in pickletools.genops(self._file):
            if sign.name == "STOP":
                return self._stack.pop()
            step = _STEPS.get(sign.name)
            if step is None:
                raise Refused(f"its pickle has the sign {sign.name}, which torch.save does not write for tensors")
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
        values = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._made(values)

    def _made(self, container: tuple | list | dict) -> None:
        self._nested.pop(id(container), None)  # of one that is gone
        self._put(container, container.values() if isinstance(container, dict) else container)
        self._push(container)

    def _put(self, container: tuple | list | dict, values: Collection[Any]) -> None:
        """Judge a container that is given values; others would take for ever to compare or print, or have no end."""
        inside = [value for value in values if type(value) in (tuple, list, dict)]
        if not inside and id(container) not in self._nested:
            return
        depth, size = self._nested.get(id(container), (1, 0))
        for one in inside:
            deep, large = self._nested.get(id(one), (1, len(one)))
            depth, size = max(depth, deep + 1), size + large
        size += len(values)
        self._nested[id(container)] = depth, size
        if depth > DEEPEST or size > LARGEST or len(self._nested) > MOST_NESTED:
            raise Refused(f"its pickle nests containers more than {DEEPEST} deep, or the same ones too often")

    def _copy(self, values: Collection[Any]) -> list[Any]:
        self._copied += len(values)
        if self._copied > LARGEST:
            raise Refused("its pickle asks for copy after copy of the same values")
        return list(values)

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise Refused("its pickle appends to what is no list")
        self._stack[-1].extend(values)
        self._put(self._stack[-1], values)

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise Refused("its pickle sets items of what is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[_key(key)] = value
        self._put(target, pairs[1::2])

    def _frozen(self, _: Any) -> None:
        self._marked()
        self._push(Other("builtins.frozenset"))

    def _name(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("its pickle has a name that is no text")
        self._named(module, name)

    def _named(self, module: str, name: str) -> None:
        if len(module) + len(name) > LONGEST_NAME:
            raise Refused(f"its pickle has a name of {len(module) + len(name)} signs, expected {LONGEST_NAME} or less")
        self._push(Other(f"{RENAMED.get(module, module)}.{name}"))

    def _call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Other) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no name")
        if len(arguments) > MOST_ARGUMENTS:
            raise Refused(f"its pickle has a call with {len(arguments)} arguments, expected {MOST_ARGUMENTS} or less")
        module, _, name = function.name.rpartition(".")
        if module == "torch._utils" and name in TENSORS:
            self._push(_tensor(*arguments[:4], *arguments[6:]))
        elif module == "torch._utils" and name in PARAMETERS:
            self._push(arguments[0])
        elif name in OTHER_TENSORS and module in ("torch._utils", "torch._tensor"):
            kind = next((part.name for part in arguments if isinstance(part, Other)), "")
            self._push(Other(OTHER_TENSORS[name] + (f" ({kind})" if name == "_rebuild_tensor_v3" else "")))
        elif function.name in DICTIONARIES:
            (given,) = [part for part in arguments if isinstance(part, (dict, list))] or [{}]
            self._made({_key(key): value for key, value in self._copy(given.items() if isinstance(given, dict) else given)})
        elif function.name == "torch.Size":
            self._made(tuple(self._copy(arguments[0])))
        elif function.name == "_codecs.encode" and arguments[1:] == ("latin1",) and _is_short(arguments[0]):
            self._push(arguments[0].encode("latin1"))  # bytes, in pickles before protocol 3
        elif function.name == "numpy.dtype":
            self._push(Other(function.name, arguments[0]))
        elif function.name == "numpy._core.multiarray.scalar":
            self._push(_number(function.name, *arguments))
        elif function.name in PLAIN_DATA:
            self._push(Other(function.name))
        else:
            raise Refused(
                f"it asks to call {label(function.name)}, which rebuilds no tensor (nothing was run); save the network's "
                "state_dict() alone with torch.save"
            )

    def _build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]  # attributes of a dictionary or of what is not built
        if isinstance(target, Stored):
            raise Refused("its pickle changes a tensor after it was made")
        if isinstance(target, Other) and target.name == "numpy.dtype" and (not isinstance(state, tuple) or ">" in state[:2]):
            raise Refused("it holds a number of numpy in another byte order; save it as a number of Python")

    def _storage(self, _: Any) -> None:
        description = self._stack.pop()
        if not isinstance(description, tuple) or description[0] != "storage":
            raise Refused("it holds a network as a Python object; save its state_dict() with torch.save")
        if len(description) > 6:
            raise ValueError("a storage of too many parts")
        _, type_name, key, _, count, *view = list[Any](description)
        size, dtype = STORAGES[type_name.name.rpartition(".")[2].removesuffix("Storage")]
        if not isinstance(key, str) or len(key) > LONGEST_NAME or not _is_count(count) or (view and view[0] is not None):
            raise ValueError("a storage without key or count")
        storage = Storage(key, dtype, size, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key:.20} is described in two ways")
        self._push(storage)


def _key(key: Any) -> str | int:
    """A key of a dictionary; others are refused, because some take for ever to compare."""
    if isinstance(key, str):
        if len(key) > LONGEST_KEY:
            raise Refused(f"a dictionary in it has a key of {len(key)} signs, expected {LONGEST_KEY} or less")
    elif not isinstance(key, int) or abs(key) >= 2**63:
        raise Refused(f"a dictionary in it has a {type(key).__name__} as key, expected text or a small number")
    return key


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 8


def _number(name: str, kind: Any = None, data: Any = None) -> Any:
    """The number in the arguments of numpy's `scalar`; of types other than numbers only the name."""
    if not isinstance(kind, Other) or not isinstance(kind.code, str) or kind.code not in NUMPY_TYPES:
        return Other(name)
    if not isinstance(data, bytes) or len(data) != int(kind.code[1:]):
        raise ValueError("a number of numpy without its bytes")
    return np.frombuffer(data, f"<{kind.code}")[0].item()


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, bits: Any = None, *more: Any) -> Stored | Other:
    whole = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
    if not whole or not len(shape) == len(strides) <= 8 or not all(map(_is_count, [offset, *shape, *strides])):
        raise ValueError("a tensor without storage, shape or strides")
    bits = {} if bits is None else bits
    if more or not isinstance(bits, dict) or not all(isinstance(bit, bool) for bit in bits.values()):
        raise ValueError("a tensor with arguments of another kind")
    if others := [label(bit) for bit, is_set in bits.items() if is_set and bit != "neg"]:
        return Other(f"tensor with the bit {others[0]}, whose numbers are not those stored")
    return Stored(storage, offset, shape, strides, bits.get("neg", False))


_STEPS: dict[str, Callable[[Pickle, Any], object]] = {
    "PROTO": lambda pickle, _: None,
    "FRAME": lambda pickle, _: None,
    "MARK": Pickle._mark,
    "NONE": lambda pickle, _: pickle._push(None),
    "NEWTRUE": lambda pickle, _: pickle._push(True),
    "NEWFALSE": lambda pickle, _: pickle._push(False),
    "EMPTY_DICT": lambda pickle, _: pickle._made({}),
    "EMPTY_LIST": lambda pickle, _: pickle._made([]),
    "EMPTY_TUPLE": lambda pickle, _: pickle._push(()),
    "EMPTY_SET": lambda pickle, _: pickle._push(Other("builtins.set")),
    "ADDITEMS": lambda pickle, _: pickle._marked(),
    "FROZENSET": Pickle._frozen,
    "TUPLE": lambda pickle, _: pickle._made(tuple(pickle._marked())),
    "LIST": lambda pickle, _: pickle._made(pickle._marked()),
    "APPEND": lambda pickle, _: pickle._extend([pickle._stack.pop()]),
    "APPENDS": lambda pickle, _: pickle._extend(pickle._marked()),
    "SETITEM": lambda pickle, _: pickle._set([pickle._stack.pop(), pickle._stack.pop()][::-1]),
    "SETITEMS": lambda pickle, _: pickle._set(pickle._marked()),
    "GLOBAL": lambda pickle, argument: pickle._named(*argument.split(" ", 1)),
    "STACK_GLOBAL": Pickle._name,
    "REDUCE": Pickle._call,
    "NEWOBJ": Pickle._call,
    "BUILD": Pickle._build,
    "BINPERSID": Pickle._storage,
    **{f"TUPLE{count}": lambda pickle, _, count=count: pickle._tuple(count) for count in (1, 2, 3)},
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), Pickle._keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Pickle._get),
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
            *("BINBYTES", "SHORT_BINBYTES", "BYTEARRAY8"),
        ),
        Pickle._push,
    ),
}
