"""What comes in is made an array of JAX once, at the door; whoever takes one calls `as_array`.

Other programs hand over arrays that JAX refuses in words of its own: of the other byte order (FITS,
DICOM), wider than any processor computes in, of another library, that wants a gradient or lies on
another device. All of them are numbers all the same.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from numpy.typing import NDArray

from jaxcam.errors import fail


def as_array(value: Any, call: str, needs: str = "an array of numbers") -> Array:
    """Any array, number or nested list of numbers as an array, for a call of that name; or refuse.

    Precision is what JAX is set to: float64 becomes float32 unless 64 bits are enabled.

    >>> import numpy as np
    >>> from jaxcam.arrays.door import as_array
    >>> as_array(np.arange(3, dtype=">f8"), "cam").dtype
    dtype('float32')
    """
    if isinstance(value, Array):
        return value
    array = _read(value, call, needs)
    if isinstance(array, Array):
        return array
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype != array.dtype and np.issubdtype(dtype, np.integer):
        held = np.iinfo(dtype)
        if array.size and not held.min <= array.min() <= array.max() <= held.max:
            remedy = "Use smaller numbers, or call inside `with jax.enable_x64(True):`."
            got = f"{array.dtype} from {array.min()} to {array.max()}"
            fail(call, needs=f"integers that {dtype} can hold", got=got, remedy=remedy)
    with jax.ensure_compile_time_eval():  # known in a traced program too, where its value is
        return jnp.asarray(array)


def through(tree: Any, call: str) -> Any:
    """Make arrays of the tensors of other libraries in a tree, and leave everything else."""

    def one(leaf: Any) -> Any:
        ours = isinstance(leaf, Array | np.ndarray | np.generic)
        return as_array(leaf, call) if not ours and _is_tensor(leaf) else leaf

    return jax.tree.map(one, tree)


def _is_tensor(value: Any) -> bool:
    numbers = hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    return numbers and hasattr(value, "shape") and hasattr(value, "dtype")


def known(value: Any) -> NDArray[Any] | None:
    """Give a value in the host's memory, or None where it is only being traced.

    Inside a user's ``jit``, ``scan`` or ``grad`` everything that is computed is a tracer, also from
    arrays that are none: so the question is asked of the very value that a check looks at.
    """
    return None if isinstance(value, Tracer) else np.asarray(value)


def as_numpy(value: Any, call: str, needs: str = "an array of numbers") -> NDArray[Any]:
    """The same as an array of NumPy, in the precision that it came in."""
    return np.asarray(value if isinstance(value, Array) else _read(value, call, needs))


def _read(value: Any, call: str, needs: str) -> NDArray[Any] | Array:
    """As NumPy reads it, in the byte order of this machine and of a width that JAX knows."""
    if np.ma.is_masked(value):
        remedy = "Say what counts there: x.filled(0.0), for example."
        fail(call, needs="a value at every position", got="masked values", remedy=remedy)
    try:
        array = _of_others(value)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0].rstrip(".")
        fail(
            call,
            needs=needs,
            got=f"{type(value).__name__}, which cannot be read as one ({first})",
            remedy="Hand over a NumPy or JAX array, all rows of one length.",
        )
    if isinstance(array, Array):
        return array
    if not (array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number)):
        fail(
            call,
            needs=needs,
            got=f"{type(value).__name__} of {array.dtype}",
            remedy="Where they are numbers all the same, np.asarray(value, 'float32') makes some."
            if array.dtype == object and array.ndim
            else "Pass numbers.",
        )
    widest = {"f": np.float64, "c": np.complex128}.get(array.dtype.kind)
    if widest is not None and array.dtype.itemsize > np.dtype(widest).itemsize:
        return array.astype(widest)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _of_others(value: Any) -> NDArray[Any] | Array:
    """Read another library's tensor, without its gradient and from wherever it lies."""
    if callable(getattr(value, "detach", None)):
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except Exception:  # a dtype that NumPy has no name for
        if not hasattr(value, "__dlpack__"):
            raise
        return jax.dlpack.from_dlpack(value)
