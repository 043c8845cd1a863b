"""How many nodes does a complete map take, and how near is it to the truth?

`jaxcam.integrate(hires_cam())` at block3 of both bundled networks, from the features of a black
picture, on bundled scenes, for node counts and both rules: the gap, and against Shapley values of
positions sampled by antithetic permutations (`shapley`, head passes only) the correlation and the
relative error over the scenes, beside the same of maps that take no path. Seconds of ``m`` nodes
over those of the same written by hand, compiled, at its best batch.

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


def shapley(
    u: Callable[[Array], Array], a: Array, start: Array, key: Array, permutations: int
) -> tuple[Array, Array]:
    """Sample the Shapley values of the positions of ``a: [*spatial, k]``, and their errors.

    ``v(S) = u(start + (a - start) on S)``; each permutation is also walked backwards.
    """
    spatial, count = a.shape[:-1], a[..., 0].size

    def value(mask: Array) -> Array:
        return u(start + (a - start) * mask.reshape(*spatial, 1))

    def walked(order: Array) -> Array:
        rank = jnp.argsort(order)
        masks = (rank[None] < jnp.arange(count + 1)[:, None]).astype(a.dtype)
        return jnp.diff(jax.vmap(value)(masks))[rank]

    def pair(key: Array) -> Array:
        order = jax.random.permutation(key, count)
        return (walked(order) + walked(order[::-1])) / 2

    found = jax.lax.map(pair, jax.random.split(key, permutations))
    error = found.std(axis=0, ddof=1) / permutations**0.5
    return found.mean(axis=0).reshape(spatial), error.reshape(spatial)


def truths(split: jaxcam.Split, x: Array, labels: Array, permutations: int) -> tuple[Any, Any]:
    """Sample the truth for every scene, scene by scene."""
    a, start = split.features(x), split.features(0 * x)

    @jax.jit
    def one(packed: Any) -> tuple[Array, Array]:
        x, a, start, label, key = packed

        def u(a: Array) -> Array:
            return split.scores(a[None], x[None])[0, label]

        return shapley(u, a, start, key, permutations)

    keys = jax.random.split(jax.random.key(0), len(x))
    return jax.device_get(jax.lax.map(one, (x, a, start, labels, keys)))


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
    taken = paired_seconds(calls, repeats)
    best = min(
        (name for name in calls if name != "integrate"),
        key=lambda name: statistics.median(taken[name]),
    )
    return {
        "nodes": TIMED,
        "baseline": best,
        "seconds": {name: statistics.median(values) for name, values in taken.items()},
        "ratio": median_ratio(taken, "integrate", best),
    }


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
        }
        show(kind, result[kind])
    Console().print(f"written: {write(options.out, result)}")


def show(kind: str, found: dict[str, Any]) -> None:
    """Print one network's tables."""
    table = Table(title=f"{kind}, {LAYER}: {found['time']['ratio']:.2f} of the time by hand")
    columns = ("correlation", "relative_error", "sampling_error", "gap", "rule")
    for column in ("map", *columns):
        table.add_column(column)
    for name, row in found["maps"].items():
        values = (row.get(column, "") for column in columns)
        table.add_row(name, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    Console().print(table)


if __name__ == "__main__":
    main()
