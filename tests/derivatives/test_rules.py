"""Every rule against its operation on the array that a term stands for, for all elements at once.

Terms are drawn: windows that run over the ends, turn round, jump, come and go; with a pattern.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from terms import EXTENTS

from jaxcam.derivatives.tangents.axes import SAME, Element, begin, vanishes, whole, window
from jaxcam.derivatives.tangents.rules import RULES
from jaxcam.derivatives.tangents.step import Step
from jaxcam.derivatives.tangents.terms import Term, cleaned, spread_all

COORDINATES = np.array(list(np.ndindex(*EXTENTS)), np.int32)
QUICK = {"xla_backend_optimization_level": 0}
LAST = ("NHWC", "HWIO", "NHWC")


def drawn_axis(rng, full):
    """Draw how a term extends along an axis."""
    kind, d, size = rng.integers(6), rng.integers(2), int(rng.integers(1, 4))
    if kind < 2:
        return whole(full) if kind else SAME
    if kind == 2:
        table = [
            None if rng.random() < 0.3 else int(b) for b in rng.integers(-2, full + 2, EXTENTS[d])
        ]
    else:
        step = int(rng.choice([1, 2, -1]))
        table = range(0, step * EXTENTS[d], step)
    other = range(EXTENTS[1 - d]) if rng.random() < 0.15 else ()
    found = window(
        size, [table, other] if d == 0 else [other, table], int(rng.integers(-2, 3)), clean=False
    )
    return whole(full) if vanishes(found) else found


def drawn_term(rng, shape):
    axes = tuple(drawn_axis(rng, n) if n > 1 or rng.random() < 0.3 else SAME for n in shape)
    pattern = None
    if rng.random() < 0.4:
        pattern = jnp.asarray(rng.normal(size=[int(rng.choice([1, n])) for n in shape]))
    return Term(jnp.asarray(rng.normal(size=[axis.size for axis in axes])), axes, shape, pattern)


def at(term, coordinates):
    """Give the term of one element: zero where an axis says so."""
    there = [
        jnp.asarray([float(move is not None) for move in table])[c]
        for axis in term.axes
        for table, c in zip(axis.moves, coordinates, strict=False)
        if table
    ]
    return term._replace(values=term.values * math.prod(there))


def check(operation, operands, place, result, rng, *, tidy):
    """Hold the rule of one primitive against the primitive."""
    closed = jax.make_jaxpr(operation)(*operands)
    (equation,) = closed.jaxpr.eqns
    known = dict(zip(closed.jaxpr.invars, operands, strict=True))
    values = [atom.val if hasattr(atom, "val") else known[atom] for atom in equation.invars]
    shape = equation.outvars[result].aval.shape
    term = drawn_term(rng, operands[place].shape)
    seen = []

    def constant(i):
        return np.asarray(values[i]) if jnp.issubdtype(values[i].dtype, jnp.integer) else None

    def ours(coordinates):
        element = Element(tuple(coordinates), EXTENTS, {})
        given = at(term, coordinates)
        if tidy:
            given = cleaned(given, range(len(given.shape)), element)
            given = given._replace(axes=tuple(a._replace(clean=True) for a in given.axes))
        step = Step(equation, values, place, element, shape, result, constant)
        found = RULES[equation.primitive.name](given, step)
        seen[:] = found
        for new in found:
            assert new.shape == shape
            assert new.values.shape == tuple(axis.size for axis in new.axes)
        total = sum((spread_all(new, element).values for new in found), jnp.zeros(shape))
        begun = [[begin(a, element) if a.moves else 0 for a in new.axes] for new in found]
        return total, [new.values for new in found], begun

    def array(coordinates):
        element = Element(tuple(coordinates), EXTENTS, {})
        return spread_all(at(term, coordinates), element).values

    def alone(x):
        found = operation(*operands[:place], x, *operands[place + 1 :])
        return found[result] if isinstance(found, list | tuple) else found

    def both(coordinates):
        # In reverse mode, which picks the first of equal places.
        jacobian = jax.jacrev(alone)(operands[place])
        over = tuple(range(-operands[place].ndim, 0))
        theirs = jax.vmap(lambda c: jnp.tensordot(jacobian, array(c), (over, over)))(coordinates)
        return jax.vmap(ours)(coordinates), theirs

    (got, numbers, begun), expected = jax.jit(both, compiler_options=QUICK)(COORDINATES)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    for new, stored, firsts in zip(seen, numbers, begun, strict=True):
        for i, (axis, full) in enumerate(zip(new.axes, new.shape, strict=True)):
            if axis.kind == "window" and axis.clean:
                places = np.asarray(firsts[i])[:, None] + np.arange(axis.size)
                rows = np.moveaxis(np.asarray(stored), i + 1, 1)
                assert not rows[(places < 0) | (places >= full)].any()


def numbers(rng, *shape):
    return jnp.asarray(rng.normal(size=shape))


def shape_of(rng, least=2, most=3, up_to=6):
    return tuple(map(int, rng.integers(1, up_to + 1, rng.integers(least, most + 1))))


# One maker an operation: ``rng -> (operation, operands, the place that varies, the result)``.


def sliced(rng):
    shape = shape_of(rng)
    starts = [int(rng.integers(n)) for n in shape]
    limits = [int(rng.integers(b + 1, n + 1)) for b, n in zip(starts, shape, strict=True)]
    strides = [int(rng.integers(1, 4)) for _ in shape]
    return lambda x: lax.slice(x, starts, limits, strides), (numbers(rng, *shape),), 0, 0


def flipped(rng):
    shape = shape_of(rng)
    axes = [i for i in range(len(shape)) if rng.random() < 0.6] or [0]
    return lambda x: lax.rev(x, axes), (numbers(rng, *shape),), 0, 0


def padded(rng):
    shape = tuple(n + 2 for n in shape_of(rng, up_to=4))
    config = [
        (int(rng.integers(-2, 4)), int(rng.integers(0, 4)), int(rng.integers(0, 3))) for _ in shape
    ]
    return lambda x, v: lax.pad(x, v, config), (numbers(rng, *shape), jnp.asarray(1.5)), 0, 0


def joined(rng):
    shape, several = shape_of(rng), int(rng.integers(2, 4))
    axis, place = int(rng.integers(len(shape))), int(rng.integers(several))
    parts = [
        numbers(rng, *(int(rng.integers(1, 5)) if i == axis else n for i, n in enumerate(shape)))
        for _ in range(several)
    ]
    return lambda *x: lax.concatenate(x, axis), tuple(parts), place, 0


def reshaped(rng):
    shapes = [(4, 3), (12,), (2, 2, 3), (1, 4, 3), (4, 1, 3), (2, 6), (3, 4), (1, 12), (1, 2, 6)]
    old, new = rng.choice(len(shapes), 2, replace=False)
    order = tuple(rng.permutation(len(shapes[old]))) if rng.random() < 0.2 else None
    x = numbers(rng, *shapes[old])
    return (
        lambda x: lax.reshape_p.bind(x, new_sizes=shapes[new], dimensions=order, sharding=None),
        (x,),
        0,
        0,
    )


def stretched(rng):
    shape = tuple(1 if rng.random() < 0.4 else n for n in shape_of(rng, 1, 3, 4))
    rank = len(shape) + 1
    placed = sorted(map(int, rng.choice(rank, len(shape), replace=False)))
    new = [int(n) for n in rng.integers(1, 4, rank)]
    for axis, n in zip(placed, shape, strict=True):
        new[axis] = n if n > 1 else new[axis]
    return lambda x: lax.broadcast_in_dim(x, new, placed), (numbers(rng, *shape),), 0, 0


def convolved(rng):
    spatial = [int(n) for n in rng.integers(2, 8, 2)]
    sizes, strides = ([int(n) for n in rng.integers(1, 4, 2)] for _ in range(2))
    pads = [(int(rng.integers(-1, 3)), int(rng.integers(1, 3))) for _ in sizes]
    expansion, dilation = ([int(n) for n in rng.integers(1, 3, 2)] for _ in range(2))
    sizes = [
        min(k, n) if d == 1 else min(2, k) for k, n, d in zip(sizes, spatial, dilation, strict=True)
    ]
    groups = int(rng.choice([1, 2, 4]))
    order = "".join(rng.permutation(list("NHWC")))
    axes = (order, LAST[1], LAST[2])
    extent = dict(zip("NHWC", (1, *spatial, 4), strict=True))
    x, kernel = numbers(rng, *(extent[n] for n in order)), numbers(rng, *sizes, 4 // groups, 4)
    return (
        lambda x, w: lax.conv_general_dilated(
            x, w, strides, pads, expansion, dilation, axes, feature_group_count=groups
        ),
        (x, kernel), 0, 0,
    )  # fmt: skip


def pooled(start, combine):
    def make(rng):
        shape = tuple(n + 2 for n in shape_of(rng, up_to=5))
        sizes, strides = ([int(n) for n in rng.choice([1, 1, 2, 3], len(shape))] for _ in range(2))
        pads = [(int(rng.integers(2)), int(rng.integers(2))) for _ in shape]
        apart = [int(n) for n in rng.integers(1, 3, len(shape))] if start == 0 else None
        x = jnp.round(numbers(rng, *shape))  # with ties
        return (
            lambda x: lax.reduce_window(x, start, combine, sizes, strides, pads, apart),
            (x,), 0, 0,
        )  # fmt: skip

    return make


def gathered(rng):
    shape = shape_of(rng)
    rest = tuple(range(2, len(shape)))
    one, two = rng.integers(0, shape[0], 5), rng.integers(0, shape[1], 4)
    kind = rng.integers(4)
    if kind == 0:  # along one axis, anyhow or in order
        indices = (np.sort(one) if rng.random() < 0.5 else one)[:, None]
        where = lax.GatherDimensionNumbers(tuple(range(1, len(shape))), (0,), (0,))
        sizes = (1, *shape[1:])
    elif kind == 1:  # along two, each on its own
        indices = np.stack(np.broadcast_arrays(one[:, None], two[None]), -1)
        where, sizes = lax.GatherDimensionNumbers(rest, (0, 1), (0, 1)), (1, 1, *shape[2:])
    elif kind == 2:  # along a diagonal
        indices = np.stack([one[:4], two], -1)
        where = lax.GatherDimensionNumbers(tuple(i - 1 for i in rest), (0, 1), (0, 1))
        sizes = (1, 1, *shape[2:])
    else:  # a part
        indices = one[:1] // 2
        where = lax.GatherDimensionNumbers(tuple(range(len(shape))), (), (0,))
        sizes = (shape[0] - int(one[0]) // 2, *shape[1:])
    mode = lax.GatherScatterMode.CLIP
    operands = numbers(rng, *shape), jnp.asarray(indices, jnp.int32)
    return lambda x, i: lax.gather(x, i, where, sizes, mode=mode), operands, 0, 0


def begun_anywhere(rng, write):
    shape = shape_of(rng)
    sizes = tuple(int(rng.integers(1, n + 1)) for n in shape)
    starts = [jnp.asarray(rng.integers(0, n + 1), jnp.int32) for n in shape]
    if write:
        operands = (numbers(rng, *shape), numbers(rng, *sizes), *starts)
        return lax.dynamic_update_slice_p.bind, operands, int(rng.integers(2)), 0
    cut = functools.partial(lax.dynamic_slice_p.bind, slice_sizes=sizes)
    return cut, (numbers(rng, *shape), *starts), 0, 0


def written(rng):
    shape, adds = shape_of(rng), rng.random() < 0.5
    indices = jnp.asarray(rng.integers(0, shape[0], (3, 1)), jnp.int32)
    where = lax.ScatterDimensionNumbers(tuple(range(1, len(shape))), (0,), (0,))
    write = lax.scatter_add if adds else lax.scatter
    operands = numbers(rng, *shape), indices, numbers(rng, 3, *shape[1:])
    mode = lax.GatherScatterMode.CLIP
    return lambda x, i, u: write(x, i, u, where, mode=mode), operands, int(rng.choice([0, 2])), 0


def along_an_axis(operation):
    def make(rng):
        shape = shape_of(rng)
        axis = int(rng.integers(len(shape)))
        return lambda x: operation(x, axis, shape), (jnp.round(2 * numbers(rng, *shape)),), 0, 0

    return make


def split_up(rng):
    shape = (*shape_of(rng, 1, 2), 5)
    return (
        lambda x: lax.split(x, (2, 1, 2), len(shape) - 1),
        (numbers(rng, *shape),),
        0,
        int(rng.integers(3)),
    )


def times_a_matrix(rng):
    shape, first = shape_of(rng), rng.random() < 0.5
    axis = int(rng.integers(len(shape)))
    x, matrix = numbers(rng, *shape), numbers(rng, shape[axis], 3)
    if first:
        return lambda x, m: lax.dot_general(x, m, (((axis,), (0,)), ((), ()))), (x, matrix), 0, 0
    return lambda m, x: lax.dot_general(m, x, (((0,), (axis,)), ((), ()))), (matrix, x), 1, 0


def backward(shape):
    return tuple(range(len(shape)))[::-1]


MAKERS = {
    "slice": sliced,
    "rev": flipped,
    "pad": padded,
    "concatenate": joined,
    "reshape": reshaped,
    "broadcast_in_dim": stretched,
    "convolution": convolved,
    "sum_pooling": pooled(0.0, lax.add),
    "max_pooling": pooled(-np.inf, lax.max),
    "min_pooling": pooled(np.inf, lax.min),
    "gather": gathered,
    "dynamic_slice": lambda rng: begun_anywhere(rng, write=False),
    "dynamic_update_slice": lambda rng: begun_anywhere(rng, write=True),
    "scatter": written,
    "split": split_up,
    "dot_general": times_a_matrix,
    "transpose": along_an_axis(lambda x, i, n: lax.transpose_p.bind(x, permutation=backward(n))),
    "tile": along_an_axis(lambda x, i, n: lax.tile_p.bind(x, reps=(2, *n[1:]))),
    "cumsum": along_an_axis(lambda x, i, n: lax.cumsum_p.bind(x, axis=i, reverse=i == 0)),
    "reduce_max": along_an_axis(lambda x, i, n: lax.reduce_max(x, (i,))),
    "reduce_sum": along_an_axis(lambda x, i, n: lax.reduce_sum(x, (i,))),
    "sort": along_an_axis(lambda x, i, n: lax.sort(x, i)),
    "cummax": along_an_axis(lambda x, i, n: lax.cummax(x, i)),
    "cummin": along_an_axis(lambda x, i, n: lax.cummin(x, i, reverse=True)),
    "top_k": along_an_axis(lambda x, i, n: lax.top_k(x, max(1, n[-1] - 1))),
}  # fmt: skip


@pytest.mark.parametrize(
    "seeds", [range(2), pytest.param(range(2, 60), marks=pytest.mark.slow)], ids=("few", "many")
)
@pytest.mark.parametrize("name", MAKERS)
def test_each_rule_is_its_operation(name, seeds):
    with jax.enable_x64(True):
        for seed in seeds:
            rng = np.random.default_rng([seed, *name.encode()])
            check(*MAKERS[name](rng), rng, tidy=seed % 2 == 0)


def test_sums_over_a_single_place_beside_an_expanded_axis_do_not_abort():
    """XLA ends the process where it takes the two for a broadcast."""
    with jax.enable_x64(True):
        rng = np.random.default_rng([45, *b"sum_pooling"])
        check(*MAKERS["sum_pooling"](rng), rng, tidy=False)
