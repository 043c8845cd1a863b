"""Checkpoint files written by hand, without torch, and what may be wrong with them.

A pickle is put together instruction by instruction, so that nothing has to be importable.
"""

import io
import struct
import zipfile

import numpy as np

TYPES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage",
         "bfloat16": "BFloat16Storage", "float64": "DoubleStorage",
         "int8": "CharStorage"}  # fmt: skip
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
STOP = b"."


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def row(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, dtype: str, size: int, stream: bool = False) -> bytes:
    view = b"N" if stream else b""
    parts = text("storage"), name("torch", TYPES[dtype]), text(key), text("cpu"), number(size), view
    return b"(" + b"".join(parts) + b"tQ"


def tensor(where: bytes, shape, strides, offset: int = 0) -> bytes:
    hooks = called(name("collections", "OrderedDict"))
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return called(rebuild, where, number(offset), row(*shape), row(*strides), b"\x89", hooks)


def ordered(entries: dict[str, bytes]) -> bytes:
    """Write an OrderedDict with an attribute, as a state_dict has one."""
    items = b"".join(text(key) + value for key, value in entries.items())
    metadata = b"}" + text("_metadata") + b"}s" + b"b"
    return called(name("collections", "OrderedDict")) + b"(" + items + b"u" + metadata


def pickled(tensors, stream=False, extra=b"", wrap=lambda body: body) -> bytes:
    entries = {}
    for key, (label, array) in enumerate(tensors.items()):
        steps = [step // array.itemsize for step in np.zeros(array.shape, array.dtype).strides]
        place = storage(str(key), str(array.dtype), array.size, stream)
        entries[label] = tensor(place, array.shape, steps)
    return b"\x80\x02" + wrap(ordered(entries)) + extra + STOP


def tree(content, arrays: dict, stream=False) -> bytes:
    """Write anything: arrays become tensors, which are collected, and bytes are instructions."""
    if isinstance(content, np.ndarray):
        key = str(len(arrays))
        arrays[key] = content
        steps = [
            step // content.itemsize for step in np.zeros(content.shape, content.dtype).strides
        ]
        place = storage(key, str(content.dtype), content.size, stream)
        return tensor(place, content.shape, steps)
    if isinstance(content, dict):
        keys = (tree(key, arrays) for key in content)
        values = (tree(value, arrays, stream) for value in content.values())
        return b"}" + b"".join(key + value + b"s" for key, value in zip(keys, values, strict=True))
    if isinstance(content, list):
        return b"]" + b"".join(tree(value, arrays, stream) + b"a" for value in content)
    if isinstance(content, bytes):
        return content
    kinds = {str: text, int: number, float: lambda x: b"G" + struct.pack(">d", x)}
    return kinds[type(content)](content)


def made(content, stream=False) -> bytes:
    """Write what ``torch.save(content)`` writes."""
    arrays: dict = {}
    program = b"\x80\x02" + tree(content, arrays, stream) + STOP
    return (streamed if stream else zipped)(program, arrays)


def thing(module: str, attribute: str, **state) -> bytes:
    """Write an object of a class of somebody's own, with attributes."""
    new = name(module, attribute) + b")\x81"
    return new + tree(state, {}) + b"b" if state else new


def zipped(program: bytes, tensors, compression=zipfile.ZIP_STORED) -> bytes:
    """Write what torch 1.6 and later writes, with any pickle in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return content.getvalue()


def streamed(program: bytes, tensors) -> bytes:
    """Write what older versions write."""
    keys = b"\x80\x02]" + b"".join(text(str(key)) + b"a" for key in range(len(tensors))) + STOP
    body = b"".join(struct.pack("<q", a.size) + a.tobytes() for a in tensors.values())
    return MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + program + keys + body


def pth(tensors) -> bytes:
    return zipped(pickled(tensors), tensors)


def old_pth(tensors) -> bytes:
    return streamed(pickled(tensors, stream=True), tensors)
