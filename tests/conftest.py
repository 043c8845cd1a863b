"""Settings of the tests alone: no promotion of dtypes or ranks, and helpers to import."""

import sys
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def promotion(request):
    """Libraries of models promote as JAX does by default: so do the tests that are on theirs."""
    if not any(map(request.node.get_closest_marker, ("collections", "clones"))):
        yield
        return
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
