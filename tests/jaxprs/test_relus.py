"""ReLUs in whatever form they are written, against a backward pass by hand; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from networks import normal

import jaxcam
from jaxcam import methods
from jaxcam.errors import JaxcamError
from jaxcam.jaxprs.relus import with_relus

WEIGHTS = (normal((2, 6), 4), normal((6, 6), 50))
LAST = normal((6,), 100)
X = normal((7, 2), 7)


@jax.custom_vjp
def surrogate(x):
    return jnp.maximum(x, 0)


surrogate.defvjp(lambda x: (surrogate(x), x), lambda x, p: (2 * p,))


def looped(x):
    return jax.lax.scan(lambda carry, _: (jax.nn.relu(carry), None), x, None, length=2)[0]


def chosen(x):
    return jax.lax.cond(x.sum() > -1e9, jax.nn.relu, lambda x: x, x)


FORMS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "zeros": lambda x: jnp.maximum(jnp.zeros_like(x), x),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "else": lambda x: jnp.where(x <= 0, 0, x),
    "turned": lambda x: jnp.where(0 < x, x, jnp.zeros_like(x)),  # noqa: SIM300
    "product": lambda x: x * (x > 0).astype(x.dtype),
    "relu6": lambda x: jax.nn.relu6(x / 10) * 10,
    "clip": lambda x: jnp.clip(x, 0, 60),
    "clamp": lambda x: jax.lax.clamp(0.0, x, 60.0),
    "custom_vjp": surrogate,
    "remat": jax.checkpoint(lambda x: jnp.maximum(x, 0)),
    "scan": looped,
    "cond": chosen,
}


@pytest.mark.parametrize("rule", ["guided", "deconvolution"])
def test_every_form_passes_back_what_the_rule_says(rule):
    """One program for all forms; rules that differ, and differ from the gradient."""
    weights, last = [jnp.asarray(w) for w in WEIGHTS], jnp.asarray(LAST)

    def score(x, act):
        return (act(act(x @ weights[0]) @ weights[1]) @ last).sum()

    @jax.jit
    def every(x):
        changed = {k: with_relus(lambda x, f=f: score(x, f), rule, "f") for k, f in FORMS.items()}
        return {name: jax.value_and_grad(f)(x) for name, f in changed.items()}

    wide = [w.astype(np.float64) for w in (*WEIGHTS, X, LAST)]
    expected = {r: oracles.rectified_gradient(wide[:2], wide[2], wide[3], r)
                for r in ("gradient", "guided", "deconvolution")}  # fmt: skip
    for other in expected.keys() - {rule}:
        assert abs(expected[rule] - expected[other]).max() > 0.1
    for name, (value, slope) in every(X).items():
        np.testing.assert_allclose(slope, expected[rule], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(value, score(X, jax.nn.relu), rtol=1e-5, err_msg=name)


def test_the_upper_end_of_a_clip_keeps_its_derivative():
    for act in (jax.nn.relu6, lambda x: jnp.clip(x, 0, 6), lambda x: jax.lax.clamp(0.0, x, 6.0)):
        changed = with_relus(lambda x, f=act: f(x).sum(), "deconvolution", "f")
        assert (jax.grad(changed)(jnp.array([-1.0, 1.0, 7.0])) == jnp.array([1.0, 1.0, 0.0])).all()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (jax.nn.gelu, r"a network without one \(activations: tanh"),
        (jax.nn.silu, "activations: silu"),
        (jax.nn.softplus, "activations: softplus"),
        (lambda x: x, "none of any kind"),
        (jax.nn.leaky_relu, "got leaky_relu"),
        (jax.nn.elu, "got elu"),
        (jax.nn.hard_swish, "got .*hard_sigmoid|got .*relu6"),
        (lambda x: (x + jnp.abs(x)) / 2, "got add"),
        (lambda x: jnp.maximum(x, 0.1 * x), "got max"),
        (lambda x: jnp.maximum(x, 0.5), "got max"),
        (lambda x: -jnp.minimum(-x, 0), "got min"),
    ],
)
def test_what_has_no_relu_or_may_have_another_one_is_refused(act, words):
    with pytest.raises(JaxcamError, match=words):
        jax.eval_shape(with_relus(act, "guided", "guided_backprop"), X)


def test_a_norms_variance_and_softmax_are_no_relus():
    def norm(x):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(jnp.maximum(0.0, (x**2).mean(-1, keepdims=True) - mean**2))

    with pytest.raises(JaxcamError, match="without one"):
        jax.eval_shape(with_relus(norm, "guided", "f"), X)
    jax.eval_shape(with_relus(lambda x: jax.nn.softmax(jax.nn.relu(norm(x))), "guided", "f"), X)


def test_scores_keep_their_own_derivatives():
    """Only what the map is made of passes back by the rule; the scores are the network's."""
    weights = [jnp.asarray(w) for w in WEIGHTS]

    def total(scale, method):
        split = jaxcam.Split(
            lambda x: x,
            lambda a, x: jax.nn.relu(jax.nn.relu(scale * (a @ weights[0])) @ weights[1]).mean(1),
        )
        return jaxcam.cam(split, X[None], method, 1).scores.sum()

    own, ours = (
        jax.grad(total)(1.0, m) for m in (methods.sensitivity_map(), methods.guided_backprop())
    )
    assert own == ours
