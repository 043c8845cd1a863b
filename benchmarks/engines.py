"""How much faster is each engine than differentiating along every element in turn?

For each tail (engine_tails.py), every engine that proves its condition, float32, compiled: seconds
in paired runs, ratio to `directional` as users get it (compiled, merged, in chunks that fit the
cache), operations, temporary memory, compile time; which engine `auto` takes, and how much slower
than the fastest exact one that is. Every exact engine is compared with `directional` on a sample of
elements in the same run. Where `directional` would run for over a minute, chunks of it are timed
(all do the same work) and scaled by their number; ``sampled`` says so.

    python -m benchmarks.engines [--quick] [--tails gap_norm_dense two_convolutions]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core
from jax.tree_util import Partial
from rich.console import Console
from rich.table import Table

from benchmarks.engine_tails import TAILS, Tail
from benchmarks.environment import median_ratio, paired_seconds, write
from jaxcam.contracts import Engine
from jaxcam.derivatives.auto import ENGINES, choose
from jaxcam.derivatives.engines import directional
from jaxcam.derivatives.traced import trace
from jaxcam.jaxprs.cost import needs
from jaxcam.jaxprs.loops import fitting, in_chunks

BASE = "directional"
SAMPLED_STEPS = (2, 6)  # chunks: the difference is what a chunk costs, the rest is paid once
SECONDS_ENOUGH = 60
COMPARED = 16
GROWTH = (7, 28)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tails", nargs="*", choices=[tail.name for tail in TAILS])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="engines, or engines_quick")
    options = parser.parse_args()
    chosen = [tail for tail in TAILS if tail.name in (options.tails or [t.name for t in TAILS])]
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.engines", *sys.argv[1:]]),
        "precision": "float32",
        "quick": options.quick,
        "repeats": options.repeats,
        "operations": "of the jaxpr, loops times their length; of XLA, which counts a loop once",
        "tails": {},
    }
    for tail in chosen:
        shape = tail.quick if options.quick else tail.shape
        row = measure(tail, shape, options.repeats)
        if tail.size_grows:
            sizes = (4, 8) if options.quick else GROWTH
            row["growth"] = growth(tail, shape[-1], sizes, options.repeats)
        result["tails"][tail.name] = row
        show(tail, row)
    out = options.out or ("engines_quick" if options.quick else "engines")
    Console().print(f"written: {write(out, result)}")


def measure(tail: Tail, shape: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Measure every engine that applies to one tail."""
    u, a = tail.make(shape[-1]), jax.random.normal(jax.random.key(7), shape)
    traced = trace(u, a)
    proofs = {engine.name: engine.prove(traced, engine.name) for engine in ENGINES}
    engines = [engine for engine in ENGINES if proofs[engine.name].applies and engine.name != BASE]
    base, about_base = baseline(u, a)
    calls, rows = dict(base), {BASE: about_base}
    for engine in engines:
        calls[engine.name], rows[engine.name] = compiled(engine, u, a)
    seconds = paired_seconds(calls, repeats)
    seconds[BASE] = scaled(seconds, about_base)
    for name, row in rows.items():
        row["seconds"] = statistics.median(seconds[name])
        row["times_faster_than_directional"] = median_ratio(seconds, BASE, name)
        row["form"], row["proof"] = proofs[name].form, proofs[name].words
    for engine in engines:
        if engine.exact:
            rows[engine.name]["relative_error"] = relative_error(calls[engine.name](), u, a)
    exact = {engine.name for engine in engines if engine.exact} | {BASE}
    best = min(exact, key=lambda name: rows[name]["seconds"])
    auto = choose("auto", trace(u, a)).engine.name
    return {
        "shape": shape,
        "engines": rows,
        "refused": {name: proof.words for name, proof in proofs.items() if not proof.applies},
        "auto": auto,
        **compile_times(u, a),
        "best_exact": best,
        "auto_over_best": median_ratio(seconds, auto, best),
        "target": {"base": tail.base, "factor": tail.target, **reached(tail, seconds, auto, best)},
    }


def compile_times(u: Partial, a: Array) -> dict[str, float]:
    """Time choosing an engine and compiling it, against compiling the plain gradient."""

    def seconds(run: Callable[[Partial, Array], Any]) -> float:
        began = time.perf_counter()
        jax.jit(run).lower(u, a).compile()
        return time.perf_counter() - began

    turns = [  # of new functions every time: nothing is cached
        (
            seconds(lambda u, a: jax.grad(u)(a)),
            seconds(lambda u, a: choose("auto", trace(u, a)).derive(a)[0]),
        )
        for _ in range(3)
    ]
    gradient, chosen = (statistics.median(times) for times in zip(*turns, strict=True))
    return {
        "gradient_compile_seconds": gradient,
        "choose_and_compile_seconds": chosen,
        "compile_over_gradient": chosen / gradient,
    }


def reached(
    tail: Tail, seconds: dict[str, list[float]], auto: str, best: str
) -> dict[str, float | bool]:
    """Hold a tail against its target: so many times faster, or hardly slower than ``power``."""
    if tail.base == "power":
        ratio = median_ratio(seconds, auto, "power")
        return {"measured": ratio, "met": ratio <= tail.target}
    ratio = median_ratio(seconds, BASE, best)
    return {"measured": ratio, "met": ratio >= tail.target}


def baseline(u: Partial, a: Array) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """Compile `directional`: the whole of it, or two numbers of chunks where that takes long."""
    program = directional.program(u, a)
    chunk = fitting(program, a.size)
    steps = -(-a.size // chunk)
    sampled = {
        f"{BASE}, {few} chunks": compile_call(
            lambda u, a, few=few: in_chunks(
                core.jaxpr_as_fun(directional.program(u, a)), few * chunk, chunk
            ),
            u, a,
        )
        for few in SAMPLED_STEPS
    }  # fmt: skip
    about = {"chunk_size": chunk, "steps": steps, "operations": needs(program).operations * a.size}
    estimate = SECONDS_ENOUGH
    if steps > max(SAMPLED_STEPS):
        seconds = paired_seconds({name: call for name, (call, _) in sampled.items()}, 1)
        (estimate,) = scaled(seconds, {"sampled": True, **about})
    if steps <= max(SAMPLED_STEPS) or estimate < SECONDS_ENOUGH:
        call, compiled_about = compiled(directional.ENGINE, u, a)
        return {BASE: call}, {**about, **compiled_about, "sampled": False}
    few = f"{BASE}, {max(SAMPLED_STEPS)} chunks"
    calls = {name: call for name, (call, _) in sampled.items()}
    return calls, {**about, **sampled[few][1], "sampled": True, "sampled_steps": SAMPLED_STEPS}


def scaled(seconds: dict[str, list[float]], about: dict[str, Any]) -> list[float]:
    """Give the seconds of `directional` in each turn: measured, or what is paid once and chunks."""
    if not about["sampled"]:
        return seconds[BASE]
    few, more = SAMPLED_STEPS
    turns = zip(seconds[f"{BASE}, {few} chunks"], seconds[f"{BASE}, {more} chunks"], strict=True)
    return [
        short + max(0.0, (long - short) / (more - few)) * (about["steps"] - few)
        for short, long in turns
    ]


def compiled(engine: Engine, u: Partial, a: Array) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Compile an engine with weights and activations as arguments."""

    def run(u: Partial, a: Array) -> Any:
        return engine.derive(trace(u, a), a)[0]

    call, about = compile_call(run, u, a)
    return call, {**about, "operations": needs(jax.make_jaxpr(run)(u, a)).operations}


def compile_call(
    run: Callable[[Partial, Array], Any], u: Partial, a: Array
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Compile, and say what the compiler says of the program."""
    began = time.perf_counter()
    program = jax.jit(run).lower(u, a).compile()
    compile_seconds = time.perf_counter() - began
    cost, memory = program.cost_analysis(), program.memory_analysis()
    about = {
        "compile_seconds": compile_seconds,
        "xla_operations": cost.get("flops") if cost else None,
        "temporary_bytes": memory.temp_size_in_bytes if memory else None,
    }
    return lambda: program(u, a), about


def relative_error(found: Any, u: Partial, a: Array) -> float:
    """Compare with `directional` on a sample of elements; the largest of the three orders.

    Relative to the largest value of the sample; NaN counts as infinite.
    """
    chosen = jax.random.choice(
        jax.random.key(11), a.size, (min(COMPARED, a.size),), replace=False
    ).astype(jnp.int32)
    along = jax.jit(
        lambda u, a, chosen: jax.lax.map(core.jaxpr_as_fun(directional.program(u, a)), chosen)
    )
    errors = []
    for ours, truth in zip(found, along(u, a, chosen), strict=True):
        size = float(abs(truth).max())
        apart = float(abs(np.asarray(ours).reshape(-1)[np.asarray(chosen)] - truth).max())
        errors.append(apart / size if size > 0 else apart)
    return float(np.nan_to_num(max(errors, key=lambda error: (np.isnan(error), error)), nan=np.inf))


def growth(tail: Tail, channels: int, sizes: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Time what ``auto`` takes at two sizes of the activations, 16 times apart in elements."""
    engines, seconds = [], []
    for size in sizes:
        u, a = tail.make(channels), jax.random.normal(jax.random.key(7), (size, size, channels))
        engine = choose("auto", trace(u, a)).engine
        engines.append(engine.name)
        if engine.name == BASE:
            calls, about = baseline(u, a)
            turns = scaled(paired_seconds(calls, repeats), about)
        else:
            call, _ = compiled(engine, u, a)
            (turns,) = paired_seconds({engine.name: call}, repeats).values()
        seconds.append(statistics.median(turns))
    return {
        "sizes": sizes,
        "engines": engines,
        "seconds": seconds,
        "ratio": seconds[1] / seconds[0],
    }


def show(tail: Tail, row: dict[str, Any]) -> None:
    """Print one tail."""
    target = row["target"]
    shape = "x".join(map(str, row["shape"]))
    table = Table(title=f"{tail.name} {shape}")
    for column in ("engine", "seconds", "times faster", "operations", "temporary MB", "compile s",
                   "relative error"):  # fmt: skip
        table.add_column(column, justify="left" if column == "engine" else "right", no_wrap=True)
    for name, one in sorted(row["engines"].items(), key=lambda item: item[1]["seconds"]):
        error = one.get("relative_error")
        table.add_row(
            name + (" (sampled)" if one.get("sampled") else ""),
            f"{one['seconds']:.4g}",
            f"{one['times_faster_than_directional']:.4g}",
            f"{one['operations']:.3g}",
            f"{one['temporary_bytes'] / 1e6:.1f}",
            f"{one['compile_seconds']:.1f}",
            "" if error is None else f"{error:.1e}",
        )
    console = Console(width=110)
    console.print(table)
    console.print(
        f"auto: {row['auto']}, {row['auto_over_best']:.2f} times the best ({row['best_exact']}); "
        f"target {target['factor']} against {target['base']}: {target['measured']:.3g}, "
        f"{'met' if target['met'] else 'missed'}; choosing and compiling: "
        f"{row['compile_over_gradient']:.1f} times compiling the gradient"
    )
    if "growth" in row:
        console.print("growth:", row["growth"])


if __name__ == "__main__":
    main()
