"""Files of safetensors: a table of names, shapes and types, and the numbers behind it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxcam.errors import fail
from jaxcam.zoo.weights.contents import Contents, Entry

_T = TypeVar("_T")
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def read_safetensors(call: str, path: Path) -> Contents:
    """What a file holds; of types that numpy has not, such as 8 bits, no array can be read."""
    try:
        import safetensors
    except ImportError:
        fail(
            call,
            needs="the library safetensors for this file",
            got="an environment without it",
            remedy="pip install 'jaxcam-xai[zoo]'",
        )

    def guarded(read: Callable[..., _T]) -> _T:
        try:
            with safetensors.safe_open(path, framework="np") as file:
                return read(file)
        except safetensors.SafetensorError as error:
            fail(
                call,
                needs="a whole safetensors file",
                got=f"a damaged one ({error})",
                remedy="Download it again.",
            )

    def arrays(names: Iterable[str]) -> dict[str, np.ndarray]:
        return guarded(lambda file: {name: file.get_tensor(name) for name in names})

    def entry(of: Any) -> Entry:
        dtype = str(of.get_dtype())
        return Entry(tuple(of.get_shape()), _DTYPES.get(dtype, dtype))

    def entries(file: Any) -> dict[str, Entry]:
        return {name: entry(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118

    return Contents(guarded(entries), {}, (), arrays)
