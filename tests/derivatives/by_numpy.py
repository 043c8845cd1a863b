"""Run a jaxpr in numpy, one operation after the other: nothing is compiled.

Small programs that are run once take a hundred times longer to compile than to compute. What has no
line here is bound as JAX does it, which compiles that operation alone.
"""

import itertools
import string
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.special
from jax.extend import core

from jaxcam.jaxprs.interpret import parts_of_scan

ELEMENTWISE: dict[str, Callable] = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "add": np.add, "add_any": np.add,
    "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan, "atan2": np.arctan2,
    "atanh": np.arctanh, "cbrt": np.cbrt, "ceil": np.ceil, "conj": np.conj, "cos": np.cos,
    "cosh": np.cosh, "digamma": scipy.special.digamma, "eq": np.equal, "erf": scipy.special.erf,
    "erf_inv": scipy.special.erfinv, "erfc": scipy.special.erfc, "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "floor": np.floor, "ge": np.greater_equal, "gt": np.greater,
    "imag": np.imag, "is_finite": np.isfinite, "le": np.less_equal, "lgamma": scipy.special.gammaln,
    "log": np.log, "log1p": np.log1p, "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "lt": np.less, "max": np.maximum, "min": np.minimum, "mul": np.multiply, "ne": np.not_equal,
    "neg": np.negative, "pow": np.power, "real": np.real, "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign, "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "square": np.square,
    "sub": np.subtract, "tan": np.tan, "tanh": np.tanh, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert, "copy": np.copy,
    "copy_p": np.copy, "complex": lambda x, y: x + 1j * y,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}  # fmt: skip
SAME = {"optimization_barrier", "stop_gradient", "pvary", "name", "mul_by_one"}
CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
         "custom_jvp_call", "custom_vjp_call"}  # fmt: skip
REDUCTIONS = {
    "reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod,
    "reduce_and": np.all, "reduce_or": np.any,
}  # fmt: skip
CUMULATIVE = {
    "cumsum": np.cumsum, "cumprod": np.cumprod, "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate, "cumlogsumexp": np.logaddexp.accumulate,
}  # fmt: skip


def run(closed: core.ClosedJaxpr, *arguments: Any) -> list[Any]:
    """Evaluate a closed jaxpr."""
    with np.errstate(all="ignore"):
        return _evaluate(_body(closed), closed.consts, arguments)


def _body(closed: Any) -> Any:
    return getattr(closed, "jaxpr", closed)


def _enter(closed: Any, arguments: Sequence[Any]) -> list[Any]:
    return _evaluate(_body(closed), getattr(closed, "consts", ()), arguments)


def _evaluate(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    known = dict(zip(jaxpr.constvars, map(_plain, constants), strict=True))
    known.update(zip(jaxpr.invars, map(_plain, arguments), strict=True))

    def read(atom: Any) -> Any:
        return _plain(atom.val) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        found = _step(equation, [read(atom) for atom in equation.invars])
        for variable, value in zip(equation.outvars, found, strict=True):
            known[variable] = _typed(value, variable.aval)
    return [read(atom) for atom in jaxpr.outvars]


def _plain(value: Any) -> Any:
    """Give a numpy array, except for keys of random numbers."""
    extended = jax.dtypes.issubdtype(getattr(value, "dtype", np.float64), jax.dtypes.extended)
    return value if extended else np.asarray(value)


def _typed(value: Any, aval: Any) -> Any:
    if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.extended):
        return value
    value = np.asarray(value)
    if value.shape != aval.shape:
        raise ValueError(f"{value.shape} where {aval} was expected")
    return value if value.dtype == aval.dtype else value.astype(aval.dtype)


def _step(equation: Any, x: list[Any]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in ELEMENTWISE:
        return [ELEMENTWISE[name](*x)]
    if name in SAME:
        return x
    if name in CALLS:
        bodies = [p for p in params.values() if isinstance(p, core.Jaxpr | core.ClosedJaxpr)]
        return _enter(bodies[0], x)
    if name in REDUCTIONS and x[0].size:
        return [REDUCTIONS[name](x[0], axis=tuple(params["axes"]))]
    if name in CUMULATIVE and x[0].size:
        return [_cumulative(CUMULATIVE[name], x[0], params["axis"], params["reverse"])]
    rule = RULES.get(name)
    found = None if rule is None else rule(equation, x)
    return _bound(equation, x) if found is None else found


def _bound(equation: Any, x: list[Any]) -> Sequence[Any]:
    """Run one operation as JAX does."""
    params = equation.params
    if not equation.outvars:  # it only tells the world something
        return []
    if core.jaxprs_in_params(params) or any(map(callable, params.values())):
        names = {a: v for a, v in zip(equation.invars, x, strict=True)
                 if not isinstance(a, core.Literal)}  # fmt: skip
        empty = _body(jax.make_jaxpr(lambda: ())())
        one = empty.replace(
            eqns=[equation], invars=list(names), outvars=equation.outvars,
            effects=equation.effects, debug_info=empty.debug_info.with_unknown_names(),
        )  # fmt: skip
        return core.jaxpr_as_fun(core.ClosedJaxpr(one, []))(*names.values())
    found = equation.primitive.bind(*x, **params)
    return found if equation.primitive.multiple_results else [found]


def _cumulative(function: Callable, x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    x = np.flip(x, axis) if reverse else x
    found = function(x, axis)
    return np.flip(found, axis) if reverse else found


def _broadcast(equation: Any, x: list[Any]) -> list[Any]:
    shape, placed = equation.params["shape"], equation.params["broadcast_dimensions"]
    inner = [1] * len(shape)
    for axis, size in zip(placed, x[0].shape, strict=True):
        inner[axis] = size
    return [np.broadcast_to(x[0].reshape(inner), shape)]


def _reshape(equation: Any, x: list[Any]) -> list[Any]:
    turned = equation.primitive.name == "reshape" and equation.params["dimensions"] is not None
    value = np.transpose(x[0], equation.params["dimensions"]) if turned else x[0]
    return [value.reshape(equation.outvars[0].aval.shape)]


def _dot(equation: Any, x: list[Any]) -> list[Any]:
    (over, batch) = equation.params["dimension_numbers"]
    letters = iter(string.ascii_letters)
    names = [[""] * v.ndim for v in x]
    shared = []
    for pairs in (batch, over):
        for i, j in zip(*pairs, strict=True):
            names[0][i] = names[1][j] = next(letters)
            if pairs is batch:
                shared.append(names[0][i])
    free = []
    for row in names:
        for i, known in enumerate(row):
            if not known:
                row[i] = next(letters)
                free.append(row[i])
    spec = f"{''.join(names[0])},{''.join(names[1])}->{''.join(shared + free)}"
    return [np.einsum(spec, *x)]


def _select(equation: Any, x: list[Any]) -> list[Any]:
    which, *cases = x
    if which.dtype == bool:
        return [np.where(which, cases[1], cases[0])]
    return [np.select([which == i for i in range(len(cases))], cases)]


def _pad(equation: Any, x: list[Any]) -> list[Any]:
    found, fill = x
    for axis, (low, high, inside) in enumerate(equation.params["padding_config"]):
        n = found.shape[axis]
        size = n + max(n - 1, 0) * inside
        shape = list(found.shape)
        shape[axis] = max(low, 0) + size + max(high, 0)
        wide = np.full(shape, fill, found.dtype)
        places = [slice(None)] * found.ndim
        places[axis] = slice(max(low, 0), max(low, 0) + size, inside + 1)
        wide[tuple(places)] = found
        places[axis] = slice(max(-low, 0), shape[axis] - max(-high, 0))
        found = wide[tuple(places)]
    return [found]


def _starts(starts: Sequence[Any], sizes: Sequence[int], shape: Sequence[int]) -> list[int]:
    return [min(max(int(s), 0), n - k) for s, k, n in zip(starts, sizes, shape, strict=True)]


def _dynamic_slice(equation: Any, x: list[Any]) -> list[Any]:
    sizes = equation.params["slice_sizes"]
    starts = _starts(x[1:], sizes, x[0].shape)
    return [x[0][tuple(slice(s, s + k) for s, k in zip(starts, sizes, strict=True))]]


def _dynamic_update(equation: Any, x: list[Any]) -> list[Any]:
    found, sizes = x[0].copy(), x[1].shape
    starts = _starts(x[2:], sizes, found.shape)
    found[tuple(slice(s, s + k) for s, k in zip(starts, sizes, strict=True))] = x[1]
    return [found]


def _slice(equation: Any, x: list[Any]) -> list[Any]:
    p = equation.params
    strides = p["strides"] or (1,) * x[0].ndim
    parts = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    return [x[0][tuple(slice(*part) for part in parts)]]


def _convert(equation: Any, x: list[Any]) -> list[Any]:
    new = equation.params["new_dtype"]
    real = np.iscomplexobj(x[0]) and not np.issubdtype(new, np.complexfloating)
    return [(x[0].real if real else x[0]).astype(new)]


def _integer_power(equation: Any, x: list[Any]) -> list[Any]:
    n = equation.params["y"]
    return [x[0] ** n if n >= 0 else 1 / x[0] ** -n]


def _round(equation: Any, x: list[Any]) -> list[Any]:
    if int(equation.params["rounding_method"]) == 1:
        return [np.round(x[0])]
    return [np.trunc(x[0] + np.copysign(0.5, x[0]))]


def _divide(equation: Any, x: list[Any]) -> list[Any] | None:
    if np.issubdtype(x[0].dtype, np.inexact):
        return [x[0] / x[1]]
    return [np.trunc(x[0] / x[1])] if np.all(x[1] != 0) and np.abs(x[0]).max() < 2**50 else None


def _remainder(equation: Any, x: list[Any]) -> list[Any] | None:
    return [np.fmod(*x)] if np.all(x[1] != 0) else None


def _iota(equation: Any, x: list[Any]) -> list[Any]:
    p = equation.params
    sizes = [1] * len(p["shape"])
    sizes[p["dimension"]] = p["shape"][p["dimension"]]
    return [np.broadcast_to(np.arange(sizes[p["dimension"]]).reshape(sizes), p["shape"])]


def _split(equation: Any, x: list[Any]) -> list[Any]:
    ends = list(itertools.accumulate(equation.params["sizes"]))[:-1]
    return np.split(x[0], ends, equation.params["axis"])


def _extreme(function: Callable) -> Callable:
    return lambda equation, x: [function(x[0], equation.params["axes"][0])]


def _scan(equation: Any, x: list[Any]) -> list[Any]:
    p = equation.params
    fixed, carried = parts_of_scan(equation)
    constants, state, rows = x[:fixed], x[fixed : fixed + carried], x[fixed + carried :]
    turns = range(p["length"])
    kept = []
    for i in reversed(turns) if p["reverse"] else turns:
        found = _enter(p["jaxpr"], [*constants, *state, *(row[i] for row in rows)])
        state = found[:carried]
        kept.append(found[carried:])
    kept = kept[::-1] if p["reverse"] else kept
    avals = [v.aval for v in equation.outvars[carried:]]
    stacked = [
        np.stack([row[i] for row in kept]) if kept else np.zeros(aval.shape, aval.dtype)
        for i, aval in enumerate(avals)
    ]
    return [*state, *stacked]


def _while(equation: Any, x: list[Any]) -> list[Any] | None:
    p = equation.params
    m, n = p["cond_nconsts"], p["body_nconsts"]
    of_test, of_body, state = x[:m], x[m : m + n], x[m + n :]
    if _body(p["cond_jaxpr"]).outvars[0].aval.shape:
        return None
    while _enter(p["cond_jaxpr"], [*of_test, *state])[0]:
        state = _enter(p["body_jaxpr"], [*of_body, *state])
    return state


def _cond(equation: Any, x: list[Any]) -> list[Any]:
    branches = equation.params["branches"]
    return _enter(branches[min(max(int(x[0]), 0), len(branches) - 1)], x[1:])


def _linear_solve(equation: Any, x: list[Any]) -> list[Any]:
    lengths, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    first = lengths.matvec + lengths.vecmat
    right = x[sum(lengths) :]
    return _enter(jaxprs.solve, [*x[first : first + lengths.solve], *right])


def _gather(equation: Any, x: list[Any]) -> list[Any] | None:
    """Gather: each place of the result is a place of the operand."""
    operand, places = x
    p, numbers = equation.params, equation.params["dimension_numbers"]
    shape, sizes = equation.outvars[0].aval.shape, p["slice_sizes"]
    if not operand.size:
        return None
    index = np.indices(shape)
    of_batch = [index[i] for i in range(len(shape)) if i not in numbers.offset_dims]
    left_out = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [i for i in range(operand.ndim) if i not in left_out]
    where = [np.zeros(shape, np.int64) for _ in operand.shape]
    good = np.ones(shape, bool)
    clip = "CLIP" in str(p["mode"])
    for k, axis in enumerate(numbers.start_index_map):
        start = places[(*of_batch, k)].astype(np.int64)
        last = operand.shape[axis] - sizes[axis]
        good = good & (start >= 0) & (start <= last)
        where[axis] = np.clip(start, 0, last)
    pairs = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    for axis, of_index in pairs:
        where[axis] = of_batch[of_index]
    for axis, of_result in zip(kept, numbers.offset_dims, strict=True):
        where[axis] = where[axis] + index[of_result]
    found = operand[tuple(where)]
    if clip or good.all():
        return [found]
    fill = p["fill_value"]
    if fill is None:
        fill = np.nan if np.issubdtype(operand.dtype, np.inexact) else np.iinfo(operand.dtype).min
    return [np.where(good, found, fill)] if "FILL" in str(p["mode"]) else None


def _scatter(equation: Any, x: list[Any]) -> list[Any] | None:
    """Scatter: each place of the updates is added at a place of the operand, or dropped."""
    operand, places, updates = x
    p, numbers = equation.params, equation.params["dimension_numbers"]
    if not updates.size or not operand.size:
        return None
    index = np.indices(updates.shape)
    of_batch = [index[i] for i in range(updates.ndim) if i not in numbers.update_window_dims]
    left_out = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = [i for i in range(operand.ndim) if i not in left_out]
    sizes = [1] * operand.ndim
    for axis, of_update in zip(kept, numbers.update_window_dims, strict=True):
        sizes[axis] = updates.shape[of_update]
    where = [np.zeros(updates.shape, np.int64) for _ in operand.shape]
    good = np.ones(updates.shape, bool)
    for k, axis in enumerate(numbers.scatter_dims_to_operand_dims):
        start = places[(*of_batch, k)].astype(np.int64)
        last = operand.shape[axis] - sizes[axis]
        good = good & (start >= 0) & (start <= last)
        where[axis] = np.clip(start, 0, last)
    good = np.ones_like(good) if "CLIP" in str(p["mode"]) else good
    pairs = zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)
    for axis, of_index in pairs:
        where[axis] = of_batch[of_index]
    for axis, of_update in zip(kept, numbers.update_window_dims, strict=True):
        where[axis] = where[axis] + index[of_update]
    found = operand.copy()
    at = tuple(np.broadcast_to(w, updates.shape)[good] for w in where)
    if equation.primitive.name == "scatter-add":
        np.add.at(found, at, updates[good])
    else:
        found[at] = updates[good]
    return [found]


RULES: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast, "reshape": _reshape, "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": lambda e, x: [np.transpose(x[0], e.params["permutation"])],
    "dot_general": _dot, "select_n": _select, "pad": _pad, "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update, "slice": _slice, "convert_element_type": _convert,
    "integer_pow": _integer_power, "round": _round, "div": _divide, "rem": _remainder,
    "iota": _iota, "split": _split, "argmax": _extreme(np.argmax), "argmin": _extreme(np.argmin),
    "rev": lambda e, x: [np.flip(x[0], e.params["dimensions"])],
    "concatenate": lambda e, x: [np.concatenate(x, e.params["dimension"])],
    "scan": _scan, "while": _while, "cond": _cond, "gather": _gather,
    "custom_linear_solve": _linear_solve,
    "stack": lambda e, x: [np.stack(x, e.params["axis"])],
    "unstack": lambda e, x: [*np.moveaxis(x[0], e.params["axis"], 0)],
    "tile": lambda e, x: [np.tile(x[0], e.params["reps"])],
    "scatter-add": _scatter, "scatter": _scatter,
}  # fmt: skip
