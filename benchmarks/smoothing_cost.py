"""Does smoothing cost more than the forward passes that it contains?

ResNet-50 with random weights, 224x224, float32: `smooth_grad_cam_pp` with n noisy samples at one
block before the last, and at the last, against n + 1 plain forward passes of the same network in
the same run; both compiled, the passes batched like the samples (the fastest of several batch
sizes, so that the baseline is not made of straw). Also the peak memory of the compiled program at
n = 32 and n = 1,000, as the compiler plans it; and what the noise alone takes, to draw and to
compile, beside that of `jax.random.normal`.

    python -m benchmarks.smoothing_cost
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import jaxcam
from benchmarks.environment import median_ratio, paired_seconds, write
from benchmarks.resnet50 import initialised
from jaxcam.pipeline import noise

LAYERS = {"one block before the last": "layer4_1", "the last block": "layer4_2"}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", default="smoothing_cost")
    options = parser.parse_args()
    model, variables = initialised()
    x = jax.random.normal(jax.random.key(1), (1, options.size, options.size, 3))
    splits = {place: jaxcam.split(model, layer, variables=variables, train=False)
              for place, layer in LAYERS.items()}  # fmt: skip
    passes = {
        f"forward, batch {batch}": forward_passes(model, variables, x, options.samples + 1, batch)
        for batch in (1, 4, 8, 16)
    }
    drawn = {
        f"noise by {name}": noises(draw, x, options.samples)
        for name, draw in {"jaxcam": ours, "jax.random.normal": plain}.items()
    }
    calls = passes | {
        place: smoothing(split, x, options.samples) for place, split in splits.items()
    } | {name: call for name, (call, _) in drawn.items()}  # fmt: skip
    seconds = paired_seconds(calls, options.repeats)
    best = min(passes, key=lambda name: statistics.median(seconds[name]))
    result = {
        "command": " ".join(["python -m benchmarks.smoothing_cost", *sys.argv[1:]]),
        "network": f"linen ResNet-50, random weights, {options.size}x{options.size}, float32",
        "samples": options.samples,
        "baseline": f"{options.samples + 1} forward passes, {best.split(', ')[1]}",
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio": {place: median_ratio(seconds, place, best) for place in LAYERS},
        "forward_passes": {
            place: (options.samples + 1) * median_ratio(seconds, place, best) for place in LAYERS
        },
        "noise_compile_seconds": {name: compiling for name, (_, compiling) in drawn.items()},
        "temporary_bytes": {
            str(n): temporary_bytes(splits["one block before the last"], x, n)
            for n in (options.samples, 1000)
        },
    }
    show(result)
    Console().print(f"written: {write(options.out, result)}")


def forward_passes(
    model: Any, variables: Any, x: jax.Array, count: int, batch: int
) -> Callable[[], Any]:
    """Compile ``count`` forward passes of different inputs, ``batch`` at a time."""

    def run(variables: Any, x: jax.Array) -> jax.Array:
        def chunk(i: jax.Array) -> jax.Array:
            shifted = x + 1e-3 * (i * batch + jnp.arange(batch, dtype=x.dtype))[:, None, None, None]
            return model.apply(variables, shifted, train=False)

        whole = jax.lax.map(chunk, jnp.arange(count // batch, dtype=x.dtype))
        rest = model.apply(variables, jnp.repeat(x, count % batch, axis=0), train=False)
        return whole.sum() + rest.sum()

    compiled = jax.jit(run).lower(variables, x).compile()
    return lambda: compiled(variables, x)


def smoothing(split: jaxcam.Split, x: jax.Array, samples: int) -> Callable[[], Any]:
    """Call the library as a user does."""
    key = jax.random.key(0)
    return lambda: jaxcam.smooth_grad_cam_pp(split, x, 3, key=key, num_samples=samples).map


def ours(key: jax.Array, n: jax.Array, x: jax.Array) -> jax.Array:
    """Draw a noisy sample of one image as the library does."""
    return noise.sample(key, n, x, jnp.float32(0.15))


def plain(key: jax.Array, n: jax.Array, x: jax.Array) -> jax.Array:
    """Draw the same by JAX's own function."""
    eps = jax.random.normal(jax.random.fold_in(key, n), x.shape, x.dtype)
    return x + noise.deviation(x, jnp.float32(0.15)) * eps


def noises(
    draw: Callable[..., jax.Array], x: jax.Array, count: int, batch: int = 4
) -> tuple[Callable[[], Any], float]:
    """Compile ``count`` noisy samples, ``batch`` at a time; and say how long that took."""

    def run(key: jax.Array, x: jax.Array) -> jax.Array:
        ids = jnp.arange(count).reshape(-1, batch)
        return jax.lax.map(jax.vmap(lambda n: draw(key, n, x[0])), ids)

    key = jax.random.key(0)
    lowered = jax.jit(run).lower(key, x)
    began = time.perf_counter()
    compiled = lowered.compile()
    return lambda: compiled(key, x), time.perf_counter() - began


def temporary_bytes(split: jaxcam.Split, x: jax.Array, samples: int) -> int:
    """Ask the compiler how much scratch memory the whole program needs."""

    def run(split: jaxcam.Split, x: jax.Array, key: jax.Array) -> jax.Array:
        return jaxcam.smooth_grad_cam_pp(split, x, 3, key=key, num_samples=samples).map

    compiled = jax.jit(run).lower(split, x, jax.random.key(0)).compile()
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise RuntimeError("this backend does not say how much memory a program needs")
    return analysis.temp_size_in_bytes


def show(result: dict[str, Any]) -> None:
    """Print what was measured."""
    table = Table(
        title=f"{result['network']}, n = {result['samples']}, against {result['baseline']}"
    )
    for column in ("", "seconds", "ratio", "forward passes"):
        table.add_column(column)
    for name, seconds in result["seconds"].items():
        ratio, passes = result["ratio"].get(name), result["forward_passes"].get(name)
        shown = ("", "") if ratio is None else (f"{ratio:.3f}", f"{passes:.2f}")
        table.add_row(name, f"{seconds:.3f}", *shown)
    Console().print(table)
    Console().print("seconds to compile:", result["noise_compile_seconds"])
    Console().print("temporary bytes by n:", result["temporary_bytes"])


if __name__ == "__main__":
    main()
