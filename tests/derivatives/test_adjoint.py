"""The engine of small tangents, whatever stands in a tail: right, or a refusal in words."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import programs
import pytest
import rows
import tails
import test_structure
from engines import QUICK, derive
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax import lax
from programs import conv, dense, spatial_mean

import jaxcam
from jaxcam.derivatives.auto import ENGINES, choose
from jaxcam.derivatives.engines import adjoint
from jaxcam.derivatives.traced import trace
from jaxcam.errors import JaxcamError, NotProved
from jaxcam.jaxprs import loops as chunks


def table(rows):
    return pytest.mark.parametrize("row", rows.values(), ids=rows)


def scored(layers):
    """Give ``u``: read out all numbers that ``layers(a)`` makes, each with its own weight."""
    return lambda a: programs.read_out(layers(a))


def point(*shape):
    return tails.normal("point of the adjoint", *shape)


def assert_close(ours, theirs, bound=1e-10):
    """Compare ``u1, u2, u3``, each relative to its largest; NaN is far from anything."""
    largest = max(abs(t).max() for t in theirs)
    for x, y in zip(ours, theirs, strict=True):
        size = max(abs(y).max(), 1e-6 * largest, 1e-5)  # numbers in a score are about one
        assert abs(np.asarray(x, np.float64) - y).max() <= bound * size


# Which of the named forms is proved, and what speaks against one by one operation.


def normalised(x):
    return programs.normalise(x, -1)


FORMS = {
    "gap_layernorm_dense": ("peeled", lambda a: normalised(spatial_mean(a))),
    "gap_dense_softmax": ("peeled", lambda a: jax.nn.log_softmax(dense(spatial_mean(a), "s"))),
    "conv_gap_tanh": ("peeled", lambda a: jnp.tanh(spatial_mean(conv(a, "one", padding=(2, 2))))),
    "conv_act": ("powered", lambda a: jax.nn.gelu(conv(a, "one"))),
    "dense_act_dense": ("powered", lambda a: dense(jax.nn.gelu(dense(a.reshape(-1), "h")), "o")),
    "two_acts_apart": ("powered", lambda a: jnp.tanh(conv(a, "one")) + jax.nn.silu(a)),
    "layernorm": ("coloured", normalised),
    "pointwise_mlp": (
        "coloured",
        lambda a: jnp.tanh(conv(jax.nn.gelu(conv(a, "one", size=1)), "two", size=1)),
    ),
    "two_convs": ("adjoint", lambda a: jax.nn.gelu(conv(jax.nn.gelu(conv(a, "one")), "two"))),
    "squeeze_excite": (
        "adjoint",
        lambda a: a * jnp.broadcast_to(jax.nn.sigmoid(spatial_mean(a)), a.shape),
    ),
    "convnext": ("adjoint", tails.linen(tails.ConvNeXt)),
}


@table(FORMS)
def test_the_form_is_proved(row):
    form, layers = row
    u, a = scored(layers), jnp.asarray(point(6, 6, 3), jnp.float32)
    found = [c.name for c in jaxcam.explain_engine(u, a).candidates if c.proof.applies]
    assert form in found
    assert choose(form, trace(u, a)).name == form


# One operation away from the form that is asked for, and the words for it.
SPOILED = {
    "second_act": (
        "powered",
        "tanh follows sin",
        lambda a: jnp.tanh(conv(jnp.sin(conv(a, "one")), "two")),
    ),
    "act_of_a_chain": (
        "powered",
        "exp follows tanh",
        lambda a: jnp.exp(jax.nn.gelu(conv(a, "one")).sum(0)),
    ),
    "product": ("powered", "mul", lambda a: conv(a, "one") * conv(a, "two")),
    "quotient": ("powered", "div", lambda a: a / (2 + conv(a, "one"))),
    "softmax": ("powered", "div|softmax|exp", lambda a: jax.nn.softmax(conv(a, "one"), 0)),
    "act_before_the_pool": (
        "peeled",
        "depend on the position",
        lambda a: jnp.tanh(spatial_mean(jnp.tanh(a))),
    ),
    "wide_kernel": (
        "coloured",
        "positions meet in tanh",
        lambda a: jnp.exp(dense(jnp.tanh(conv(a, "one")), "two")),
    ),
    "norm_over_positions": (
        "coloured",
        "positions meet in",
        lambda a: programs.normalise(a, (0, 1)),
    ),
}


@table(SPOILED)
def test_one_operation_too_many_is_named(row):
    form, words, layers = row
    a = jnp.asarray(point(6, 6, 3), jnp.float32)
    with pytest.raises(NotProved, match=f"engine='{form}'.*({words})"):
        jaxcam.log_derivatives(scored(layers), a, engine=form)


# Tails at random.

CASES = st.tuples(
    st.sampled_from([(4, 3, 2), (5, 2), (4, 4, 1), (1, 4, 2), (6,), (2, 2, 2, 2), (8, 1)]),
    test_structure.lines(*programs.EVERY, least=2, most=7),
)


def small_program(chosen):
    """Make ``u`` of lines; the last bends, so that what is affine before it is seen."""
    steps = programs.EVERY
    return test_structure.program((*chosen, ("tanh", 0, 0, 0)), steps, programs.read_out)


def at_least_a_map(u, shape):
    """See a vector as a map of one position."""
    return u if len(shape) > 1 else lambda a: u(a[None])


def check(case, how="jit"):
    """Hold every exact engine that applies against brute force; give the form that was proved."""
    shape, chosen = case
    u, a = at_least_a_map(small_program(chosen), shape), point(*shape)
    truth = oracles.brute_force(u, a)
    if not np.isfinite(truth).all():
        return None
    with jax.enable_x64(True):
        once = trace(u, jnp.asarray(a))
        proofs = [engine.prove(once, engine.name) for engine in ENGINES]
        for engine, proof in zip(ENGINES, proofs, strict=True):
            if engine.exact and proof.applies and engine.name != "directional":
                call = functools.partial(engine.derive, once)
                run = jax.jit(call, compiler_options=QUICK) if how == "jit" else call
                assert_close(run(jnp.asarray(a))[0], truth)
    forms = [p for e, p in zip(ENGINES, proofs, strict=True) if e.name == "adjoint"]
    assert all(proof.applies or "empty" in proof.words for proof in forms), forms[0].words
    return forms[0].form


@pytest.mark.parametrize(
    "examples", [4, pytest.param(200, marks=pytest.mark.slow)], ids=("few", "many")
)
def test_tails_at_random(examples):
    found = []
    phases = [Phase.explicit, Phase.generate]  # shrinking would take minutes

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, phases=phases)
    @given(CASES)
    def each(case):
        found.append(check(case))

    each()
    assert found.count(None) <= len(found) / 5
    assert "adjoint" in found


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 3, 2), (5, 2)], ids=str)
@pytest.mark.parametrize("name", programs.EVERY)
def test_each_step_between_two_bends(name, shape):
    """After a convolution whose windows run over the ends, and before a bend and one more."""
    check((shape, [("conv_two_wide", 0, 0, 0), ("weigh_all", 0, 0, 0), (name, 0, 1, 2)]))
    check((shape, [("silu", 0, 0, 0), ("conv", 0, 0, 0), (name, 0, 1, 2), ("conv", 0, 0, 0)]))


# Odd tails, one by one.

KEY = 3


def dropped(a):
    """Drop half of the numbers, by a key made here and by one that is split."""
    one, two = jax.random.split(jax.random.key(KEY))
    kept = jax.random.bernoulli(one, 0.5, a.shape).astype(a.dtype)
    return jnp.tanh(a * kept + jax.random.normal(two, a.shape, a.dtype)) ** 2


def downsampled(a):
    """A residual block that halves the map."""
    x = conv(jnp.tanh(conv(a, "first", 4, stride=2)), "second", 4)
    return jnp.tanh(x + conv(a, "shortcut", 4, size=1, stride=2))


def channels_first(a):
    """Convolve with channels first, and channels as if they were places."""
    x = lax.conv_general_dilated(
        a.transpose(2, 0, 1)[None], programs.weights("first", a, 4, 3, 3, 3), (1, 1), "SAME"
    )
    kernel = programs.weights("second", a, 2, x.shape[2], 3, 3)
    axes = ("NHCW", "OIHW", "NCHW")
    return jnp.tanh(
        lax.conv_general_dilated(jnp.tanh(x), kernel, (1, 1), "SAME", (1, 1), None, axes)
    )


def wrapped(a):
    """Convolve around the ends, as on a torus."""
    padded = jnp.pad(jnp.tanh(conv(a, "one")), ((1, 1), (1, 1), (0, 0)), mode="wrap")
    return jnp.tanh(conv(padded, "two", padding="VALID"))


def cropped(a):
    """Take places away by negative padding."""
    x = jnp.tanh(conv(a, "crop", size=1, padding=(-2, -1)))
    return jnp.tanh(conv(x, "two"))


def places_as_channels(a):
    """A window that has run over the ends, and whose axis is the channels of what follows."""
    x = conv(a, "moved", size=1, padding=(2, -1))
    return jnp.tanh(conv(x.T, "mixed", 2, size=1)) * programs.weights("out", a, 3, 2)


def turned_by_columns(a):
    """Broadcast over positions, then read column by column: constant along the channels."""
    gate = jnp.broadcast_to(jax.nn.sigmoid(a.mean(0))[None], a.shape)
    return jnp.tanh(a * jnp.reshape(gate, a.shape, order="F"))


def padded_by_hand(a):
    """Pad and crop by operations of their own, with another number and between the places."""
    config = [(1, -1, 1), (2, 1, 0), (0, 0, 0)]
    x = jnp.tanh(lax.pad(conv(a, "one"), jnp.asarray(0.5, a.dtype), config))
    return jnp.tanh(conv(jnp.pad(x, ((1, 1), (1, 1), (0, 0))), "two", padding="VALID", stride=2))


def turned_round(a):
    """Flip, roll, reflect, repeat the edge, go round and thin out between convolutions."""
    x = jnp.tanh(conv(jnp.roll(a[::-1], 1, 1), "one"))
    x = jnp.pad(x, ((1, 2), (2, 0), (0, 0)), mode="reflect")
    x = jnp.pad(jnp.tanh(conv(x, "two")), ((0, 0), (1, 1), (0, 0)), mode="edge")
    return jnp.tanh(conv(jnp.pad(x, ((1, 1), (0, 0), (0, 0)), mode="wrap")[::2, 1::2], "three"))


def pooled_twice(a):
    """Take the maximum of windows that overlap, and the mean of others."""
    x = windows_of(conv(a, "one"), -jnp.inf, lax.max, (3, 3, 1), (2, 2, 1))
    x = windows_of(jnp.tanh(conv(x, "two")), 0.0, lax.add, (2, 3, 1), (2, 1, 1)) / 6
    return jnp.tanh(x)


def windows_of(x, start, combine, sizes, strides):
    return lax.reduce_window(x, np.asarray(start, x.dtype), combine, sizes, strides, "SAME")


def enlarged(a):
    """Enlarge by repetition, by nearest neighbours, by tiles; pick rows; transpose a stride."""
    x = jnp.repeat(jnp.repeat(a, 2, 0), 3, 1)
    x = jnp.tanh(conv(jax.image.resize(x, (5, 8, a.shape[-1]), "nearest"), "one"))
    x = jnp.tile(jnp.take(x, np.array([4, 0, 1, 1]), 0)[:, ::2], (2, 1, 1))
    return jnp.tanh(conv(jnp.tanh(x), "two", stride=3, expansion=2, padding=(1, 2)))


def split_and_joined(a):
    """Split, with empty parts too; gate one half by the other; shuffle the channels."""
    x = conv(a, "one", 4)
    none, front, back = jnp.split(x, [0, 1], 0)
    x = jnp.concatenate([back, none, front])
    x = jax.nn.glu(x.reshape(*x.shape[:-1], 2, 2).swapaxes(-1, -2).reshape(x.shape))
    return jnp.tanh(conv(jnp.roll(jnp.tanh(x), 0, 0), "two"))


def written_over(a):
    """Write at fixed places, add at others, and put in order."""
    x = jnp.tanh(conv(a, "one"))
    x = lax.dynamic_update_slice(x, 2 * a[:2, 1:3], (1, 1, 0))
    x = x.at[np.array([0, 2])].add(a[:2] ** 2).at[1, 1].set(a[0, 0])
    keys, others = lax.sort((x, a), dimension=1, num_keys=1)
    return jnp.tanh(keys * others) + lax.top_k(x, 2)[0].sum(-1, keepdims=True) ** 2


def added_to_itself(a):
    """Both operands of an operation with a function inside are one value."""
    return jnp.tanh(a.at[jnp.array([1, 1, 2, 0, 3])].add(a))


def bent_dense(a, width=4):
    return dense(jnp.tanh(dense(a, "first")), "second", width)


def conv_of_itself(a):
    kernel = a[:2, :2, :, None] * jnp.ones((1, 1, 1, 2), a.dtype)
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(a[None], kernel, (1, 1), "SAME", dimension_numbers=axes)


def image_filtered(a):
    image = programs.weights("image", a, 1, 6, 6, 3)
    axes = ("NHWC", "HWIO", "NHWC")
    found = lax.conv_general_dilated(
        image, a[..., None], (1, 1), "VALID", dimension_numbers=axes
    )  # fmt: skip
    return jnp.tanh(found)


def switched(a):
    return lax.switch(jnp.argmax(a[0, 0]), [jnp.tanh, jnp.sin, jnp.exp], a)


def scanned(a):
    return lax.scan(lambda c, _: (jnp.tanh(c) * 1.1, c**2), a, None, length=3)[1]


def looped_while(a):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, a))[1]


def printed(a):
    jax.debug.callback(lambda total: None, a.sum())
    return jnp.tanh(a)


def resized(a):
    return jnp.tanh(jax.image.resize(jnp.tanh(a), (7, 7, a.shape[-1]), "bilinear"))


def used_inside_and_outside(a):
    """A gate that is part of a chain of operations on ``a``, and seen by another."""
    gate = jax.nn.sigmoid(a)
    return conv(a * gate, "one") * conv(gate, "two")


def in_complex_numbers(a):
    return jnp.real(jnp.exp(lax.complex(a, a)))


def spectrum(a):
    return jnp.abs(jnp.fft.fft2(a, axes=(0, 1))) ** 2


def written_to_a_reference(a):
    cell = jax.new_ref(jnp.zeros_like(a))
    cell[...] = a
    return cell[...] ** 2


MAP = (4, 4, 3)
RIGHT = {
    "dropped": (dropped, MAP),
    "cond": (lambda a: lax.cond(a.sum() > 0, jnp.tanh, jnp.sin, a), MAP),
    "switch": (switched, MAP),
    "scan": (scanned, MAP),
    "rounded": (lambda a: jnp.round(3 * a) * a**2, MAP),
    "gathered": (lambda a: a[jnp.argmax(a[:, 0, 0])] ** 3 * jnp.tanh(a[0]), MAP),
    "constant": (lambda a: jnp.full((1, 1), 3, a.dtype), MAP),
    "flat": (jnp.round, MAP),
    "one_element": (lambda a: jnp.exp(a[1:2, 2, 0]), MAP),
    "vector": (lambda a: jnp.tanh(jnp.outer(a, a).sum(0)), (5,)),
    "vector_dense": (lambda a: jnp.tanh(dense(a[None], "vector")), (5,)),
    "one_place": (lambda a: jnp.tanh(conv(a, "one")), (1, 1, 3)),
    "one_row": (lambda a: jnp.tanh(conv(jnp.tanh(conv(a, "one")), "two")), (1, 4, 1)),
    "one_number": (jnp.tanh, (1, 1, 1)),
    "windows_over_the_ends": (lambda a: jnp.tanh(conv(conv(a, "one"), "two")), (7, 7, 2)),
    "weighed_between": (
        lambda a: jnp.tanh(conv(conv(a, "one") * programs.weights("w", a, 7, 7, 1) + 1, "two")),
        (7, 7, 2),
    ),
    "norm_between": (lambda a: jnp.tanh(conv(normalised(conv(a, "one")), "two")), (6, 6, 2)),
    "cropped": (cropped, MAP),
    "places_as_channels": (places_as_channels, (5, 3)),
    "turned_by_columns": (turned_by_columns, (3, 3)),
    "added_to_itself": (added_to_itself, (5, 2)),
    "cropped_first": (lambda a: jnp.tanh(conv(a[1:-1], "one")), (7, 4, 1)),
    "padded_by_hand": (padded_by_hand, (5, 4, 2)),
    "turned_round": (turned_round, (5, 4, 2)),
    "pooled_twice": (pooled_twice, (7, 6, 2)),
    "enlarged": (enlarged, (3, 3, 2)),
    "split_and_joined": (split_and_joined, (4, 3, 2)),
    "written_over": (written_over, MAP),
    "downsampled": (downsampled, (5, 5, 3)),
    "dilated": (
        lambda a: jnp.tanh(conv(jnp.tanh(conv(a, "one", dilation=2)), "two")),
        (6, 6, 2),
    ),
    "grouped": (
        lambda a: jnp.tanh(conv(jnp.tanh(conv(a, "one", 4, groups=2)), "two", 8, groups=4)),
        (4, 4, 4),
    ),
    "transposed": (
        lambda a: jnp.tanh(conv(conv(a, "one"), "two", expansion=2, padding=(2, 1))),
        MAP,
    ),
    "batch_twice": (
        lambda a: jax.vmap(jax.vmap(lambda b: jnp.tanh(conv(b, "one"))))(a[None, None]),
        MAP,
    ),
    "batch_of_two": (
        lambda a: jax.vmap(lambda b: jnp.tanh(conv(jnp.tanh(b), "one")))(jnp.stack([a, 2 * a])),
        MAP,
    ),
    "channels_first": (channels_first, (5, 4, 3)),
    "wrapped": (wrapped, MAP),
    "kernel_varies": (image_filtered, (2, 2, 3)),
    "both_vary": (conv_of_itself, MAP),
    "callback": (printed, MAP),
    "resized": (resized, (3, 3, 2)),
    "quotient": (lambda a: conv(a, "one") / (2 + jnp.tanh(conv(jnp.tanh(a), "two"))), MAP),
    "power": (lambda a: jnp.exp(conv(a, "one")) ** jnp.tanh(conv(jnp.tanh(a), "two")), MAP),
    "used_inside_and_outside": (used_inside_and_outside, MAP),
    "depthwise": (
        lambda a: jnp.tanh(conv(jnp.tanh(conv(a, "one", groups=0)), "two", 6, groups=0)),
        MAP,
    ),
    "joined_axes": (
        lambda a: jnp.tanh(dense(a.reshape(1, -1), "one") + a[..., 0].reshape(1, -1)[:, :3]),
        MAP,
    ),
    "whole_between": (lambda a: jnp.tanh(jnp.cumprod(jnp.tanh(conv(a, "one")), 0)), MAP),
    "same_summed": (
        lambda a: jnp.tanh((a + jnp.broadcast_to(spatial_mean(a), a.shape)).sum((0, 1))),
        MAP,
    ),
    "ends_summed": (lambda a: jnp.tanh(conv(a, "one").sum((0, 1))), (6, 6, 2)),
    "cumprod": (lambda a: jnp.cumprod(a, 0), MAP),
    "scattered": (lambda a: jnp.tanh(a).at[jnp.array([0, 0, 1])].add(a[:3] ** 2), MAP),
    "no_rule": (lambda a: lax.lgamma(jnp.exp(a)), MAP),
    "variance": (lambda a: a.std((0, 1)), MAP),
    # Sums that go ahead of products, or may not: of a bend, of a scale for each place, of channels.
    "summed_dense": (lambda a: jnp.tanh(bent_dense(a).sum((0, 1))), MAP),
    "summed_residual": (lambda a: jnp.tanh((a + bent_dense(a, 3) / 3).mean((0, 1))), MAP),
    "summed_matrix_first": (
        lambda a: jnp.tanh(
            jnp.einsum("km,hwk->mhw", programs.weights("m", a, 4, 5), bent_dense(a)).sum((1, 2))
        ),
        MAP,
    ),
    "summed_row": (lambda a: jnp.tanh(bent_dense(a).sum(0)), MAP),
    "summed_channels": (lambda a: jnp.tanh(bent_dense(a).sum((0, 2))), MAP),
    "summed_by_place": (
        lambda a: jnp.tanh((bent_dense(a) * programs.weights("place", a, 3, 3, 1)).sum((0, 1))),
        (3, 3, 2),
    ),
    "summed_point_convolution": (
        lambda a: jnp.tanh(conv(jnp.tanh(conv(a, "one")), "two", size=1).sum((0, 1))),
        MAP,
    ),
    "summed_wide_convolution": (
        lambda a: jnp.tanh(conv(jnp.tanh(conv(a, "one")), "two").sum((0, 1))),
        MAP,
    ),
    "summed_strided_convolution": (
        lambda a: jnp.tanh(conv(jnp.tanh(conv(a, "one")), "two", size=1, stride=2).sum((0, 1))),
        MAP,
    ),
    "summed_turned": (
        lambda a: jnp.tanh(bent_dense(a).transpose(2, 0, 1).reshape(4, 1, -1, 4).sum((1, 2))),
        MAP,
    ),
    "summed_joined": (lambda a: jnp.tanh(bent_dense(a).reshape(-1, 4).sum(0)), MAP),
    "summed_layernorm": (
        lambda a: jnp.tanh(
            dense(jnp.tanh(dense(tails.layer_norm(a), "first")), "second").mean((0, 1))
        ),
        MAP,
    ),
    "summed_bends": (
        lambda a: jnp.tanh((jnp.exp(dense(a, "one") / 3) * dense(a, "two")).sum((0, 1))),
        MAP,
    ),
}


# One of each kind of layer and of each way in which windows are moved about.
KINDS = (
    *("dropped", "switch", "scan", "gathered", "constant", "vector_dense", "one_row", "one_number"),
    *("windows_over_the_ends", "cropped", "places_as_channels", "turned_by_columns"),
    *("added_to_itself", "padded_by_hand", "split_and_joined", "downsampled", "grouped"),
    *("transposed", "batch_of_two", "channels_first", "kernel_varies", "quotient", "joined_axes"),
    *("same_summed", "cumprod", "scattered", "summed_residual", "summed_by_place", "summed_joined"),
)


@rows.table("row", RIGHT, KINDS)
@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("adjoint", "jit"),
        pytest.param("adjoint", "eager", marks=pytest.mark.slow),
        pytest.param("auto", "jit", marks=pytest.mark.slow),
    ],
    ids=("adjoint", "eager", "auto"),
)
def test_odd_tails_are_right(engine, how, row):
    layers, shape = row
    a = point(*shape)
    assert_close(derive(scored(layers), a, engine=engine, how=how), truth(layers, shape))


@functools.cache
def truth(layers, shape):
    return oracles.brute_force(scored(layers), point(*shape))


# How dear they are: operations, beside those of the plain convolution.


def with_head(moved, padding="SAME"):
    """Give a score of what was moved about, seen by a convolution and a bend."""
    return lambda a: spatial_mean(jax.nn.silu(conv(moved(a), "seen", 8, padding=padding))).sum()


AROUND = ((1, 1), (1, 1), (0, 0))
DEARER = {
    "pad": (1.2, with_head(lambda a: jnp.pad(a, AROUND), "VALID")),
    "crop": (2, with_head(lambda a: a[1:-1, 2:])),
    "flip": (1.2, with_head(lambda a: a[::-1, ::-1])),
    "shuffle": (1.2, with_head(lambda a: jnp.concatenate(jnp.split(a, 2, -1)[::-1], -1))),
    "every_second": (2, with_head(lambda a: a[::2, ::2])),
    "roll": (4, with_head(lambda a: jnp.roll(a, (1, 2), (0, 1)))),
    "mean_pool": (4, with_head(lambda a: windows_of(a, 0.0, lax.add, (2, 2, 1), (2, 2, 1)))),
    "max_pool": (8, with_head(lambda a: windows_of(a, -jnp.inf, lax.max, (3, 3, 1), (2, 2, 1)))),
    "edge": (5, with_head(lambda a: jnp.pad(a, AROUND, mode="edge"), "VALID")),
    "reflect": (5, with_head(lambda a: jnp.pad(a, AROUND, mode="reflect"), "VALID")),
    "wrap": (5, with_head(lambda a: jnp.pad(a, AROUND, mode="wrap"), "VALID")),
    "mean": (8, with_head(lambda a: jnp.pad(a, AROUND, mode="mean"), "VALID")),
    "maximum": (15, with_head(lambda a: jnp.pad(a, AROUND, mode="maximum"), "VALID")),
    "nearest": (5, with_head(lambda a: jax.image.resize(a, (28, 28, a.shape[-1]), "nearest"))),
    "bilinear": (20, with_head(lambda a: jax.image.resize(a, (28, 28, a.shape[-1]), "linear"))),
}


@table(DEARER)
def test_what_moves_places_about_is_not_stored_whole(row):
    most, u = row
    a = jax.ShapeDtypeStruct((14, 14, 8), "float32")
    plain = choose("auto", trace(with_head(lambda a: a), a)).operations
    assert choose("auto", trace(u, a)).operations <= most * plain


def test_what_is_left_of_windows_beyond_the_ends_is_right():
    """Of places that a padding repeats or sums up, on a map that is larger than the windows."""
    a = point(6, 5, 1)

    def u(a):
        def seen(mode):
            padded = jnp.pad(a, ((1, 1), (2, 1), (0, 0)), mode=mode)
            return jnp.tanh(conv(padded, mode, 2, padding="VALID")).sum()

        return sum(map(seen, ("reflect", "wrap", "mean")))

    assert_close(derive(u, a), oracles.brute_force(u, a))


# What is refused, the words of it, and the same in operations that brute force can differentiate.
REFUSED = {
    "while": (looped_while, "[Rr]everse-mode diff", lambda a: jnp.sin(jnp.sin(jnp.sin(a)))),
    "custom_vjp": (tails.silu_by_hand, "custom_vjp", jax.nn.silu),
    "complex": (in_complex_numbers, "complex", lambda a: jnp.exp(a) * jnp.cos(a)),
    "spectrum": (spectrum, "complex", spectrum),
    "reference": (written_to_a_reference, "[Rr]ef", jnp.square),
}


@table(REFUSED)
def test_the_rest_is_refused_in_words(row):
    layers, words, _ = row
    u, a = scored(layers), jnp.asarray(point(*MAP), jnp.float32)
    proof = adjoint.prove(trace(u, a))
    assert not proof.applies
    assert re.search(words, proof.words)
    with pytest.raises(NotProved, match=re.escape(proof.words)):
        jaxcam.log_derivatives(u, a, engine="adjoint")


@table(REFUSED)
def test_auto_is_right_on_the_rest_or_refuses(row):
    layers, _, same = row
    try:
        found = derive(scored(layers), point(*MAP), engine="auto")
    except JaxcamError:
        return
    assert_close(found, truth(same, MAP))


def test_complex_numbers_are_refused_where_dtypes_are_promoted():
    with jax.numpy_dtype_promotion("standard"):
        a = jnp.asarray(point(*MAP), jnp.float32)
        for layers in (in_complex_numbers, spectrum):
            assert "complex" in adjoint.prove(trace(scored(layers), a)).words


def test_a_number_is_no_map():
    with pytest.raises(JaxcamError, match="axis"):
        jaxcam.log_derivatives(jnp.exp, jnp.ones(()))


# How it is run.

DEEP = scored(lambda a: jnp.tanh(conv(normalised(jax.nn.gelu(conv(a, "one"))), "two")))


@pytest.mark.parametrize(
    "chunk_size",
    [5, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 7, 16, 23, 1000))],
)
def test_chunks_change_nothing_but_rounding(chunk_size):
    """16 positions and 3 channels: chunks of positions, of channels, and the last not full."""
    a = point(*MAP)
    assert_close(derive(DEEP, a, chunk_size=chunk_size), truth_of_deep(), 1e-12)


@functools.cache
def truth_of_deep():
    return oracles.brute_force(DEEP, point(*MAP))


def test_chunks_that_no_one_asked_for(monkeypatch):
    """Large maps are dealt out by what fits."""
    monkeypatch.setattr(chunks, "BYTES_AT_ONCE", {jax.default_backend(): 400})
    assert_close(derive(DEEP, point(*MAP)), truth_of_deep())


def test_vmap_over_activations_and_weights():
    def u(a, w):
        return jnp.tanh(conv(jnp.tanh(a @ w), "one")).sum() ** 2

    a, w = point(2, *MAP), tails.normal("several weights", 2, 3, 3)
    call = jax.vmap(
        lambda a, w: jaxcam.log_derivatives(lambda a: u(a, w), a, engine="adjoint", chunk_size=5)
    )
    with jax.enable_x64(True):
        found = jax.jit(call, compiler_options=QUICK)(jnp.asarray(a), jnp.asarray(w))
    for i in range(2):
        theirs = oracles.brute_force(lambda a, i=i: u(a, jnp.asarray(w[i], a.dtype)), a[i])
        assert_close([v[i] for v in found], theirs)


SEVERAL = {
    "deep": DEEP,
    "attention": scored(tails.attention),
    "squeeze_excite": scored(FORMS["squeeze_excite"][1]),
    "softmax": scored(FORMS["gap_dense_softmax"][1]),
}


@rows.table("row", SEVERAL, ("squeeze_excite", "softmax"))
@pytest.mark.parametrize(
    ("dtype", "bound"), [("float32", 1e-4), ("bfloat16", 0.1)], ids=("float32", "bfloat16")
)
def test_precision(dtype, bound, row):
    """Half precision gives float32, and errs as the network does."""
    a = jnp.asarray(point(*MAP), dtype)
    found = jax.jit(lambda a: jaxcam.log_derivatives(row, a, engine="adjoint"))(a)
    assert {v.dtype for v in found} == {jnp.dtype("float32")}
    assert_close(found, oracles.brute_force(row, np.asarray(a, np.float64)), bound)


def test_weights_in_half_precision():
    """The middle of a network runs in bfloat16, a softmax in it that is differentiated whole."""
    kernel = tails.normal("half", 3, 4) / 2

    def u(a, dtype):
        hidden = a.astype(dtype) @ jnp.asarray(kernel, dtype)
        return programs.read_out(jax.nn.softmax(jnp.tanh(hidden), -1).astype(a.dtype))

    a = jnp.asarray(point(4, 3), jnp.float32)
    found = jaxcam.log_derivatives(lambda a: u(a, jnp.bfloat16), a, engine="adjoint")
    assert {v.dtype for v in found} == {jnp.dtype("float32")}
    assert_close(found, oracles.brute_force(lambda a: u(a, a.dtype), point(4, 3)), 0.1)
