"""One example's view of a split network, and whether it runs at all on the input."""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array

from jaxcam.arrays.inputs import Inputs
from jaxcam.arrays.outputs import check_activations, check_scores
from jaxcam.arrays.running import running
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
    with running("split", x):
        a, scores = jax.eval_shape(partial(through, split), x)
    check_activations("features(x)", a, x)
    check_scores("scores(a, x)", scores, x)
