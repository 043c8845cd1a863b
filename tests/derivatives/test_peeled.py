"""The waist from which tangents start: nothing asks for a tangent before it."""

import jax
import jax.numpy as jnp
import oracles
import rows
import tails
from engines import derive, relative_error

from jaxcam.derivatives.engines import peeled
from jaxcam.derivatives.traced import trace


def weights(name, like, *shape):
    return jnp.asarray(tails.normal(name, *shape), like.dtype)


def bent(x):
    """Something that bends, of a sum over places and of each place."""
    return jax.nn.softmax(x.sum(0)).max() + jnp.tanh(x * weights("read", x, *x.shape)).sum()


WAISTS = {  # of 5 or 10 numbers, of a layer of 30; what is summed could change places with it
    "dense": lambda a: bent(a @ weights("waist", a, 6, 2)),
    "dense_twice": lambda a: bent(a @ weights("wide", a, 6, 7) @ weights("waist", a, 7, 2)),
    "turned": lambda a: bent((weights("waist", a, 2, 6) @ a.T).T),
    "added": lambda a: bent(a[:, :2] * 2 + a @ weights("waist", a, 6, 2)),
    "scaled": lambda a: bent(a @ weights("waist", a, 6, 2) * weights("scale", a, 1, 2)),
    "joined": lambda a: bent((a.reshape(5, 3, 2) * weights("scale", a, 1, 3, 1)).sum(1)),
    "kinked": lambda a: bent(jax.nn.relu(a) @ weights("waist", a, 6, 2)),
}


@rows.table("u", WAISTS, ("dense_twice", "joined"))
def test_sums_stop_at_the_waist(u):
    a = tails.normal("waist point", 5, 6)
    assert "waist" in peeled.prove(trace(u, jnp.asarray(a, jnp.float32))).words
    found = derive(u, a, engine="peeled")
    for ours, theirs in zip(found, oracles.brute_force(u, a), strict=True):
        assert relative_error(ours, theirs) < 1e-10
