"""Arrays as other programs hand them over are the same numbers, wherever one is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from networks import images, relu

import jaxcam
from jaxcam import JaxcamError, targets
from jaxcam.arrays.door import as_array, as_numpy
from jaxcam.methods import grad_cam

PLAIN = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)


class Tensor:
    """As of torch: it wants a gradient, lies elsewhere, and NumPy may not know its dtype."""

    def __init__(self, values, *, elsewhere=True, named=True):
        self.values, self.elsewhere, self.named = values, elsewhere, named
        self.shape, self.dtype = values.shape, "another library's"

    def detach(self):
        return self

    def cpu(self):
        return Tensor(self.values, elsewhere=False, named=self.named)

    def __array__(self, dtype=None, copy=None):
        if self.elsewhere or not self.named:
            raise TypeError("not on this device, or of no dtype of NumPy")
        return np.asarray(self.values)

    def __dlpack__(self, **options):
        if self.elsewhere:
            raise BufferError("not on this device")
        return jnp.asarray(self.values).__dlpack__(**options)

    def __dlpack_device__(self):
        return jnp.asarray(self.values).__dlpack_device__()


KINDS = {
    "big-endian": lambda a: a.astype(">f4"),
    "big-endian double": lambda a: a.astype(">f8"),
    "longdouble": lambda a: a.astype(np.longdouble),
    "Fortran": np.asfortranarray,
    "backwards": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "list": lambda a: a.tolist(),
    "nothing masked": lambda a: np.ma.masked_array(a, a > 100),
    "tensor": Tensor,
    "tensor of no name": lambda a: Tensor(a, named=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_the_same(kind):
    np.testing.assert_array_equal(as_array(KINDS[kind](PLAIN), "call"), PLAIN)


def test_read_only_and_traced_ones_too():
    fixed = PLAIN.copy()
    fixed.flags.writeable = False
    np.testing.assert_array_equal(as_array(fixed, "call"), PLAIN)
    np.testing.assert_array_equal(jax.jit(lambda a: as_array(a, "call"))(PLAIN), PLAIN)
    assert as_numpy(PLAIN.astype(">f8"), "call").dtype == np.float64


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (PLAIN.astype(object), r"ndarray of object.*np.asarray\(value, 'float32'\)"),
        (None, "NoneType of object"),
        ("5 %", "str of <U3"),
        ([[1.0, 2.0], [3.0]], "list, which cannot be read as one"),
        (np.ma.masked_array(PLAIN, PLAIN > 0), r"masked values.*x.filled\(0.0\)"),
        (np.array([2**40]), "int32 can hold; got int64 from 1099511627776.*enable_x64"),
        (np.array(["2020-01-01"], "datetime64"), "ndarray of datetime64"),
    ],
)
def test_what_is_no_array_of_numbers_is_said(value, words):
    with pytest.raises(JaxcamError, match=f"call: needs .*{words}"):
        as_array(value, "call")


def test_they_are_taken_wherever_there_is_an_array():
    x, want = images(), jaxcam.cam(relu(), images(), grad_cam(), 1)
    for kind in ("big-endian double", "longdouble", "tensor", "list"):
        make = KINDS[kind]
        np.testing.assert_array_equal(jaxcam.cam(relu(), make(x), grad_cam(), 1).map, want.map)
        np.testing.assert_array_equal(jaxcam.normalize(make(x)), jaxcam.normalize(x))
        np.testing.assert_array_equal(jaxcam.upsample(make(x[..., 0]), (8, 8)),
                                      jaxcam.upsample(x[..., 0], (8, 8)))  # fmt: skip
    fused = jaxcam.fuse([np.asarray(want.map, ">f4"), want.map])
    np.testing.assert_allclose(fused, jaxcam.fuse([want.map, want.map]))
    for one in (np.int64(1), [1], np.array([1], ">i4"), Tensor(np.array([1]))):
        np.testing.assert_array_equal(jaxcam.cam(relu(), x, grad_cam(), one).map, want.map)
    chosen = jaxcam.cam(relu(), x, grad_cam(), 1, channels=Tensor(np.array([0, 2])))
    again = jaxcam.cam(relu(), x, grad_cam(), 1, channels=[0, 2])
    np.testing.assert_array_equal(chosen.map, again.map)
    level = jaxcam.smooth(grad_cam(), noise_level=np.array(0.5, ">f4")).points.noise_level
    assert level == 0.5
    assert targets.region(0, Tensor(np.array([[True]]))).about.dtype == bool


class Scaled(nn.Module):
    """One convolution, times what the call is given."""

    @nn.compact
    def __call__(self, x, gain):
        x = nn.Conv(2, (1, 1), name="conv")(x)
        return (x * gain).mean((1, 2))


def test_tensors_among_weights_and_arguments_of_the_call_are_arrays():
    x, gain = images(), np.float32(2.0) * np.ones((1, 1, 1, 2), np.float32)
    variables = Scaled().init(jax.random.key(0), x, gain)
    held = jax.tree.map(lambda v: Tensor(np.asarray(v)), variables)
    split = jaxcam.split(Scaled(), "conv", variables=held, gain=Tensor(gain))
    found = split.scores(split.features(x), x)
    np.testing.assert_allclose(found, Scaled().apply(variables, x, gain), rtol=1e-6)
