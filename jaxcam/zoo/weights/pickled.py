"""Files of ``torch.save`` read without torch, and without running anything that they hold.

Both formats are read: the zip archive of torch 1.6 and later, and the older stream, in which
torchvision's VGG and DenseNet are still published. What tensors the pickles in them describe,
`jaxcam.zoo.weights.unpickler` says; storages are read as bytes.
"""

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxcam.errors import JaxcamError, fail
from jaxcam.zoo.weights.unpickler import Storage, Tensor, run

ZIP = b"PK\x03\x04"
STREAM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's magic number


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
            tensors = _state_dict(call, run(call, io.BytesIO(program), len(program)))

            def content(storage: Storage) -> bytes:
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
                run(call, file, size)
            tensors = _state_dict(call, run(call, file, size))
            keys = run(call, file, size)
            storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            contents = {}
            for key in keys:
                count = int.from_bytes(_exactly(file, 8), "little")
                if key not in storages or count != storages[key].size:
                    raise pickle.UnpicklingError(f"storage {key} has another size")
                contents[key] = _exactly(file, count * storages[key].dtype.itemsize)
            return _arrays(tensors, lambda storage: contents[storage.key])

    return _guarded(call, read)


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise EOFError
    return content


def _state_dict(call: str, content: Any) -> dict[str, Tensor]:
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
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _arrays(
    tensors: Mapping[str, Tensor], content: Callable[[Storage], bytes]
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
