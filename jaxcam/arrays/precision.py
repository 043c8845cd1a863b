"""Half precision in, single precision out: where sums and products are carried."""

import jax.numpy as jnp
import numpy as np
from jax import Array


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """Give the dtype that results have: float32 for half precision, else the same."""
    return np.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else np.dtype(np.float32)


def widen(value: Array) -> Array:
    """Convert half precision to float32, and leave the rest as it is."""
    return value.astype(wide_dtype(value.dtype))
