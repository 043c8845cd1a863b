"""The pickles of ``torch.save`` without running them.

A pickle is a program: it names functions and classes and has them called. This reader knows the few
of which tensors and their dictionaries are made, and answers each with a stand-in of its own that
has no attributes to change. Whatever else is named, `Unread` stands for: it is never looked up or
imported, takes every call and every state, and does nothing, so that what lies beside tensors
(options, dates, numbers of numpy) is passed over. Every tensor is checked to lie inside its
storage.
"""

import pickle
import pickletools
from collections import OrderedDict
from math import prod
from typing import Any, BinaryIO, NamedTuple

_NAMES = 1000
"""Names of code in one file, at most: each takes a stand-in of its own, and honest files few."""

_STORAGES = {
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("qint8", 1),
    "QUInt8Storage": ("quint8", 1),
    "QInt32Storage": ("qint32", 4),
    "QUInt4x2Storage": ("quint4x2", 1),
    "QUInt2x4Storage": ("quint2x4", 1),
    "UntypedStorage": ("uint8", 1),  # of numbers whose type the tensor says
}
"""What torch calls them, what numpy does (and torch, where numpy has none), and their bytes."""


class Storage(NamedTuple):
    """A row of numbers: where it lies in the file, of which type and bytes, and how many."""

    key: str
    dtype: str
    itemsize: int
    size: int


class Tensor(NamedTuple):
    """Where in which storage a tensor lies, in elements; dtype: what its numbers mean."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


class Unread:
    """Stands for any class or function that a file names, and for what that would have made.

    origin: the name. entries: what was put into it as into a dictionary, since classes of settings
    and of weights often are one.
    """

    __slots__ = ("entries",)
    entries: dict[Any, Any]
    origin = ""

    def __new__(cls, *_: Any, **__: Any) -> "Unread":
        made = super().__new__(cls)
        made.entries = {}
        return made

    def __call__(self, *_: Any, **__: Any) -> "Unread":
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, _: Any) -> None:
        """Take an element of what would be a list."""

    extend = add = append


class Unpickled(NamedTuple):
    """content: what the program made. storages: all that it named. code: likewise, and not run."""

    content: Any
    storages: dict[str, Storage]
    code: tuple[str, ...]


class _Rebuild:
    """Stands for ``_rebuild_tensor_v2``, ``_v3`` and ``_rebuild_qtensor`` of ``torch._utils``."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Tensor:
        counts = (offset, *shape, *strides)
        if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in counts):
            raise pickle.UnpicklingError("a tensor of something else than a storage and numbers")
        if len(shape) != len(strides):
            raise pickle.UnpicklingError("a tensor with strides of another rank")
        reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
        if prod(shape) > storage.size or (prod(shape) and reach > storage.size):
            raise pickle.UnpicklingError("a tensor beyond its storage")
        return Tensor(storage, offset, tuple(shape), tuple(strides), _dtype(storage, more[2:]))


def _dtype(storage: Storage, more: tuple[Any, ...]) -> str:
    """The type of the numbers, which v3 names, behind gradients and hooks; and what to do to them.

    The last argument of either says which signs are still to be changed, of all or of i.
    """
    dtype = storage.dtype
    for said in more:
        if isinstance(said, type) and issubclass(said, Unread):
            dtype = said.origin.removeprefix("torch.")
        elif said:
            dtype = f"{dtype} whose signs are to be changed"
    return dtype


class _RebuildParameter:
    """Stands for ``torch._utils._rebuild_parameter``, and for the one of those with attributes."""

    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


_KNOWN = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _Rebuild(),
    "torch._utils._rebuild_tensor_v3": _Rebuild(),
    "torch._utils._rebuild_qtensor": _Rebuild(),
    "torch._utils._rebuild_parameter": _RebuildParameter(),
    "torch._utils._rebuild_parameter_with_state": _RebuildParameter(),
}


class _Unpickler(pickle.Unpickler):
    """Knows what tensors are made of, and of nothing else more than its name."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}
        self.unread: dict[str, type[Unread]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return name
        origin = f"{module}.{name}"
        if origin in _KNOWN:
            return _KNOWN[origin]
        if origin not in self.unread:
            if len(self.unread) == _NAMES:
                raise pickle.UnpicklingError(f"names of code, more than {_NAMES}")
            self.unread[origin] = type("Unread", (Unread,), {"__slots__": (), "origin": origin})
        return self.unread[origin]

    def persistent_load(self, pid: Any) -> Any:
        kind, first, *rest = pid
        if kind == "module":  # a class with its source, in files of whole networks
            return first
        key, _, size, *view = rest
        if kind != "storage" or any(view) or type(key) is not str or type(size) is not int:
            raise pickle.UnpicklingError("a storage that is not written as torch writes it")
        if first not in _STORAGES:
            raise pickle.UnpicklingError(f"a storage of {getattr(first, 'origin', first)}")
        storage = Storage(key, *_STORAGES[first], size)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"storage {key} with two types or sizes")
        return storage


def run(file: BinaryIO, size: int) -> Unpickled:
    """Unpickle what begins here, after a look at its instructions.

    The memo of Python's unpickler is an array as long as the largest index that a program uses, so
    a few bytes could ask for all memory; an honest index is below the number of instructions.
    Lengths of texts are looked at too: those beyond the file are an error here already. Numbers
    that stand for code which this process has registered, and Python looks up itself, are refused.
    """
    start = file.tell()
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > size:
            raise pickle.UnpicklingError(f"memo index {argument} in a file of {size} bytes")
        if instruction.name in ("EXT1", "EXT2", "EXT4"):
            raise pickle.UnpicklingError("code by its number in a registry")
    file.seek(start)
    unpickler = _Unpickler(file)
    content = unpickler.load()
    return Unpickled(content, unpickler.storages, tuple(sorted(unpickler.unread)))
