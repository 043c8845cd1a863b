"""Settings of the tests alone: no promotion of dtypes or ranks, and helpers to import."""

import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parent))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
