"""Which engine serves a score: by name, or the cheapest exact one that proves its condition."""

import difflib
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
from jax.extend import core

from jaxcam.arrays.door import as_array
from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.engines import (
    absent,
    adjoint,
    affine,
    along,
    directional,
    exponential,
    gradient,
    peeled,
    power,
)
from jaxcam.derivatives.reasons import Refused, first_line
from jaxcam.derivatives.traced import check_score, trace
from jaxcam.errors import FaultWarning, NotProved, fail, message
from jaxcam.jaxprs.cost import needs
from jaxcam.jaxprs.interpret import operations
from jaxcam.jaxprs.starts import GENERAL, MOST_PLACES
from jaxcam.types import LogDerivatives, LogScore

ENGINES: tuple[Engine, ...] = (
    affine.ENGINE,
    peeled.ENGINE,
    adjoint.ENGINE,
    directional.ENGINE,
    exponential.ENGINE,
    power.ENGINE,
)
"""Every engine that can be asked for. A new one is one file and one line here."""

Derive = Callable[..., tuple[LogDerivatives, Any]]

NAMES = ("auto", *(name for engine in ENGINES for name in (engine.name, *engine.forms)))


class Candidate(NamedTuple):
    """One engine, whether it applies, why or why not, and, if so, the program that it makes.

    name: the engine's, or that of the special case that was proved. operations: of the program.
    """

    engine: Engine
    name: str
    proof: Proof
    operations: float | None = None
    program: Derive | None = None


class Choice(NamedTuple):
    """The engine taken, and why other exact ones were not.

    derive: ``(a, *context) -> (derivatives of u, more)``, traced already. operations: of it.
    """

    engine: Engine
    name: str
    proof: Proof
    derive: Derive
    operations: float
    refused: tuple[str, ...] = ()


class Decision(NamedTuple):
    """Every engine, and which one ``auto`` takes, if any. As a string, a table."""

    chosen: str | None
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        """Write one line for each engine."""
        lines = [_line("engine", "exact", "applies", "operations", "why")]
        for candidate in self.candidates:
            mark = "*" if candidate.name == self.chosen else ""
            count = "" if candidate.operations is None else f"{candidate.operations:.2g}"
            applies = "yes" if candidate.proof.applies else "no"
            exact = "yes" if candidate.engine.exact else "no"
            words = candidate.proof.words
            lines.append(_line(candidate.name + mark, exact, applies, count, words))
        return "\n".join(lines)


def _line(name: str, exact: str, applies: str, count: str, words: str) -> str:
    return f"{name:13}{exact:7}{applies:9}{count:>10}   {words}".rstrip()


def explain_engine(log_score: LogScore, a: Any) -> Decision:
    """Say of each engine whether it applies to a score, why or why not, and what it would cost.

    The cost is the number of operations in the traced program (cost.py); nothing is computed, and
    ``a`` may be a `jax.ShapeDtypeStruct`. ``auto`` takes the cheapest exact engine that applies.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> decision = jaxcam.explain_engine(lambda a: jnp.tanh(a).mean(), jnp.ones((7, 7, 16)))
    >>> decision.chosen
    'powered'
    >>> print(str(decision).splitlines()[0])
    engine       exact  applies  operations   why
    """
    a = a if isinstance(a, jax.ShapeDtypeStruct) else as_array(a, "explain_engine")
    check_score("explain_engine", log_score, a)
    traced = trace(log_score, a)
    candidates = tuple(_considered(engine, engine.name, traced) for engine in ENGINES)
    best = _best(candidates)
    return Decision(best and best.name, candidates)


def choose(name: str, traced: Traced, *, order: int = 3) -> Choice:
    """Find the engine for a score: ``auto`` falls through, a name proves its condition or raises.

    ``order`` is the highest derivative that the caller needs, 0 for none; a first derivative is one
    gradient whichever engine was asked for.
    """
    if name not in NAMES:
        _unknown(name)
    if order == 0:
        return _choice(_considered(absent.ENGINE, absent.ENGINE.name, traced)) or _cheapest(traced)
    if order == 1:  # one gradient, if there is a reverse derivative at all
        one = _choice(_considered(gradient.ENGINE, gradient.ENGINE.name, traced))
        return one or _cheapest(traced)
    return _cheapest(traced) if name == "auto" else _named(name, traced)


def choose_along(traced: Traced, *, order: int) -> Choice:
    """Find the engine for derivatives along the activations themselves (along.py), second or third.

    Where the score is proved piecewise affine they are zero, and one gradient is all.
    """
    flat = _choice(_considered(affine.ENGINE, affine.ENGINE.name, traced))
    if flat is not None:
        return flat
    engine = along.ENGINE if order == 2 else along.third(_cheapest(traced).engine)
    candidate = _considered(engine, engine.name, traced)
    return _choice(candidate) or _none(traced, f"{engine.name}: {candidate.proof.words}")


def _considered(engine: Engine, name: str, traced: Traced) -> Candidate:
    """Ask an engine for its proof, and for its program.

    An engine that fails without a word of its own is at fault: the others are still asked, and the
    fault is told.
    """
    shown = engine.name
    try:
        proof = engine.prove(traced, name)
        shown = proof.form or shown
        if not proof.applies:
            return Candidate(engine, shown, proof)
        closed, shape = jax.make_jaxpr(partial(engine.derive, traced), return_shape=True)(
            *traced.arguments
        )
    except Refused as refusal:
        return Candidate(engine, shown, Proof(False, str(refusal)))
    except Exception as error:
        words = f"at fault, please report it: {first_line(error)}"
        warnings.warn(f"engine {shown!r} is {words}", FaultWarning, stacklevel=2)
        return Candidate(engine, shown, Proof(False, words))

    def program(*arguments: Any) -> tuple[LogDerivatives, Any]:
        leaves = core.jaxpr_as_fun(closed)(*arguments)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return Candidate(engine, shown, proof, needs(closed, shared=True).operations, program)


def _choice(candidate: Candidate, refused: tuple[str, ...] = ()) -> Choice | None:
    engine, name, proof, operations, program = candidate
    if program is None or operations is None:
        return None
    return Choice(engine, name, proof, program, operations, refused)


def _cheapest(traced: Traced) -> Choice:
    tried: list[Candidate] = []
    for engine in ENGINES:
        if engine.exact and not _cannot_win(engine, tried, traced):  # spared the tracing
            tried.append(_considered(engine, engine.name, traced))
    refused = tuple(f"{c.name}: {c.proof.words}" for c in tried if c.program is None)
    best = _best(tried)
    return (best and _choice(best, refused)) or _none(traced, "; ".join(refused))


def _none(traced: Traced, reasons: str) -> NoReturn:
    """Say that no exact engine applies, and what does."""
    closed_form = _considered(exponential.ENGINE, exponential.ENGINE.name, traced)
    remedy = "Rewrite the operation, or give it a derivative (jax.custom_jvp)."
    if GENERAL in operations(traced.closed):
        remedy = (
            f"lax.{GENERAL} over more than {MOST_PLACES} places has a derivative for lax.max, "
            "lax.min and lax.add from zero alone: pool in two steps, or along reshaped axes."
        )
    elif closed_form.program is not None:
        remedy = "Use engine='exponential' for the papers' approximation."
    needed = "an exact engine that applies"
    raise NotProved(message("engine='auto'", needs=needed, got=reasons, remedy=remedy))


def _cannot_win(engine: Engine, tried: Sequence[Candidate], traced: Traced) -> bool:
    """Say whether what applies already is cheaper than an engine can be.

    Nothing is cheaper than one gradient; and `directional` runs the score forward, at the least,
    for every element.
    """
    serving = [c for c in tried if c.program is not None]
    if any(c.engine.single for c in serving):
        return True
    if engine is not directional.ENGINE:
        return False
    least = math.prod(traced.a.shape) * needs(traced.closed).operations
    return any(c.operations is not None and c.operations <= least for c in serving)


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    """Take one gradient where that is proved to be all, else what makes the fewest operations."""
    serving = [c for c in candidates if c.engine.exact and c.program is not None]
    return min(serving, key=lambda c: (not c.engine.single, c.operations), default=None)


def engine_named(name: str) -> Engine:
    """Look an engine up by the name that a report carries."""
    if name.startswith(along.PREFIX):
        return along.third(engine_named(name.removeprefix(along.PREFIX)))
    engines = (*ENGINES, gradient.ENGINE, absent.ENGINE, along.ENGINE)
    return next(engine for engine in engines if name in (engine.name, *engine.forms))


def _named(name: str, traced: Traced) -> Choice:
    candidate = _considered(engine_named(name), name, traced)
    choice = _choice(candidate)
    if choice is not None:
        return choice
    serves = _cheapest(traced).name
    raise NotProved(
        message(
            f"engine={name!r}",
            needs="its condition to be proved for this score",
            got=candidate.proof.words,
            remedy=f"Use engine={serves!r}, or engine='auto', which chooses it.",
        )
    )


def _unknown(name: str) -> None:
    near = difflib.get_close_matches(str(name), NAMES, n=1)
    fail(
        f"engine={name!r}",
        needs=f"one of {', '.join(NAMES)}",
        got=repr(name),
        remedy=f"Did you mean {near[0]!r}?" if near else "Use 'auto'.",
    )
