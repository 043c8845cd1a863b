"""What bends, each a module, so that each has a name and can be cut at."""

import jax
from flax import nnx
from jax import Array


class ReLU(nnx.Module):
    """``max(x, 0)``."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(x)


class GELU(nnx.Module):
    """``x Phi(x)`` with the normal distribution itself, not its approximation by tanh."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=False)


class SiLU(nnx.Module):
    """``x / (1 + exp(-x))``."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.silu(x)


class HardSwish(nnx.Module):
    """``x min(max(x + 3, 0), 6) / 6``."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.hard_swish(x)


class Sigmoid(nnx.Module):
    """``1 / (1 + exp(-x))``."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.sigmoid(x)


class HardSigmoid(nnx.Module):
    """``min(max(x + 3, 0), 6) / 6``."""

    def __call__(self, x: Array) -> Array:
        return jax.nn.hard_sigmoid(x)
