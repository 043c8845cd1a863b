"""Do stated standard errors hold what they say, where means are skewed and where alpha jumps?

Two convolutions with random weights on a picture of 5 x 4, in two kinds: ReLU at the default noise,
and GELU with ten times the logits at noise 0.5, where bounded alpha jumps between 0 and 1 as D2
crosses zero. The reference is the map of many samples by many keys. For each n, and for
a tolerance: the share of pixels (those above 1 % of the largest) in which the reference is within
two stated errors of a map, over keys; and the worst error of a pixel as a share of the map's
largest value, beside the one that is stated.

    python -m benchmarks.errors
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import jaxcam
from benchmarks.environment import write

COUNTS = (2, 5, 8, 17, 25, 64)
TOLERANCE = 0.05
WEIGHTS = {"exact": 1.0, "uniform": 0.0}


class Case(NamedTuple):
    """A network, and the noise."""

    act: Callable[[jax.Array], jax.Array]
    logits: float
    noise_level: float


CASES = {
    "ReLU": Case(jax.nn.relu, 1.0, 0.15),
    "GELU, large logits": Case(jax.nn.gelu, 10.0, 0.5),
}


def network(case: Case) -> jaxcam.Split:
    """Draw a network."""
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    first, second = draw(3, 3, 2, 3) / 3, draw(3, 3, 3, 3) / 3
    head = draw(3, 4) * case.logits

    def convolve(x: jax.Array, w: jax.Array) -> jax.Array:
        names = ("NHWC", "HWIO", "NHWC")
        return case.act(lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=names))

    return jaxcam.Split(
        lambda x: convolve(x, first), lambda a, x: convolve(a, second).mean((1, 2)) @ head
    )


def maps(case: Case, **how: Any) -> Callable[[jax.Array, float], list[NDArray]]:
    """Compile the map, its stated error and the number of samples, by keys and sample weights."""
    split = network(case)
    x = np.random.default_rng(4).uniform(size=(1, 5, 4, 2)).astype(np.float32)

    def one(key: jax.Array, weights: jax.Array) -> tuple[Any, ...]:
        found = jaxcam.smooth_grad_cam_pp(
            split, x, 1, key=key, noise_level=case.noise_level, sample_weights=weights, **how
        )
        d = found.diagnostics
        return found.map[0], d.standard_error[0], d.num_samples[0]  # pyright: ignore

    compiled = jax.jit(jax.vmap(one, in_axes=(0, None)))
    return lambda keys, weights: [np.asarray(v, np.float64) for v in compiled(keys, weights)]


def measured(case: Case, keys: int, samples: int) -> dict[str, Any]:
    """Compare maps of few samples with those of many."""
    asked: dict[str, dict[str, Any]] = {f"n = {n}": {"num_samples": n} for n in COUNTS}
    asked[f"to {100 * TOLERANCE:g} %"] = {"tolerance": TOLERANCE, "max_samples": 4096}
    few = {name: maps(case, **how) for name, how in asked.items()}
    many = maps(case, num_samples=samples)
    return {name: compared(many, few, weight, keys) for name, weight in WEIGHTS.items()}


def compared(many: Any, few: dict[str, Any], weight: float, keys: int) -> dict[str, Any]:
    """Say how far maps of few samples are off, and how far they say."""
    references = many(jax.random.split(jax.random.key(77), 12), weight)[0]
    truth, doubt = references.mean(0), references.std(0) / np.sqrt(len(references))
    live = truth > 0.01 * truth.max()
    some, found = jax.random.split(jax.random.key(5), keys), {}
    for name, run in few.items():
        ours, error, taken = run(some, weight)
        off = np.abs(ours - truth)
        worst = off.max((1, 2)) / truth.max()
        found[name] = {
            "covered": float((off <= 2 * np.sqrt(error**2 + doubt**2))[:, live].mean()),
            "stated": float(np.median(error.max((1, 2)) / ours.max((1, 2)))),
            "true": float(np.median(worst)),
            "true_of_9_in_10": float(np.quantile(worst, 0.9)),
            "samples": float(np.median(taken)),
        }
    return found


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4096, help="of each of 12 references")
    parser.add_argument("--out", default="errors")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.errors", *sys.argv[1:]]),
        "found": {
            name: measured(case, options.keys, options.samples) for name, case in CASES.items()
        },
    }
    table = Table(title="two stated errors hold the reference; errors of a map's largest value")
    for column in ("network", "weights", "samples", "covered", "stated", "true", "of 9 in 10"):
        table.add_column(column)
    for name, by_weights in result["found"].items():
        for weights, rows in by_weights.items():
            for asked, row in rows.items():
                shares = (row[key] for key in ("stated", "true", "true_of_9_in_10"))
                taken = f"{asked} ({row['samples']:.0f})" if asked.startswith("to") else asked
                table.add_row(name, weights, taken, f"{row['covered']:.3f}",
                              *(f"{share:.3f}" for share in shares))  # fmt: skip
    Console().print(table)
    Console().print(f"written: {write(options.out, result)}")


if __name__ == "__main__":
    main()
