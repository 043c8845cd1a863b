"""Chunks of numbers, and of how many pieces they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam.arrays import memory
from jaxcam.errors import JaxcamError
from jaxcam.jaxprs import loops as chunks


@pytest.mark.parametrize("count", [1, 7, 12])
@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("hands", [1, 3])
def test_every_number_is_dealt_once(count, chunk, hands):
    dealt = np.asarray(chunks.dealt(count, chunk, hands))
    assert dealt.shape[1] <= chunk
    assert len(dealt) % hands == 0
    np.testing.assert_array_equal(dealt.ravel(), np.arange(dealt.size))
    repeating = np.asarray(chunks.repeating(count, chunk, hands))
    np.testing.assert_array_equal(repeating, np.minimum(dealt, count - 1))


@pytest.mark.parametrize(("share", "cuts"), [(1, 1), (1.1, 2), (2, 2), (2.1, 3), (5, 6), (12, 12)])
def test_a_chunk_is_cut_into_as_few_equal_pieces_as_fit(monkeypatch, share, cuts):
    program = jax.make_jaxpr(lambda rows: jnp.sin(rows[:, None] * jnp.ones((1, 100))).sum())(
        jnp.ones(12)
    )
    whole = chunks.needs(program).bytes
    monkeypatch.setattr(memory, "budget", lambda: int(whole / share))
    assert chunks.pieces(program, 12) == cuts


@pytest.mark.parametrize("size", [0, -1, 2.5, True, None, "all"])
def test_a_chunk_that_holds_nothing_is_refused(size):
    with pytest.raises(JaxcamError, match="chunk_size: needs a positive integer or 'auto'"):
        chunks.checked(size)
    assert chunks.checked("auto") is None
    assert chunks.checked(3) == 3
