"""The words of the library, as types: what one part hands to the next.

Conventions, stated once. Inputs are ``x: [batch, *spatial, channel]`` and activations are
``a: [batch, *spatial, k]``; a network is the pair ``features: x -> a`` and
``scores: (a, x) -> [batch, classes]``. Every explained scalar is a log-score ``u``, ``Y = e^u``
(targets). An engine sees one example at a time: ``a: [*spatial, k]``, ``u(a): []``.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from jaxcam import summaries
from jaxcam.errors import fail

LogScore = Callable[[Array], Array]
"""One example's scalar ``u`` as a function of its activations ``a: [*spatial, k]``."""
ChunkSize = int | Literal["auto"]
"""How much is in flight at once; ``auto``: as much as is fast, and fits the device."""


class Split(NamedTuple):
    """A network cut at one layer into two pure functions.

    ``features(x) -> a`` runs up to the layer and ``scores(a, x) -> [batch, classes]`` runs the
    whole network with the layer's output replaced by ``a``, so that paths around the layer
    (residual connections) are right. Both are `jax.tree_util.Partial`, or any callables: weights
    held by a ``Partial`` are leaves of the split, and new weights of the same shape reuse the
    compiled program; weights closed over by a plain function are constants of it. Functions that
    are made anew compile anew, at every call: in a loop, make them once, and hold what changes by
    a ``Partial``. Programs are kept for the 128 networks used last; `jax.clear_caches` frees all.
    """

    features: Callable[[Array], Array]
    scores: Callable[[Array, Array], Array]


def held(function: Callable) -> jax.tree_util.Partial:
    """Make a function something that `jit` takes as an argument: static, with its own leaves.

    A function that is a container of arrays itself (a NamedTuple with ``__call__``, a registered
    dataclass) has these for leaves: as a whole it can be neither compared nor hashed.
    """
    if isinstance(function, jax.tree_util.Partial):
        return function
    if jax.tree_util.all_leaves([function]):
        return jax.tree_util.Partial(function)
    leaves, structure = jax.tree.flatten(function)
    arrays = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    others = tuple(leaf for leaf, is_array in zip(leaves, arrays, strict=True) if not is_array)
    rebuilt = _Rebuilt(structure, tuple(arrays), others, type(function).__name__)
    return jax.tree_util.Partial(rebuilt, list(itertools.compress(leaves, arrays)))


@dataclass(frozen=True)
class _Rebuilt:
    """Calls a function that is a container, built again around its arrays."""

    structure: Any
    arrays: tuple[bool, ...]
    others: tuple[Any, ...]
    __name__: str

    def __call__(self, arrays: Sequence[Any], *given: Any) -> Any:
        ours, others = iter(arrays), iter(self.others)
        leaves = [next(ours if is_array else others) for is_array in self.arrays]
        return jax.tree.unflatten(self.structure, leaves)(*given)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Places:
    """Where the arrays of a split go: its structure, and which array each leaf is."""

    structure: Any
    indices: tuple[int, ...]


class Shared(NamedTuple):
    """A split as an argument of `jit`, each of its arrays once.

    Both halves of a split hold the same weights. Passed twice they would be two arguments, and the
    compiler could not merge what both halves compute, such as the way to a layer inside a residual
    block.
    """

    arrays: tuple[Any, ...]
    places: _Places

    def split(self) -> Split:
        """Give the split back."""
        leaves = [self.arrays[i] for i in self.places.indices]
        return jax.tree.unflatten(self.places.structure, leaves)


def shared(split: Split) -> Shared:
    """Take a split apart, with arrays that occur twice kept once."""
    check_split("split", split)
    halves = Split(held(split.features), held(split.scores))
    leaves, structure = jax.tree.flatten(halves)
    order: dict[int, int] = {}
    indices = tuple(order.setdefault(id(leaf), len(order)) for leaf in leaves)
    by_index = dict(zip(indices, leaves, strict=True))
    return Shared(tuple(by_index.values()), _Places(structure, indices))


def check_split(call: str, split: Any) -> None:
    """Refuse what is not cut, such as the model itself."""
    if not (hasattr(split, "features") and hasattr(split, "scores")):
        fail(
            call,
            needs="a network cut at a layer, features and scores",
            got=f"a {type(split).__name__}",
            remedy="jaxcam.split(model, layer) makes one of a model, and "
            "jaxcam.Split(features, scores) of two functions.",
        )


class LogDerivatives(NamedTuple):
    """First to third derivative of ``u`` along each element of ``a``, each shaped like ``a``.

    Inside methods of order one, which never look at them, ``u2`` and ``u3`` are None.
    """

    u1: Array
    u2: Array
    u3: Array


class Derivatives(NamedTuple):
    """The same three of ``Y``, with the positive factor ``Y`` (or its mean) divided out.

    Where ``Y = u`` itself (a raw logit, or a `Method` of ``u``), those of ``u`` as they are.
    """

    d1: Array
    d2: Array
    d3: Array


class Spread(NamedTuple):
    """Over which axes of a mesh of devices work is spread; see `jaxcam.spread`."""

    mesh: Mesh
    batch: str | None = None
    samples: str | None = None
    elements: str | None = None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Report:
    """What was decided while tracing, in words. Static: it leaves ``jit`` as it is.

    ``averaged``: whether derivatives were averaged over points; without a wrapper (`jaxcam.smooth`,
    `jaxcam.integrate`), and where the points are proved not to matter, they are not. ``rule``: by
    which nodes a path was integrated.
    """

    engine: str
    exact: bool
    proof: str
    averaged: bool = False
    rule: str = ""
    notes: tuple[str, ...] = ()


class Poles(NamedTuple):
    """How close a map comes to the poles of ``alpha = 1 / r``; each ``[batch]``.

    Over the elements with ``D1 > 0``, the only ones that enter a map: the smallest ``r``; and the
    shares of the summed ``|alpha| D1`` from ``|1 / r| > 1`` (before any guard), from elements that
    the guard changed (as weighted in the map), and from ``D2 < 0`` (as weighted in the map).
    """

    smallest_r: Array
    share_large: Array
    share_guarded: Array
    share_concave: Array


class Diagnostics(NamedTuple):
    """What a reader needs to judge a map. ``None`` where nothing was computed to report.

    ``num_samples`` is how many points, noisy samples or nodes, each image took;
    ``effective_samples`` is (sum w)^2 / sum w^2; ``top_class_kept`` the share of noisy samples
    whose top class is the clean image's; ``standard_error`` that of ``map``, per pixel, and
    ``relative_error`` its largest value as a share of the map's largest (of a path up to a
    tolerance, both are of what its last nodes have changed in ``signed``); ``finite`` and ``blank``
    say of each image whether its map is free of NaN and infinity, and whether it is all zero;
    ``seen`` holds the reasons, flags of `jaxcam.pipeline.blank.Seen`. ``doubtful``: the layer moves
    the score so little, or its derivatives cancel so far, that the map may be rounding alone.
    `jaxcam.cam` then takes a second look, and leaves it True only where it is, with a map set to
    zero; inside your own ``jit`` it cannot.

    Of a map on a path from a baseline B: ``total``, what the score gains on it,
    ``u(A) - u(B)``; ``completeness``, the share of it that the signed map of the whole layer sums
    to; and ``gap``, how far that is from one. Of an additive map without a path (`hires_cam`,
    `taylor_cam`, gradient x input) ``B`` is zeros at the layer: how much of what the layer is worth
    beside nothing the map accounts for. NaN where the score of zeros is not finite.
    """

    report: Report
    poles: Poles | None
    num_samples: Array | None
    effective_samples: Array | None
    top_class_kept: Array | None
    standard_error: Array | None
    relative_error: Array | None
    finite: Array
    blank: Array
    seen: Array | None = None
    doubtful: Array | None = None
    total: Array | None = None
    completeness: Array | None = None
    gap: Array | None = None

    def __repr__(self) -> str:
        """Summarise them in a few lines; the arrays are in the fields."""
        return summaries.of_diagnostics(self)


class CAM(NamedTuple):
    """A class activation map and what belongs to it.

    map: ``[batch, *spatial]`` at the layer's resolution, ``ReLU(signed)``, not normalised; with
    ``signed=True`` all of it.
    signed: the same before the ReLU, ``sum_k w_k A^k``.
    weights: ``w_k: [batch, k]``, or ``[batch, *spatial, k]`` for methods that weigh each element;
    None for methods that weigh positions.
    scores: ``[batch, classes]`` (or what else the network gives) of the clean input. target:
    ``[batch]``, the explained class; -1 where no class is.
    """

    map: Array
    signed: Array
    weights: Any
    scores: Array
    target: Array
    diagnostics: Diagnostics

    def __repr__(self) -> str:
        """Summarise it in about ten lines; the arrays are in the fields."""
        return summaries.of_result(self)

    def _repr_html_(self) -> str:
        """Show the maps in a notebook."""
        return summaries.html_of(self)
