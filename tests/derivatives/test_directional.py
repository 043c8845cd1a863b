"""Both nestings, each on its own: `test_exact.py` sees the one that was taken."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tails

import jaxcam
from jaxcam.derivatives import chunks, directional
from jaxcam.derivatives.merge import merged
from jaxcam.derivatives.needs import needs

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
