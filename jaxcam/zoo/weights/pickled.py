"""Files of ``torch.save`` read without torch, and without running anything that they hold.

Both formats are read: the zip archive of torch 1.6 and later, and the older stream, in which
torchvision's VGG and DenseNet are still published. What tensors the pickles in them describe,
`jaxcam.zoo.weights.unpickler` says; storages are read as bytes.
"""

import io
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar

import ml_dtypes
import numpy as np

from jaxcam.errors import JaxcamError, fail
from jaxcam.zoo.weights.contents import Contents, Entry, listed
from jaxcam.zoo.weights.tree import leaves
from jaxcam.zoo.weights.unpickler import Storage, Tensor, Unpickled, Unread, run

ZIP = b"PK\x03\x04"
STREAM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's magic number
_T = TypeVar("_T")


def read_zip(call: str, path: Path) -> Contents:
    """What an archive of torch 1.6 or later holds."""

    def read() -> Contents:
        with zipfile.ZipFile(path) as archive:
            root = _root(call, archive)
            program = archive.read(f"{root}data.pkl")

        def content(storages: Iterable[Storage]) -> dict[Storage, bytes]:
            with zipfile.ZipFile(path) as archive:
                return {storage: _entry(archive, root, storage) for storage in storages}

        return _contents(call, run(io.BytesIO(program), len(program)), content)

    return _guarded(call, read)


def _root(call: str, archive: zipfile.ZipFile) -> str:
    """The folder that everything is in; of other archives there is no telling what they mean."""
    entries = [entry.filename for entry in archive.infolist()]
    roots = [
        n[: -len("data.pkl")] for n in entries if n.endswith("/data.pkl") and n.count("/") == 1
    ]
    twice = [name for name, count in Counter(entries).items() if count > 1] or roots[1:]
    if twice:
        raise pickle.UnpicklingError(f"an archive with {twice[0]} beside another of its kind")
    root = roots[0] if roots else ""
    if root and any(name.startswith((f"{root}code/", f"{root}constants.pkl")) for name in entries):
        fail(
            call,
            needs="tensors alone",
            got="an archive of TorchScript, which holds a program",
            remedy="Where you trust it, load it by torch.jit.load and save its state_dict().",
        )
    # torch compresses nothing; what unpacks to more than was downloaded is not from it.
    if not root or any(entry.compress_type for entry in archive.infolist()):
        fail(
            call,
            needs="a checkpoint, safetensors or of torch.save",
            got="a zip archive, but not one of torch.save",
            remedy="Save model.state_dict().",
        )
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise pickle.UnpicklingError("numbers written by a big-endian machine")
    return root


def _entry(archive: zipfile.ZipFile, root: str, storage: Storage) -> bytes:
    entry = archive.getinfo(f"{root}data/{storage.key}")
    if entry.file_size != storage.size * storage.itemsize:
        raise pickle.UnpicklingError(f"storage {storage.key} has another size")
    return archive.read(entry)


def read_stream(call: str, path: Path) -> Contents:
    """What a file of an older torch holds: pickles, then the storages in a row."""

    def read() -> Contents:
        size, places = path.stat().st_size, dict[str, int]()

        def content(storages: Iterable[Storage]) -> dict[Storage, bytes]:
            with path.open("rb") as file:
                return {s: _exactly(file, places[s.key], s.size * s.itemsize) for s in storages}

        with path.open("rb") as file:
            for _ in ("magic number", "version", "system"):
                run(file, size)
            unpickled = run(file, size)
            contents = _contents(call, unpickled, content)
            places.update(_places(file, run(file, size).content, unpickled.storages, size))
        return contents

    return _guarded(call, read)


def _places(
    file: BinaryIO, keys: Iterable[str], storages: Mapping[str, Storage], size: int
) -> dict[str, int]:
    """Where the numbers of each storage begin, each row of them behind how many there are."""
    places, at = {}, file.tell()
    for key in keys:
        count = int.from_bytes(_exactly(file, at, 8), "little")
        if key not in storages or count != storages[key].size:
            raise pickle.UnpicklingError(f"storage {key} has another size")
        places[key] = at + 8
        at += 8 + count * storages[key].itemsize
        if at > size:
            raise EOFError
    return places


def _exactly(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    content = file.read(count)
    if len(content) != count:
        raise EOFError
    return content


def _contents(
    call: str, unpickled: Unpickled, content: Callable[[Iterable[Storage]], dict[Storage, bytes]]
) -> Contents:
    tensors, others = leaves(unpickled.content)
    tensors.pop("", None)  # alone, and so without a name
    if not tensors:
        _refuse(call, unpickled, others)

    def arrays(names: Iterable[str]) -> dict[str, np.ndarray]:
        chosen = {name: tensors[name] for name in names}
        return _guarded(call, lambda: _arrays(chosen, content))

    entries = {name: Entry(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    return Contents(entries, others, unpickled.code, arrays)


def _refuse(call: str, unpickled: Unpickled, others: Mapping[str, str]) -> None:
    """Say what there is in place of tensors with names."""
    content = unpickled.content
    held = listed(tuple(f"{name} ({what})" if what else name for name, what in others.items()))
    got = f"a {type(content).__name__} with something else in it{held and f': {held}'}"
    if isinstance(content, Tensor):
        got = "a tensor without a name"
    elif isinstance(content, Unread):
        got = f"what {content.origin} would make"
    if unpickled.code:
        got = f"{got}; it asks for {listed(unpickled.code)} to be run, which was not done"
    fail(
        call,
        needs="a dictionary of tensors, as model.state_dict() is",
        got=got,
        remedy="Where you trust the file, load it in torch and save model.state_dict().",
    )


def _arrays(
    tensors: Mapping[str, Tensor],
    content: Callable[[Iterable[Storage]], dict[Storage, bytes]],
) -> dict[str, np.ndarray]:
    known = {"bfloat16": ml_dtypes.bfloat16}
    flat = {
        storage: np.frombuffer(row, known.get(storage.dtype, storage.dtype), storage.size)
        for storage, row in content({tensor.storage for tensor in tensors.values()}).items()
    }
    arrays = {}
    for name, (storage, offset, shape, strides, dtype) in tensors.items():
        if dtype != storage.dtype:
            raise pickle.UnpicklingError(f"numbers of {dtype}")
        steps = [step * storage.itemsize for step in strides]
        view = np.lib.stride_tricks.as_strided(flat[storage][offset:], shape, steps)
        arrays[name] = view.copy()
    return arrays


def _guarded(call: str, read: Callable[[], _T]) -> _T:
    """A damaged pickle fails in as many ways as there are instructions in it.

    And a damaged archive as an `OSError` too, where it says that something begins before it.
    """
    try:
        return read()
    except (JaxcamError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        fail(
            call,
            needs="a whole file of torch.save",
            got=f"a damaged one ({type(error).__name__}: {str(error) or 'it ends early'})",
            remedy="Download it again.",
        )
