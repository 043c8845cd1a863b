"""Numbers among a method's options: counts, and quantities that may change without compiling."""

import math
import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxcam.arrays.door import as_numpy
from jaxcam.errors import fail


def check_count(call: str, name: str, count: Any, least: int, remedy: str) -> None:
    """Refuse what is no number of things, ``least`` or more."""
    if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < least:
        fail(call, needs=f"{name} of at least {least}", got=count, remedy=remedy)


def checked_number(
    call: str, name: str, number: Any, least: float, most: float, remedy: str
) -> Any:
    """Give a number in its range, of any kind, as one of Python or of JAX."""
    if isinstance(number, Tracer):
        return number
    needs = f"a {name} from {least} to {most}" if most < math.inf else f"a {name} of 0 or more"
    words = number is None or isinstance(number, str)
    value = np.asarray(None) if words else as_numpy(number, name)
    real = value.shape == () and value.dtype != bool and jnp.issubdtype(value.dtype, jnp.number)
    if not real or not np.isfinite(value) or not least <= value <= most:
        fail(call, needs=needs, got=number, remedy=remedy)
    return number if isinstance(number, Array) else value.item()
