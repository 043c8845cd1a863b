"""What does a smoothed map cost on this device, in plain forward passes of the same network?

Networks of real size with random weights, 224x224, a batch of images: `smooth_grad_cam_pp` with n
noisy samples one block before the last (ResNet-50) and at the last stage (ConvNeXt-T), against the
same number of plain forward passes in the same run, batched as is fastest; in float32, and with the
activations up to the layer in bfloat16 (`jaxcam.half_precision`), against forward passes in the
same precision. Compilation is counted apart. The maps are compared with those of the processor.

    python -m benchmarks.device
    python -m benchmarks.device --samples 8 --networks resnet50     # on a processor
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import jaxcam
from benchmarks.environment import median_ratio, paired_seconds, write
from jaxcam import zoo

LAYERS = {"resnet50": "layer4.1", "convnext_tiny": "features.7"}
PRECISIONS = ("float32", "bfloat16")
CLASS = 3


class Case(NamedTuple):
    """One network in one precision: how it is called, and how its passes are."""

    split: jaxcam.Split
    passes: Callable[[jax.Array], jax.Array]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[8, 32, 128, 256])
    parser.add_argument("--networks", nargs="+", choices=LAYERS, default=[*LAYERS])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=[*PRECISIONS])
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 32, 128])
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", default="device")
    options = parser.parse_args()
    shape = (options.images, options.size, options.size, 3)
    x = jax.random.normal(jax.random.key(1), shape)
    rows = []
    for network in options.networks:
        model = zoo.build(network, rngs=nnx.Rngs(0))
        for precision in options.precisions:
            case = prepared(model, LAYERS[network], precision)
            base = {"network": network, "layer": LAYERS[network], "precision": precision}
            base |= agreement(case, prepared(model, LAYERS[network], "float32"), x)
            for samples in options.samples:
                row = base | measured(case, x, samples, options.batches, options.repeats)
                rows.append(row)
                Console().print(row)
    result = {
        "command": " ".join(["python -m benchmarks.device", *sys.argv[1:]]),
        "options": {k: v for k, v in vars(options).items() if k != "out"},
        "rows": rows,
    }
    show(rows)
    Console().print(f"written: {write(options.out, result)}")


def prepared(model: Any, layer: str, precision: str) -> Case:
    """Cut the network, and make its plain pass in the same precision."""
    split = jaxcam.split(model, layer)
    whole = jax.tree_util.Partial(_whole, split)
    if precision == "float32":
        return Case(split, whole)
    # A pass in half precision is one up to the scores: those are the "layer" of this split.
    passes = jaxcam.half_precision(jaxcam.Split(whole, _nothing)).features
    return Case(jaxcam.half_precision(split), passes)


def _whole(split: jaxcam.Split, x: jax.Array) -> jax.Array:
    return split.scores(split.features(x), x)


def _nothing(a: jax.Array, x: jax.Array) -> jax.Array:
    return a


def measured(
    case: Case, x: jax.Array, samples: int, batches: list[int], repeats: int
) -> dict[str, Any]:
    """Time the map and the passes in turns."""
    key, images = jax.random.key(0), len(x)
    count = images * (samples + 1)
    began = time.perf_counter()

    def explain() -> jax.Array:
        return jaxcam.smooth_grad_cam_pp(case.split, x, CLASS, key=key, num_samples=samples).map

    jax.block_until_ready(explain())
    compiling = time.perf_counter() - began
    passes = {f"batch {b}": plain(case.passes, x, count, min(b, count)) for b in batches}
    seconds = paired_seconds({"map": explain} | passes, repeats)
    best = min(passes, key=lambda name: statistics.median(seconds[name]))
    taken = statistics.median(seconds["map"])
    return {
        "samples": samples,
        "first_call_seconds": compiling,
        "seconds": taken,
        "images_per_second": images / taken,
        "passes": count,
        "passes_batched": best,
        "passes_seconds": statistics.median(seconds[best]),
        "ratio": median_ratio(seconds, "map", best),
    }


def plain(
    passes: Callable[[jax.Array], jax.Array], x: jax.Array, count: int, batch: int
) -> Callable[[], Any]:
    """Compile ``count`` forward passes of different inputs, ``batch`` at a time, at least."""

    def run(passes: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        def chunk(i: jax.Array) -> jax.Array:
            return passes(x[:1] + 1e-3 * (i * batch + offsets)[:, None, None, None])

        turns, rest = divmod(count, batch)
        found = jax.lax.map(chunk, jnp.arange(turns, dtype=x.dtype)).sum()
        return found + (passes(x[:1] + offsets[:rest, None, None, None]).sum() if rest else 0)

    offsets = jnp.arange(batch, dtype=x.dtype)
    compiled = jax.jit(run).lower(passes, x).compile()
    return lambda: compiled(passes, x)


def agreement(case: Case, single: Case, x: jax.Array) -> dict[str, float]:
    """Compare the map with the processor's, and with that in single precision throughout."""
    cpu = jax.devices("cpu")[0]
    found = np.asarray(one_map(case.split, x))
    with jax.default_device(cpu):
        same, exact = (
            np.asarray(one_map(*jax.device_put((c.split, x), cpu))) for c in (case, single)
        )
    return {
        "apart_from_cpu": float(np.abs(found - same).max() / same.max()),
        "apart_from_float32_on_cpu": float(np.abs(found - exact).max() / exact.max()),
    }


def one_map(split: jaxcam.Split, x: jax.Array) -> jax.Array:
    """Explain with two samples, the same on every device."""
    return jaxcam.smooth_grad_cam_pp(split, x, CLASS, key=jax.random.key(0), num_samples=2).map


def show(rows: list[dict[str, Any]]) -> None:
    """Print what was measured."""
    device = jax.devices()[0]
    table = Table(title=f"{device.platform}: {device.device_kind}")
    names = (
        "network", "precision", "samples", "seconds", "ratio", "images_per_second",
        "apart_from_cpu", "apart_from_float32_on_cpu",
    )  # fmt: skip
    for name in names:
        table.add_column(name.replace("_", " "))
    for row in rows:
        values = (row[name] for name in names)
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    Console().print(table)


if __name__ == "__main__":
    main()
