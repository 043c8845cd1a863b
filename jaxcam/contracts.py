"""What contributors implement: the kinds of method, what they are averaged over, and the engines.

A method is of one of three kinds, and `pipeline.program` runs them all:

- `Gradient`: derivatives of the score along the layer become weights, and these a map.
- `Queries`: the layer (or the input) is changed many times, and the scores become a map.
- `Game`: positions are players, coalitions of them are scored, and their shares sampled.

A gradient method may be averaged over `Points`, each known by its number alone: noisy inputs
(`Smoothing`), or the nodes of a path (`Path`). Wrappers, `jaxcam.smooth` and `jaxcam.integrate`,
put them there: ``Method -> Method``. The input is a layer too: ``jaxcam.split(model, "input")``.

A method is one file in `jaxcam.methods` and one row in its catalogue.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
from jax import Array
from jax.extend import core

from jaxcam.maps import combine
from jaxcam.types import Derivatives, LogDerivatives, Poles, Split


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


class Weighting(Protocol):
    """``weigh(derivatives, a, scale)`` of one example: weights that broadcast to ``a``, and poles.

    The derivatives come with ``a`` measured in units of ``1 / scale`` (`bell.bell`): the k-th is
    divided by ``scale^k``. ``a`` and the returned weights are in the network's own units. For a
    `Gradient` of ``u`` the scale is one. On a path ``a`` is the way from its start, ``A - B``.
    """

    def __call__(
        self, derivatives: Derivatives, a: Array, scale: Array, /
    ) -> tuple[Array, Poles | None]: ...


class Drawing(Protocol):
    """``draw(weights, a, mask)`` of one example: the signed map ``[*spatial]``.

    ``mask``: booleans shaped like ``a``, of the chosen feature maps and neurons; None for all.
    """

    def __call__(self, weights: Array, a: Array, mask: Array | None = None, /) -> Array: ...


class Smoothing(NamedTuple):
    """Points that are noisy inputs; see `jaxcam.smooth`.

    ``num_points``: where a tolerance decides (``adaptive``), the most there may be. ``temper``:
    the ``t`` of the sample weights ``e^{t u}``. ``noisy``: which of several inputs gets the noise.
    """

    num_points: int
    noise_level: Any
    temper: Any
    scheme: str = "independent"
    tolerance: Any = None
    adaptive: bool = False
    noisy: int | str | None = None


class Path(NamedTuple):
    """Points that are the nodes of a straight path from a baseline; see `jaxcam.integrate`.

    ``num_points``: where a tolerance decides (``adaptive``), the most there may be in a level.
    ``at``: whether the path is one of activations (``layer``) or of inputs (``input``).
    ``baseline``: where it starts, ``given`` as an input or as activations; None for zeros. Of
    ``several`` each begins a path of its own, and maps are averaged.
    """

    num_points: int
    rule: str = "auto"
    at: Literal["layer", "input"] = "layer"
    baseline: Any = None
    given: Literal["input", "activations"] = "input"
    tolerance: Any = None
    adaptive: bool = False
    several: bool = False


Points = Smoothing | Path


class Gradient(NamedTuple):
    """A method that weighs derivatives.

    ``order`` is the highest one that it needs; 0 for none, where activations alone make the map,
    the same for every class. ``scalar``: whose derivatives `weigh` is given, those of the
    target's ``Y``, or those of the log-score ``u`` whatever ``Y`` is; or, for ``u1^k``, the first
    two powers of its gradient, whose means over points are its moments; or, for ``u along a``,
    the gradient and its derivatives along the activations (`derivatives.engines.along`). A method
    of ``u`` has no alpha, and nothing to divide by where ``u2 = u3 = 0``. ``draw``: how weights
    and activations become a signed map, by default ``sum_k w_k A^k``; what is positive of it is
    shown. ``additive``: the signed map divides among the positions what the score owes to the
    layer, so that on a path it sums to the whole difference. ``linear``: it is only defined where
    the log- score is proved to be linear in the means of the feature maps over positions.
    ``signed``: the sign of the signed map says what speaks for and what against, as that of every
    additive one does. ``change``: what becomes of the network before derivatives are taken, such
    as another rule for its ReLUs; its scores must stay as they are.
    """

    name: str
    order: int
    weigh: Weighting
    points: Points | None = None
    scalar: Literal["Y", "u", "u1^k", "u along a"] = "Y"
    draw: Drawing = combine
    additive: bool = False
    linear: bool = False
    change: Callable[[Split], Split] | None = None
    signed: bool = False

    @property
    def has_sign(self) -> bool:
        """Whether the sign of its signed map says for or against."""
        return self.signed or self.additive

    @property
    def random(self) -> bool:
        """Whether it draws, by a key."""
        return isinstance(self.points, Smoothing)


class Example(NamedTuple):
    """One clean example, as `Queries.prepare` is given it.

    ``a: [*spatial, k]``, its activations, and ``x``, its input. ``u1``: the derivative of the
    log-score along ``a``, and ``key``: its random key; None unless the method asks for them.
    """

    a: Array
    x: Any
    u1: Array | None = None
    key: Array | None = None


class Queries(NamedTuple):
    """A method that asks for the score of changed activations, or of changed inputs.

    ``at``: what is changed. ``how_many(shape)``, the number of changes of one example whose layer
    has that shape. ``change(value, n) -> value``: the ``n``-th of them; a number alone says which,
    so that they run in chunks of any size. ``outcome(u, scores, class_index) -> []``: what is asked
    of each, the log-score or a probability; ``class_index`` is None where the
    target is not a class as it is.
    ``weigh(outcomes, clean, a) -> (weights, signed)`` of one example: the outcomes ``[n]`` and that
    of the clean example become a signed map ``[*spatial]``, and weights ``[k]`` where it is one of
    weighted feature maps, else None. ``signed``: the sign of that map says what speaks for and what
    against.

    ``prepare(example) -> given``: what the changes of an example have in common (masks that are
    made of its activations, a random key), found once; `change` and `weigh` then take it as one
    more argument, the last. None: there is nothing. It holds what is small: what grows with the
    number of changes is made in `change`. ``gradient``, ``random``: whether the `Example` comes
    with the gradient of its log-score, or with a key, which the caller has to give.
    """

    name: str
    at: Literal["layer", "input"]
    how_many: Callable[[tuple[int, ...]], int]
    change: Callable[..., Array]
    outcome: Callable[[Array, Array, Any], Array]
    weigh: Callable[..., tuple[Array | None, Array]]
    prepare: Callable[[Example], Any] | None = None
    gradient: bool = False
    random: bool = False
    signed: bool = False

    @property
    def has_sign(self) -> bool:
        """Whether the sign of its signed map says for or against."""
        return self.signed


class Game(NamedTuple):
    """A method that divides the score among players by sampled Shapley values.

    ``players``: of a layer's positions. None, each of them; numbers, blocks of that size along each
    spatial axis (one number for all axes); or ``(shape, labels)``, for each position its player.
    ``num_permutations``: where a tolerance decides (``adaptive``), the most there may be.
    ``baseline``: what stands where a player is absent, ``given`` as an input or as activations.
    """

    name: str
    num_permutations: int
    players: Any = None
    tolerance: Any = None
    adaptive: bool = False
    baseline: Any = None
    given: Literal["input", "activations"] = "input"

    @property
    def has_sign(self) -> bool:
        """Whether the sign of its signed map says for or against; shares do."""
        return True

    @property
    def random(self) -> bool:
        """Whether it draws, by a key."""
        return True


Method = Gradient | Queries | Game
