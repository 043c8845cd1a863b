"""Files of ``torch.save`` read without torch, and without running anything that they hold.

A pickle is a program: it names functions and has them called. This reader knows five names, those
of which tensors and their dictionaries are made, answers each with a stand-in of its own that has
no attributes to change, and refuses all others by name before anything is called. Storages are read
as bytes, and every tensor is checked to lie inside its storage.

Both formats are read: the zip archive of torch 1.6 and later, and the older stream, in which
torchvision's VGG and DenseNet are still published.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxcam.errors import JaxcamError, fail

ZIP = b"PK\x03\x04"
STREAM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's magic number

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


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """Where in which storage a tensor lies, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild:
    """Stands for ``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        counts = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in counts):
            raise pickle.UnpicklingError("a tensor of something else than a storage and numbers")
        if len(shape) != len(strides):
            raise pickle.UnpicklingError("a tensor with strides of another rank")
        reach = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
        if prod(shape) > storage.size or (prod(shape) and reach > storage.size):
            raise pickle.UnpicklingError("a tensor beyond its storage")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


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

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or any(view) or not isinstance(key, str) or type(size) is not int:
            raise pickle.UnpicklingError("a storage that is not written as torch writes it")
        return _Storage(key, np.dtype(_DTYPES[dtype]), size)


def read_zip(call: str, path: Path) -> dict[str, np.ndarray]:
    """The tensors of an archive of torch 1.6 or later."""

    def read() -> dict[str, np.ndarray]:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1]
            root = next((n[: -len("data.pkl")] for n in names if n.endswith("/data.pkl")), None)
            # torch compresses nothing; what unpacks to more than was downloaded is not from it.
            if root is None or any(entry.compress_type for entry in archive.infolist()):
                raise pickle.UnpicklingError("a zip archive, but not one of torch.save")
            if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
                raise pickle.UnpicklingError("numbers written by a big-endian machine")
            program = archive.read(f"{root}data.pkl")
            tensors = _state_dict(call, _run(call, io.BytesIO(program), len(program)))

            def content(storage: _Storage) -> bytes:
                entry = archive.getinfo(f"{root}data/{storage.key}")
                if entry.file_size != storage.size * storage.dtype.itemsize:
                    raise pickle.UnpicklingError(f"storage {storage.key} has another size")
                return archive.read(entry)

            return _arrays(tensors, content)

    return _guarded(call, read)


def read_stream(call: str, path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file that an older torch wrote: pickles, then the storages in a row."""

    def read() -> dict[str, np.ndarray]:
        size = path.stat().st_size
        with path.open("rb") as file:
            for _ in ("magic number", "version", "system"):
                _run(call, file, size)
            tensors = _state_dict(call, _run(call, file, size))
            keys = _run(call, file, size)
            storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            contents = {}
            for key in keys:
                count = int.from_bytes(_exactly(file, 8), "little")
                if key not in storages or count != storages[key].size:
                    raise pickle.UnpicklingError(f"storage {key} has another size")
                contents[key] = _exactly(file, count * storages[key].dtype.itemsize)
            return _arrays(tensors, lambda storage: contents[storage.key])

    return _guarded(call, read)


def _run(call: str, file: BinaryIO, size: int) -> Any:
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


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise EOFError
    return content


def _state_dict(call: str, content: Any) -> dict[str, _Tensor]:
    """The dictionary of tensors, also where it is filed under a name as training scripts do."""
    for name in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content or not _named_tensors(content):
        fail(
            call,
            needs="a dictionary of tensors, as model.state_dict() is",
            got=f"a {type(content).__name__} with something else in it",
            remedy="Save model.state_dict().",
        )
    return dict(content)


def _named_tensors(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, _Tensor) for k, v in content.items())


def _arrays(
    tensors: Mapping[str, _Tensor], content: Callable[[_Storage], bytes]
) -> dict[str, np.ndarray]:
    arrays, flat = {}, {}
    for name, (storage, offset, shape, strides) in tensors.items():
        if storage.key not in flat:
            flat[storage.key] = np.frombuffer(content(storage), storage.dtype, storage.size)
        steps = [step * storage.dtype.itemsize for step in strides]
        view = np.lib.stride_tricks.as_strided(flat[storage.key][offset:], shape, steps)
        arrays[name] = view.copy()
    return arrays


def _guarded(call: str, read: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A damaged pickle fails in as many ways as there are instructions in it."""
    try:
        return read()
    except (JaxcamError, OSError):
        raise
    except Exception as error:
        fail(
            call,
            needs="a whole file of torch.save",
            got=f"a damaged one ({type(error).__name__}: {str(error) or 'it ends early'})",
            remedy="Download it again.",
        )
