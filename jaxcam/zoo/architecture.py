"""What the zoo knows about a network besides its definition."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from jaxcam.zoo.card import Preprocessing

Rules = tuple[tuple[str, Callable[..., str]], ...]
"""How a collection names layers: ``(pattern, name)``, the first whose pattern begins the name.

The pattern is for torchvision's name, and ``name`` makes the other one of its groups, as integers.
A layer that no pattern fits is named alike.
"""


class Architecture(NamedTuple):
    """A network: how to make it, and how its published checkpoints are written.

    make: ``make(classes=…, rngs=…)``. head: the layer whose outputs are the classes. namings: rules
    by the name of the collection. settings: what ``config.json`` may say, where it says it; the
    same tensors with another activation or another stride would be another network.
    preprocessing: of checkpoints that bring none. recipes: of torchvision's, by the eight digits in
    a file's name with which its SHA-256 begins. constants: by the name of a collection, what
    ``make`` takes besides where that collection computes with other numbers than torchvision.
    tokens: how many stand before those of the picture, in layers that give tokens; None without.
    layer: the one that is explained where none is named; ``auto``: the last with a spatial extent.
    """

    make: Callable[..., nnx.Module]
    head: str
    namings: Mapping[str, Rules]
    settings: Mapping[str, tuple[Any, ...]]
    preprocessing: Preprocessing
    recipes: Mapping[str, Preprocessing]
    constants: Mapping[str, Mapping[str, Any]] = {}
    tokens: int | None = None
    layer: str = "auto"
