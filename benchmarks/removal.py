"""How near does Taylor-CAM come to truly removing activations, and does it pay?

The bundled networks, held-out scenes, the class that the scene is of, target ``exp_logit``. For
EVERY element of a layer the effect of setting it to zero, by a forward pass of its own in float64,
against the series of `jaxcam.methods.taylor_cam` at orders 1 (HiResCAM), 2 and 3 in float32, as
users get it. Errors are those of `jaxcam.RemovalCheck`, of single elements and of whole maps: a map
sums effects of both signs, whose errors at first order are mostly of one, so that it is further off
than its elements. Then what the maps find, beside Grad-CAM and Grad-CAM++ (bounded), with 95 %
intervals by bootstrap over scenes; and the time of a map against that of all the forward passes.

On the ReLU twin the three orders are one, and what is left are kinks crossed on the way:
``without_kink`` is the share of elements whose effect is the first order's, in float64, to 1e-9 of
the largest effect.

    python -m benchmarks.removal
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import jaxcam
from benchmarks.environment import median_ratio, paired_seconds, write
from benchmarks.scenes import Scenes, make_scenes
from jaxcam import bundled, methods
from jaxcam.metrics.localisation import localisation
from jaxcam.metrics.removal import removed, signed_map
from jaxcam.pipeline.network import Network
from jaxcam.targets import Aim, as_target

ORDERS = (1, 2, 3)
ERRORS = ("elements, L2", "elements, median", "signed map, L2", "map, L2")
WIDTH = 110  # of the printed tables
RESAMPLES = 10_000
CHUNKS = (32, 128, 512)  # batch sizes of the forward passes; the fastest counts

Split = jaxcam.Split
Record = dict[str, Any]


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description="Taylor-CAM against true removal.")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--layers", nargs="+", default=["block4", "block3"])
    parser.add_argument("--networks", nargs="+", default=["gelu", "relu"])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", default="removal")
    options = parser.parse_args()
    # A map without a positive value is a result here: nothing is found by it.
    warnings.simplefilter("ignore", jaxcam.JaxcamWarning)
    scenes = make_scenes(options.scenes, 0, "test")
    result = {
        "command": " ".join(["python -m benchmarks.removal", *sys.argv[1:]]),
        "scenes": options.scenes,
        "intervals": f"95 %, percentiles of {RESAMPLES:,} resamples of the scenes",
        "networks": {
            kind: {
                layer: measure(kind, layer, scenes, options.engine, options.repeats)
                for layer in options.layers
            }
            for kind in options.networks
        },
    }
    Console(width=WIDTH).print(f"written: {write(options.out, result)}")


def measure(kind: Any, layer: str, scenes: Scenes, engine: str, repeats: int) -> Record:
    """Answer all questions about one layer, and print the answers."""
    model, variables = bundled.load(kind)
    split = jaxcam.split(model, layer, variables=variables)
    images = (scenes.images[..., None] / 255).astype(np.float32)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda value: value.astype(jnp.float64), variables)
        split64 = jaxcam.split(model, layer, variables=wide)
    records = []
    for image, label, boxes in zip(images, scenes.labels, scenes.boxes, strict=True):
        records.append(one_scene(split, split64, image[None], int(label), boxes, engine))
    result = {
        "engine": records[0]["engine"],
        "elements": records[0]["elements"],
        "orders_apart": max(record["orders_apart"] for record in records),
        "without_kink": summary(columns(records, "without_kink"), np.median),
        "errors": {
            name: [summary(column, np.median) for column in columns(records, name)]
            for name in ERRORS
        },
        "correlation_of_map": [summary(one, np.median) for one in columns(records, "alike")],
        **localised([record["localisation"] for record in records]),
        "time": timed(split, images[:1], int(scenes.labels[0]), engine, repeats),
    }
    show(f"{kind} {layer}, {len(images)} scenes", result)
    return result


def one_scene(
    split: Split, split64: Split, x: NDArray, label: int, boxes: NDArray, engine: str
) -> Record:
    """Remove every element of one scene, and make every map of it."""
    shape = jax.eval_shape(split.features, x).shape[1:]
    every = int(np.prod(shape))
    found = jaxcam.check_removal(split, x, label, engine=engine, samples=every)
    with jax.enable_x64(True):
        true = jaxcam.check_removal(
            split64, x.astype(np.float64), label, order=1, samples=every, chunk_size=CHUNKS[0]
        )
    truth = spread(true.elements[0], true.removal[0])
    first = spread(true.elements[0], true.taylor[0, 0])
    series = [spread(found.elements[0], effects) for effects in found.taylor[0]]
    signed = [signed_map(np.arange(every), effects, shape) for effects in (truth, *series)]
    true_map, *by_order = (np.maximum(values, 0) for values in signed)
    maps = {
        "true removal": true_map,
        **{f"order {k}": values for k, values in zip(ORDERS, by_order, strict=True)},
    }
    for name, method, how in (
        ("Grad-CAM", methods.grad_cam(), "auto"),
        ("Grad-CAM++ exact", methods.grad_cam_pp(), engine),
        ("Grad-CAM++ approximate", methods.grad_cam_pp(), "exponential"),
    ):
        maps[name] = np.asarray(jaxcam.cam(split, x, method, label, engine=how).map[0])
    known = [box for box in boxes.tolist() if box[0] >= 0]
    apart, reach = np.abs(truth - first), np.abs(truth)
    return {
        "engine": found.engine,
        "elements": every,
        "orders_apart": float(np.abs(series[2] - series[0]).max() / np.abs(series[0]).max()),
        "without_kink": float((apart <= 1e-9 * reach.max()).mean()),
        "elements, L2": [relative(t, truth) for t in series],
        "elements, median": [
            float(np.median(np.abs(t - truth)) / np.median(reach[reach > 0])) for t in series
        ],
        "signed map, L2": [relative(one, signed[0]) for one in signed[1:]],
        "map, L2": [relative(one, true_map) for one in by_order],
        "alike": [float(np.corrcoef(one.ravel(), true_map.ravel())[0, 1]) for one in by_order],
        "localisation": {
            name: localisation(values.astype(np.float32), known, x.shape[1:3])
            for name, values in maps.items()
        },
    }


def columns(records: list[Record], name: str) -> NDArray:
    """Put one measure of all scenes into an array, scenes last."""
    return np.array([record[name] for record in records]).T


def spread(elements: NDArray, effects: NDArray) -> NDArray:
    """Put effects into the order of the elements."""
    ordered = np.zeros(len(elements))
    ordered[elements] = effects
    return ordered


def relative(ours: NDArray, truth: NDArray) -> float:
    """``|ours - truth| / |truth|`` in the Euclidean norm."""
    return float(np.linalg.norm(ours - truth) / np.linalg.norm(truth))


def localised(found: list[dict[str, Record]]) -> dict[str, dict[str, Record]]:
    """Summarise what maps find, method by method, and by how much order 3 finds more than others.

    pointing: the share of scenes whose maximum is in a box. energy: the share of a map's sum that
    is (0 for a blank map), mean over scenes. recall: the instances found, of all instances.
    """
    one = np.ones(len(found))
    boxes = np.array([scene["order 3"]["boxes"] for scene in found], float)

    def values(name: str, key: str, weight: NDArray) -> NDArray:
        column = np.nan_to_num(np.array([float(scene[name][key]) for scene in found]))
        return np.stack([column, weight], axis=-1)

    measured = {
        name: {
            "pointing": values(name, "maximum_in_box", one),
            "energy": values(name, "energy_in_boxes", one),
            "recall": values(name, "found", boxes),
        }
        for name in found[0]
    }

    def row(name: str, *, less: bool) -> Record:
        """Summarise a method, or what it lacks to order 3."""
        best = measured["order 3"]
        pairs = {key: np.array(column) for key, column in measured[name].items()}
        for key, column in pairs.items() if less else ():
            column[:, 0] = best[key][:, 0] - column[:, 0]
        return {key: summary(column, ratio) for key, column in pairs.items()}

    others = [name for name in measured if name != "order 3"]
    return {
        "found": {name: row(name, less=False) for name in measured},
        "order_3_finds_more": {name: row(name, less=True) for name in others},
    }


def ratio(pairs: NDArray, axis: int = 0) -> Any:
    """Divide sums: ``[..., 2] -> [...]``."""
    top, bottom = np.moveaxis(pairs.sum(axis=axis), -1, 0)
    return top / bottom


def summary(values: NDArray, statistic: Callable[..., Any]) -> list[float]:
    """Give a statistic of the scenes and its 95 % interval: ``[value, low, high]``."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(statistic(values[drawn], axis=1), (2.5, 97.5))
    return [float(statistic(values, axis=0)), float(low), float(high)]


def timed(split: Split, x: NDArray, label: int, engine: str, repeats: int) -> Record:
    """Time a map against the forward passes that it stands for, of one scene."""
    target = as_target(label)
    elements = jnp.arange(int(np.prod(jax.eval_shape(split.features, x).shape)))

    def passes(chunk: int) -> Callable[[], Any]:
        def run(split: Split, x: jax.Array, elements: jax.Array) -> jax.Array:
            network, aim = Network(split, target), Aim(jnp.asarray(label))
            a = network.features(x)
            return removed(network, a, x, aim, elements, chunk_size=chunk)

        held = jaxcam.Split(*(jax.tree_util.Partial(half) for half in split))
        compiled = jax.jit(run).lower(held, x[0], elements).compile()
        return lambda: compiled(held, x[0], elements)

    def maps(order: int) -> Callable[[], Any]:
        method = methods.taylor_cam(order=order)
        return lambda: jaxcam.cam(split, x, method, label, engine=engine).map

    removals = {f"removal, batch {chunk}": passes(chunk) for chunk in CHUNKS}
    calls = removals | {"order 3": maps(3), "order 1": maps(1)}
    seconds = paired_seconds(calls, repeats)
    best = min(removals, key=lambda name: statistics.median(seconds[name]))
    return {
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "fastest_removal": best,
        "order_3_of_removal": median_ratio(seconds, "order 3", best),
    }


def show(title: str, result: Record) -> None:
    """Print what was measured."""
    errors = Table(title=f"{title}: error against true removal ({result['engine']})")
    for column in ("", *(f"order {order}" for order in ORDERS)):
        errors.add_column(column)
    for name, orders in result["errors"].items():
        errors.add_row(name, *(f"{100 * value:.4f} %" for value, _, _ in orders))
    alike = (f"{value:.5f}" for value, _, _ in result["correlation_of_map"])
    errors.add_row("correlation of maps", *alike)
    Console(width=WIDTH).print(errors)
    for what in ("found", "order_3_finds_more"):
        table = Table(title=f"{title}: {what.replace('_', ' ')}")
        for column in ("", "pointing", "energy", "recall"):
            table.add_column(column)
        for name, row in result[what].items():
            cells = (f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in row.values())
            table.add_row(name, *cells)
        Console(width=WIDTH).print(table)
    print(
        f"without a kink: {result['without_kink'][0]:.4f}; orders 1 and 3 apart by",
        f"{result['orders_apart']:.2e}; seconds:",
        {name: round(value, 4) for name, value in result["time"]["seconds"].items()},
        f"order 3 takes {result['time']['order_3_of_removal']:.3f} of the removals' time",
    )


if __name__ == "__main__":
    main()
