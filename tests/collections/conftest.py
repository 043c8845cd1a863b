"""Libraries of models promote as JAX does by default, so these tests do too."""

import jax
import pytest


@pytest.fixture(autouse=True)
def jax_as_its_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
