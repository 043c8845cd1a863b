"""Which engine serves a score: by name, or the cheapest exact one that proves its condition."""

import difflib
from typing import Any, NamedTuple

from jaxcam.derivatives import affine, directional, exponential, gradient, power
from jaxcam.errors import NotProved, fail, message
from jaxcam.types import Engine, LogScore, Proof

ENGINES: tuple[Engine, ...] = (
    affine.ENGINE,
    directional.ENGINE,
    exponential.ENGINE,
    power.ENGINE,
)
"""Every engine that can be asked for. A new one is one file and one line here."""


class Choice(NamedTuple):
    """The engine taken, its proof, and why the cheaper exact ones were not."""

    engine: Engine
    proof: Proof
    refused: tuple[str, ...] = ()


def choose(name: str, log_score: LogScore, a: Any, *, order: int = 3) -> Choice:
    """Find the engine for a score: ``auto`` falls through, a name proves its condition or raises.

    ``order`` is the highest derivative that the caller needs; a first derivative is one gradient
    whichever engine was asked for.
    """
    if name != "auto" and name not in (engine.name for engine in ENGINES):
        _unknown(name)
    if order == 1:
        return Choice(gradient.ENGINE, gradient.ENGINE.prove(log_score, a))
    return _cheapest(log_score, a) if name == "auto" else _named(name, log_score, a)


def _cheapest(log_score: LogScore, a: Any) -> Choice:
    refused = []
    exact = (engine for engine in ENGINES if engine.exact)
    for engine in sorted(exact, key=lambda engine: engine.passes(a.size)):
        proof = engine.prove(log_score, a)
        if proof.applies:
            return Choice(engine, proof, tuple(refused))
        refused.append(f"{engine.name}: {proof.words}")
    raise NotProved(
        message(
            "engine='auto'",
            needs="an exact engine that applies",
            got="; ".join(refused),
            remedy="Use engine='exponential' for the papers' approximation.",
        )
    )


def engine_named(name: str) -> Engine:
    """Look an engine up by the name that a report carries."""
    return next(e for e in (*ENGINES, gradient.ENGINE) if e.name == name)


def _named(name: str, log_score: LogScore, a: Any) -> Choice:
    engine = engine_named(name)
    proof = engine.prove(log_score, a)
    if not proof.applies:
        serves = _cheapest(log_score, a).engine.name
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
    names = ["auto", *(engine.name for engine in ENGINES)]
    near = difflib.get_close_matches(str(name), names, n=1)
    fail(
        f"engine={name!r}",
        needs=f"one of {', '.join(names)}",
        got=repr(name),
        remedy=f"Did you mean {near[0]!r}?" if near else "Use 'auto'.",
    )
