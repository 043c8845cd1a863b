"""Inside the user's own `jax.shard_map`, and on arrays that are divided along explicit axes.

Traced for a mesh of four devices that are not there: types say what would go wrong. The values are
compared on devices by `on_devices`.
"""

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcam
from jaxcam.methods import taylor_cam
from jaxcam.targets import region

AUTO = AbstractMesh((4,), ("d",), axis_types=(AxisType.Auto,))
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 4)
IMAGES = networks.images(4)
A = jnp.linspace(0.0, 1.0, 12).reshape(2, 3, 2)


def explain(x, split, **options):
    return jaxcam.smooth_grad_cam_pp(split, x, 1, key=KEY, num_samples=2, **options).map


def dense(x):
    split = jaxcam.Split(jnp.tanh, lambda a, x: jnp.tanh(a))
    mask = np.arange(20).reshape(5, 4) > 7
    return explain_region(split, x, region(1, mask))


def explain_region(split, x, target):
    kept = {"channels": [0], "neurons": np.ones((5, 4, 2), bool)}
    return jaxcam.cam(split, x, taylor_cam(order=2), target, **kept).map


@jax.custom_vjp
def by_hand(x):
    return jnp.tanh(x)


by_hand.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))


def mixed(a, bend=jnp.tanh):
    return bend(bend(a).sum(0)).sum()


def rows(derivatives):
    return jax.tree.map(lambda v: v[None], derivatives)


def of_a_score_that_differs(engine, bend=jnp.tanh):
    """``a`` is the same on every device, and the score is not."""
    return lambda c: rows(jaxcam.log_derivatives(lambda a: mixed(a * c[0], bend), A, engine=engine))


def of_weights_that_differ(c):
    split = jaxcam.Split(jnp.tanh, lambda a, x: jax.nn.relu(a * c[0]).mean((1, 2)))
    return explain(IMAGES[:1], split)


INSIDE = {
    "affine": (lambda x: explain(x, networks.relu()), IMAGES),
    "bending": (lambda x: explain(x, networks.smooth()), IMAGES),
    "until a tolerance": (lambda x: explain(x, networks.relu(), tolerance=0.1), IMAGES),
    "region of some neurons": (dense, IMAGES),
    "own weights": (of_weights_that_differ, jnp.arange(1.0, 5.0)),
    "adjoint": (of_a_score_that_differs("adjoint"), jnp.arange(1.0, 5.0)),
    "directional": (of_a_score_that_differs("directional"), jnp.arange(1.0, 5.0)),
    "reverse": (of_a_score_that_differs("auto", by_hand), jnp.arange(1.0, 5.0)),
    "own keys": (
        lambda k: rows(jaxcam.stochastic_derivatives(mixed, A, key=k[0], probes=4)), KEYS
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INSIDE)
def test_inside_shard_map_no_device_asks_another(case):
    """A derivative along what JAX takes to be the same everywhere would be a sum over devices."""
    function, argument = INSIDE[case]
    each = jax.shard_map(function, mesh=AUTO, in_specs=P("d"), out_specs=P("d"))
    traced = str(jax.make_jaxpr(each)(argument))
    assert "psum" not in traced
    assert "all_gather" not in traced


def test_inside_shard_map_a_gradient_by_shared_weights_is_summed_once():
    def loss(w, x):
        split = jaxcam.Split(jnp.tanh, lambda a, x: jax.nn.relu(a).mean((1, 2)) @ w)
        return explain(x, split).sum()

    w = jnp.ones((2, 3))
    each = jax.shard_map(jax.grad(loss), mesh=AUTO, in_specs=(P(), P("d")), out_specs=P())
    assert str(jax.make_jaxpr(each)(w, IMAGES)).count("psum_invariant[") == 1


@pytest.mark.parametrize("spec", [P("d"), P(None, "d")])
def test_arrays_divided_along_explicit_axes(spec):
    mesh = AbstractMesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    x = jax.ShapeDtypeStruct((4, 8, 4, 2), jnp.float32, sharding=NamedSharding(mesh, spec))
    found = jax.eval_shape(lambda x: explain(x, networks.relu()), x)
    assert found.shape == (4, 8, 4)
    assert found.sharding.spec[0] == spec[0]


def test_derivatives_along_explicit_axes():
    mesh = AbstractMesh((3,), ("d",), axis_types=(AxisType.Explicit,))
    a = jax.ShapeDtypeStruct(A.shape, A.dtype, sharding=NamedSharding(mesh, P(None, "d")))
    found = jax.eval_shape(lambda a: jaxcam.log_derivatives(mixed, a), a)
    assert found.u3.sharding.spec == P(None, "d", None)
