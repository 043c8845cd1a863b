"""Every wrong call says which call it was, what it needed, what it got and what to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import affine, features, images, relu, smooth, weights

import jaxcam
from jaxcam import targets
from jaxcam.errors import JaxcamError, JaxcamWarning, NotProved
from jaxcam.methods import grad_cam, grad_cam_pp

KEY = jax.random.key(0)
WORDS = np.arange(3, dtype=np.uint32)  # of no generator
X = images()


def explain(split=None, x=X, target=1, **options):
    options = {"key": KEY, "num_samples": 2} | options
    return jaxcam.smooth_grad_cam_pp(split or relu(), x, target, **options)


def _kept(transform):
    """A network that hands out what it kept from inside a transformation, as hooks do."""

    def kept(x):
        seen = []
        transform(lambda x: seen.append(jnp.tanh(x)))(x)
        return seen[0] if seen[0].ndim == x.ndim else seen[0][None]

    return jaxcam.Split(kept, lambda a, x: a.mean((1, 2)) @ jnp.ones((2, 5)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: explain(x=(X * 255).astype(np.uint8)), ["floating", "uint8", "without noise"]),
        (lambda: jaxcam.cam(relu(), X.astype(complex), grad_cam()), ["real input", "channels"]),
        (lambda: jaxcam.cam(relu(), [X[0]] * 2, grad_cam()), ["2 inputs", "np.stack(x)"]),
        (lambda: explain(key=7), ["key", "got 7", "jax.random.key(7)"]),
        (lambda: explain(key=np.random.default_rng(0)), ["a JAX random key", "Generator"]),
        (lambda: explain(key=jax.random.split(KEY, 3)), ["one for each of 1", "(3,)"]),
        (lambda: explain(key=WORDS), ["a JAX random key", "(3,)", "jax.random.key(0)"]),
        (lambda: explain(x=np.where(X[0, 0, 0, 0] == X, np.nan, X)), ["finite input", "NaN"]),
        (lambda: explain(x=np.where(X[0, 0, 0, 0] == X, np.inf, X)), ["finite input", "infinity"]),
        (lambda: explain(x=X[0, 0]), ["[batch, *spatial, channel]", "(4, 2)", "batch axis"]),
        (lambda: explain(x=X[0]), ["(5, 4, 2)", "The batch axis comes first, x[None]"]),
        (lambda: explain(x=X[:0]), ["[batch, *spatial, channel]", "(0, 5, 4, 2)"]),
        (lambda: explain(target=5), ["target", "from 0 to 4", "got 5"]),
        (lambda: explain(target=-1), ["target", "from 0 to 4", "got -1"]),
        (lambda: explain(noise_level=-0.1), ["noise_level of 0 or more", "-0.1"]),
        (lambda: explain(noise_level=np.nan), ["noise_level of 0 or more", "nan"]),
        (lambda: explain(num_samples=0), ["num_samples of at least 1", "got 0"]),
        (lambda: explain(num_samples=2.5), ["num_samples", "2.5"]),
        (lambda: explain(sample_weights="equal"), ["exact or uniform", "'equal'"]),
        (lambda: explain(sample_weights=1.5), ["sample_weights from 0 to 1", "got 1.5"]),
        (lambda: explain(sample_weights=None), ["sample_weights from 0 to 1", "got None"]),
        (lambda: explain(scheme="sobol"), ["independent, antithetic, orthogonal", "'sobol'"]),
        (lambda: explain(tolerance=-0.1), ["tolerance of 0 or more", "-0.1"]),
        (lambda: explain(tolerance="5 %"), ["tolerance of 0 or more", "5 %"]),
        (lambda: explain(tolerance=0.1, max_samples=1), ["max_samples of at least 2", "got 1"]),
        (lambda: explain(tolerance=0.1, scheme="orthogonal", max_samples=8), ["at least 16"]),
        (lambda: explain(channels=[]), ["channels", "at least one feature map"]),
        (lambda: explain(channels=[4]), ["channels", "from 0 to 3", "[4]"]),
        (lambda: explain(neurons=np.ones((5, 4), bool)), ["neurons", "(5, 4, 4)", "(5, 4)"]),
        (lambda: explain(engine="afine"), ["afine", "affine", "Did you mean"]),
        (lambda: explain(chunk_size=0), ["chunk_size", "positive"]),
        (lambda: jaxcam.log_derivatives(jnp.sum, X[0], chunk_size=-3), ["chunk_size", "-3"]),
        (lambda: jaxcam.log_derivatives(jnp.sum, X[0], chunk_size=2.5), ["chunk_size", "2.5"]),
        (lambda: jaxcam.log_derivatives(jnp.argmax, X[0]), ["log_derivatives", "floating", "int"]),
        (lambda: jaxcam.explain_engine(jnp.any, X[0]), ["explain_engine", "bool", "comparison"]),
        (
            lambda: jaxcam.check_derivatives(lambda a: jnp.fft.fft(a).sum(), X[0]),
            ["check_derivatives", "complex64", "real part"],
        ),
        (lambda: jaxcam.log_derivatives("u", X[0]), ["log_derivatives", "a function"]),
        (
            lambda: jaxcam.log_derivatives(lambda a: np.tanh(a)[0, 0, 0], X[0]),
            ["NumPy", "jax.numpy"],
        ),
        (lambda: jaxcam.explain_engine(lambda a: a["c"], X[0]), ["TypeError", "(5, 4, 2)"]),
        (lambda: jaxcam.explain_engine(lambda a: a.sum() if a.sum() else 0.0, X[0]), ["jnp.where"]),
        (lambda: jaxcam.cam(relu(), X, "grad_cam"), ["cam", "methods.make('grad_cam')"]),
        (lambda: jaxcam.cam(relu(), X, grad_cam), ["a method", "made by a call"]),
        (lambda: jaxcam.cam(tuple(relu()), X, grad_cam()), ["features and scores", "a tuple"]),
        (lambda: jaxcam.half_precision(relu().features), ["half_precision", "features and scores"]),
        (lambda: jaxcam.half_precision(relu(), "fp8"), ["half_precision", "'fp8'"]),
        (lambda: jaxcam.fuse(X[..., 0]), ["fuse", "a list of"]),
        (lambda: jaxcam.upsample(X[..., 0], 16), ["upsample", "as integers", "size 16"]),
        (lambda: jaxcam.fuse([np.float32(1)]), ["fuse", "[batch, *spatial]"]),
        (lambda: jaxcam.cam(relu(), X, grad_cam(), progress=True), ["progress", "got True"]),
        (lambda: jaxcam.cam(relu(), X, grad_cam(), spread=2), ["spread", "got 2"]),
        (lambda: jaxcam.check_derivatives(jnp.sum, X[0], samples=0), ["samples", "got 0"]),
        (lambda: jaxcam.stochastic_derivatives(jnp.sum, X[0], key=0), ["key(0)", "got 0"]),
        (lambda: jaxcam.tokens(grid=3), ["tokens", "grid=", "got 3"]),
        (lambda: explain(_kept(jax.jit)), ["kept from inside a transformation", "outside of it"]),
        (lambda: explain(_kept(jax.vmap)), ["kept from inside a transformation", "outside of it"]),
        (lambda: explain(poles="round"), ["poles", "'bounded' or 'raw'", "'round'"]),
        (lambda: explain(numerator="d3"), ["numerator", "'d2' or 'd1'", "'d3'"]),
        (lambda: jaxcam.cam(relu(), X, jaxcam.smooth(grad_cam())), ["needs a key", "key="]),
    ],
)
def test_the_message_names_the_need_and_what_came(call, words):
    with pytest.raises(JaxcamError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_key_is_required():
    with pytest.raises(TypeError, match="key"):
        jaxcam.smooth_grad_cam_pp(relu(), X)


def test_a_layer_that_the_score_does_not_depend_on():
    aside = jaxcam.Split(relu().features, lambda a, x: x.mean((1, 2)) @ jnp.ones((2, 5)))
    with pytest.raises(JaxcamError, match="does not depend on this layer"):
        explain(aside)
    with pytest.raises(JaxcamError, match=r"recipro_cam.*does not depend on this layer"):
        jaxcam.cam(aside, X, jaxcam.methods.recipro_cam())
    constant = relu()._replace(scores=lambda a, x: np.ones((1, 5), np.float32))
    with pytest.raises(JaxcamError, match="does not depend on this layer"):
        explain(constant)
    switched = jaxcam.Split(
        relu().features, lambda a, x: (a > 0).astype(x.dtype).mean((1, 2)) @ jnp.ones((4, 5))
    )
    with pytest.raises(JaxcamError, match="except through comparisons"):
        explain(switched)


def test_a_log_score_that_does_not_depend_on_the_activations():
    for u in (lambda a: 1.0, lambda a: jnp.round(a).sum()):
        with pytest.warns(JaxcamWarning, match=r"log_derivatives: needs a score that depends"):
            u1, *_ = jaxcam.log_derivatives(u, jnp.ones((2, 2)))
        assert not u1.any()


def test_logit_on_a_piecewise_affine_tail_is_refused_and_elsewhere_served():
    with pytest.raises(JaxcamError, match=r"alpha is 0/0.*exp_logit"):
        explain(relu(), target=targets.logit(1))
    with pytest.raises(JaxcamError, match=r"exp_logit"):
        explain(smooth(), target=targets.logit(1), engine="exponential")
    assert explain(smooth(), target=targets.logit(1)).map.max() > 0
    assert jaxcam.cam(relu(), X, grad_cam(), targets.logit(1)).map.max() > 0


def test_an_engine_that_does_not_apply_is_refused_with_the_operation():
    with pytest.raises(NotProved) as caught:
        explain(smooth(), engine="affine")
    assert all(word in str(caught.value) for word in ("affine", "integer_pow", "'powered'"))


def test_a_network_that_does_not_run_on_the_input():
    with pytest.raises(JaxcamError, match=r"\(1, 5, 4, 3\).*Check the rank and size.*batch axis"):
        explain(x=np.ones((1, 5, 4, 3), np.float32))


def test_scores_and_layers_of_the_wrong_shape():
    flat = jaxcam.Split(lambda x: x.reshape(len(x), -1), lambda a, x: a)
    with pytest.raises(JaxcamError, match=r"features\(x\).*at least one spatial axis"):
        explain(flat)
    scalar = jaxcam.Split(relu().features, lambda a, x: a.mean((1, 2, 3)))
    with pytest.raises(JaxcamError, match=r"scores\(a, x\).*\[batch, classes\]"):
        explain(scalar)
    counted = jaxcam.Split(relu().features, lambda a, x: (a > 0).sum((1, 2)))
    with pytest.raises(JaxcamError, match=r"scores\(a, x\): needs floating scores.*int32\[1,4\]"):
        explain(counted)
    several = jaxcam.Split(lambda x: (x, x), lambda a, x: a[0].mean((1, 2)))
    with pytest.raises(JaxcamError, match=r"features\(x\).*one array.*tuple\(float32\["):
        explain(several)


def test_nothing_non_finite_leaves_silently():
    broken = weights()._replace(head=np.full((4, 5), np.nan, np.float32))
    split = relu()._replace(scores=jax.tree_util.Partial(relu().scores.func, broken))
    with pytest.raises(JaxcamError, match=r"finite maps; got NaN or infinity in image \[0\]"):
        explain(split)
    traced = jax.jit(lambda x: explain(split, x))(X)
    assert not traced.diagnostics.finite[0]


def test_nothing_blank_leaves_silently():
    dead = relu()._replace(features=lambda x: jnp.zeros((*x.shape[:-1], 4)))
    with pytest.warns(JaxcamWarning, match=r"image \[0\] is blank"):
        result = explain(dead)
    assert result.diagnostics.blank[0]
    assert (result.map == 0).all()


def test_a_class_out_of_range_inside_jit_is_seen_in_the_diagnostics():
    result = jax.jit(lambda i: explain(target=i))(jnp.int32(9))
    assert not result.diagnostics.finite[0]


def test_a_tail_that_cannot_be_differentiated_backwards_is_served_or_refused_in_words():
    def loop(a, x):
        steps = jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] * 1.5), (0, a))
        return jnp.tanh(steps[1]).mean((1, 2)) @ weights().head

    looped = jaxcam.Split(functools.partial(features, weights(), act=jnp.tanh), loop)
    assert jaxcam.cam(looped, X, grad_cam_pp(), 1).diagnostics.report.engine == "directional"
    with pytest.raises(NotProved, match="gradient cannot be traced"):
        jaxcam.cam(looped, X, grad_cam_pp(), 1, engine="affine")


def test_the_affine_network_needs_no_engine_named():
    assert explain(affine(), engine="affine").diagnostics.report.exact
