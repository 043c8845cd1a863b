"""The pickles of ``torch.save`` without running them.

A pickle is a program: it names functions and has them called. This reader knows five names, those
of which tensors and their dictionaries are made, answers each with a stand-in of its own that has
no attributes to change, and refuses all others by name before anything is called. Every tensor is
checked to lie inside its storage.
"""

import pickle
import pickletools
from collections import OrderedDict
from math import prod
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxcam.errors import fail

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Storage(NamedTuple):
    """A row of numbers: where it lies in the file, of which type, and how many."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """Where in which storage a tensor lies, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild:
    """Stands for ``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        counts = (offset, *shape, *strides)
        if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in counts):
            raise pickle.UnpicklingError("a tensor of something else than a storage and numbers")
        if len(shape) != len(strides):
            raise pickle.UnpicklingError("a tensor with strides of another rank")
        reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
        if prod(shape) > storage.size or (prod(shape) and reach > storage.size):
            raise pickle.UnpicklingError("a tensor beyond its storage")
        return Tensor(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    """Stands for ``torch._utils._rebuild_parameter``."""

    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


class _Unpickler(pickle.Unpickler):
    """Knows what tensors are made of, and nothing else."""

    def __init__(self, file: BinaryIO, call: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.call = call

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return name
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _Rebuild(),
            "torch._utils._rebuild_parameter": _RebuildParameter(),
        }
        if f"{module}.{name}" in known:
            return known[f"{module}.{name}"]
        fail(
            self.call,
            needs="a file that holds tensors and nothing else",
            got=f"one that asks for {module}.{name} to be run, which was not done",
            remedy="Where you trust it, load it in torch and save model.state_dict() by "
            "safetensors.torch.save_file.",
        )

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or any(view) or not isinstance(key, str) or type(size) is not int:
            raise pickle.UnpicklingError("a storage that is not written as torch writes it")
        return Storage(key, np.dtype(_DTYPES[dtype]), size)


def run(call: str, file: BinaryIO, size: int) -> Any:
    """Unpickle what begins here, after a look at its instructions.

    The memo of Python's unpickler is an array as long as the largest index that a program uses, so
    a few bytes could ask for all memory; an honest index is below the number of instructions.
    Lengths of texts are looked at too: those beyond the file are an error here already.
    """
    start = file.tell()
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > size:
            raise pickle.UnpicklingError(f"memo index {argument} in a file of {size} bytes")
    file.seek(start)
    return _Unpickler(file, call).load()
