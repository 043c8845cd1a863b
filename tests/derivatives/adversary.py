"""Random scores against every exact engine: what says that it applies must be right.

A program is a few operations (attacks.py) on a small array, one to six of them, values used twice
or never, and one or two scalars of them, added. It is known by its number, prints itself as code,
and is drawn anew by `drawn`. For each engine that claims to apply, its value is compared in float64
with three nested `jax.grad` along each element, at points of all kinds: where there are ties, zeros
and kinks the derivative is what JAX says that it is.

Run ``python -m tests.derivatives.adversary --count 300 --seed 0`` for more than the tests do, with
``--results FILE`` to go on where it stopped, ``--show NUMBER`` for one program as code.
"""

import argparse
import collections
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import attacks
import by_numpy
import jax
import jax.numpy as jnp
import numpy as np
from attacks import rng
from jax import Array

import jaxcam
from jaxcam.errors import JaxcamError

BOUND = 1e-9
SHAPES = (
    (3, 4), (4, 3), (2, 3, 4), (3, 3, 2), (2, 2, 3, 2), (5, 3), (12,), (1, 4, 3), (4, 1, 3),
    (3, 4, 1), (6, 2), (1, 12), (2, 1, 2, 3), (4, 4, 2), (13, 1), (2, 6), (5, 1, 1, 3), (4, 2, 4),
)  # fmt: skip


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Compute in float64, and promote as users do by default."""
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


class Step(NamedTuple):
    """An operation, its operands among the values so far (0 is ``a``), and its seed."""

    name: str
    operands: tuple[int, ...]
    seed: int


class Program(NamedTuple):
    """A score, and the point at which it is differentiated."""

    point: str
    shape: tuple[int, ...]
    seed: int
    steps: tuple[Step, ...]
    heads: tuple[Step, ...]

    def __str__(self) -> str:
        """Write the program as code that runs beside attacks.py."""
        at = f'a = jnp.asarray(POINTS["{self.point}"](rng({self.seed}), *{self.shape}))'
        calls = [_call(step) for step in self.steps]
        lines = [f"    x{i} = small({call})" for i, call in enumerate(calls, 1)]
        heads = " + ".join(_call(head) for head in self.heads)
        return "\n".join([at, "def u(x0):", *lines, f"    return {heads}"])

    def score(self) -> Callable[[Array], Array]:
        """Give the score as a function."""

        def u(a: Array) -> Array:
            values = [a]
            for step in self.steps:
                values.append(attacks.small(_run(step, values)))
            return sum((_run(head, values) for head in self.heads[1:]), _run(self.heads[0], values))

        return u

    def start(self) -> np.ndarray:
        """Give the point."""
        return attacks.POINTS[self.point](rng(self.seed), *self.shape)


def _call(step: Step) -> str:
    operands = ", ".join(f"x{i}" for i in step.operands)
    return f'OPERATIONS["{step.name}"]({operands}, rng({step.seed}))'


def _run(step: Step, values: Sequence[Any]) -> Any:
    operation = attacks.OPERATIONS[step.name]
    return operation(*(values[i] for i in step.operands), rng(step.seed))


WINDOWS = ("smooth", "kinked", "product or sum", "convolution", "window", "place", "shape")
"""Kinds of operation through which tangents are carried in windows and patterns."""


@in_double()
def drawn(number: int) -> Program:
    """Draw a program by its number. What does not fit the shape of its operands is drawn again.

    Half of the programs are of all kinds of operation, half of those that keep tangents small.
    """
    r = rng([number, 20])
    kinds = WINDOWS if r.random() < 0.5 else tuple(attacks.KINDS)
    point = "generic" if r.random() < 0.45 else attacks.pick(r, *attacks.POINTS)
    shape = attacks.pick(r, *SHAPES)
    values: list[Any] = [jax.ShapeDtypeStruct(shape, jnp.float64)]
    steps: list[Step] = []
    for _ in range(attacks.draw(r, 1, 5)):
        step, value = _fitting(r, values, partial(_table, r, kinds))
        steps.append(step)
        values.append(value)
    heads = []
    for _ in range(attacks.pick(r, 1, 1, 2)):
        # The first head takes the last value; before it there may be others, and dead ends.
        left = values if heads else values[-1:]
        head, _ = _fitting(r, left, lambda: (attacks.HEADS, 1), len(values) - len(left))
        heads.append(head)
    return Program(point, shape, attacks.draw(r, 0, 999), tuple(steps), tuple(heads))


def _table(r: attacks.Source, kinds: Sequence[str]) -> tuple[dict[str, Callable], int]:
    """Choose the kind of a step first, so that kinds with few operations are not rare."""
    if r.random() < 0.25:
        return attacks.BINARY, 2
    return attacks.KINDS[attacks.pick(r, *kinds)], 1


def _fitting(
    r: attacks.Source, values: Sequence[Any], table: Callable[[], tuple], skipped: int = 0
) -> tuple[Step, Any]:
    for _ in range(50):
        operations, arity = table()
        name = attacks.pick(r, *operations)
        places = [len(values) - 1, attacks.draw(r, 0, len(values) - 1)]
        places = places if r.random() < 0.7 else places[::-1]
        step = Step(name, tuple(places[:arity]), attacks.draw(r, 0, 99999))
        try:
            value = jax.eval_shape(lambda *v, s=step: attacks.small(_run(s, v)), *values)
        except Exception as error:  # an option that makes no sense for this shape
            MISFITS[name, f"{type(error).__name__}: {str(error)[:160]}"] += 1
            continue
        if value.size and value.dtype == jnp.float64:
            return step._replace(operands=tuple(i + skipped for i in step.operands)), value
        MISFITS[name, f"gives {value.dtype}{value.shape}"] += 1
    raise RuntimeError("no operation fits")


MISFITS: collections.Counter = collections.Counter()
"""What could not be used, and why: to see that no operation is never used."""


# Brute force.


def brute_force(u: Callable[[Array], Array], a: Array) -> tuple[str, list[np.ndarray]] | None:
    """Nest three gradients along each element; three `jax.jvp` where JAX has no gradient.

    The element is taken by a choice and not by a product, so that what is infinite elsewhere does
    not come in.
    """
    units = np.eye(a.size, dtype=bool).reshape(a.size, *a.shape)

    def nested(derivative: Callable) -> Any:
        def along(here: Array) -> tuple[Array, Array, Array]:
            def line(t: Array) -> Array:
                return u(jnp.where(here, a + t, a))

            first = derivative(line)
            second = derivative(first)
            zero = jnp.zeros((), a.dtype)
            return first(zero), second(zero), derivative(second)(zero)

        return jax.make_jaxpr(jax.vmap(along))(units)

    for name, derivative in (("reverse", jax.grad), ("forward", jax.jacfwd)):
        try:
            closed = nested(derivative)
        except Exception:
            continue
        return name, [v.reshape(a.shape) for v in by_numpy.run(closed, units)]
    return None


# One program.


HONEST = ("complex numbers have no tangents", "Reverse-mode differentiation does not work")
"""What an engine may say of an exception while it traces."""


class Finding(NamedTuple):
    """What is wrong: with which engine, in one word what, and the rest."""

    engine: str
    what: str
    detail: str


class Report(NamedTuple):
    """What became of a program.

    truth: how brute force was got, or why there is none. applied: the engines that said that they
    apply, and their largest error. beyond: how many derivatives an engine gives as numbers where
    brute force has none.
    """

    program: Program
    truth: str
    findings: list[Finding]
    applied: dict[str, float]
    chosen: str
    beyond: int
    seconds: float


def examine(program: Program, *, thorough: bool = False) -> Report:
    """Compare every engine that claims to apply with brute force.

    Everything is run in numpy (by_numpy.py). thorough: also the public call itself, compiled by
    default, and in one other way: with a chunk size, uncompiled, or under `jax.vmap`.
    """
    began = time.perf_counter()
    with in_double():
        a, u = jnp.asarray(program.start()), program.score()
        truth = brute_force(u, a)
        findings, applied, chosen = [], {}, ""
        beyond = 0
        if truth is None or not np.isfinite(truth[1][0]).any():
            how = "JAX cannot" if truth is None else "not finite"
            findings += _refused(u, a)
        else:
            how = truth[0]
            given, chosen, findings = _every_engine(u, a, how)
            if thorough:
                given |= _public(program, a, how, findings)
            for name, values in given.items():
                found, error = compare(values, truth[1])
                applied[name] = error
                findings += [Finding(name, *one) for one in found]
                beyond += sum(
                    int((np.isfinite(v) & ~np.isfinite(t)).sum())
                    for v, t in zip(values, truth[1], strict=True)
                )
    seconds = time.perf_counter() - began
    return Report(program, how, findings, applied, chosen, beyond, seconds)


def _refused(u: Callable[[Array], Array], a: Array) -> list[Finding]:
    """See that what cannot be differentiated is refused in words of ours."""
    try:
        jaxcam.log_derivatives(u, a)
    except JaxcamError:
        return []
    except Exception as error:
        return [Finding("auto", "raised, where JAX cannot", _words(error))]
    return []


def _every_engine(
    u: Callable[[Array], Array], a: Array, how: str
) -> tuple[dict[str, list[np.ndarray]], str, list[Finding]]:
    """Ask each engine whether it applies, and run all that do, compiled together."""
    findings = []
    try:
        decision = jaxcam.explain_engine(u, a)
    except Exception as error:
        return {}, "", [Finding("explain", "raised", _words(error))]
    programs = {}
    for candidate in decision.candidates:
        words = candidate.proof.words
        if not candidate.engine.exact:
            continue
        if candidate.program is not None:
            programs[candidate.name] = candidate.program
        elif " while tracing" in words and not any(known in words for known in HONEST):
            findings.append(Finding(candidate.name, "refused by an exception", words))
    if decision.chosen is None:
        findings.append(Finding("auto", f"no engine, though JAX can ({how})", str(decision)))

    given = {}
    for name, derive in programs.items():
        closed = jax.make_jaxpr(lambda a, derive=derive: tuple(derive(a)[0]))(a)
        given[name] = by_numpy.run(closed, a)
    return given, decision.chosen or "", findings


def _public(
    program: Program, a: Array, how: str, findings: list[Finding]
) -> dict[str, list[np.ndarray]]:
    """Call `jaxcam.log_derivatives` as users do: compiled, and in one other way."""
    u = program.score()

    def call(a: Array, chunk_size: Any = "auto") -> Any:
        return tuple(jaxcam.log_derivatives(u, a, chunk_size=chunk_size))

    ways = {
        "auto, compiled": lambda: jax.jit(call)(a),
        "auto, chunks of 3": lambda: jax.jit(partial(call, chunk_size=3))(a),
        "auto, uncompiled": lambda: call(a),
        "auto, vmap": lambda: [v[0] for v in jax.vmap(call)(jnp.stack([a, a + 1.0]))],
    }
    ways = {name: ways[name] for name in ("auto, compiled", [*ways][1 + program.seed % 3])}
    given = {}
    for name, way in ways.items():
        try:
            given[name] = [np.asarray(v) for v in way()]
        except Exception as error:
            findings.append(Finding(name, f"raised, though JAX can ({how})", _words(error)))
    return given


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def compare(
    ours: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> tuple[list[tuple[str, str]], float]:
    """Say what differs from brute force where that is finite, and the largest relative error.

    Errors are relative to the largest derivative of the order, or a thousandth of that of any
    order, or a hundredth: what is zero by cancellation is not held to more digits than there are.
    """
    sizes = [np.abs(t[np.isfinite(t)]).max(initial=0) for t in truth]
    found, worst = [], 0.0
    for order, (mine, right, size) in enumerate(zip(ours, truth, sizes, strict=True), 1):
        there = np.isfinite(right)
        if not np.isfinite(mine[there]).all():
            found.append(("not finite", f"u{order}, where brute force is"))
            continue
        unit = max(size, 1e-3 * max(sizes), 1e-2)
        error = float(np.abs(mine[there] - right[there]).max(initial=0) / unit)
        worst = max(worst, error)
        if error > BOUND:
            detail = f"u{order} by {error:.1e}: expected {_few(right)}, got {_few(mine)}"
            found.append(("wrong", detail))
    return found, worst


def _few(values: np.ndarray) -> str:
    return np.array2string(values.reshape(-1)[:6], precision=6)


# Smaller programs.


def smaller(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Leave out what is not needed for a program to fail."""
    while True:
        for other in _simpler(program):
            try:
                still = fails(other)
            except Exception:
                still = False
            if still:
                program = other
                break
        else:
            return program


def _simpler(program: Program) -> list[Program]:
    """List programs with one head less, one step less, or a plainer head."""
    found = []
    if len(program.heads) > 1:
        found += [program._replace(heads=(head,)) for head in program.heads]
    for place, step in enumerate(program.steps, 1):
        for operand in dict.fromkeys(step.operands):
            found.append(_without(program, place, operand))
    if [head.name for head in program.heads] != ["weighted"]:
        found.append(program._replace(heads=(program.heads[0]._replace(name="weighted", seed=0),)))
    if program.point != "generic":
        found.append(program._replace(point="generic"))
    return found


def _without(program: Program, place: int, operand: int) -> Program:
    """Leave one step out: its operand stands for it."""

    def moved(step: Step) -> Step:
        places = [operand if i == place else i for i in step.operands]
        return step._replace(operands=tuple(i - (i > place) for i in places))

    steps = [*program.steps[: place - 1], *map(moved, program.steps[place:])]
    return program._replace(steps=tuple(steps), heads=tuple(map(moved, program.heads)))


# Many programs.


def run(numbers: Sequence[int], results: Path | None, every: int = 5) -> list[dict]:
    """Examine programs by number, and write down what became of each as it is known."""
    done = {}
    if results is not None and results.exists():
        rows = [json.loads(line) for line in results.read_text().splitlines() if line]
        done = {row["number"]: row for row in rows}
    for count, number in enumerate(n for n in numbers if n not in done):
        program = drawn(number)
        try:
            report = examine(program, thorough=number % every == 0)
        except Exception as error:  # of the adversary's own
            broken = Finding("adversary", "raised", _words(error))
            report = Report(program, "broken", [broken], {}, "", 0, 0.0)
        row = {"number": number, "code": str(program), **report._asdict()}
        row["program"] = program
        row["findings"] = [finding._asdict() for finding in report.findings]
        done[number] = json.loads(json.dumps(row))
        if results is not None:
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
        for finding in report.findings:
            print(number, *finding, sep=" | ", flush=True)
        if count % 40 == 39:
            jax.clear_caches()
    return [done[number] for number in numbers]


def summary(rows: Sequence[dict]) -> str:
    """Count what was used, compared and found."""
    steps = [s for row in rows for s in (*row["program"][3], *row["program"][4])]
    used = collections.Counter(name for name, *_ in steps)
    never = sorted(set(attacks.OPERATIONS) - set(used))
    truth = collections.Counter(row["truth"] for row in rows)
    applied = collections.Counter(name for row in rows for name in row["applied"])
    whats = collections.Counter((f["engine"], f["what"]) for row in rows for f in row["findings"])
    worst = max((e for row in rows for e in row["applied"].values() if e <= BOUND), default=0.0)
    return "\n".join([
        f"{len(rows)} programs, {len(used)} kinds of operation, "
        f"{sum(applied.values())} comparisons; brute force: {dict(truth)}",
        f"applied: {dict(applied)}",
        f"chosen: {dict(collections.Counter(row['chosen'] for row in rows))}",
        f"largest error within the bound {worst:.1e}; "
        f"finite where brute force is not: {sum(row['beyond'] for row in rows)} numbers",
        f"seconds a program: {np.mean([row['seconds'] for row in rows]):.2f}",
        f"never used: {len(never)} {never[:20]}",
        *(f"{count} x {engine}: {what}" for (engine, what), count in whats.most_common()),
    ])  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first program")
    parser.add_argument("--results", type=Path, help="a JSONL file, to go on from")
    parser.add_argument("--show", type=int, help="print one program and what becomes of it")
    options = parser.parse_args()
    if options.show is not None:
        program = drawn(options.show)
        print(program, *examine(program, thorough=True)[1:], sep="\n")
        return
    numbers = range(options.seed, options.seed + options.count)
    print(summary(run(numbers, options.results)))


if __name__ == "__main__":
    main()
