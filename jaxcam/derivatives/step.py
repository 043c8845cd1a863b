"""One linear operation, as a rule sees it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import Array

from jaxcam.derivatives.structure import run
from jaxcam.derivatives.tangents import Element, Term, dense, spread_all


class Step(NamedTuple):
    """One operation at the point: its equation, its operands' values, and which one varies.

    shape: that of the result; of size one along axes over which was summed before.
    """

    equation: Any
    operands: Sequence[Any]
    place: int
    element: Element
    shape: tuple[int, ...]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the operation."""
        return self.equation.params


def whole_map(term: Term, step: Step) -> Term:
    """Apply an operation to the tangent stored whole."""
    x = step.operands[step.place]
    values = spread_all(term, step.element).values

    def apply(x: Array) -> Array:
        operands = [x if i == step.place else v for i, v in enumerate(step.operands)]
        return run(step.equation, operands)[0]

    moved = jax.jvp(apply, (x,), (values.astype(x.dtype),))[1]
    return dense(moved.astype(values.dtype))
