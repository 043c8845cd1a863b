"""Combining, masking, resizing, stretching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import maps
from jaxcam.errors import JaxcamError


def test_combine_sums_over_feature_maps():
    a = jnp.arange(12.0).reshape(2, 3, 2)
    assert (maps.combine(jnp.array([1.0, -2.0]), a) == a[..., 0] - 2 * a[..., 1]).all()
    per_element = jnp.ones((2, 3, 2))
    assert (maps.combine(per_element, a) == a.sum(-1)).all()


def test_combine_leaves_out_what_is_masked_even_if_it_is_infinite():
    a = jnp.array([[[1.0, jnp.inf]]])
    mask = jnp.array([[[True, False]]])
    assert maps.combine(jnp.array([2.0, 1.0]), a, mask).tolist() == [[2.0]]


def test_upsample_keeps_constants_and_interpolates_between_centres():
    flat = maps.upsample(jnp.full((2, 2, 2), 3.0), (7, 5))
    assert flat.shape == (2, 7, 5)
    assert np.allclose(flat, 3.0)
    ramp = maps.upsample(jnp.array([[0.0, 1.0]]), (4,))
    assert np.allclose(ramp, [[0.0, 0.25, 0.75, 1.0]])


def test_normalize_stretches_each_map_by_itself():
    stretched = maps.normalize(jnp.array([[-1.0, 0.0, 3.0], [5.0, 5.0, 5.0]]))
    assert np.allclose(stretched, [[0.0, 0.25, 1.0], [0.0, 0.0, 0.0]])


def test_channels_as_indices_or_booleans_give_one_mask():
    shape = (2, 3, 3, 4)
    by_index = maps.neuron_mask(jnp.array([1, 3]), None, shape)
    by_flag = maps.neuron_mask(jnp.array([False, True, False, True]), None, shape)
    assert (by_index == by_flag).all()
    assert by_index[0, 0, 0].tolist() == [False, True, False, True]
    assert maps.neuron_mask(None, None, shape).all()


def test_both_subsets_together_are_their_intersection():
    shape = (1, 2, 1, 2)
    neurons = jnp.array([[[True, True]], [[False, True]]])
    both = maps.neuron_mask(jnp.array([0]), neurons, shape)
    assert both[0, :, 0].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("channels", "neurons", "words"),
    [
        ([], None, "at least one feature map"),
        (np.zeros(4, bool), None, "at least one feature map"),
        ([[1]], None, "one axis"),
        ([0.5], None, "indices or booleans"),
        (None, np.zeros((3, 3, 4), bool), "at least one neuron"),
        (None, np.ones((3, 3, 4)), "booleans"),
    ],
)
def test_senseless_subsets_are_refused(channels, neurons, words):
    with pytest.raises(JaxcamError, match=words):
        maps.check_subset(channels, neurons)


def test_subsets_that_do_not_fit_the_layer_are_refused():
    with pytest.raises(
        JaxcamError, match=r"shape \(3, 3, 4\), or \(2, 3, 3, 4\); got shape \(3, 3\)"
    ):
        maps.neuron_mask(None, jnp.ones((3, 3), bool), (2, 3, 3, 4))
    with pytest.raises(JaxcamError, match=r"shape \(4,\); got booleans of shape \(3,\)"):
        maps.neuron_mask(jnp.ones(3, bool), None, (2, 3, 3, 4))
    with pytest.raises(JaxcamError, match=r"from 0 to 3; got \[4, -1\]"):
        maps.check_channels(jnp.array([0, 4, -1]), 4)


def test_upsample_names_what_it_needs():
    with pytest.raises(JaxcamError, match="2 spatial axes"):
        maps.upsample(jnp.ones((1, 4, 4)), (8,))


# Several layers.

EARLY = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
LATE = np.asarray([[[0.0, 2.0], [4.0, 1.0]], [[3.0, 3.0], [0.0, 0.0]]], np.float32)


@pytest.mark.parametrize("how", ["mean", "max", "prod"])
@pytest.mark.parametrize("size", [None, (8, 12)])
def test_fused_maps_are_scaled_resized_and_joined(how, size):
    fused = maps.fuse([LATE, EARLY], size, how={"prod": "product"}.get(how, how))
    scaled = []
    for map in (LATE, EARLY):
        large = np.asarray(jax.image.resize(map, (2, *(size or (4, 6))), "linear"))
        scaled.append(np.stack([one / one.max() for one in large]))
    np.testing.assert_allclose(fused, getattr(np, how)(scaled, axis=0), rtol=1e-6)


def test_signed_maps_have_a_mean_and_nothing_else():
    """Each is divided by its largest size, whichever sign that has."""
    fused = maps.fuse([jnp.array([[-4.0, 2.0]]), jnp.array([[1.0, 1.0]])])
    np.testing.assert_allclose(fused, [[0.0, 0.75]])
    for how in ("max", "product"):
        with pytest.raises(JaxcamError, match=f"without negative values, for how='{how}'"):
            maps.fuse([jnp.array([[-4.0, 2.0]])], how=how)


def test_a_blank_map_adds_nothing_and_makes_no_nan():
    fused = maps.fuse([jnp.zeros((1, 2, 2)), jnp.ones((1, 2, 2))])
    np.testing.assert_array_equal(fused, np.full((1, 2, 2), 0.5))


@pytest.mark.parametrize(("given", "how", "words"), [
    ([], "mean", "at least one map"),
    ([LATE], "median", "mean or max or product; got 1 maps and 'median'"),
    ([LATE, EARLY[:1]], "max", "of the same images"),
    ([LATE, EARLY[..., None]], "max", "of the same images"),
])  # fmt: skip
def test_what_cannot_be_fused_is_refused(given, how, words):
    with pytest.raises(JaxcamError, match=words):
        maps.fuse(given, how=how)
