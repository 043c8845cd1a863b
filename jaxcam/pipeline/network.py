"""One example's view of a split network, and whether it runs at all on the input."""

import re
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array

from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.outputs import check_activations, check_scores
from jaxcam.errors import JaxcamError
from jaxcam.targets import Aim, Target
from jaxcam.types import Split


class Network(NamedTuple):
    """One example's view of a split network and its target: no batch axis anywhere."""

    split: Split
    target: Target

    def features(self, x: Inputs) -> Array:
        """Give ``a: [*spatial, k]`` of one input."""
        return self.split.features(_batched(x))[0]

    def scores(self, a: Array, x: Inputs) -> Array:
        """Give the scores ``[classes]`` of one input with the layer's output replaced by ``a``."""
        return self.split.scores(a[None], _batched(x))[0]

    def log_score(self, a: Array, x: Inputs, aim: Aim) -> Array:
        """Give the explained scalar ``u``."""
        return self.target.log_score(self.scores(a, x), aim)


def _batched(x: Inputs) -> Inputs:
    return jax.tree.map(lambda leaf: leaf[None], x)


def through(split: Split, x: Inputs) -> tuple[Any, Any]:
    """Give a batch's ``a`` and scores."""
    a = split.features(x)
    return a, split.scores(a, x)


def check_network(split: Split, x: Inputs) -> None:
    """Try the network on abstract input, and say what does not fit."""
    shape = f"x of shape {' and '.join(str(leaf.shape) for leaf in jax.tree.leaves(x))}"
    try:
        a, scores = jax.eval_shape(partial(through, split), x)
    except JaxcamError:
        raise
    except Exception as error:
        several = (
            f"These are {len(x)} inputs; pictures are stacked, np.stack(x)."
            if isinstance(x, tuple)
            else "The batch axis comes first, x[None] for one example."
        )
        raise JaxcamError(
            f"split: needs a network that runs on x; got {shape}, on which it raised "
            f"{type(error).__name__}: {_first_words(error)}. Check the rank and size of x, and "
            f"which axis is which. {several}"
        ) from error
    check_activations("features(x)", a, x)
    check_scores("scores(a, x)", scores, x)


def _first_words(error: Exception) -> str:
    """The first line that says what is wrong: Keras says before where, and in bold."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return (said or lines or [""])[0]
