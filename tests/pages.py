"""The pages that users read, their blocks of code, and networks such as their readers have."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import nnx

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
RECIPES = ROOT / "docs" / "adding.md"  # whose blocks are applied, not run: docs/test_adding.py
X = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)


def blocks(page: Path, language: str = "python") -> list[str]:
    """List the blocks of code of a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands(*pages: Path) -> Iterator[str]:
    """List the lines of shell of pages."""
    return (line for page in pages for code in blocks(page, "sh") for line in code.splitlines())


def block(*words: str) -> str:
    """Find the one block of all pages that holds all the words."""
    every = [code for page in PAGES if page != RECIPES for code in blocks(page)]
    found = [code for code in every if all(word in code for word in words)]
    assert len(found) == 1, (words, len(found))
    return found[0]


def run(code: str, **names):
    """Execute a block under the names that its reader has, with JAX's own promotion rules."""
    promotion = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with promotion[0], promotion[1]:
        exec(compile(code, "a page", "exec"), names)
    return names


def quickly():
    """Compile without XLA's costlier passes: a block runs once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for name in ("block3", "layer4"):
            x = nn.gelu(nn.Conv(8, (3, 3), (2, 2), name=name)(x))
        return nn.Dense(300)(x.mean(axis=(1, 2)))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 3, (3, 3), rngs=rngs)

    def __call__(self, x):
        return x + nnx.relu(self.conv1(x))


class Stage(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs), Block(rngs)])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.layer3 = Stage(rngs)
        self.head = nnx.Linear(3, 300, rngs=rngs)

    def __call__(self, x):
        return self.head(self.layer3(x).mean(axis=(1, 2)))


def variables(model: nn.Module) -> Any:
    """Draw a model's variables by numpy: JAX compiles a draw for every shape."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), X))
    return jax.tree.map(lambda s: 0.3 * rng.normal(size=s.shape).astype(s.dtype), shapes)


@functools.cache
def linen() -> dict[str, Any]:
    """Give a model, its variables and two pictures."""
    model = Linen()
    return {"model": model, "variables": variables(model), "x": X}
