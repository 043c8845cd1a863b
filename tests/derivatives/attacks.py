"""Operations of which the adversary makes its scores, in one table by kind.

Each takes an array of any shape (or two) and a source of random numbers, and gives an array. What
it needs of the shape it makes itself: `grid` gives an array as many axes as are needed. An
operation draws its weights, axes and options from the source, so that the same seed gives the same
function: ``conv(x, rng(7))``.
"""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Source = np.random.Generator
rng = np.random.default_rng

LARGEST = 120  # numbers in a value

# Sources and shapes.


def normal(r: Source, *shape: int) -> Array:
    """Draw weights that keep the variance of what they are multiplied with."""
    return jnp.asarray(r.normal(size=shape) / math.sqrt(math.prod(shape[:-1]) or 1))


def pick(r: Source, *options):
    """Draw one of several."""
    return options[int(r.integers(len(options)))]


def draw(r: Source, low: int, high: int) -> int:
    """Draw an integer, both ends included."""
    return int(r.integers(low, high + 1))


def grid(x: Array, rank: int) -> Array:
    """Give an array this many axes: the first ones joined, or axes of size one put before them."""
    if x.ndim > rank:
        return x.reshape(-1, *x.shape[x.ndim - rank + 1 :])
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def some(x: Array) -> Array:
    """Give an array one axis at least."""
    return x.reshape(1) if x.ndim == 0 else x


def an_axis(x: Array, r: Source) -> int:
    """Draw an axis."""
    return draw(r, 0, x.ndim - 1)


def small(x: Array) -> Array:
    """Cut what has grown large."""
    if x.size <= LARGEST:
        return x
    if x.ndim > 1 and x.size // x.shape[0] <= LARGEST:
        return x[: LARGEST // (x.size // x.shape[0])]
    return x.reshape(-1)[:LARGEST]


def like(y: Array, x: Array, r: Source) -> Array:
    """Bring an array to the shape of another: by weights, its mean, or what there is of it."""
    if y.shape == x.shape:
        return y
    flat = y.reshape(-1)
    how = draw(r, 0, 3)
    if how == 0:
        return (normal(r, x.size, y.size) @ flat).reshape(x.shape)
    if how == 1 and x.ndim:
        return jnp.broadcast_to(normal(r, x.shape[-1], y.size) @ flat, x.shape)
    if how == 2:
        return jnp.broadcast_to(flat.mean(), x.shape)
    return jnp.resize(flat, x.shape)


def square_matrix(x: Array, r: Source, size: int = 3) -> Array:
    """Make a well-conditioned square matrix of an array, which depends on it smoothly."""
    mixed = normal(r, size * size, x.size) @ x.reshape(-1)
    return 2.5 * jnp.eye(size) + 0.5 * jnp.tanh(mixed).reshape(size, size)


def definite(x: Array, r: Source, size: int = 3) -> Array:
    """Make a positive definite matrix, whose eigenvalues lie apart."""
    m = square_matrix(x, r, size) - 2.5 * jnp.eye(size)
    return m @ m.T + jnp.diag(jnp.arange(1.0, size + 1))


# Element by element. Each is tame: no argument is far out where a function overflows.

SMOOTH: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus,
    "silu": jax.nn.silu, "mish": jax.nn.mish, "gelu": jax.nn.gelu,
    "gelu_erf": functools.partial(jax.nn.gelu, approximate=False), "elu": jax.nn.elu,
    "selu": jax.nn.selu, "celu": jax.nn.celu, "log_sigmoid": jax.nn.log_sigmoid,
    "squareplus": jax.nn.squareplus, "soft_sign": jax.nn.soft_sign,
    "hard_swish": jax.nn.hard_silu, "exp": lambda x: jnp.exp(x / 3),
    "exp2": lambda x: jnp.exp2(x / 3), "expm1": lambda x: jnp.expm1(x / 3),
    "log1p_square": lambda x: jnp.log1p(x * x), "log_abs": lambda x: jnp.log(jnp.abs(x) + 0.5),
    "sqrt_shifted": lambda x: jnp.sqrt(x * x + 0.3), "rsqrt": lambda x: lax.rsqrt(x * x + 0.3),
    "reciprocal": lambda x: jnp.reciprocal(2 + x * x), "cube": lambda x: x**3 / 5,
    "negative_power": lambda x: (1.5 + jnp.abs(x)) ** -2.5, "square": jnp.square,
    "sin": jnp.sin, "cos": jnp.cos, "tan": lambda x: jnp.tan(jnp.sin(x)), "asinh": jnp.arcsinh,
    "acosh": lambda x: jnp.arccosh(2 + x * x), "atanh": lambda x: jnp.arctanh(jnp.sin(x) / 2),
    "asin": lambda x: jnp.arcsin(jnp.sin(x) / 2), "acos": lambda x: jnp.arccos(jnp.sin(x) / 2),
    "atan": jnp.arctan, "sinh": lambda x: jnp.sinh(x / 3), "cosh": lambda x: jnp.cosh(x / 3),
    "erf": lax.erf, "erfc": lax.erfc, "erf_inv": lambda x: lax.erf_inv(jnp.tanh(x) / 2),
    "sinc": lambda x: jnp.sinc(x + 0.2), "logit": lambda x: jax.scipy.special.logit(
        0.1 + 0.8 * jax.nn.sigmoid(x)), "base_power": lambda x: 1.7 ** (x / 3),
    "entropy": lambda x: jax.scipy.special.entr(jax.nn.sigmoid(x)),
    "xlogy": lambda x: jax.scipy.special.xlogy(x, 1 + x * x),
    "lgamma": lambda x: lax.lgamma(1.5 + jnp.abs(x)),
    "digamma": lambda x: lax.digamma(1.5 + jnp.abs(x)),
    "polygamma": lambda x: jax.scipy.special.polygamma(1, 1.5 + x * x),
    "bessel_i0e": lax.bessel_i0e, "bessel_i1e": lax.bessel_i1e, "i0": lambda x: jnp.i0(x / 3),
    "gammainc": lambda x: lax.igamma(jnp.full(x.shape, 1.5, x.dtype), 0.5 + x * x),
    "log_ndtr": jax.scipy.special.log_ndtr, "ndtr": jax.scipy.special.ndtr,
    "ndtri": lambda x: jax.scipy.special.ndtri(0.1 + 0.8 * jax.nn.sigmoid(x)),
    "logaddexp_zero": lambda x: jnp.logaddexp(x, 0.3), "hypot": lambda x: jnp.hypot(x, x + 1.0),
    "polyval": lambda x: jnp.polyval(jnp.array([0.1, -0.3, 0.5, 0.2]), x),
    "sigmoid_twice": lambda x: x * jax.nn.sigmoid(x) + jax.nn.sigmoid(x) ** 2,
    "power_of_itself": lambda x: (1 + x * x) ** (x / 3),
    "float_power": lambda x: jnp.float_power(1 + jnp.abs(x), 1.3),
    "true_divide": lambda x: x / (1 + jnp.abs(x)),
}  # fmt: skip

KINKED: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu, "maximum": lambda x: jnp.maximum(x, 0), "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu, "abs": jnp.abs, "clip": lambda x: jnp.clip(x, -0.5, 1.0),
    "hard_tanh": jax.nn.hard_tanh, "hard_sigmoid": jax.nn.hard_sigmoid,
    "soft_shrink": lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.5, 0.0),
    "hard_shrink": lambda x: jnp.where(jnp.abs(x) > 0.5, x, 0.0),
    "relu_squared": lambda x: jax.nn.relu(x) ** 2, "relu_cubed": lambda x: jnp.maximum(x, 0) ** 3,
    "abs_cubed": lambda x: jnp.abs(x) ** 3, "sign_times": lambda x: jnp.sign(x) * x,
    "remainder": lambda x: jnp.mod(x, 1.5), "fmod": lambda x: lax.rem(x, jnp.full_like(x, 1.5)),
    "fraction": lambda x: x - jnp.floor(x), "modf": lambda x: jnp.modf(x)[0] * x,
    "copysign": lambda x: jnp.copysign(x * x, x), "triangle": lambda x: jnp.abs(x - jnp.round(x)),
    "heaviside": lambda x: x * jnp.heaviside(x, 0.5), "step_times": lambda x: x * jnp.floor(x),
    "minimum_of_two": lambda x: jnp.minimum(x, 2 * x - 1), "nan_to_num": jnp.nan_to_num,
    "clip_by_itself": lambda x: lax.clamp(-0.5 * jnp.ones_like(x), x, x * x + 0.5),
    "threshold_smooth": lambda x: jnp.where(x > 0, jnp.tanh(x), x * x),
    "piecewise": lambda x: jnp.piecewise(x, [x < -1, x > 1], [lambda y: -y, jnp.sin, lambda y: y]),
    "select": lambda x: jnp.select([x > 1, x > 0], [x * x, jnp.sin(x)], x / 2),
    "interp": lambda x: jnp.interp(x, jnp.array([-1.0, 0, 1, 2]), jnp.array([0.5, -0.5, 1, 0])),
}  # fmt: skip

SINGULAR: dict[str, Callable[[Array], Array]] = {
    "sqrt_abs": lambda x: jnp.sqrt(jnp.abs(x)), "sqrt_relu": lambda x: jnp.sqrt(jax.nn.relu(x)),
    "cbrt": jnp.cbrt, "power_half": lambda x: jnp.abs(x) ** 1.5, "sqrt_square": lambda x:
    jnp.sqrt(x * x), "power_zero": lambda x: x**0, "power_one": lambda x: x**1.0,
    "power_two": lambda x: jnp.power(x, 2.0), "power_three": lambda x: jnp.power(x, 3.0),
    "log_guarded": lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), 0.0),
    "log_unguarded": lambda x: jnp.where(x > 0, jnp.log(jnp.maximum(x, 1e-3)), 0.0),
    "x_over_norm": lambda x: x / jnp.maximum(jnp.sqrt((x * x).sum()), 1e-6),
    "xlogx": lambda x: jax.scipy.special.xlogy(jax.nn.relu(x), jax.nn.relu(x)),
    "signed_sqrt": lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x)),
    "sinc_zero": jnp.sinc, "logaddexp_itself": lambda x: jnp.logaddexp(x, x),
    "atan2": lambda x: jnp.arctan2(x, jnp.roll(some(x), 1).reshape(x.shape)),
    "safe_norm": lambda x: x * jnp.where((x * x).sum() > 0, 1.0, 0.0),
    "zero_times": lambda x: x + 0 * jnp.exp(x), "divided_by_itself": lambda x: x / (x + 1e-3),
}  # fmt: skip

FLAT: dict[str, Callable[[Array], Array]] = {
    "floor_plus": lambda x: jnp.floor(x) + 0.1 * x, "round_times": lambda x: jnp.round(x) * x,
    "ceil": lambda x: x - jnp.ceil(x), "trunc": lambda x: x * jnp.trunc(x),
    "integer_cast": lambda x: x.astype(jnp.int32).astype(x.dtype) * x,
    "boolean_cast": lambda x: (x > 0.2).astype(x.dtype) * jnp.tanh(x),
    "integer_arithmetic": lambda x: x * ((x.astype(jnp.int32) * 3 + 1) % 4).astype(x.dtype),
    "stopped": lambda x: lax.stop_gradient(jnp.sin(x)) * x,
    "straight_through": lambda x: x + lax.stop_gradient(jnp.round(x) - x),
    "straight_through_cubed": lambda x: (x + lax.stop_gradient(jnp.round(x) - x)) ** 3,
    "sign_of_tanh": lambda x: jnp.sign(jnp.tanh(x)) * x * x,
    "mask_of_maximum": lambda x: jnp.where(x == x.max(), x * x, x),
    "bits": lambda x: x * (lax.bitcast_convert_type(x, jnp.int64) >> 62).astype(x.dtype),
    "is_finite": lambda x: jnp.where(jnp.isfinite(x), jnp.sin(x), x),
    "reduce_precision": lambda x: lax.reduce_precision(x, 11, 52) ** 2,
    "population": lambda x: x * lax.population_count(x.astype(jnp.int32)).astype(x.dtype),
}  # fmt: skip

# Products and sums.


def dense(x, r):
    x = some(x)
    axis = an_axis(x, r)
    w = normal(r, x.shape[axis], draw(r, 1, 5))
    return jnp.moveaxis(jnp.tensordot(x, w, (axis, 0)), -1, pick(r, -1, axis))


def dense_left(x, r):
    x = grid(x, 2)
    return normal(r, draw(r, 1, 5), x.shape[0]) @ x + normal(r, 1, x.shape[1])


def batched_dense(x, r):
    """Multiply by a matrix of its own for each place of a batch axis."""
    x = grid(x, draw(r, 2, 3))
    batch, over = (int(i) for i in r.permutation(x.ndim)[:2])
    w = normal(r, x.shape[over], x.shape[batch], draw(r, 1, 4))
    numbers = (((over,), (0,)), ((batch,), (1,)))
    if draw(r, 0, 1):
        return lax.dot_general(x, w, numbers)
    return lax.dot_general(w, x, (((0,), (over,)), ((1,), (batch,))))


def batched_only(x, r):
    """Multiply over batch axes alone, with nothing contracted."""
    x = grid(x, 3)
    batch = tuple(int(i) for i in r.permutation(3)[: draw(r, 1, 3)])
    w = normal(r, *(x.shape[i] for i in batch), draw(r, 1, 2))
    return lax.dot_general(x, w, (((), ()), (batch, tuple(range(len(batch))))))


def two_batch_axes(x, r):
    x = grid(x, 4)
    i, j, over, _ = (int(k) for k in r.permutation(4))
    w = normal(r, x.shape[j], x.shape[over], x.shape[i], draw(r, 1, 3))
    return lax.dot_general(w, x, (((1,), (over,)), ((2, 0), (i, j))))


def einsum_weights(x, r):
    x = grid(x, 3)
    spec = pick(r, "abc,bd->acd", "abc,abd->acd", "abc,cad->bd", "abc,b->ac", "abc,ab->cab",
                "abc,abc->", "abc,abc->b", "abc,cdb->dab", "abc,ce->eba", "abc,a->bc",
                "abc,d->dabc", "abc,de->adbce")  # fmt: skip
    size = dict(zip("abcde", (*x.shape, 2, 3), strict=True))
    letters = spec.split(",")[1].split("->")[0]
    return small(jnp.einsum(spec, x, normal(r, *(size[i] for i in letters))))


def einsum_itself(x, r):
    """Multiply an array with itself: both operands vary."""
    x = grid(x, 3)
    spec = pick(r, "abc,abd->acd", "abc,abc->ac", "abc,dbc->ad", "abc,abd->bcd", "abc,adc->abd",
                "abc,abc->", "abc,abc->abc", "abc,adc->dab", "abc,dbc->bad")  # fmt: skip
    return small(jnp.einsum(spec, x, x) / 3)


def einsum_three(x, r):
    x = grid(x, 2)
    return jnp.einsum("ab,ac,ad->bcd", x, jnp.tanh(x)[:, :3], x[:, :2]) / 5


def repeated_index(x, r):
    """Take a diagonal, and a trace, in one einsum."""
    x = grid(x, 2)
    n = min(x.shape)
    return jnp.einsum(pick(r, "aa->a", "aa->", "ab->ba", "ab->b"), x[:n, :n])


def gram(x, r):
    x = grid(x, 2)
    return small(pick(r, x @ x.T, x.T @ x) / 4)


def quadratic_form(x, r):
    x = grid(x, 2)
    return jnp.einsum("ab,bc,ac->a", x, normal(r, x.shape[1], x.shape[1]), x)


def outer(x, r):
    flat = x.reshape(-1)[:8]
    return jnp.outer(flat, jnp.sin(flat)) if draw(r, 0, 1) else jnp.kron(flat[:4], flat[:5])


def sum_axes(x, r):
    x = some(x)
    axes = tuple(int(i) for i in r.permutation(x.ndim)[: draw(r, 1, x.ndim)])
    return pick(r, jnp.sum, jnp.mean)(x, axes, keepdims=bool(draw(r, 0, 1)))


def centre(x, r):
    x = some(x)
    return x - x.mean(an_axis(x, r), keepdims=True)


def product_axis(x, r):
    x = some(x) / 2 + 1
    return jnp.prod(x, an_axis(x, r))


def moments(x, r):
    x = some(x)
    axis = an_axis(x, r)
    return jnp.var(x, axis) + x.mean(axis) * (x**3).mean(axis)


def add_position(x, r):
    return x + normal(r, *x.shape)


def scale(x, r):
    x = some(x)
    axis = an_axis(x, r)
    return x * normal(r, x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)])


# Convolutions and windows.


def conv(x, r, images=1, rank=None, *, batch_groups=1, of_itself=False):
    """Convolve with all that a convolution can be told, in a random order of axes."""
    rank = draw(r, 1, 2) if rank is None else rank
    x = grid(x, rank + 1)
    *spatial, channels = x.shape
    batch = 1
    if images > 1:
        batch = next((n for n in (images, 2, 3) if spatial[0] % n == 0), 1)
        x = x.reshape(batch, spatial[0] // batch, *x.shape[1:])
        spatial[0] //= batch
    else:
        x = x[None]
    groups = pick(r, 1, 1, channels, math.gcd(channels, 2)) if batch_groups == 1 else 1
    fewer = math.gcd(batch, batch_groups)
    width = groups * fewer * draw(r, 1, 2)
    sizes = [draw(r, 1, 3) for _ in spatial]
    strides = [draw(r, 1, 2) for _ in spatial]
    spread = [pick(r, 1, 1, 1, 2) for _ in spatial]
    dilation = [pick(r, 1, 1, 2) for _ in spatial]
    pads = [(draw(r, -1, 2), draw(r, -1, 2)) for _ in spatial]
    for i, n in enumerate(spatial):
        reach = (sizes[i] - 1) * dilation[i] + 1
        if (n - 1) * spread[i] + 1 + sum(pads[i]) < reach or (min(pads[i]) < 0 and n < 3):
            sizes[i], pads[i] = pick(r, 1, 2), (draw(r, 0, 1), dilation[i])
    orders = [[int(i) for i in r.permutation(rank + 2)] for _ in range(3)]
    shape = [channels // groups, width, *sizes]
    kernel = normal(r, *shape) * math.sqrt(width)
    if of_itself:  # the kernel varies too
        kernel = jnp.resize(jnp.tanh(x).reshape(-1), tuple(shape)) / 2
    # In the order (batch, channels, *spatial) of a specification.
    x = jnp.moveaxis(x, (0, rank + 1, *range(1, rank + 1)), orders[0])
    kernel = jnp.moveaxis(kernel, (1, 0, *range(2, rank + 2)), orders[1])
    found = lax.conv_general_dilated(
        x, kernel, strides, pads, spread, dilation,
        lax.ConvDimensionNumbers(*map(tuple, orders)),
        feature_group_count=groups, batch_group_count=fewer,
    )  # fmt: skip
    found = jnp.moveaxis(found, orders[2], (0, rank + 1, *range(1, rank + 1)))
    return small(found.reshape(found.shape[1:] if found.shape[0] == 1 else found.shape))


def plain_conv(x, r):
    """Convolve as networks do, channels last."""
    x = grid(x, draw(r, 2, 3))
    rank, size = x.ndim - 1, draw(r, 1, 3)
    groups = pick(r, 1, x.shape[-1])
    kernel = normal(r, *(size,) * rank, x.shape[-1] // groups, groups * draw(r, 1, 2))
    last = (0, rank + 1, *range(1, rank + 1))
    numbers = lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last)
    strides = (pick(r, 1, 1, 2),) * rank
    return lax.conv_general_dilated(
        x[None], kernel, strides, "SAME", dimension_numbers=numbers, feature_group_count=groups
    )[0]


def conv_of_batch(x, r):
    return conv(x, r, images=2)


def conv_batch_groups(x, r):
    return conv(x, r, images=2, batch_groups=2)


def conv_by_itself(x, r):
    return conv(x, r, rank=1, of_itself=True)


def conv_kernel_alone(x, r):
    """Convolve a fixed signal with a kernel that varies."""
    kernel = grid(x, 3)
    signal = normal(r, 1, kernel.shape[0] + draw(r, 0, 2), kernel.shape[1]) * 2
    return lax.conv_general_dilated(
        signal, kernel, (1,), [(1, 0)], dimension_numbers=("NWC", "WIO", "NWC")
    )[0]


def conv_transpose(x, r):
    x = grid(x, 2)
    kernel = normal(r, draw(r, 1, 3), x.shape[1], 2)
    return lax.conv_transpose(x[None], kernel, (2,), pick(r, "SAME", "VALID"),
                              dimension_numbers=("NWC", "WIO", "NWC"))[0]  # fmt: skip


def patches(x, r):
    x = grid(x, 3)
    found = lax.conv_general_dilated_patches(
        x[None], (2, 2), (draw(r, 1, 2), 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return small(found[0])


def convolve_signals(x, r):
    flat = x.reshape(-1)[:12]
    kernel = pick(r, normal(r, 3), jnp.tanh(flat[:3]))
    return jnp.convolve(flat, kernel, mode=pick(r, "same", "full", "valid"))


def window_options(x, r, *, spreads=True):
    """Draw windows, strides, padding and dilations for every axis."""
    sizes = [draw(r, 1, min(3, n)) for n in x.shape]
    strides = [draw(r, 1, 2) for _ in x.shape]
    pads = [(draw(r, 0, n - 1), draw(r, 0, n - 1)) for n in sizes]
    ones = (1,) * x.ndim
    return sizes, strides, pads, tuple(pick(r, 1, 2) for _ in ones) if spreads else ones


def max_pool(x, r):
    x = grid(x, draw(r, 1, 3))
    start, combine = pick(r, (-np.inf, lax.max), (np.inf, lax.min))
    sizes, strides, pads, _ = window_options(x, r)
    return lax.reduce_window(x, np.asarray(start, x.dtype), combine, sizes, strides, pads)


def max_pool_finite(x, r):
    """Pool with padding of zeros, and not of minus infinity."""
    x = grid(x, draw(r, 1, 3))
    sizes, strides, pads, _ = window_options(x, r)
    padded = jnp.pad(x, pads)
    return lax.reduce_window(padded, -jnp.inf, lax.max, sizes, strides, "VALID")


def max_pool_dilated(x, r):
    """Pool with holes in the windows: JAX differentiates it forwards alone."""
    x = grid(x, 2)
    sizes, strides, _, dilated = window_options(x, r)
    pads = [(n, n) for n in sizes]
    return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, pads, None, dilated)


def max_pool_ceil(x, r):
    """Pool with windows that hang over the end, as PyTorch's ceil_mode does."""
    x = grid(x, 2)
    pads = [(0, (-n) % 2) for n in x.shape]
    return lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), pads)


def average_pool(x, r):
    x = grid(x, draw(r, 1, 3))
    sizes, strides, pads, dilated = window_options(x, r, spreads=bool(draw(r, 0, 1)))
    if any((s - 1) * d + 1 > n + sum(p) for s, d, n, p in
           zip(sizes, dilated, x.shape, pads, strict=True)):  # fmt: skip
        dilated = (1,) * x.ndim
    spread = tuple(pick(r, 1, 1, 2) for _ in x.shape)
    found = lax.reduce_window(x, 0.0, lax.add, sizes, strides, pads, spread, dilated)
    return small(found / math.prod(sizes))


def average_pool_excluding(x, r):
    """Average over the places that are on the map alone."""
    x = grid(x, 2)
    sizes, strides, pads, _ = window_options(x, r)
    total = lax.reduce_window(x, 0.0, lax.add, sizes, strides, pads)
    return total / lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, sizes, strides, pads)


def adaptive_pool(x, r):
    """Average over pieces of unequal size."""
    x = some(x)
    return jnp.stack([piece.mean(0) for piece in jnp.array_split(x, min(3, x.shape[0]))])


def pyramid_pool(x, r):
    x = grid(x, 2)
    pieces = [x.max(0), x.mean(0), *(half.max(0) for half in jnp.array_split(x, 2) if half.size)]
    return jnp.concatenate(pieces)


def cumulative(x, r):
    x = some(x)
    run = pick(r, lax.cumsum, lax.cummax, lax.cummin, lax.cumlogsumexp, lax.cumprod)
    x = 1 + x / 4 if run is lax.cumprod else x
    return run(x, an_axis(x, r), reverse=bool(draw(r, 0, 1)))


def associative(x, r):
    x = some(x)
    combine = pick(r, lambda p, q: p + q + p * q / 9, jnp.maximum, jnp.logaddexp)
    return lax.associative_scan(combine, x, axis=an_axis(x, r), reverse=bool(draw(r, 0, 1)))


def resized(x, r):
    x = grid(x, 2)
    shape = (draw(r, 1, 5), draw(r, 1, 5))
    return jax.image.resize(x, shape, pick(r, "nearest", "linear", "cubic"),
                            antialias=bool(draw(r, 0, 1)))  # fmt: skip


# Choosing.


def reduce_extreme(x, r):
    x = some(x)
    axes = tuple(int(i) for i in r.permutation(x.ndim)[: draw(r, 1, x.ndim)])
    return pick(r, jnp.max, jnp.min)(x, axes, keepdims=bool(draw(r, 0, 1)))


def spread_of(x, r):
    x = some(x)
    return pick(r, jnp.ptp, jnp.median)(x, an_axis(x, r))


def quantile(x, r):
    x = some(x)
    return jnp.quantile(x, pick(r, 0.3, 0.5, 1.0), an_axis(x, r))


def sort(x, r):
    x = some(x)
    axis = an_axis(x, r)
    found = jnp.sort(x, axis)
    return jnp.flip(found, axis) if draw(r, 0, 1) else found


def sort_pairs(x, r):
    """Sort several arrays by the first."""
    x = some(x)
    found = lax.sort((x, jnp.sin(x) + normal(r, *x.shape), x * x), dimension=an_axis(x, r),
                     is_stable=True, num_keys=draw(r, 1, 2))  # fmt: skip
    return found[draw(r, 0, 2)]


def sorted_by_other(x, r):
    x = some(x)
    axis = an_axis(x, r)
    return jnp.take_along_axis(jnp.cos(x), jnp.argsort(x * pick(r, 1, -1), axis), axis)


def top_k(x, r):
    x = some(x)
    values, places = lax.top_k(x, draw(r, 1, x.shape[-1]))
    return pick(r, values, values * jnp.sin(places.astype(x.dtype)))


def argmax_one_hot(x, r):
    x = some(x)
    hot = jax.nn.one_hot(jnp.argmax(x, -1), x.shape[-1], dtype=x.dtype)
    return x * hot + hot


def winner_takes_all(x, r):
    x = some(x)
    return jnp.where(x >= jnp.sort(x, -1)[..., [-min(2, x.shape[-1])]], jnp.tanh(x), 0.0)


def maxout(x, r):
    x = some(x)
    n = x.shape[-1]
    return x[..., : n - n % 2].reshape(*x.shape[:-1], -1, 2).max(-1) if n > 1 else x


def masked_by_data(x, r):
    return jnp.where(x > x.mean(), jnp.sin(x), 2 * x) + jnp.where(x < 0, x, 0.0)


def masked_sum(x, r):
    mask = jnp.asarray(r.normal(size=x.shape) > 0)
    return some(jnp.sum(x * x, where=mask)) + jnp.max(x, where=mask, initial=-1.0)


# Places: constant ones, and such as depend on the data.


def take(x, r):
    x = some(x)
    axis = an_axis(x, r)
    places = r.integers(-1, x.shape[axis] + 1, size=pick(r, (3,), (2, 2), ()))
    return small(jnp.take(x, places, axis, mode=pick(r, "clip", "wrap"), fill_value=0))


def take_fill(x, r):
    x = some(x)
    places = r.integers(0, x.shape[0] + 2, size=4)
    return small(x.at[places].get(mode="fill", fill_value=pick(r, 0.0, 1.0)))


def take_points(x, r):
    """Index two axes at once."""
    x = grid(x, 3)
    i, j = (r.integers(0, n, size=5) for n in x.shape[:2])
    return pick(r, x[i, j], x[i, :, r.integers(0, x.shape[2], size=5)])


def take_by_data(x, r):
    x = some(x)
    place = jnp.argmax(x.reshape(x.shape[0], -1).sum(1))
    return jnp.take(jnp.tanh(x), place, 0)


def embedding(x, r):
    """Look weights up by values made whole numbers."""
    table = normal(r, 5, 3) * 3
    return small(table[jnp.clip(jnp.round(x), -2, 2).astype(jnp.int32) + 2] * x[..., None])


def along_axis(x, r):
    x = some(x)
    axis = an_axis(x, r)
    shape = list(x.shape)
    shape[axis] = draw(r, 1, 3)
    return jnp.take_along_axis(x, jnp.asarray(r.integers(0, x.shape[axis], size=shape)), axis)


def slices(x, r):
    """Take strided and reversed parts of every axis."""
    x = some(x)
    parts = []
    for n in x.shape:
        start, stride = draw(r, 0, n // 2), draw(r, 1, 2)
        parts.append(pick(r, slice(start, None, stride), slice(None, None, -stride), slice(0, n)))
    return x[tuple(parts)]


def dynamic_slice(x, r):
    x = some(x)
    sizes = [draw(r, 1, n) for n in x.shape]
    starts = [draw(r, -1, n) for n in x.shape]  # those beyond the end are moved
    return lax.dynamic_slice(x, starts, sizes)


def slice_by_data(x, r):
    x = some(x)
    sizes = [draw(r, 1, n) for n in x.shape]
    starts = [jnp.argmax(jnp.abs(x).reshape(-1)) % n for n in x.shape]
    return lax.dynamic_slice(x * x, starts, sizes)


def update_slice(x, r):
    """Write over a part, by fixed numbers or by what varies."""
    x = some(x)
    sizes = [draw(r, 1, n) for n in x.shape]
    part = pick(r, normal(r, *sizes), jnp.sin(lax.slice(x, [0] * x.ndim, sizes)))
    return lax.dynamic_update_slice(x, part, [draw(r, 0, n) for n in x.shape])


def update_constant(x, r):
    """Write what varies into fixed numbers."""
    x = some(x)
    ground = normal(r, *(n + draw(r, 0, 2) for n in x.shape))
    return lax.dynamic_update_slice(ground, x, [draw(r, 0, 2) for _ in x.shape])


def update_by_data(x, r):
    x = some(x)
    place = jnp.argmin(x.reshape(-1)) % x.shape[0]
    return lax.dynamic_update_slice_in_dim(x, jnp.cos(x[:1]), place, 0)


def scatter(x, r):
    """Add, set or multiply at given places, some of them twice."""
    x = some(x)
    distinct = r.permutation(x.shape[0])[: draw(r, 1, x.shape[0])]
    twice = r.integers(0, x.shape[0], size=3)
    how = draw(r, 0, 5)
    if how == 0:
        return x.at[twice].add(normal(r, 3, *x.shape[1:]))
    if how == 1:
        return x.at[distinct].set(jnp.tanh(x[distinct]))
    if how == 2:
        return x.at[distinct].multiply(2 * x[distinct[::-1]], unique_indices=True)
    if how == 3:
        return x.at[twice].add(jnp.sin(x[twice]))
    if how == 4:
        return x.at[distinct].set(0.5)
    return x.at[distinct].apply(jnp.square)


def scatter_extreme(x, r):
    x = some(x)
    places = r.permutation(x.shape[0])[: draw(r, 1, x.shape[0])]
    here = x.at[places]
    return here.max(0.3) if draw(r, 0, 1) else here.min(0.3)


def scatter_into_constant(x, r):
    x = some(x)
    places = r.integers(0, 4, size=x.shape[0])
    ground = normal(r, 4, *x.shape[1:])
    return ground.at[places].add(x)


def scatter_by_data(x, r):
    """Add up by bins, each value in the bin that it falls into."""
    flat = x.reshape(-1)
    bins = jnp.clip(jnp.floor(flat), -2, 2).astype(jnp.int32) + 2
    return jnp.zeros(5, x.dtype).at[bins].add(flat * flat)


def segments(x, r):
    x = some(x)
    places = np.arange(x.shape[0]) * 3 // x.shape[0]
    reduce = pick(r, jax.ops.segment_sum, jax.ops.segment_max, jax.ops.segment_prod)
    return reduce(x, jnp.asarray(places), int(places[-1]) + 1, indices_are_sorted=True)


def interpolated_by_data(x, r):
    """Read a fixed signal at places that vary."""
    signal = normal(r, 6) * 3
    return jnp.interp(2.5 + x, jnp.arange(6.0), signal)


def sampled_by_data(x, r):
    """Read an array at places that vary, between its numbers."""
    x = grid(x, 2)
    places = jnp.stack([1 + jnp.tanh(x.sum(1)), 0.5 + jnp.sin(x.mean(1)) / 2])
    return jax.scipy.ndimage.map_coordinates(x, places, order=1, mode=pick(r, "nearest", "wrap"))


# Shapes.


def reshaped(x, r):
    """Divide and join axes at random."""
    n, shape = x.size, []
    while n > 1 and len(shape) < 3:
        shape.append(pick(r, *[d for d in range(1, n + 1) if n % d == 0]))
        n //= shape[-1]
    return x.reshape(*shape, n)


def fortran(x, r):
    shape = reshaped(x, r).shape
    return jnp.reshape(x, shape, order="F")


def fortran_of_constant(x, r):
    """Reshape in Fortran's order what is the same at several places."""
    x = grid(x, 2)
    wide = jnp.broadcast_to(jnp.tanh(x.mean(0)), (2, x.shape[1]))
    return jnp.reshape(wide, (x.shape[1], 2), order="F")


def transposed(x, r):
    return jnp.transpose(x, [int(i) for i in r.permutation(x.ndim)])


def flipped(x, r):
    x = some(x)
    return jnp.flip(x, tuple(int(i) for i in r.permutation(x.ndim)[: draw(r, 1, x.ndim)]))


def rolled(x, r):
    x = some(x)
    return jnp.roll(x, draw(r, -3, 3), pick(r, None, an_axis(x, r)))


def rotated(x, r):
    return jnp.rot90(grid(x, 2), draw(r, 0, 3))


def padded(x, r):
    x = some(x)
    mode = pick(r, "constant", "edge", "reflect", "symmetric", "wrap", "linear_ramp", "mean",
                "maximum")  # fmt: skip
    return small(jnp.pad(x, [(draw(r, 0, 2), draw(r, 0, 2)) for _ in x.shape], mode))


def padded_inside(x, r):
    """Pad between the places, and take away at the ends."""
    x = some(x)
    widths = [(draw(r, -1, 1) if n > 2 else 0, draw(r, 0, 1), draw(r, 0, 2)) for n in x.shape]
    return small(lax.pad(x, jnp.asarray(pick(r, 0.0, 0.7), x.dtype), widths))


def padded_by_data(x, r):
    x = some(x)
    return small(lax.pad(x, x.mean(), [(1, 0, 0)] * x.ndim))


def concatenated(x, r):
    x = some(x)
    return small(jnp.concatenate(pick(r, [x, jnp.sin(x)], [x, x], [normal(r, *x.shape), x, -x]),
                                 an_axis(x, r)))  # fmt: skip


def stacked(x, r):
    return small(jnp.stack([x, x * x], draw(r, 0, x.ndim)))


def tiled(x, r):
    x = some(x)
    if draw(r, 0, 1):
        return small(jnp.tile(x, [draw(r, 1, 2) for _ in x.shape]))
    return small(jnp.repeat(x, 2, an_axis(x, r)))


def broadcast(x, r):
    """Put new axes in, of size one or more."""
    return small(jnp.broadcast_to(x.mean(0, keepdims=True) if x.ndim else x, (2, *x.shape)))


def new_axes(x, r):
    x = some(x)
    return pick(r, x[None], x[..., None], x[:, None], jnp.squeeze(x), x[None, ..., None])


def split(x, r):
    x = some(x)
    axis = an_axis(x, r)
    parts = jnp.array_split(x, 2, axis)
    return jnp.concatenate([jnp.tanh(parts[1]), parts[0]], axis)


def empty(x, r):
    """Pass through arrays without a number."""
    x = some(x)
    none = x[:0]
    return pick(
        r, lambda: jnp.concatenate([none, x]), lambda: jnp.roll(x, 0, 0), lambda: x + none.sum(),
        lambda: jnp.concatenate([jnp.sin(x), jnp.zeros((0, *x.shape[1:]))]), lambda:
        jnp.split(x, [0])[1], lambda: x * jnp.prod(none), lambda: x.at[none.astype(jnp.int32)
        .reshape(-1)].add(1.0), lambda: x + none.reshape(0, x.size // x.shape[0]).sum(0).mean(),
    )()  # fmt: skip


def triangular(x, r):
    x = grid(x, 2)
    return pick(r, jnp.tril, jnp.triu, jnp.diagonal, jnp.trace)(x, draw(r, -1, 1))


def diagonal_matrix(x, r):
    return jnp.diag(x.reshape(-1)[:5], draw(r, 0, 1)) + 0.1


def differences(x, r):
    x = some(x)
    return jnp.diff(x, axis=an_axis(x, r), prepend=0.5)


def meshgrid(x, r):
    flat = x.reshape(-1)[:6]
    p, q = jnp.meshgrid(flat, jnp.sin(flat))
    return p * q


def cross(x, r):
    vectors = jnp.resize(x.reshape(-1), (2, 3))
    return jnp.cross(vectors, jnp.roll(jnp.sin(vectors), 1, 1))


def depth_to_space(x, r):
    x = grid(x, 3)
    h, w, c = x.shape
    return x.reshape(h, w, 1, c, 1).transpose(0, 2, 1, 3, 4).reshape(h, w * c, 1)


# Loops, branches, calls.


def scanned(x, r):
    """Carry a state over the first axis."""
    x = some(x)
    w, act = normal(r, *x.shape[1:]), pick(r, jnp.tanh, jax.nn.relu, lambda y: y)

    def turn(state, row):
        state = act(state * 0.7 + row) + w
        return state, state * row if act is jnp.tanh else state

    last, rows = lax.scan(turn, w, x, reverse=bool(draw(r, 0, 1)), unroll=draw(r, 1, 2))
    return pick(r, last, rows, rows + last[None])


def scanned_layers(x, r):
    """Run layers whose weights are scanned over."""
    x = some(x)
    n = x.shape[-1]
    act = pick(r, jnp.sin, jax.nn.relu)
    return lax.scan(lambda y, w: (act(y @ w), None), x, normal(r, 3, n, n) * 2)[0]


def scanned_constant(x, r):
    """Close over what varies, in the body of a loop."""
    x = some(x)

    def turn(state, w):
        return state + w * x, None

    return lax.scan(turn, jnp.zeros_like(x), jnp.arange(3.0))[0]


def fori(x, r):
    return lax.fori_loop(0, draw(r, 0, 3), lambda i, y: jnp.sin(y) + 0.1 * i, x)


def while_loop(x, r):
    """Repeat as often as the data say: forward mode alone."""

    def more(state):
        return (state[0] < 3) & (jnp.abs(state[1]).sum() < 50)

    return lax.while_loop(more, lambda s: (s[0] + 1, 1.3 * s[1] + s[1] ** 2 / 9), (0, x))[1]


def cond(x, r):
    flip = pick(r, 1, -1)
    return lax.cond(flip * x.sum() > 0, jnp.tanh, lambda y: 2 * y, x)


def cond_affine(x, r):
    return lax.cond(x.mean() >= 0, lambda y: -y, lambda y: 3 * y + 1, x)


def switch(x, r):
    places = jnp.argmax(jnp.resize(x.reshape(-1), 3))
    return lax.switch(places, [jnp.sin, lambda y: y * y, lambda y: y - 1], x)


def cond_per_row(x, r):
    """Branch in each row: under vmap both branches run."""
    x = some(x)
    return jax.vmap(lambda y: lax.cond(y.sum() > 0, jnp.sin, lambda z: z * z, y))(x)


def mapped(x, r):
    x = some(x)
    return lax.map(lambda y: jnp.tanh(y) * y.sum(), x, batch_size=pick(r, None, 2))


def remat(x, r):
    w, act = normal(r, *x.shape), pick(r, jnp.sin, jax.nn.relu)
    policy = pick(r, None, jax.checkpoint_policies.dots_saveable)
    return jax.checkpoint(lambda y: act(y * w) * w, policy=policy)(x)


def jitted(x, r):
    w = normal(r, *x.shape)
    return jax.jit(lambda y: (jax.jit(jnp.tanh)(y + w), y))(x)[0]


def jitted_twice(x, r):
    """Call one compiled function with different arguments."""
    f = jax.jit(lambda y, z: jnp.sin(y) * z)
    return f(x, f(x, 2 * x))


def barrier(x, r):
    p, q = lax.optimization_barrier((x, jnp.sin(x)))
    return p * q


def vectorized(x, r):
    w = normal(r, 3)
    return jnp.vectorize(lambda y: jnp.tanh(y * w).sum())(x)


def vmapped_dense(x, r):
    x = grid(x, 2)
    w = normal(r, x.shape[0], x.shape[1], 2)
    return jax.vmap(lambda y, v: jnp.sin(y @ v))(x, w)


def inner_gradient(x, r):
    """Use a gradient in the score itself."""
    w = normal(r, *x.shape)
    return jax.grad(lambda y: jnp.sum(jnp.tanh(y * w) ** 2))(x)


def inner_tangent(x, r):
    return jax.jvp(lambda y: y**3 / 6, (x,), (jnp.cos(x),))[1]


def linearized(x, r):
    w = normal(r, *x.shape)
    return jax.linearize(lambda y: jnp.sin(y * w), x)[1](x)


def inner_hessian(x, r):
    flat = x.reshape(-1)[:4]
    return jax.hessian(lambda y: jnp.tanh(y * 0.7).prod() + (y**3).sum() / 9)(flat)


def reduced_by(x, r):
    """Reduce by an operation of one's own."""
    x = some(x) / 2 + 1
    start, combine = pick(r, (1.0, lax.mul), (-np.inf, jnp.logaddexp), (0.0, lambda p, q: p + q))
    return lax.reduce(x, np.asarray(start, x.dtype), combine, (an_axis(x, r),))


def root_found(x, r):
    """Solve an equation, and differentiate by the implicit function theorem."""

    def newton(f, y):
        return lax.fori_loop(0, 25, lambda i, z: z - f(z) / (3 * z * z + 1), y)

    def tangent(g, y):
        return y / g(jnp.ones_like(y))

    return lax.custom_root(lambda y: y**3 + y - x, jnp.zeros_like(x), newton, tangent)


def printed(x, r):
    jax.debug.callback(lambda _: None, x.sum())
    return jnp.sin(x)


def dropped_out(x, r):
    """Drop at random, by a fixed key."""
    kept = jax.random.bernoulli(jax.random.key(draw(r, 0, 99)), 0.7, x.shape)
    return jnp.where(kept, x / 0.7, 0)


# Derivatives written by hand.


@jax.custom_jvp
def sine_by_hand(x):
    return jnp.sin(x)


sine_by_hand.defjvps(lambda dx, out, x: dx * jnp.cos(x))


@jax.custom_jvp
def relu_by_hand(x):
    return jnp.maximum(x, 0)


relu_by_hand.defjvps(lambda dx, out, x: dx * (x > 0).astype(x.dtype))


@jax.custom_jvp
def half_slope(x):
    """Give the double, with the slope of the sine: a derivative that is not the function's."""
    return 2 * x


half_slope.defjvps(lambda dx, out, x: dx * jnp.cos(x))


@jax.custom_jvp
def product_by_hand(x, y):
    return x * y


product_by_hand.defjvps(lambda dx, out, x, y: dx * y, lambda dy, out, x, y: dy * x)


@jax.custom_jvp
def mixing_by_hand(x):
    """Give the softmax of all, with a rule of its own."""
    return jax.nn.softmax(x.reshape(-1)).reshape(x.shape)


@mixing_by_hand.defjvp
def _(primals, tangents):
    p = mixing_by_hand(*primals)
    return p, p * (tangents[0] - (p * tangents[0]).sum())


@jax.custom_jvp
def linear_by_hand(x):
    return jnp.cumsum(x.reshape(-1)).reshape(x.shape)


linear_by_hand.defjvps(lambda dx, out, x: jnp.cumsum(dx.reshape(-1)).reshape(x.shape))


@jax.custom_jvp
def symbolic_by_hand(x, y):
    return jnp.sin(x) * y


def _symbolic_rule(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    zero = jax.custom_derivatives.SymbolicZero
    parts = [jnp.zeros_like(x)]
    if not isinstance(dx, zero):
        parts.append(jnp.cos(x) * y * dx)
    if not isinstance(dy, zero):
        parts.append(jnp.sin(x) * dy)
    return symbolic_by_hand(x, y), sum(parts)


symbolic_by_hand.defjvp(_symbolic_rule, symbolic_zeros=True)


@jax.custom_jvp
def spike(x):
    """Jump, with a smooth slope: the rule gives the plain value."""
    return jnp.where(x > 0, 1.0, 0.0)


@spike.defjvp
def _(primals, tangents):
    return jnp.where(primals[0] > 0, 1.0, 0.0), tangents[0] / (1 + primals[0] ** 2)


@jax.custom_jvp
def two_results(x):
    return jnp.sin(x), x * x


@two_results.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return two_results(x), (jnp.cos(x) * dx, 2 * x * dx)


@jax.custom_jvp
def frozen(x):
    """Give the sine and no slope."""
    return jnp.sin(x)


frozen.defjvps(lambda dx, out, x: jnp.zeros_like(x))


@jax.custom_vjp
def silu_backward(x):
    return x * jax.nn.sigmoid(x)


silu_backward.defvjp(
    lambda x: (silu_backward(x), x),
    lambda x, g: (g * (jax.nn.sigmoid(x) * (1 + x * jax.nn.sigmoid(-x))),),
)


@jax.custom_vjp
def clipped_backward(x):
    """Keep the value, and clip the gradient."""
    return x


clipped_backward.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.5, 0.5),))


@jax.custom_vjp
def reversed_backward(x):
    """Keep the value, and turn the gradient round."""
    return x


reversed_backward.defvjp(lambda x: (x, None), lambda _, g: (-g,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def power_backward(x, n):
    return x**n


power_backward.defvjp(
    lambda x, n: (power_backward(x, n), x), lambda n, x, g: (g * n * x ** (n - 1),)
)


@jax.custom_gradient
def gradient_by_hand(x):
    return jnp.sin(x), lambda g: (g * jnp.cos(x),)


HAND = {
    "sine_by_hand": sine_by_hand, "relu_by_hand": relu_by_hand, "half_slope": half_slope,
    "square_by_hand": lambda x: product_by_hand(x, x), "mixing_by_hand": mixing_by_hand,
    "linear_by_hand": linear_by_hand, "spike": spike, "frozen": lambda x: x + frozen(x),
    "symbolic_both": lambda x: symbolic_by_hand(x, x * x), "symbolic_one": lambda x:
    symbolic_by_hand(x, jnp.full_like(x, 0.7)), "symbolic_other": lambda x:
    symbolic_by_hand(jnp.full_like(x, 0.7), x), "two_results": lambda x: sum(two_results(x)),
    "one_of_two": lambda x: two_results(x)[1], "product_by_constant": lambda x:
    product_by_hand(x, jnp.full_like(x, 1.3)), "mapped_by_hand": lambda x:
    jax.vmap(mixing_by_hand)(some(x)),
}  # fmt: skip
BACKWARD = {
    "silu_backward": silu_backward, "clipped_backward": clipped_backward,
    "reversed_backward": reversed_backward, "power_backward": lambda x: power_backward(x, 3),
    "gradient_by_hand": gradient_by_hand,
}  # fmt: skip


# Linear algebra and complex numbers.


def determinant(x, r):
    return pick(r, jnp.linalg.det, lambda m: jnp.linalg.slogdet(m)[1])(square_matrix(x, r))


def solve(x, r):
    m = square_matrix(x, r)
    return jnp.linalg.solve(m, normal(r, 3, 2)) @ normal(r, 2, 3) + jnp.linalg.inv(m)


def solve_fixed(x, r):
    """Solve with a fixed matrix: linear in the right-hand side."""
    x = grid(x, 2)
    n = x.shape[0]
    return jnp.linalg.solve(2.5 * jnp.eye(n) + normal(r, n, n), x)


def triangular_solve(x, r):
    m = jnp.tril(square_matrix(x, r))
    return jax.scipy.linalg.solve_triangular(m, normal(r, 3, 2), lower=True)


def cholesky(x, r):
    return jnp.linalg.cholesky(definite(x, r))


def eigenvalues(x, r):
    return jnp.linalg.eigvalsh(definite(x, r))


def singular_values(x, r):
    return jnp.linalg.svd(jnp.diag(jnp.arange(1.0, 4)) + square_matrix(x, r), compute_uv=False)


def orthogonalised(x, r):
    return jnp.linalg.qr(square_matrix(x, r))[draw(r, 0, 1)]


def matrix_exponential(x, r):
    return jax.scipy.linalg.expm(square_matrix(x, r, 2) / 3)


def matrix_power(x, r):
    return jnp.linalg.matrix_power(square_matrix(x, r) / 2, draw(r, 2, 3))


def batched_inverse(x, r):
    return jax.vmap(jnp.linalg.inv)(jnp.stack([square_matrix(x, r, 2), square_matrix(x, r, 2)]))


def norm(x, r):
    x = some(x)
    return jnp.linalg.norm(x, ord=pick(r, None, 1, 2, np.inf, 3), axis=an_axis(x, r))


def matrix_norm(x, r):
    x = grid(x, 2)
    return jnp.linalg.norm(x, ord=pick(r, "fro", 1, np.inf))[None]


def spectrum(x, r):
    """Give the power at each frequency."""
    x = some(x)
    found = jnp.fft.fft(x, axis=an_axis(x, r))
    return (found * found.conj()).real / x.size


def amplitude(x, r):
    return jnp.abs(jnp.fft.fft(some(x + 0.3)))


def filtered(x, r):
    """Multiply by weights at each frequency: linear."""
    x = some(x)
    n = x.shape[-1]
    w = normal(r, n // 2 + 1) + 1j * normal(r, n // 2 + 1)
    return jnp.fft.irfft(jnp.fft.rfft(x) * w, n)


def real_part(x, r):
    return jnp.real(jnp.exp(lax.complex(x / 4, 1 - x)))


def complex_product(x, r):
    z = x * (0.6 + 0.8j)
    return pick(r, jnp.real, jnp.imag)(z * z)


# Blocks of networks.


def softmax(x, r):
    x = some(x)
    axis = pick(r, an_axis(x, r), -1)
    return pick(r, jax.nn.softmax, jax.nn.log_softmax)(x, axis)


def logsumexp(x, r):
    x = some(x)
    return jax.nn.logsumexp(x, an_axis(x, r), b=pick(r, None, 0.5), keepdims=bool(draw(r, 0, 1)))


def masked_softmax(x, r):
    x = some(x)
    mask = r.normal(size=x.shape) > -0.5
    mask[..., 0] = True
    return pick(r, jax.nn.softmax(x, where=jnp.asarray(mask)),
                jax.nn.softmax(jnp.where(mask, x, -jnp.inf)))  # fmt: skip


def temperature(x, r):
    """Divide by what depends on the data, then softmax."""
    x = some(x)
    return jax.nn.softmax(x / (1 + jnp.abs(x).mean()), -1)


def standardize(x, r):
    x = some(x)
    axis = pick(r, -1, an_axis(x, r), None)
    return jax.nn.standardize(x, axis, epsilon=pick(r, 1e-5, 0.1))


def layer_norm(x, r):
    x = some(x)
    middle = x - x.mean(-1, keepdims=True)
    found = middle * lax.rsqrt((middle**2).mean(-1, keepdims=True) + pick(r, 1e-3, 0.1))
    return found * normal(r, *(1,) * (x.ndim - 1), x.shape[-1]) + 0.1


def rms_norm(x, r):
    x = some(x)
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + pick(r, 1e-3, 0.1))


def group_norm(x, r):
    x = grid(x, 3)
    groups = math.gcd(x.shape[-1], 2)
    parts = x.reshape(*x.shape[:2], groups, -1)
    mean = parts.mean((0, 1, 3), keepdims=True)
    deviation = jnp.sqrt(parts.var((0, 1, 3), keepdims=True) + 0.01)
    return ((parts - mean) / deviation).reshape(x.shape)


def instance_norm(x, r):
    x = grid(x, 3)
    fast = jnp.maximum((x * x).mean((0, 1)) - x.mean((0, 1)) ** 2, 0)
    return (x - x.mean((0, 1))) * lax.rsqrt(fast + 0.05)


def batch_norm(x, r):
    x = some(x)
    return (x - normal(r, x.shape[-1])) / jnp.sqrt(0.5 + normal(r, x.shape[-1]) ** 2)


def response_norm(x, r):
    """Normalise globally by the norm of each channel (GRN of ConvNeXt-V2)."""
    x = grid(x, 2)
    size = jnp.sqrt((x * x).sum(0, keepdims=True) + pick(r, 0.0, 1e-6))
    return x * (size / (size.mean(-1, keepdims=True) + 1e-6)) + x


def unit_length(x, r):
    x = some(x)
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.maximum(length, 1e-4)


def weight_norm(x, r):
    """Standardise a kernel that the data make, then use it."""
    x = grid(x, 2)
    kernel = jnp.tanh(x.T @ x / 3)
    return x @ (kernel / jnp.sqrt((kernel**2).sum(0, keepdims=True) + 0.1))


def gated(x, r):
    x = some(x)
    n = x.shape[-1]
    x = x if n % 2 == 0 else jnp.concatenate([x, x[..., :1]], -1)
    return jax.nn.glu(x, -1)


def swiglu(x, r):
    x = some(x)
    w = normal(r, 2, x.shape[-1], 3)
    return jax.nn.silu(x @ w[0]) * (x @ w[1])


def squeeze_excite(x, r):
    x = grid(x, 2)
    n = x.shape[-1]
    inner = pick(r, jax.nn.relu, jax.nn.silu)(x.mean(0) @ normal(r, n, 2))
    return x * pick(r, jax.nn.sigmoid, jax.nn.hard_sigmoid)(inner @ normal(r, 2, n))


def spatial_gate(x, r):
    x = grid(x, 2)
    looks = jnp.stack([x.mean(-1), x.max(-1)], -1)
    return x * jax.nn.sigmoid(looks @ normal(r, 2, 1))


def attention(x, r):
    x = grid(x, 2)
    q, k, v = (x @ w for w in normal(r, 3, x.shape[-1], 3))
    logits = q @ k.T / 2
    if draw(r, 0, 1):
        logits = jnp.where(jnp.tri(len(logits), dtype=bool), logits, -jnp.inf)
    return jax.nn.softmax(logits, -1) @ v


def heads_attention(x, r):
    """Attend in two heads. JAX's own function computes in single precision whatever it is given."""
    x = grid(x, 2)[:6]
    q, k, v = ((x @ w).reshape(-1, 2, 2) for w in normal(r, 3, x.shape[-1], 4))
    scores = jnp.einsum("ihd,jhd->hij", q, k) / jnp.sqrt(2.0).astype(x.dtype)
    if draw(r, 0, 1):
        scores = jnp.where(jnp.tri(len(x), dtype=bool), scores, -jnp.inf)
    return jnp.einsum("hij,jhd->ihd", jax.nn.softmax(scores), v)


def linear_attention(x, r):
    x = grid(x, 2)
    q, k, v = (x @ w for w in normal(r, 3, x.shape[-1], 3))
    q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
    return q @ (k.T @ v) / (q @ k.sum(0)[:, None])


def class_attention(x, r):
    """Pool by a fixed query."""
    x = grid(x, 2)
    return jax.nn.softmax(x @ normal(r, x.shape[-1]), 0) @ x


def lstm(x, r):
    x = grid(x, 2)
    w, v = normal(r, x.shape[-1], 8), normal(r, 2, 8)

    def turn(state, row):
        h, c = state
        i, f, g, o = jnp.split(row @ w + h @ v, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return lax.scan(turn, (jnp.zeros(2), jnp.zeros(2)), x[:4])[1]


def mixture(x, r):
    """Send each row to the expert that likes it most."""
    x = grid(x, 2)
    n = x.shape[-1]
    gate = jax.nn.softmax(x @ normal(r, n, 3), -1)
    best = jnp.argmax(gate, -1)
    experts = normal(r, 3, n, 2)
    return gate.max(-1, keepdims=True) * jnp.einsum("ab,abc->ac", x, experts[best])


def vlad(x, r):
    x = grid(x, 2)
    centres = normal(r, x.shape[-1], 3)
    share = jax.nn.softmax(x @ centres, -1)
    return share.T @ x - share.sum(0)[:, None] * centres.T


def bilinear_pool(x, r):
    x = grid(x, 2)
    found = x.T @ x / x.shape[0]
    return jnp.sign(found) * jnp.sqrt(jnp.abs(found) + 0.1)


def generalised_mean(x, r):
    x = grid(x, 2)
    return jnp.mean(jnp.maximum(x, 1e-3) ** 3, 0) ** (1 / 3)


def squash(x, r):
    """Squash vectors as capsules do."""
    x = some(x)
    size = (x * x).sum(-1, keepdims=True)
    return x * size / (1 + size) / jnp.sqrt(size + 1e-3)


def sparsemax(x, r):
    x = some(x)
    ordered = -jnp.sort(-x, -1)
    total = jnp.cumsum(ordered, -1)
    rank = jnp.arange(1.0, x.shape[-1] + 1)
    support = (1 + rank * ordered > total).sum(-1, keepdims=True)
    threshold = (jnp.take_along_axis(total, support - 1, -1) - 1) / support
    return jnp.maximum(x - threshold, 0)


def cosine(x, r):
    x = grid(x, 2)
    other = normal(r, x.shape[-1], 3)
    length = jnp.sqrt((x * x).sum(-1, keepdims=True) + 1e-2)
    return (x / length) @ (other / jnp.linalg.norm(other, axis=0))


def distances(x, r):
    x = grid(x, 2)[:6]
    return ((x[:, None] - x[None]) ** 2).sum(-1) + 0.1


def rotary(x, r):
    """Turn pairs by angles that depend on the position."""
    x = grid(x, 2)
    n = x.shape[-1] // 2
    if n == 0:
        return x
    angle = jnp.arange(float(x.shape[0]))[:, None] * jnp.ones((1, n)) / 3
    p, q = x[:, :n], x[:, n : 2 * n]
    return jnp.concatenate([p * jnp.cos(angle) - q * jnp.sin(angle),
                            p * jnp.sin(angle) + q * jnp.cos(angle)], -1)  # fmt: skip


def shuffled(x, r):
    """Shuffle channels between groups (ShuffleNet)."""
    x = some(x)
    n = x.shape[-1]
    groups = math.gcd(n, 2)
    mixed = x.reshape(*x.shape[:-1], groups, n // groups)
    return jnp.swapaxes(mixed, -1, -2).reshape(x.shape)


def residual(x, r):
    x = some(x)
    n = x.shape[-1]
    return x + jax.nn.relu(x @ normal(r, n, 3)) @ normal(r, 3, n)


def hopfield(x, r):
    """Iterate to a fixed point, some steps of it."""
    x = some(x)
    w = normal(r, x.shape[-1], x.shape[-1]) / 2
    y = x
    for _ in range(3):
        y = jnp.tanh(y @ w + x)
    return y


# Two operands.


def add(x, y, r):
    return x + like(y, x, r)


def subtract(x, y, r):
    return 2 * x - like(y, x, r)


def multiply(x, y, r):
    return x * like(y, x, r)


def divide(x, y, r):
    return x / (2 + jnp.square(like(y, x, r)))


def maximum(x, y, r):
    return pick(r, jnp.maximum, jnp.minimum)(x, like(y, x, r))


def power(x, y, r):
    return (1 + x * x) ** jnp.tanh(like(y, x, r))


def where(x, y, r):
    y = like(y, x, r)
    return jnp.where(x > y, x, y * y)


def clamp(x, y, r):
    y = like(y, x, r)
    return lax.clamp(y - 0.5, x, y + 0.5)


def atan_of_two(x, y, r):
    return jnp.arctan2(x, 1 + like(y, x, r) ** 2)


def logaddexp(x, y, r):
    return jnp.logaddexp(x, like(y, x, r))


def matmul(x, y, r):
    x = grid(x, 2)
    return small(x @ like(y, x, r).T) / 3


def batch_matmul(x, y, r):
    x = grid(x, 3)
    return small(jnp.einsum(pick(r, "abc,abd->acd", "abc,adc->abd"), x, like(y, x, r)) / 2)


def film(x, y, r):
    """Scale and shift each channel by what another value says."""
    x, flat = some(x), y.reshape(-1)
    n = x.shape[-1]
    return x * (normal(r, n, y.size) @ flat) + normal(r, n, y.size) @ flat


def joined(x, y, r):
    return small(jnp.concatenate([x.reshape(-1), y.reshape(-1)]))


def stack_of_two(x, y, r):
    y = like(y, x, r)
    return small(jnp.stack([x, y], draw(r, 0, x.ndim)))


def cross_attention(x, y, r):
    x, y = grid(x, 2), grid(y, 2)
    q, k, v = x @ normal(r, x.shape[-1], 3), y @ normal(r, y.shape[-1], 3), y
    return small(jax.nn.softmax(q @ k.T, -1) @ v)


def kernel_of_other(x, y, r):
    """Convolve one value by another."""
    x = grid(x, 2)
    kernel = jnp.resize(y.reshape(-1), (2, x.shape[1], 2)) / 2
    return lax.conv_general_dilated(x[None], kernel, (1,), "SAME",
                                    dimension_numbers=("NWC", "WIO", "NWC"))[0]  # fmt: skip


def scatter_other(x, y, r):
    x = some(x)
    y = like(y, x, r)
    places = r.integers(0, x.shape[0], size=x.shape[0])
    return pick(r, x.at[places].add(y), x.at[: x.shape[0] // 2 + 1].set(y[: x.shape[0] // 2 + 1]))


def select_by_other(x, y, r):
    """Pick rows by what another value orders."""
    x = some(x)
    order = jnp.argsort(jnp.resize(y.reshape(-1), x.shape[0]))
    return x[order]


def gate_by_softmax(x, y, r):
    return x * jax.nn.softmax(like(y, x, r).reshape(-1)).reshape(x.shape)


def product_by_rule(x, y, r):
    return product_by_hand(x, like(y, x, r))


def cond_of_two(x, y, r):
    y = like(y, x, r)
    return lax.cond(x.sum() > y.sum(), lambda p, q: p * q, lambda p, q: p - q, x, y)


def scan_of_two(x, y, r):
    x = some(x)
    y = like(y, x, r)
    return lax.scan(lambda s, pq: (s * 0.5 + pq[0], s * pq[1]), jnp.zeros_like(x[0]), (x, y))[1]


def solve_other(x, y, r):
    return jnp.linalg.solve(square_matrix(x, r), (normal(r, 3, y.size) @ y.reshape(-1))[:, None])


# Scores: scalars.


def weighted(x, r):
    return (x * normal(r, *x.shape)).sum() * 2


def mean(x, r):
    return x.mean()


def one_logit(x, r):
    return x.reshape(-1)[draw(r, 0, x.size - 1)]


def class_logit(x, r):
    return (normal(r, 3, x.size) @ x.reshape(-1))[1] * 2


def pooled_logit(x, r):
    x = grid(x, 2)
    return (x.mean(0) @ normal(r, x.shape[1], 3))[1] * 2


def log_probability(x, r):
    x = grid(x, 2)
    return jax.nn.log_softmax(x.mean(0) @ normal(r, x.shape[1], 4) * 2)[2]


def log_odds(x, r):
    s = normal(r, 4, x.size) @ x.reshape(-1)
    return -jax.nn.logsumexp(s - s[1])


def highest(x, r):
    return x.max()


def energy(x, r):
    return jnp.sum(x * x) / 2


def length(x, r):
    return jnp.sqrt(jnp.sum(x * x) + pick(r, 0.0, 0.1))


def log_of_sum(x, r):
    return jnp.log(jnp.sum(jnp.exp(x / 3)))


def smooth_total(x, r):
    return jnp.tanh(x.mean()) + jnp.sin(x.sum() / 3)


def plain(functions: dict[str, Callable[[Array], Array]]) -> dict[str, Callable]:
    """Give functions of an array alone a source that they do not need."""
    return {name: functools.partial(_unary, function) for name, function in functions.items()}


def _unary(function, x, r):
    del r
    return function(x)


def named(*functions: Callable) -> dict[str, Callable]:
    return {function.__name__: function for function in functions}


KINDS: dict[str, dict[str, Callable]] = {
    "smooth": plain(SMOOTH),
    "kinked": plain(KINKED),
    "singular at zero": plain(SINGULAR),
    "flat, cast, stopped": plain(FLAT),
    "product or sum": named(
        dense, dense_left, batched_dense, batched_only, two_batch_axes, einsum_weights,
        einsum_itself, einsum_three, repeated_index, gram, quadratic_form, outer, sum_axes, centre,
        product_axis, moments, add_position, scale,
    ),
    "convolution": named(
        conv, plain_conv, conv_of_batch, conv_batch_groups, conv_by_itself, conv_kernel_alone,
        conv_transpose, patches, convolve_signals,
    ),
    "window": named(
        max_pool, max_pool_finite, max_pool_ceil, average_pool, average_pool_excluding,
        adaptive_pool, pyramid_pool, cumulative, associative, resized,
    ),
    "choice": named(
        reduce_extreme, spread_of, quantile, sort, sort_pairs, sorted_by_other, top_k,
        argmax_one_hot, winner_takes_all, maxout, masked_by_data, masked_sum,
    ),
    "place": named(
        take, take_fill, take_points, take_by_data, embedding, along_axis, slices, dynamic_slice,
        slice_by_data, update_slice, update_constant, update_by_data, scatter, scatter_extreme,
        scatter_into_constant, scatter_by_data, segments, interpolated_by_data, sampled_by_data,
    ),
    "shape": named(
        reshaped, fortran, fortran_of_constant, transposed, flipped, rolled, rotated, padded,
        padded_inside, padded_by_data, concatenated, stacked, tiled, broadcast, new_axes, split,
        empty, triangular, diagonal_matrix, differences, meshgrid, cross, depth_to_space,
    ),
    "loop, branch, call": named(
        scanned, scanned_layers, scanned_constant, fori, cond, cond_affine, switch,
        cond_per_row, mapped, remat, jitted, jitted_twice, barrier, vectorized, vmapped_dense,
        inner_gradient, inner_tangent, inner_hessian, linearized, reduced_by, root_found, printed,
        dropped_out,
    ),
    "rule by hand": plain(HAND),
    "reverse alone, forward alone, complex": plain(BACKWARD) | named(
        while_loop, max_pool_dilated, spectrum, amplitude, filtered, real_part, complex_product,
    ),
    "linear algebra": named(
        determinant, solve, solve_fixed, triangular_solve, cholesky, eigenvalues, singular_values,
        orthogonalised, matrix_exponential, matrix_power, batched_inverse, norm, matrix_norm,
    ),
    "block": named(
        softmax, logsumexp, masked_softmax, temperature, standardize, layer_norm, rms_norm,
        group_norm, instance_norm, batch_norm, response_norm, unit_length, weight_norm, gated,
        swiglu, squeeze_excite, spatial_gate, attention, heads_attention, linear_attention,
        class_attention, lstm, mixture, vlad, bilinear_pool, generalised_mean, squash, sparsemax,
        cosine, distances, rotary, shuffled, residual, hopfield,
    ),
}  # fmt: skip
"""Operations of one operand, by kind."""

BINARY = named(
    add, subtract, multiply, divide, maximum, power, where, clamp, atan_of_two, logaddexp, matmul,
    batch_matmul, film, joined, stack_of_two, cross_attention, kernel_of_other, scatter_other,
    select_by_other, gate_by_softmax, product_by_rule, cond_of_two, scan_of_two, solve_other,
)  # fmt: skip
"""Operations of two operands."""

HEADS = named(
    weighted, mean, one_logit, class_logit, pooled_logit, log_probability, log_odds, highest,
    energy, length, log_of_sum, smooth_total,
)  # fmt: skip
"""From an array to a score."""

OPERATIONS: dict[str, Callable] = dict(
    itertools.chain(*(kind.items() for kind in (*KINDS.values(), BINARY, HEADS)))
)

POINTS: dict[str, Callable[..., np.ndarray]] = {
    "generic": lambda r, *shape: r.normal(size=shape),
    "after a ReLU": lambda r, *shape: np.maximum(r.normal(size=shape), 0),
    "whole numbers": lambda r, *shape: r.integers(-2, 3, size=shape) * 1.0,
    "halves": lambda r, *shape: r.integers(-3, 4, size=shape) / 2,
    "zero": lambda r, *shape: np.zeros(shape),
    "one number": lambda r, *shape: np.full(shape, r.normal()),
    "a dead channel": lambda r, *shape: r.normal(size=shape) * (np.arange(shape[-1]) > 0),
    "equal rows": lambda r, *shape: np.broadcast_to(r.normal(size=(1, *shape[1:])), shape).copy(),
    "far out": lambda r, *shape: 10 * r.normal(size=shape),
}
"""Where derivatives are taken: at random, and where there are ties, zeros and kinks."""
