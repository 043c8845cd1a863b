"""Both nestings, each on its own: `test_exact.py` sees the one that was taken."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tails

import jaxcam
from jaxcam.derivatives.engines import directional
from jaxcam.jaxprs import loops as chunks
from jaxcam.jaxprs.cost import needs
from jaxcam.jaxprs.merge import merged

BY_NAME = {tail.name: tail for tail in tails.TAILS}
NAMES = (
    *("convs_relu", "attention", "scan_gelu"),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("convs_gelu_erf", "convnext", "cond")
    ),
)
WAYS = (directional._forward, directional._forward_over_reverse, directional._reverse)


def close(found, truth, tolerance):
    for ours, theirs in zip(found, truth, strict=True):
        size = abs(theirs).max() or 1
        np.testing.assert_allclose(
            np.asarray(ours).reshape(theirs.shape) / size, theirs / size, atol=tolerance
        )


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_every_nesting_is_exact(way, name, dtype):
    tail, index = BY_NAME[name], jax.ShapeDtypeStruct((), jnp.int32)
    u = oracles.log_score(tail.scores, tails.CLASS, "softmax")

    def run(a):
        along = jax.extend.core.jaxpr_as_fun(merged(way(u, a), index))
        return chunks.in_chunks(along, a.size, 7)

    with jax.enable_x64(dtype == "float64"):
        found = jax.jit(run)(jnp.asarray(tails.point(tail), dtype))
    close(found, tails.truth(tail, "softmax"), {"float32": 1e-4, "float64": 1e-10}[dtype])


def test_many_classes_of_which_one_counts_are_not_passed_by_tangents():
    """Backwards where the classes are many, forwards where they are few."""

    def counts(classes):
        w = jnp.asarray(tails.normal("classes", 8, classes), jnp.float32)
        a = jnp.asarray(tails.normal("classes a", 2, 2, 8), jnp.float32)

        def u(a):
            return (tails.layer_norm(tails.pool(a)) @ w)[1]

        forward = merged(directional._forward(u, a), jax.ShapeDtypeStruct((), jnp.int32))
        return needs(directional.program(u, a)), needs(forward)

    taken, forward = counts(1000)
    assert taken.operations < 2 * 8 * 1000 < forward.operations
    taken, forward = counts(2)
    assert taken == forward


def test_a_loop_of_unknown_length_has_no_reverse_mode():
    def u(a):
        def turn(state):
            return state[0] + 1, jnp.tanh(state[1]) + 0.1 * state[1]

        return jax.lax.while_loop(lambda state: state[0] < 3, turn, (0, a))[1].prod()

    def unrolled(a):
        for _ in range(3):
            a = jnp.tanh(a) + 0.1 * a
        return a.prod()

    a = tails.normal("while", 2, 3)
    with jax.enable_x64(True):
        found = jaxcam.log_derivatives(u, jnp.asarray(a), engine="directional")
    close(found, oracles.brute_force(unrolled, a), 1e-10)


# What JAX differentiates in one direction alone.


@jax.custom_vjp
def sine_backward(x):
    return jnp.sin(x)


sine_backward.defvjp(lambda x: (sine_backward(x), x), lambda x, g: (g * jnp.cos(x),))


@jax.custom_vjp
def sine_once(x):
    """A rule that JAX differentiates forward, once it has been asked backward."""
    return jnp.sin(x)


sine_once.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


@jax.custom_vjp
def same_backward(x):
    return x


same_backward.defvjp(lambda x: (x, None), lambda _, g: (g,))


@jax.custom_jvp
def backward_within(x):
    return -jnp.cos(x)


backward_within.defjvps(lambda dx, out, x: dx * sine_backward(x))


def dilated(x):
    return jax.lax.reduce_window(
        x, -np.inf, jax.lax.max, (2, 1), (1, 1), "VALID", None, (2, 1)
    )  # fmt: skip


def maximum(x):
    return jnp.maximum(x[:-2], x[2:])


def looped(x):
    def turn(state):
        return state[0] + 1, jnp.sin(state[1])

    return jax.lax.while_loop(lambda state: state[0] < 2, turn, (0, x))[1]


ONE_WAY = {  # and the same for brute force
    "dilated_maximum": (dilated, maximum),
    "unknown_length": (looped, lambda x: jnp.sin(jnp.sin(x))),
    "reverse_rule": (sine_backward, jnp.sin),
    "reverse_rule_once": (sine_once, jnp.sin),
    "reverse_rule_beside_a_sort": (
        lambda x: same_backward(x) ** 3 + jnp.sort(x, 0),
        lambda x: x**3 + jnp.sort(x, 0),
    ),
    "reverse_rule_in_a_forward_rule": (backward_within, lambda x: -jnp.cos(x)),
    "after_a_bend": (lambda x: dilated(jnp.tanh(x)), lambda x: jnp.tanh(maximum(x))),
}


@pytest.mark.parametrize("row", ONE_WAY.values(), ids=ONE_WAY)
def test_a_function_that_has_one_way_is_differentiated_that_way(row):
    function, same = row
    a = tails.normal("one way", 4, 3)

    def score(function):
        def u(a):
            return jnp.tanh(function(a) @ jnp.asarray(tails.normal("w", 3, 2), a.dtype)).sum()

        return u

    with jax.enable_x64(True):
        found = jax.jit(lambda a: jaxcam.log_derivatives(score(function), a))(jnp.asarray(a))
    close(found, oracles.brute_force(score(same), a), 1e-10)


def test_a_first_derivative_alone_is_found_forward_too():
    """Grad-CAM needs one gradient; where there is none, it has the forward derivatives."""
    x = jnp.asarray(tails.normal("forward", 1, 4, 3, 2), jnp.float32)

    def explain(pool):
        split = jaxcam.Split(jnp.tanh, lambda a, x: pool(a[0])[None].mean(1))
        return jaxcam.cam(split, x, jaxcam.methods.grad_cam(), 0)

    found = explain(lambda a: dilated(a.reshape(4, 6)))
    truth = explain(lambda a: maximum(a.reshape(4, 6)))
    assert found.diagnostics.report.engine == "directional"
    np.testing.assert_allclose(found.map, truth.map, atol=1e-6)
