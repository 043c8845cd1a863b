"""What does it cost to move places about between the layer and a bend?

``a -> operation -> 3x3 convolution -> SiLU -> mean -> dense``, float32, compiled: operations and
seconds of the engine that `auto` takes, over those of the same network without the operation, in
paired runs; and the largest relative error against `directional` on a sample of elements. With
``--keras`` also what Keras's networks, which pad by a layer of its own, cost at three layers each
(`jaxcam.explain_layers`), beside the zoo's at the same layers.

    python -m benchmarks.moving [--quick] [--keras]
"""

# pyright: reportMissingImports=false
import argparse
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.tree_util import Partial
from rich.console import Console
from rich.table import Table

from benchmarks.engine_tails import logit_of, normal, pool
from benchmarks.engines import compile_call, relative_error
from benchmarks.environment import median_ratio, paired_seconds, write
from jaxcam import explain_layers, zoo
from jaxcam.derivatives.auto import choose
from jaxcam.derivatives.traced import trace

PLAIN = "plain"
AROUND = ((1, 1), (1, 1), (0, 0))
VALID = {"pad", "edge", "reflect", "symmetric", "wrap"}


def reduced(x: Array, start: float, combine: Callable, size: int) -> Array:
    """Reduce over windows at a stride of two."""
    sizes, strides = (size, size, 1), (2, 2, 1)
    return lax.reduce_window(x, np.asarray(start, x.dtype), combine, sizes, strides, "SAME")


def resized(x: Array, method: str) -> Array:
    """Enlarge to twice the size."""
    return jax.image.resize(x, (2 * x.shape[0], 2 * x.shape[1], x.shape[2]), method)


MOVES: dict[str, Callable[[Array], Array]] = {
    PLAIN: lambda a: a,
    "pad": lambda a: jnp.pad(a, AROUND),
    "crop": lambda a: a[1:-1, 1:-1],
    "strided_slice": lambda a: a[::2, ::2],
    "flip": lambda a: a[::-1, ::-1],
    "roll": lambda a: jnp.roll(a, (1, 2), (0, 1)),
    "split": lambda a: jnp.concatenate(jnp.split(a, 2, -1)[::-1], -1),
    "average_pool": lambda a: reduced(a, 0.0, lax.add, 2) / 4,
    "max_pool": lambda a: reduced(a, -jnp.inf, lax.max, 2),
    "max_pool_3": lambda a: reduced(a, -jnp.inf, lax.max, 3),
    **{mode: partial(jnp.pad, pad_width=AROUND, mode=mode) for mode in sorted(VALID - {"pad"})},
    "repeat": lambda a: jnp.repeat(jnp.repeat(a, 2, 0), 2, 1),
    "nearest": lambda a: resized(a, "nearest"),
    "bilinear": lambda a: resized(a, "linear"),
}  # fmt: skip

X = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
NETWORKS = {  # Keras's name and layers, the zoo's
    "ResNet50": ("resnet50", {
        "conv5_block3_2_conv": "layer4.2.conv2", "conv4_block6_out": "layer3",
        "conv4_block4_2_conv": "layer3.3.conv2",
    }),
    "EfficientNetB0": ("efficientnet_b0", {
        "top_activation": "features.8", "block6d_add": "features.6",
        "block7a_project_bn": "features.7",
    }),
    "MobileNetV3Large": ("mobilenet_v3_large", {
        "activation_19": "features.16", "expanded_conv_13_add": "features.14",
        "expanded_conv_11_add": "features.12",
    }),
}  # fmt: skip


def make(name: str, channels: int) -> Partial:
    """Give the log-score behind an operation."""
    move, padding = MOVES[name], "VALID" if name in VALID else "SAME"
    axes = ("NHWC", "HWIO", "NHWC")

    def scores(w: Any, a: Array) -> Array:
        kernel, dense = w
        x = lax.conv_general_dilated(
            move(a)[None], kernel, (1, 1), padding, dimension_numbers=axes
        )[0]
        return pool(jax.nn.silu(x)) @ dense

    return logit_of(scores, (normal(0, 3, 3, channels, channels), normal(1, channels, 10)))


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--keras", action="store_true", help="Keras's networks too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="moving, or moving_quick")
    options = parser.parse_args()
    shape = (6, 6, 4) if options.quick else (14, 14, 64)
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.moving", *sys.argv[1:]]),
        "shape": shape,
        "precision": "float32",
        "repeats": options.repeats,
        "operations": measured(shape, options.repeats),
    }
    show(result["operations"])
    if options.keras:
        result["keras"] = keras_networks()
    out = options.out or ("moving_quick" if options.quick else "moving")
    Console().print(f"written: {write(out, result)}")


def measured(shape: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """Measure every operation beside the plain network."""
    a = jax.random.normal(jax.random.key(7), shape)
    calls, rows = {}, {}
    for name in MOVES:
        u = make(name, shape[-1])
        choice = choose("auto", trace(u, a))

        def run(u: Partial, a: Array) -> Any:
            return choose("auto", trace(u, a)).derive(a)[0]

        calls[name], about = compile_call(run, u, a)
        rows[name] = {
            "engine": choice.name,
            "operations": choice.operations,
            "compile_seconds": about["compile_seconds"],
            "relative_error": relative_error(calls[name](), u, a),
        }
    seconds = paired_seconds(calls, repeats)
    for name, row in rows.items():
        row["seconds"] = statistics.median(seconds[name])
        row["operations_over_plain"] = row["operations"] / rows[PLAIN]["operations"]
        row["seconds_over_plain"] = median_ratio(seconds, name, PLAIN)
    return rows


def keras_networks() -> dict[str, Any]:
    """Count what Keras's networks cost at some layers, in passes of the network, and the zoo's."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    found: dict[str, Any] = {}
    for name, (ours, layers) in NETWORKS.items():
        theirs = getattr(keras.applications, name)(weights=None, classifier_activation=None)
        model = nnx.eval_shape(lambda ours=ours: zoo.build(ours, rngs=nnx.Rngs(0)))
        one = explain_layers(theirs, X, 1, names=list(layers))
        other = explain_layers(model, X, 1, names=list(layers.values()))
        found[name] = {
            layer: {
                "shape": one[layer].shape,
                "engine": one[layer].engine,
                "passes": one[layer].passes,
                "zoo_layer": same,
                "zoo_passes": other[same].passes,
            }
            for layer, same in layers.items()
        }
        Console().print(found[name])
    return found


def show(rows: dict[str, Any]) -> None:
    """Print the table of operations."""
    table = Table(title="operations and seconds over those of the plain network")
    for column in ("operation", "engine", "operations", "seconds", "relative error"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for name, row in rows.items():
        table.add_row(
            name,
            row["engine"],
            f"{row['operations_over_plain']:.2f}",
            f"{row['seconds_over_plain']:.2f}",
            f"{row['relative_error']:.1e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
