"""The pieces against their definitions, written as loops."""

import numpy as np
import pytest
from flax import nnx

from jaxcam.zoo.parts import (
    AvgPool,
    Flatten,
    GlobalPool,
    GridPool,
    MaxPool,
    batch_norm,
    conv,
    layer_norm,
)

X = np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype(np.float32) - 3


def windows(x, size, stride, padding, fill):
    """Yield every window with its place in the output, padded alike on both sides."""
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = np.pad(x, sides, constant_values=fill)
    for i, top in enumerate(range(0, x.shape[1] - size + 1, stride)):
        for j, left in enumerate(range(0, x.shape[2] - size + 1, stride)):
            yield i, j, x[:, top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "groups"),
    [(3, 2, None, 4), (2, 2, 0, 1), pytest.param(7, 2, None, 2, marks=pytest.mark.slow)],
)
def test_convolution(size, stride, padding, groups):
    layer = conv(4, 8, size, stride=stride, padding=padding, groups=groups, bias=True,
                 rngs=nnx.Rngs(0))  # fmt: skip
    assert layer.bias is not None
    layer.bias[...] = np.arange(8, dtype=np.float32)
    found, kernel = np.asarray(layer(X)), np.asarray(layer.kernel[...])
    pad = size // 2 if padding is None else padding
    share = 8 // groups
    for i, j, window in windows(X, size, stride, pad, 0):
        expected = np.zeros((2, 8))
        for out in range(8):
            own = window[..., out // share * (4 // groups) :][..., : 4 // groups]
            expected[:, out] = (own * kernel[..., out]).sum((1, 2, 3)) + out
        np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-4, atol=1e-4)
    assert found.shape[1:3] == (i + 1, j + 1)


def test_max_pool_pads_with_nothing():
    found = np.asarray(MaxPool(3, 2, padding=1)(X))
    for i, j, window in windows(X, 3, 2, 1, -np.inf):
        np.testing.assert_array_equal(found[:, i, j], window.max((1, 2)))
    assert found.shape[1:3] == (i + 1, j + 1)


@pytest.mark.parametrize("size", [2, 3, 7, 9])
def test_grid_pool_covers_pictures_of_any_size(size):
    found = np.asarray(GridPool(size)(X))
    assert found.shape == (2, size, size, 4)
    for i in range(size):
        for j in range(size):
            rows = slice(int(np.floor(i * 7 / size)), int(np.ceil((i + 1) * 7 / size)))
            columns = slice(int(np.floor(j * 6 / size)), int(np.ceil((j + 1) * 6 / size)))
            expected = X[:, rows, columns].mean((1, 2))
            np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-5)


def test_grid_pool_leaves_its_own_size_alone():
    assert GridPool(6)(X[:, 1:]).tobytes() == X[:, 1:].tobytes()


def test_average_pool_leaves_out_what_fills_no_window():
    found = np.asarray(AvgPool(2)(X))
    assert found.shape == (2, 3, 3, 4)
    for i, j, window in windows(X, 2, 2, 0, 0):
        np.testing.assert_allclose(found[:, i, j], window.mean((1, 2)), rtol=1e-5)


def test_flatten_is_in_torch_s_order_and_pooling_keeps_its_axes():
    np.testing.assert_array_equal(Flatten()(X), X.transpose(0, 3, 1, 2).reshape(2, -1))
    np.testing.assert_allclose(GlobalPool()(X), X.mean((1, 2), keepdims=True), rtol=1e-5)


def test_norms_have_torch_s_constants():
    norm = batch_norm(4, rngs=nnx.Rngs(0))
    norm(X)  # in training: a tenth of the new statistics
    np.testing.assert_allclose(norm.mean[...], 0.1 * X.mean((0, 1, 2)), rtol=1e-4)
    norm.eval()
    mean, var = np.asarray(norm.mean[...]), np.asarray(norm.var[...])
    np.testing.assert_allclose(norm(X), (X - mean) / np.sqrt(var + 1e-5), rtol=1e-4)
    small = 1e-3 * X
    centred = small - small.mean(-1, keepdims=True)
    expected = centred / np.sqrt(small.var(-1, keepdims=True) + 1e-2)
    found = layer_norm(4, epsilon=1e-2, rngs=nnx.Rngs(0))(small)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
