"""How many nodes does a complete map take, and how near is it to the truth?

`jaxcam.integrate(hires_cam())` at block3 of both bundled networks, from the features of a black
picture, on bundled scenes, for node counts and both rules: the gap, and against Shapley values of
positions (`jaxcam.shapley`) the correlation and the relative error over the scenes, beside the same
of maps that take no path. Seconds of ``m`` nodes over those of the same written by hand, compiled,
at its best batch; and of permutations over those of the head passes that they contain.

    python -m benchmarks.nodes [--scenes 10] [--permutations 150] [--repeats 9]
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import jaxcam
from benchmarks.environment import median_ratio, paired_seconds, write
from jaxcam import bundled, methods

LAYER = "block3"
NODES = (1, 2, 4, 8, 12, 16, 32)
TIMED = 16
WALKED = 16


def truths(split: jaxcam.Split, x: Array, labels: Array, permutations: int) -> tuple[Any, Any]:
    """Sample the truth for every scene, and its standard errors."""
    key = jax.random.split(jax.random.key(0), len(x))
    result = jaxcam.shapley(split, x, labels, key=key, num_permutations=permutations)
    return jax.device_get((result.signed, result.diagnostics.standard_error))


def against_best(
    calls: dict[str, Callable[[], Any]], ours: str, repeats: int
) -> dict[str, Any]:  # fmt: skip
    """Time calls beside each other, and give the ratio of ours to the fastest of the others."""
    taken = paired_seconds(calls, repeats)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    best = min((name for name in calls if name != ours), key=lambda name: medians[name])
    return {"baseline": best, "seconds": medians, "ratio": median_ratio(taken, ours, best)}


def sampling(split: jaxcam.Split, x: Array, labels: Array, repeats: int) -> dict[str, Any]:
    """Time permutations of one scene, and the head passes they contain at their best batch."""
    x, label, key = x[:1], labels[0], jax.random.key(0)
    a, start = split.features(x)[0], split.features(0 * x)[0]
    count = a[..., 0].size
    passes = 2 * WALKED * (count - 1)

    def heads(batch: int) -> Callable[[], Any]:
        @jax.jit
        def run(split: jaxcam.Split, x: Array, a: Array, start: Array) -> Any:
            def score(n: Array) -> Array:
                there = jnp.arange(count).reshape(*a.shape[:-1], 1) < n % count
                return split.scores(jnp.where(there, a, start)[None], x)[0, label]

            return jax.lax.map(score, jnp.arange(passes), batch_size=batch).sum()

        return lambda: run(split, x, a, start)

    calls = {f"heads, {n} at once": heads(n) for n in (1, 4, 16, 64)}
    whole = jax.jit(
        lambda split, x: jaxcam.shapley(split, x, labels[:1], key=key, num_permutations=WALKED)
    )
    calls["shapley"] = lambda: whole(split, x)
    return {"permutations": WALKED, "head_passes": passes} | against_best(calls, "shapley", repeats)


def judged(signed: NDArray, truth: NDArray, error: NDArray) -> dict[str, float]:
    """Give the correlation with the truth, the median over scenes, and the relative error."""
    pairs = list(zip(signed, truth, strict=True))
    return {
        "correlation": statistics.median(
            float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) for one, other in pairs
        ),
        "relative_error": statistics.median(
            float(np.linalg.norm(one - other) / np.linalg.norm(other)) for one, other in pairs
        ),
        "sampling_error": statistics.median(
            float(np.linalg.norm(e) / np.linalg.norm(t)) for e, t in zip(error, truth, strict=True)
        ),
    }


def maps(split: jaxcam.Split, x: Array, labels: Array, truth: Any) -> dict[str, Any]:
    """Judge maps by their truth."""
    rows: dict[str, Any] = {}
    complete = {
        f"{rule}, {n}": jaxcam.integrate(methods.hires_cam(), num_nodes=n, rule=rule)
        for rule in ("gauss", "midpoint")
        for n in NODES
    }
    plain = {
        "grad_cam": methods.grad_cam(), "hires_cam": methods.hires_cam(),
        "taylor_cam": methods.taylor_cam(), "grad_cam_pp": methods.grad_cam_pp(),
        "recipro_cam": methods.recipro_cam(), "chosen": jaxcam.integrate(methods.hires_cam()),
    }  # fmt: skip
    for name, method in {**plain, **complete}.items():
        # Inside jit: what is asked is asked on purpose, and needs no warning.
        run = jax.jit(lambda x, method=method: jaxcam.cam(split, x, method, labels))
        result = jax.device_get(run(x))
        rows[name] = judged(np.asarray(result.signed), *truth)
        if result.diagnostics.gap is not None:
            rows[name]["gap"] = statistics.median(result.diagnostics.gap.tolist())
            rows[name]["rule"] = result.diagnostics.report.rule
    return rows


def seconds(split: jaxcam.Split, x: Array, labels: Array, repeats: int) -> dict[str, Any]:
    """Time nodes of one scene, and the same by hand: both ends, and the gradients by one `vmap`."""
    method = jaxcam.integrate(methods.hires_cam(), num_nodes=TIMED)
    x, label = x[:1], labels[0]

    def by_hand(batch: int) -> Callable[[], Any]:
        @jax.jit
        def run(split: jaxcam.Split, x: Array) -> Any:
            def score(a: Array) -> Array:
                return split.scores(a[None], x)[0, label]

            end, start = split.features(x)[0], split.features(0 * x)[0]
            where, weights = np.polynomial.legendre.leggauss(TIMED)
            shares = jnp.asarray((where + 1) / 2, end.dtype).reshape(-1, batch)
            nodes = start + shares[..., None, None, None] * (end - start)
            found = [jax.vmap(jax.grad(score))(some) for some in nodes]
            mean = jnp.tensordot(jnp.asarray(weights / 2, end.dtype), jnp.concatenate(found), 1)
            return (mean * (end - start)).sum(axis=-1), score(end) - score(start)

        return lambda: run(split, x)

    whole = jax.jit(lambda split, x: jaxcam.cam(split, x, method, labels[:1]))
    calls = {f"by hand, {n} at once": by_hand(n) for n in (1, 4, 8, TIMED)}
    calls["integrate"] = lambda: whole(split, x)
    return {"nodes": TIMED} | against_best(calls, "integrate", repeats)


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--permutations", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", default="nodes")
    options = parser.parse_args()
    scenes = bundled.scenes()[: options.scenes]
    x = jnp.stack([jnp.asarray(scene.image) for scene in scenes])
    labels = jnp.asarray([scene.label for scene in scenes])
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.nodes", *sys.argv[1:]]),
        "layer": LAYER, "baseline": "features of a black picture", "scenes": len(scenes),
        "permutations": options.permutations,
    }  # fmt: skip
    for kind in ("gelu", "relu"):
        model, variables = bundled.load(kind)
        split = jaxcam.split(model, LAYER, variables=variables)
        truth = truths(split, x, labels, options.permutations)
        result[kind] = {
            "maps": maps(split, x, labels, truth),
            "time": seconds(split, x, labels, options.repeats),
            "sampling": sampling(split, x, labels, options.repeats),
        }
        show(kind, result[kind])
    Console().print(f"written: {write(options.out, result)}")


def show(kind: str, result: dict[str, Any]) -> None:
    """Print one network's tables."""
    nodes, walks = result["time"]["ratio"], result["sampling"]["ratio"]
    title = f"{kind}, {LAYER}: {nodes:.2f} of the nodes by hand, {walks:.2f} of the head passes"
    table = Table(title=title)
    columns = ("correlation", "relative_error", "sampling_error", "gap", "rule")
    for column in ("map", *columns):
        table.add_column(column)
    for name, row in result["maps"].items():
        values = (row.get(column, "") for column in columns)
        table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    Console().print(table)


if __name__ == "__main__":
    main()
