"""What is known of each primitive of JAX: one row, and each primitive in one row alone.

Soundness: what is in no row is unknown, and an unknown operation can only refuse a proof, never
grant one. A new primitive joins the row that says what is true of it, or opens one. If it is linear
and no sum of places that stay, it needs a rule of its own too (derivatives/tangents/rules.py).
"""

import functools
from enum import IntFlag


class Fact(IntFlag):
    """What may be true of an operation.

    POINTWISE: a place of the result is made from that place of the operands alone, so that what is
    constant along an axis stays so. LINEAR: in what varies. JOINT: in several operands together,
    and not only in each alone. BILINEAR: where one factor is fixed. KINKED: piecewise affine, with
    comparisons. FLAT: its derivative is zero wherever it exists. SINGULAR: its derivative is
    infinite somewhere, or too large to be held. SWITCHING: its slope may be zero on a whole range.
    MOVING: places are moved about, and nothing is computed. PART: takes some places, whatever is
    there.
    """

    POINTWISE = 1
    LINEAR = 2
    JOINT = 4
    BILINEAR = 8
    KINKED = 16
    FLAT = 32
    SINGULAR = 64
    SWITCHING = 128
    MOVING = 256
    PART = 512


ROWS: tuple[tuple[Fact, str], ...] = (
    (Fact.POINTWISE | Fact.LINEAR, "add add_any sub neg reduce_precision pvary"),
    (Fact.POINTWISE | Fact.LINEAR | Fact.MOVING, "convert_element_type copy"),
    (Fact.POINTWISE | Fact.BILINEAR, "mul"),
    (Fact.POINTWISE | Fact.SINGULAR, "div log log1p log2 sqrt rsqrt cbrt pow integer_pow atan2"),
    (Fact.POINTWISE | Fact.SINGULAR, "acos asin acosh atanh erf_inv tan"),
    (Fact.POINTWISE, "exp exp2 expm1 logistic tanh erf erfc square copy_p"),
    (Fact.POINTWISE, "sin cos sinh cosh asinh atan"),
    (Fact.POINTWISE | Fact.KINKED, "abs eq ne lt le gt ge and or not is_finite"),
    (Fact.POINTWISE | Fact.KINKED | Fact.SWITCHING, "max min clamp select_n"),
    (Fact.POINTWISE | Fact.KINKED | Fact.FLAT, "sign floor ceil round"),
    (Fact.POINTWISE | Fact.KINKED | Fact.FLAT | Fact.MOVING, "stop_gradient"),
    (Fact.SWITCHING, "custom_jvp_call"),
    (Fact.BILINEAR, "dot_general conv_general_dilated"),
    (Fact.LINEAR, "reduce_sum cumsum reduce_window_sum tile sharding_constraint"),
    (Fact.LINEAR | Fact.MOVING, "transpose reshape squeeze expand_dims broadcast_in_dim gather"),
    (Fact.LINEAR | Fact.MOVING | Fact.PART, "slice rev dynamic_slice"),
    (Fact.LINEAR | Fact.PART, "split"),
    (Fact.LINEAR | Fact.JOINT, "concatenate pad dynamic_update_slice scatter scatter-add"),
    (Fact.LINEAR | Fact.JOINT, "optimization_barrier"),
    (Fact.KINKED, "reduce_max reduce_min reduce_window_max reduce_window_min argmax argmin top_k"),
    (Fact.KINKED, "cummax cummin"),
    (Fact.KINKED | Fact.JOINT, "sort"),
)


@functools.cache
def facts() -> dict[str, Fact]:
    """Give what is true of each primitive, by its name."""
    return {name: fact for fact, names in ROWS for name in names.split()}


@functools.cache
def known_as(fact: Fact) -> frozenset[str]:
    """Name the primitives of which a fact is true, or one of several."""
    return frozenset(name for name, true in facts().items() if true & fact)
