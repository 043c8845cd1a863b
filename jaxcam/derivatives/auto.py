"""Which engine serves a score: by name, or the cheapest exact one that proves its condition."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jaxcam.derivatives import (
    adjoint,
    affine,
    directional,
    exponential,
    gradient,
    peeled,
    power,
)
from jaxcam.derivatives.needs import needs
from jaxcam.errors import NotProved, fail, message
from jaxcam.types import Engine, LogScore, Proof

ENGINES: tuple[Engine, ...] = (
    affine.ENGINE,
    peeled.ENGINE,
    adjoint.ENGINE,
    directional.ENGINE,
    exponential.ENGINE,
    power.ENGINE,
)
"""Every engine that can be asked for. A new one is one file and one line here."""

NAMES = ("auto", *(name for engine in ENGINES for name in (engine.name, *engine.forms)))


class Choice(NamedTuple):
    """The engine taken, its proof, and why other exact ones were not."""

    engine: Engine
    proof: Proof
    refused: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The engine's name, or that of the special case that was proved."""
        return self.proof.form or self.engine.name


class Candidate(NamedTuple):
    """One engine, whether it applies, why or why not, and how many operations it makes."""

    engine: Engine
    proof: Proof
    operations: float | None

    @property
    def name(self) -> str:
        """The engine's name, or that of the special case that was proved."""
        return self.proof.form or self.engine.name


class Decision(NamedTuple):
    """Every engine, and which one ``auto`` takes. As a string, a table."""

    chosen: str
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

    The cost is the number of operations in the traced program (needs.py); nothing is computed, and
    ``a`` may be a `jax.ShapeDtypeStruct`. ``auto`` takes the cheapest exact engine that applies.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> decision = jaxcam.explain_engine(lambda a: jnp.tanh(a).mean(), jnp.ones((7, 7, 16)))
    >>> decision.chosen
    'powered'
    >>> print(str(decision).splitlines()[0])
    engine       exact  applies  operations   why
    """
    candidates = tuple(_considered(ENGINES, log_score, a))
    return Decision(_pick(candidates).name, candidates)


def choose(name: str, log_score: LogScore, a: Any, *, order: int = 3) -> Choice:
    """Find the engine for a score: ``auto`` falls through, a name proves its condition or raises.

    ``order`` is the highest derivative that the caller needs; a first derivative is one gradient
    whichever engine was asked for.
    """
    if name not in NAMES:
        _unknown(name)
    if order == 1:
        return Choice(gradient.ENGINE, gradient.ENGINE.prove(log_score, a, name))
    return _cheapest(log_score, a) if name == "auto" else _named(name, log_score, a)


def _cheapest(log_score: LogScore, a: Any) -> Choice:
    tried: list[Candidate] = []
    for engine in ENGINES:
        if not engine.exact or (tried and _cannot_win(engine, tried, log_score, a)):
            continue  # spared the tracing
        tried += _considered([engine], log_score, a)
    best = _pick(tried)
    refused = (f"{c.name}: {c.proof.words}" for c in tried if not c.proof.applies)
    return Choice(best.engine, best.proof, tuple(refused))


def _cannot_win(
    engine: Engine, tried: Sequence[Candidate], log_score: LogScore, a: Any
) -> bool:  # fmt: skip
    """Say whether what applies already is cheaper than an engine can be.

    Nothing is cheaper than one gradient; and `directional` runs the score forward, at the least,
    for every element.
    """
    serving = [c for c in tried if c.proof.applies]
    if any(c.engine.single for c in serving):
        return True
    if engine is not directional.ENGINE or not serving:
        return False
    forward = needs(jax.make_jaxpr(log_score)(a)).operations
    return min(c.operations for c in serving if c.operations is not None) <= a.size * forward


def _pick(candidates: Sequence[Candidate]) -> Candidate:
    """Take one gradient where that is proved to be all, else what makes the fewest operations."""
    exact = [c for c in candidates if c.engine.exact]
    serving = [c for c in exact if c.proof.applies]
    if not serving:
        raise NotProved(
            message(
                "engine='auto'",
                needs="an exact engine that applies",
                got="; ".join(f"{c.name}: {c.proof.words}" for c in exact),
                remedy="Use engine='exponential' for the papers' approximation.",
            )
        )
    return min(serving, key=lambda c: (not c.engine.single, c.operations))


def _considered(engines: Any, log_score: LogScore, a: Any) -> Iterator[Candidate]:
    for engine in engines:
        proof = engine.prove(log_score, a, engine.name)
        yield Candidate(engine, proof, _cost(engine, log_score, a) if proof.applies else None)


def _cost(engine: Engine, log_score: LogScore, a: Any) -> float:
    def run(a: Any) -> Any:
        return engine.derive(lambda a: (log_score(a), None), a, chunk_size=None)[0]

    return needs(jax.make_jaxpr(run)(a), shared=True).operations


def engine_named(name: str) -> Engine:
    """Look an engine up by the name that a report carries."""
    engines = (*ENGINES, gradient.ENGINE)
    return next(engine for engine in engines if name in (engine.name, *engine.forms))


def _named(name: str, log_score: LogScore, a: Any) -> Choice:
    engine = engine_named(name)
    proof = engine.prove(log_score, a, name)
    if not proof.applies:
        serves = _cheapest(log_score, a).name
        raise NotProved(
            message(
                f"engine={name!r}",
                needs="its condition to be proved for this score",
                got=proof.words,
                remedy=f"Use engine={serves!r}, or engine='auto', which chooses it.",
            )
        )
    return Choice(engine, proof)


def _unknown(name: str) -> None:
    near = difflib.get_close_matches(str(name), NAMES, n=1)
    fail(
        f"engine={name!r}",
        needs=f"one of {', '.join(NAMES)}",
        got=repr(name),
        remedy=f"Did you mean {near[0]!r}?" if near else "Use 'auto'.",
    )
