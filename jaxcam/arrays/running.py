"""What a user's function raised, in our words, with the function's own error above them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.errors import (
    ConcretizationTypeError,
    JaxRuntimeError,
    TracerArrayConversionError,
    TracerBoolConversionError,
    TracerIntegerConversionError,
    UnexpectedTracerError,
)

from jaxcam.arrays.inputs import Inputs
from jaxcam.errors import JaxcamError, message


class Raised(NamedTuple):
    """What a function did that raised, and what to do instead."""

    got: str
    remedy: str


def untraceable(error: Exception) -> Raised | None:
    """Say what of a function JAX cannot trace; None if it raised anything else."""
    if isinstance(error, TracerBoolConversionError):
        remedy = "Choose by jnp.where(condition, a, b)."
        return Raised("an if (or and, or, not) on a value", remedy)
    converted = (
        ConcretizationTypeError, TracerArrayConversionError, TracerIntegerConversionError,
    )  # fmt: skip
    if isinstance(error, converted):
        remedy = "Compute with jax.numpy, and return the array as it is."
        return Raised("NumPy, float() or int() of a value", remedy)
    if isinstance(error, UnexpectedTracerError):
        return Raised(
            "a value that was kept from inside a transformation of JAX (scan, vmap, jit, cond)",
            "Return it from there; a layer whose calls are watched is to be called outside of it.",
        )
    return None


def worded(error: Exception) -> str:
    """The kind of an error, and the first line that says what is wrong.

    Keras says before where, and in bold.
    """
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return f"{type(error).__name__}: {(said or lines or [''])[0]}"


@contextmanager
def running(call: str, x: Inputs) -> Iterator[None]:
    """Say of a network that raises on ``x`` that it does, for a call of that name.

    Not of what a device has against it: that is in JAX's words.
    """
    try:
        yield
    except (JaxcamError, JaxRuntimeError):
        raise
    except Exception as error:
        known = untraceable(error)
        shapes = [str(getattr(leaf, "shape", "?")) for leaf in jax.tree.leaves(x)]
        got = f"x of shape {' and '.join(shapes)}, on which it raised {worded(error)}"
        if known is not None:
            got, remedy = f"{known.got} in it ({worded(error)})", known.remedy
        else:
            remedy = _remedy(error, x, shapes)
        ours = message(call, needs="a network that runs on x", got=got, remedy=remedy)
        raise JaxcamError(ours) from error


def _remedy(error: Exception, x: Any, shapes: list[str]) -> str:
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        return "Keyword arguments go to the model's own call: those that it has, and no others."
    if isinstance(x, tuple) and set(shapes) == {"()"}:
        return "A shape alone is jax.ShapeDtypeStruct(shape, 'float32')."
    several = (
        f"These are {len(x)} inputs; pictures are stacked, np.stack(x)."
        if isinstance(x, tuple)
        else "The batch axis comes first, x[None] for one example."
    )
    return f"Check the rank and size of x, and which axis is which. {several}"
