"""Settings of the tests alone: no promotion of dtypes or ranks, parts, and helpers to import."""

import itertools
import os
import sys
import zlib
from pathlib import Path

import jax
import pytest

sys.path.insert(0, str(Path(__file__).parent))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# The command line would keep its programs in the user's cache; so would the processes of tests.
jax.config.update("jax_enable_compilation_cache", False)
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


def pytest_addoption(parser):
    parser.addoption(
        "--part",
        metavar="K/N",
        help="the K-th of N parts into which the tests are dealt by their names, K from 0",
    )


def pytest_collection_modifyitems(config, items):
    """Keep the tests of one part: the same ones wherever and whenever they are dealt."""
    if not (part := config.getoption("--part")):
        return
    mine, parts = map(int, part.split("/"))
    if not 0 <= mine < parts:
        raise pytest.UsageError(f"--part needs K/N with 0 <= K < N, and got {part}")

    def chosen(item):
        return zlib.crc32(item.nodeid.encode()) % parts == mine

    config.hook.pytest_deselected(items=[item for item in items if not chosen(item)])
    items[:] = filter(chosen, items)


# Compiled programs stay in memory: thousands of them took five gigabytes of each process.
EVERY = 400
_ended = itertools.count(1)


def pytest_runtest_teardown(item, nextitem):
    """Free what was compiled, every so many tests."""
    if next(_ended) % EVERY == 0:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def promotion(request):
    """Libraries of models promote as JAX does by default: so do the tests that are on theirs."""
    if not any(map(request.node.get_closest_marker, ("collections", "clones"))):
        yield
        return
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
