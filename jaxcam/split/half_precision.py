"""A network whose activations are kept in half precision, whatever precision it was written in.

Every value that depends on the input is rounded to half precision where it is stored. Products of
matrices and convolutions take factors in half precision and sum in single precision, for which
accelerators have units of their own; every other operation is computed in the precision it was
written in, from rounded operands. What depends on the weights alone stays as it is.

Behind the explained layer nothing is rounded, since second and third derivatives need the digits.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core
from jax.tree_util import Partial

from jaxcam.errors import fail
from jaxcam.jaxprs.interpret import arguments, body, called, evaluate, results, run
from jaxcam.types import Split, check_split, held

MULTIPLICATIONS = {"conv_general_dilated", "dot_general"}
FREE, ROUNDED, WHOLE = range(3)  # depends on the weights alone, on the input, on the layer


def half_precision(split: Split, dtype: Any = jnp.bfloat16) -> Split:
    """Keep the activations up to the layer in half precision.

    ``features(x)`` gives the layer's output rounded to ``dtype``, in the precision it had before:
    scores, derivatives, averages and maps are computed as without. An option for accelerators:
    half the memory for activations, and units of their own for the products. The map is that of a
    network that differs from the given one by rounding.

    What is inside ``scan``, ``while`` and ``cond`` is computed as it is written, and only its
    result is rounded.

    Args:
        split: a network in single precision, or wider.
        dtype: ``bfloat16`` or ``float16``; the second overflows above 65,504.

    Raises:
        JaxcamError: ``dtype`` is not one of the two.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> split = jaxcam.Split(jnp.tanh, lambda a, x: a.mean(axis=(1, 2)))
    >>> halved = jaxcam.half_precision(split)
    >>> float(halved.features(jnp.full((1, 2, 2, 1), 0.1))[0, 0, 0, 0])
    0.099609375
    """
    try:
        dtype = jnp.dtype(dtype)
    except TypeError:
        dtype = repr(dtype)
    if dtype not in (jnp.bfloat16, jnp.float16):
        fail("half_precision", needs="bfloat16 or float16", got=dtype, remedy="Use bfloat16.")
    check_split("half_precision", split)
    features, scores = held(split.features), held(split.scores)
    return Split(
        Partial(_Halved(dtype, (ROUNDED,)), features),
        Partial(_Halved(dtype, (WHOLE, ROUNDED)), scores),
    )


class _Halved(NamedTuple):
    """Runs a function of values of which each depends on the layer or on the input."""

    dtype: Any
    levels: tuple[int, ...]

    def __call__(self, function: Callable[..., Array], *given: Any) -> Array:
        closed = jax.make_jaxpr(function)(*given)
        pairs = list(zip(given, self.levels, strict=True))
        levels = [level for tree, level in pairs for _ in jax.tree.leaves(tree)]
        values = [
            _stored(value, self.dtype) if level == ROUNDED else value
            for value, level in zip(jax.tree.leaves(given), levels, strict=True)
        ]
        (output,) = _run(body(closed), closed.consts, values, levels, self.dtype)
        return output.astype(closed.out_avals[0].dtype)


def _run(
    jaxpr: Any, constants: Sequence[Any], values: Sequence[Any], levels: Sequence[int], dtype: Any
) -> list[Any]:
    """Run a jaxpr, and on the way find out what depends on what."""
    known = dict(zip(jaxpr.invars, levels, strict=True))

    def rule(equation: Any, operands: list[Any]) -> list[Any]:
        of = [FREE if isinstance(v, core.Literal) else known.get(v, FREE) for v in equation.invars]
        level = max(of, default=FREE)
        known.update(dict.fromkeys(equation.outvars, level))
        call = called(equation)
        if call is not None:
            return _run(body(call), getattr(call, "consts", ()), operands, of, dtype)
        if level == ROUNDED and equation.primitive.name in MULTIPLICATIONS:
            params = equation.params | {"preferred_element_type": dtype}
            return [equation.primitive.bind(*(_stored(v, dtype) for v in operands), **params)]
        pairs = zip(operands, equation.invars, strict=True)
        outputs = run(equation, [_stored(value, atom.aval.dtype) for value, atom in pairs])
        return [_stored(value, dtype) for value in outputs] if level == ROUNDED else outputs

    return results(jaxpr, evaluate(jaxpr.eqns, arguments(jaxpr, constants, values), rule))


def _stored(value: Any, dtype: Any) -> Any:
    """Convert a floating value, and leave others as they are."""
    floating = jnp.issubdtype(jnp.result_type(value), jnp.floating)
    return lax.convert_element_type(value, dtype) if floating else value
