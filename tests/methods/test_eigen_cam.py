"""Methods of activations alone, and of principal components."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import images, smooth
from sklearn.decomposition import KernelPCA

import jaxcam
from jaxcam import methods
from jaxcam.contracts import Gradient
from jaxcam.errors import JaxcamError
from jaxcam.methods.catalogue import ROWS
from jaxcam.methods.principal import component, leading

ALONE = [r for r in ROWS if isinstance(r.make(), Gradient) and r.make().order == 0]


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.name)
def test_every_class_has_the_map(row):
    results = [jaxcam.cam(smooth(), images(), row.make(), c) for c in (0, 3)]
    np.testing.assert_array_equal(results[0].map, results[1].map)
    assert results[0].diagnostics.report.engine == "absent"
    assert "activations alone" in results[0].diagnostics.report.proof


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.name)
def test_a_layer_on_which_nothing_stands_out_is_told(row):
    split = jaxcam.Split(lambda x: x, lambda a, x: a.sum(1))
    with pytest.warns(jaxcam.JaxcamWarning, match="is blank: nothing stands out"):
        level = jaxcam.cam(split, jnp.ones((1, 5, 2)), row.make(), 0)
    assert not level.map.any()
    with pytest.warns(jaxcam.JaxcamWarning, match="every activation of the layer is zero"):
        jaxcam.cam(split, jnp.zeros((1, 5, 2)), row.make(), 0)


def test_noise_and_paths_have_nothing_to_average():
    with pytest.raises(JaxcamError, match="eigen_cam, which takes none"):
        jaxcam.smooth(methods.eigen_cam())
    with pytest.raises(JaxcamError, match="order one"):
        jaxcam.integrate(methods.eigen_cam())


@pytest.mark.parametrize("shape", [(9, 4), (3, 2, 8)], ids=["more positions", "more maps"])
def test_the_component_explains_the_most_and_goes_with_the_mean(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    axis, centred = component(jnp.asarray(values))
    rows = np.asarray(centred).reshape(-1, shape[-1])
    np.testing.assert_allclose(
        ((rows @ axis) ** 2).sum(), np.linalg.svd(rows)[1][0] ** 2, rtol=1e-5
    )
    np.testing.assert_allclose((axis**2).sum(), 1, rtol=1e-5)
    assert (rows @ axis) @ rows.mean(axis=1) > 0


def test_dead_feature_maps_leave_the_derivative_of_the_component_finite():
    """Their eigenvalues are equal: zero; the derivative is that of differences all the same."""
    with jax.enable_x64(True):
        root = np.random.default_rng(1).normal(size=(5, 5)) * [1, 1, 1, 0, 0]
        way = np.random.default_rng(2).normal(size=(5, 5))
        matrix, way = root.T @ root, way + way.T

        def first(t):
            v = leading(jnp.asarray(matrix) + t * way)
            return (v * jnp.sign(v[0])) @ jnp.arange(5.0)

        slope, bend = jax.jit(jax.grad(first))(0.0), jax.jit(jax.grad(jax.grad(first)))(0.0)
        ahead, behind, here = (float(first(t)) for t in (1e-4, -1e-4, 0.0))
    assert np.isclose(slope, (ahead - behind) / 2e-4, rtol=1e-5)
    assert np.isclose(bend, (ahead + behind - 2 * here) / 1e-8, rtol=1e-3)


def test_the_map_is_differentiable_in_the_input_and_at_a_tie_too():
    def total(x):
        return jaxcam.cam(smooth(), x, methods.eigen_cam(), 0).map.sum()

    slope = jax.jit(jax.grad(total))(images())
    assert jnp.isfinite(slope).all()
    assert slope.any()
    assert not jax.jacobian(leading)(jnp.eye(3)).any()


@pytest.mark.parametrize(("kernel", "gamma"), [("linear", 1.0), ("poly", None), ("rbf", 0.7)])
def test_kernels_are_those_of_scikit_learn(kernel, gamma):
    a = images(seed=4)
    rows = a.reshape(-1, a.shape[-1])
    rows = rows - rows.mean(axis=0)
    given = None if kernel == "linear" else gamma
    theirs = KernelPCA(1, kernel=kernel, gamma=given).fit_transform(rows)[:, 0]
    split = jaxcam.Split(lambda x: x, lambda a, x: a.sum((1, 2)))
    ours = jaxcam.cam(split, a, methods.kpca_cam(kernel=kernel, gamma=gamma), 0).signed.ravel()
    theirs = theirs * np.sign(theirs @ rows.sum(axis=1))
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * abs(theirs).max())


@pytest.mark.parametrize(
    ("make", "options"),
    [(methods.fem, {"deviations": -1}), (methods.fem, {"deviations": "two"}),
     (methods.kpca_cam, {"kernel": "laplace"}), (methods.kpca_cam, {"gamma": 0})],
)  # fmt: skip
def test_options_that_are_none(make, options):
    (wrong,) = options.values()
    with pytest.raises(JaxcamError, match=rf"{make.__name__}: needs .*got {wrong!r}"):
        make(**options)
