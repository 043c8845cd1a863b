"""What JAX code may do with a call: jit, vmap, grad, reuse of the compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.tree_util import Partial
from networks import images, relu, smooth, weights

import jaxcam
from jaxcam.methods import grad_cam_pp

KEY = jax.random.key(0)
SMOOTH = pytest.param(smooth, marks=pytest.mark.slow)  # takes ten seconds or more each time


def explain(split, x, target=1, key=KEY, **options):
    return jaxcam.smooth_grad_cam_pp(split, x, target, key=key, num_samples=2, **options)


def close(ours, truth):
    return np.allclose(ours, truth, rtol=2e-4, atol=1e-6 * np.abs(truth).max())


@pytest.mark.parametrize("network", [SMOOTH, relu])
def test_jit_gives_the_same(network):
    x = images(2)
    plain = explain(network(), x)
    traced = jax.jit(explain)(network(), x)
    assert close(traced.map, plain.map)
    assert traced.diagnostics.report == plain.diagnostics.report


def test_not_jitted_gives_the_same():
    with jax.disable_jit():
        eager = jaxcam.cam(relu(), images(), grad_cam_pp(), 1)
    assert close(eager.map, jaxcam.cam(relu(), images(), grad_cam_pp(), 1).map)


def test_vmap_over_batches_gives_the_same():
    x = images(4).reshape(2, 2, 5, 4, 2)
    mapped = jax.vmap(lambda x: explain(relu(), x).map)(jnp.asarray(x))
    assert close(mapped[1], explain(relu(), x[1]).map)


@pytest.mark.parametrize("network", [SMOOTH, relu])
def test_the_map_is_differentiable_in_input_and_weights(network):
    x = jnp.asarray(images())
    position = explain(network(), x).map[0].argmax()

    def loss(split, x):
        return explain(split, x).map.reshape(-1)[position]

    by_split, by_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(network(), x)
    leaves = jax.tree.leaves((by_split, by_x))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    direction = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    step = 1e-3
    rise = (
        (loss(network(), x + step * direction) - loss(network(), x - step * direction)) / 2 / step
    )
    assert np.isclose((by_x * direction).sum(), rise, rtol=0.03)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(by_split)) > 0


def closing_over(x):
    """Ways of tracing a call that closes over a known ``x``: only the key, or less, is traced."""
    run = lambda key: explain(relu(), x, key=key).map  # noqa: E731
    level = lambda s: explain(relu(), x, noise_level=s).map  # noqa: E731
    two = jnp.stack([KEY, KEY])

    @jax.custom_vjp
    def by_hand(s):
        return level(s).sum()

    by_hand.defvjp(lambda s: (by_hand(s), None), lambda _, g: (g,))

    def early(key):
        with jax.ensure_compile_time_eval():
            known = run(KEY)
        assert not isinstance(known, jax.core.Tracer)
        return known + 0 * jax.random.uniform(key)

    return {
        "jit in jit": lambda: jax.jit(jax.jit(run))(KEY),
        "vmap": lambda: jax.vmap(run)(two)[0],
        "scan": lambda: jax.lax.scan(lambda c, key: (c, run(key)), 0, two)[1][1],
        "map": lambda: jax.lax.map(run, two)[0],
        "while": lambda: jax.lax.fori_loop(0, 2, lambda i, m: run(KEY), jnp.zeros((1, 5, 4))),
        "cond": lambda: jax.jit(lambda p: jax.lax.cond(p, lambda: run(KEY), lambda: 0 * run(KEY)))(
            True
        ),
        "linearize": lambda: jax.linearize(level, 0.15)[0],
        "checkify": lambda: checkify.checkify(jax.jit(run))(KEY)[1],
        "checkpoint": lambda: jax.value_and_grad(
            jax.checkpoint(lambda s: (level(s).sum(), level(s))), has_aux=True
        )(0.15)[0][1],
        "custom_vjp": lambda: level(0.15) + 0 * jax.grad(by_hand)(0.15),
        "compile-time": lambda: jax.jit(early)(KEY),
    }


@pytest.mark.parametrize("way", closing_over(None))
def test_what_a_traced_call_closes_over_is_no_tracer_and_its_checks_are(way):
    x = jnp.asarray(images())
    found = jax.eval_shape(closing_over(x)[way])
    assert found.shape == (1, 5, 4)


def test_a_call_that_closes_over_everything_gives_the_same():
    x = jnp.asarray(images())
    options = {
        "channels": jnp.array([0, 2]), "neurons": jnp.arange(80).reshape(5, 4, 4) % 3 > 0,
        "noise_level": jnp.float32(0.2), "sample_weights": jnp.float32(0.5),
    }  # fmt: skip
    run = lambda key: explain(relu(), x, jnp.array([1]), key, **options).map  # noqa: E731
    found = jax.jit(lambda keys: jax.lax.map(run, keys))(KEY[None])
    assert close(found[0], run(KEY))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"target": 9}, "a class index from 0 to 4"),
        ({"target": jnp.array([9])}, "a class index from 0 to 4"),
        ({"channels": np.array([-1])}, "feature maps from 0 to 3"),
        ({"channels": jnp.array([4])}, "feature maps from 0 to 3"),
        ({"neurons": np.zeros((5, 4, 4), bool)}, "at least one neuron"),
        ({"noise_level": jnp.float32(-1)}, "noise_level of 0 or more"),
    ],
)
def test_what_is_known_is_checked_inside_jit_too(asked, words):
    x = jnp.asarray(images())
    with pytest.raises(jaxcam.JaxcamError, match=words):
        jax.eval_shape(lambda key: explain(relu(), x, key=key, **asked).map, KEY)


def test_a_class_that_int32_cannot_hold_does_not_become_another():
    with pytest.raises(jaxcam.JaxcamError, match="int32 can hold"):
        explain(relu(), images(), np.array([2**32 + 1]))


def counted():
    """A network that counts how often Python runs it, which is only while it is traced."""
    count = []

    def features(w, x):
        count.append("features")
        return jax.nn.relu(x @ w)

    def scores(w, a, x):
        count.append("scores")
        return jax.nn.silu(a).mean((1, 2)) @ w

    def build(seed):
        rng = np.random.default_rng(seed)
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
        return jaxcam.Split(Partial(features, draw(2, 3)), Partial(scores, draw(3, 4)))

    return build, count


def test_new_image_key_class_noise_and_weights_compile_nothing():
    build, count = counted()
    explain(build(0), images(seed=0), 1)
    traced = len(count)
    assert traced > 0
    first = explain(build(0), images(seed=1), 0)
    other = explain(build(1), images(seed=1), np.int64(0), jax.random.key(5), noise_level=0.7)
    assert len(count) == traced
    assert not np.allclose(first.map, other.map)
    explain(build(0), images(2), 1)
    assert len(count) > traced


def test_new_weights_of_the_samples_and_a_new_tolerance_compile_nothing():
    build, count = counted()
    run = lambda **how: explain(build(0), images(), **how)  # noqa: E731
    first, traced = run(sample_weights="exact"), len(count)
    others = [run(sample_weights=how) for how in ("uniform", 0.3, jnp.float32(0.6))]
    assert len(count) == traced
    assert not any(np.allclose(first.map, other.map, rtol=1e-7) for other in others)
    run(tolerance=0.5)
    traced = len(count)
    run(tolerance=0.2)
    run(tolerance=jnp.float32(0.3), sample_weights=0.5)
    assert len(count) == traced


@pytest.mark.slow
def test_a_tolerance_inside_jit_and_vmap():
    x = images(4).reshape(2, 2, 5, 4, 2)
    run = lambda x, t: explain(relu(), x, tolerance=t, max_samples=200)  # noqa: E731
    plain = [run(half, 0.05) for half in x]
    mapped = jax.jit(jax.vmap(run, in_axes=(0, None)))(x, 0.05)
    for b in range(2):
        taken = mapped.diagnostics.num_samples[b]
        assert (taken == plain[b].diagnostics.num_samples).all()
        assert close(mapped.map[b], plain[b].map)
    with pytest.raises(ValueError, match="Reverse-mode"):
        jax.grad(lambda x: run(x, 0.05).map.sum())(jnp.asarray(x[0]))


@pytest.mark.parametrize(
    "scheme", ["antithetic", pytest.param("orthogonal", marks=pytest.mark.slow)]
)
def test_maps_of_dependent_samples_are_differentiable(scheme):
    slope = jax.grad(lambda t: explain(relu(), images(), sample_weights=t, scheme=scheme).map.sum())
    assert np.isfinite(slope(0.5))
    assert slope(0.5) != 0


def test_one_trace_runs_the_network_a_bounded_number_of_times():
    """Shapes, clean pass, proof, samples: a new loop in here would show as a jump."""
    build, count = counted()
    explain(build(0), images())
    assert len(count) <= 24


def test_weights_are_arguments_of_the_compiled_program_not_constants():
    big = weights()._replace(head=np.zeros((4, 100_000), np.float32))
    split = relu()._replace(scores=Partial(relu().scores.func, big))
    text = jax.jit(explain).lower(split, images()).as_text()
    assert len(text) < 400_000


def test_a_compiled_call_does_not_touch_the_host():
    split, x = jax.device_put((relu(), images()))
    compiled = jax.jit(explain).lower(split, x).compile()
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(compiled(split, x))


@pytest.mark.slow
@pytest.mark.parametrize("network", [smooth, relu])
def test_half_precision_activations_give_finite_single_precision_maps(network):
    x = images()
    w = jax.tree.map(lambda v: jnp.asarray(v, jnp.bfloat16), weights())
    base = network()
    half = jaxcam.Split(
        Partial(lambda w, x: base.features.func(w, x.astype(jnp.bfloat16)), w),
        Partial(lambda w, a, x: base.scores.func(w, a, x.astype(jnp.bfloat16)), w),
    )
    result = explain(half, x)
    assert result.map.dtype == jnp.float32
    assert np.isfinite(result.map).all()
    exact = explain(base, x).map
    assert np.corrcoef(result.map.ravel(), exact.ravel())[0, 1] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("network", [smooth, relu])
@pytest.mark.parametrize("target", [jaxcam.targets.exp_logit, jaxcam.targets.softmax])
def test_logits_of_ten_thousand_give_finite_maps(network, target):
    scaled = weights()._replace(head=weights().head * 1e4)
    split = network()._replace(scores=Partial(network().scores.func, scaled))
    top = int(split.scores(split.features(images()), images()).argmax())
    result = explain(split, images(), target(top if target is jaxcam.targets.exp_logit else 1))
    assert np.abs(result.scores).max() > 5e3
    assert np.isfinite(result.map).all()
    assert result.map.max() > 0


def test_tiny_gradients_keep_their_alphas():
    """A gradient of 1e-15 has a cube below float32: the map must scale with it, not vanish."""
    small = weights()._replace(head=weights().head * 1e-15)
    split = relu()._replace(scores=Partial(relu().scores.func, small))
    plain = jaxcam.cam(relu(), images(), grad_cam_pp(), 1)
    tiny = jaxcam.cam(split, images(), grad_cam_pp(), 1)
    a = np.asarray(relu().features(images()))[0]
    g = np.asarray(jax.grad(lambda a: relu().scores(a[None], images())[0, 1])(jnp.asarray(a)))
    # Without cubes: alpha -> 1/2 as g -> 0.
    expected = 0.5 * np.maximum(g, 0).sum((0, 1)) * 1e-15
    assert np.allclose(tiny.weights[0], expected, rtol=1e-4)
    assert plain.map.max() > 0
