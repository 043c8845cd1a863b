"""Numbers in a program that are the same whatever it is run on: indices, weights of a resizing."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxcam.derivatives.graph.flatten import Program, compute

LARGEST = 1 << 18  # numbers; nobody looks into larger ones


def constant_value(program: Program, number: int) -> np.ndarray | None:
    """Compute a value that depends on no argument, as the program itself will; else give None."""
    needed, chosen = {number}, []
    for operation in reversed(program.operations):
        if needed.intersection(operation.results):
            needed.update(operation.operands)
            chosen.insert(0, operation)
    known: dict[int, Any] = {i: program.fixed[i] for i in needed if i in program.fixed}
    traced = any(isinstance(value, Tracer) for value in known.values())
    large = any(program.shapes[i].size > LARGEST for i in needed)
    effects = any(operation.equation.effects for operation in chosen)
    if traced or large or effects or needed.intersection(program.arguments):
        return None

    with jax.ensure_compile_time_eval():
        return np.asarray(jax.jit(lambda: compute(chosen, known)[number])())
