"""CAM itself: defined behind global average pooling and one dense layer, and refused elsewhere."""

import jax.numpy as jnp
import numpy as np
import pytest
from networks import affine, images, relu, smooth

import jaxcam
from jaxcam import methods, targets
from jaxcam.errors import JaxcamError


def test_cam_is_grad_cam_and_hires_cam_times_positions():
    x = images()
    alike = [jaxcam.cam(affine(), x, m, 1).signed
             for m in (methods.cam(), methods.grad_cam(), methods.hires_cam())]  # fmt: skip
    count = alike[0].size
    np.testing.assert_allclose(alike[0], alike[1] * count, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alike[0], alike[2] * count, rtol=1e-5, atol=1e-5)


def by_place(a, x):
    return jnp.einsum("bhwk,hw->bk", a, jnp.arange(20.0).reshape(5, 4))


@pytest.mark.parametrize(
    ("split", "target", "words"),
    [
        (relu(), 1, "a ReLU or a maximum lies behind"),
        (smooth(), 1, "bends with the activations"),
        (affine(), targets.softmax(1), "more behind the pooling"),
        (jaxcam.Split(lambda x: x, by_place), 1, "not proved to be the same at every position"),
    ],
    ids=["relu", "gelu", "softmax", "places"],
)  # fmt: skip
def test_cam_is_refused_where_there_is_more(split, target, words):
    with pytest.raises(JaxcamError, match=f"cam: needs a score that is one dense layer.*{words}"):
        jaxcam.cam(split, images(), methods.cam(), target)
