"""One linear operation, as a rule sees it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxcam.derivatives.tangents.axes import Element
from jaxcam.derivatives.tangents.terms import Tangent, Term, dense, spread_all
from jaxcam.jaxprs.interpret import run


class Step(NamedTuple):
    """One operation at the point: its equation, its operands' values, and which one varies.

    shape: that of the result; of size one along axes over which was summed before. result: which of
    several. constant: gives an operand that is the same whatever the network is run on, else None.
    """

    equation: Any
    operands: Sequence[Any]
    place: int
    element: Element
    shape: tuple[int, ...]
    result: int = 0
    constant: Callable[[int], np.ndarray | None] = lambda _: None

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the operation."""
        return self.equation.params

    def once(self, compute: Callable[[], Array]) -> Array:
        """Compute what this operation needs at the point, the same for all terms and elements."""
        key = (compute.__qualname__, id(self.equation), *map(id, self.operands))
        if key not in self.element.done:  # the operands stay alive, so that no other has their id
            self.element.done[key] = (compute(), self.operands)
        return self.element.done[key][0]


def unchanged(term: Term, step: Step) -> Tangent:
    """Pass a tangent on to the result of the same place."""
    return [term] if step.place == step.result else []


def whole_map(term: Term, step: Step) -> Tangent:
    """Apply an operation to the tangent stored whole."""
    x = step.operands[step.place]
    values = spread_all(term, step.element).values

    def apply(x: Array) -> Array:
        operands = [x if i == step.place else v for i, v in enumerate(step.operands)]
        return run(step.equation, operands)[step.result]

    moved = jax.jvp(apply, (x,), (values.astype(x.dtype),))[1]
    return [dense(moved.astype(values.dtype))]
