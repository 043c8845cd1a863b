"""What every collection's model is checked for: the split is the model itself, and leaves it alone.

``own(weights, x)`` is the model called as its authors call it.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam

SIZE, CLASSES = 64, 10
MOVED = 2e-6
"""The share of the largest score by which a compiled split may differ from the compiled model.

Called operation by operation they are equal to the last bit. Compiled, XLA fuses across the layer
in one of the two and not in the other: the largest share seen on two CPU cores is 6e-7.
"""


def images(batch=2, size=SIZE):
    return jax.random.normal(jax.random.key(0), (batch, size, size, 3))


def drawn(shapes, seed=0):
    """Weights of these shapes with nothing at zero, so that no branch of a network is off.

    Vectors are positive, because some of them are variances; kernels keep scores moderate.
    """
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        if leaf.ndim < 2:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        depthwise = leaf.ndim > 2 and leaf.shape[-1] == 1  # Keras: [*spatial, channels, 1]
        scale = (0.5 / np.prod(leaf.shape[: -2 if depthwise else -1])) ** 0.5
        return jnp.asarray(scale * rng.standard_normal(leaf.shape, np.float32), leaf.dtype)

    return jax.tree.map(draw, shapes)


def copied(tree):
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for before, after in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert before.dtype == after.dtype
        assert (before.shape, before.tobytes()) == (after.shape, after.tobytes())


def assert_is_the_model(split, own, weights, x):
    """To the last bit where nothing is fused, to rounding where it is; and the layer matters."""
    a = split.features(x)
    expected = own(weights, x)
    np.testing.assert_array_equal(split.scores(a, x), expected)
    assert np.isfinite(expected).all()
    scale = jnp.abs(expected).max()
    compiled = jax.jit(own)(weights, x)
    whole = jax.jit(lambda split, x: split.scores(split.features(x), x))(split, x)
    halves = jax.jit(lambda split, a, x: split.scores(a, x))(
        split, jax.jit(lambda split, x: split.features(x))(split, x), x
    )
    moved = [float(jnp.abs(y - compiled).max() / scale) for y in (whole, halves)]
    print(f"a {a.shape}, compiled moves by {moved}")
    assert max(moved) <= MOVED
    noise = jax.random.normal(jax.random.key(1), a.shape)
    other = split.scores(a + noise * jnp.abs(a).max(), x)
    assert jnp.abs(other - expected).max() > 10 * MOVED * scale, "the layer is without effect"


def explain(split, x):
    """One explanation and its gradient by the weights, compiled without XLA's costlier passes."""

    def heat(features, x):
        result = jaxcam.smooth_grad_cam_pp(
            jaxcam.Split(features, split.scores), x, key=jax.random.key(2), num_samples=2
        )
        return (result.map**2).mean(), result.map

    both = jax.jit(jax.value_and_grad(heat, has_aux=True, allow_int=True)).lower(split.features, x)
    compiled = both.compile(compiler_options={"xla_backend_optimization_level": 0})
    (_, found), gradient = compiled(split.features, x)
    assert found.shape == split.features(x).shape[:-1]
    assert np.isfinite(found).all()
    assert found.max() > 0
    leaves = [leaf for leaf in jax.tree.leaves(gradient) if leaf.dtype != jax.dtypes.float0]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert max(jnp.abs(leaf).max() for leaf in leaves) > 0
