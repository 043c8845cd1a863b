"""The words of the library, as types: what one part hands to the next.

Conventions, stated once. Inputs are ``x: [batch, *spatial, channel]`` and activations are
``a: [batch, *spatial, k]``; a network is the pair ``features: x -> a`` and
``scores: (a, x) -> [batch, classes]``. Every explained scalar is a log-score ``u``, ``Y = e^u``
(targets.py). An engine sees one example at a time: ``a: [*spatial, k]``, ``u(a): []``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax
from jax import Array
from jax.extend import core
from jax.sharding import Mesh

LogScore = Callable[[Array], Array]
ChunkSize = int | Literal["auto"]
"""One example's scalar ``u`` as a function of its activations ``a: [*spatial, k]``."""


class Split(NamedTuple):
    """A network cut at one layer into two pure functions.

    ``features(x) -> a`` runs up to the layer and ``scores(a, x) -> [batch, classes]`` runs the
    whole network with the layer's output replaced by ``a``, so that paths around the layer
    (residual connections) are right. Both are `jax.tree_util.Partial`, or any callables: weights
    held by a ``Partial`` are leaves of the split, and new weights of the same shape reuse the
    compiled program; weights closed over by a plain function are constants of it.
    """

    features: Callable[[Array], Array]
    scores: Callable[[Array, Array], Array]


def held(function: Callable) -> jax.tree_util.Partial:
    """Make a function something that `jit` takes as an argument: static, with its own leaves."""
    is_held = isinstance(function, jax.tree_util.Partial)
    return function if is_held else jax.tree_util.Partial(function)


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
    halves = Split(held(split.features), held(split.scores))
    leaves, structure = jax.tree.flatten(halves)
    order: dict[int, int] = {}
    indices = tuple(order.setdefault(id(leaf), len(order)) for leaf in leaves)
    by_index = dict(zip(indices, leaves, strict=True))
    return Shared(tuple(by_index.values()), _Places(structure, indices))


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


class Traced(NamedTuple):
    """A score ``(a, *context) -> (u, more)``, traced once; see `jaxcam.derivatives.traced`.

    closed: its jaxpr, ``(a, *context) -> [u, *more]``. more: the structure of what the forward pass
    gives beside ``u``. arguments: shapes and dtypes of ``a`` and the context. chunk_size: how many
    elements may be differentiated at once. axis: of a mesh, over whose devices the elements are
    spread. known: what was found out about it so far.
    """

    closed: Any
    more: Any
    arguments: tuple[jax.ShapeDtypeStruct, ...]
    chunk_size: int | None
    axis: str | None
    known: dict[Any, Any]

    @property
    def a(self) -> jax.ShapeDtypeStruct:
        """The shape and dtype of the activations."""
        return self.arguments[0]

    def __call__(self, *arguments: Any) -> tuple[Array, Any]:
        """Give ``u`` and what comes with it."""
        u, *more = core.jaxpr_as_fun(self.closed)(*arguments)
        return u, jax.tree.unflatten(self.more, more)

    def once(self, find: Callable[["Traced"], Any]) -> Any:
        """Find something out about the score, or look up what was found before."""
        if find not in self.known:
            self.known[find] = find(self)
        return self.known[find]


class Proof(NamedTuple):
    """Whether an engine applies to a score, and the reason in words, either way.

    form: the special case of the engine that was proved, if it tells them apart by name.
    """

    applies: bool
    words: str
    form: str = ""


class Prover(Protocol):
    """``prove(traced, name)``: does the engine apply, in the form that is asked for by name?"""

    def __call__(self, traced: Traced, name: str, /) -> Proof: ...


class Deriver(Protocol):
    """``derive(traced, a, *context)``: the derivatives along every element of ``a``.

    ``more`` comes along from the forward pass that an engine makes in any case.
    """

    def __call__(self, traced: Traced, /, *arguments: Array) -> tuple[LogDerivatives, Any]: ...


class Engine(NamedTuple):
    """One way to get the derivatives of ``u`` for every element of ``a``.

    ``exact``: its result is the derivative, not an assumption about it. ``single``: one gradient
    is all it computes, so that many inputs can share a chunk. ``forms``: special cases that have
    names of their own. ``scaled``: whether sample weights ``e^u`` go with it (``power`` drops
    them).
    """

    name: str
    exact: bool
    prove: Prover
    derive: Deriver
    single: bool = False
    forms: tuple[str, ...] = ()
    scaled: bool = True


@jax.tree_util.register_static
@dataclass(frozen=True)
class Report:
    """What was decided while tracing, in words. Static: it leaves ``jit`` as it is.

    ``noisy``: whether noisy samples were taken; without smoothing, and where noise is proved not to
    matter, they are not.
    """

    engine: str
    exact: bool
    proof: str
    noisy: bool = False
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

    ``num_samples`` is how many noisy samples each image took; ``effective_samples`` is
    (sum w)^2 / sum w^2; ``top_class_kept`` the share of noisy samples whose top class is the clean
    image's; ``standard_error`` that of ``map``, per pixel, and ``relative_error`` its largest value
    as a share of the map's largest; ``finite`` and ``blank`` say of each image whether its map is
    free of NaN and infinity, and whether it is all zero.
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


class CAM(NamedTuple):
    """A class activation map and what belongs to it.

    map: ``[batch, *spatial]`` at the layer's resolution, ``ReLU(signed)``, not normalised.
    signed: the same before the ReLU, ``sum_k w_k A^k``.
    weights: ``w_k: [batch, k]``, or ``[batch, *spatial, k]`` for methods that weigh each element.
    scores: ``[batch, classes]`` (or what else the network gives) of the clean input. target:
    ``[batch]``, the explained class; -1 where no class is.
    """

    map: Array
    signed: Array
    weights: Array
    scores: Array
    target: Array
    diagnostics: Diagnostics


class Weighting(Protocol):
    """``weigh(derivatives, a, scale)`` of one example: weights that broadcast to ``a``, and poles.

    The derivatives come with ``a`` measured in units of ``1 / scale`` (`bell.bell`): the k-th is
    divided by ``scale^k``. ``a`` and the returned weights are in the network's own units. For a
    `Method` of ``u`` the scale is one.
    """

    def __call__(
        self, derivatives: Derivatives, a: Array, scale: Array, /
    ) -> tuple[Array, Poles | None]: ...


class Smoothing(NamedTuple):
    """How a method is averaged over noise; see `jaxcam.smooth`.

    ``num_samples``: where a tolerance decides (``adaptive``), the most there may be. ``temper``:
    the ``t`` of the sample weights ``e^{t u}``. ``noisy``: which of several inputs gets the noise.
    """

    num_samples: int
    noise_level: Any
    temper: Any
    scheme: str = "independent"
    tolerance: Any = None
    adaptive: bool = False
    noisy: int | str | None = None


class Method(NamedTuple):
    """A CAM method: how derivatives become weights.

    ``order`` is the highest one that it needs. ``scalar``: whose derivatives `weigh` is given,
    those of the target's ``Y``, or those of the log-score ``u`` whatever ``Y`` is. A method of
    ``u`` has no alpha, and nothing to divide by where ``u2 = u3 = 0``.
    """

    name: str
    order: int
    weigh: Weighting
    smoothing: Smoothing | None = None
    scalar: Literal["Y", "u"] = "Y"
