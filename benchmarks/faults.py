"""What do other libraries' departures from Grad-CAM++'s formula do to a map?

The bundled networks, held-out scenes, the class that the scene is of. One departure at a time, on
the same derivatives as the map without it: powers of the gradient of the logit (engine ``power``),
which all these libraries take for ``D2`` and ``D3``, alpha as it comes (``poles="raw"``), and the
same noise where there is noise. So a distance is that of the departure alone. Beside them, what
jaxcam does otherwise on purpose: the exact derivatives instead of powers, bounded poles, and the
samples' own weights ``e^u``.

A distance is ``|faulty - right| / |right|`` (Euclidean) of maps divided by their maxima, median
over the scenes with a 95 % interval by bootstrap. Pointing: in how many scenes the maximum is in a
box of the class, and how many it gains and loses. Alpha: the smallest and the largest of all scenes
among the elements with a positive ``D1``, which are those that count.

torch-cam's noise has an absolute deviation of 0.3 where inputs are standardised; these networks
standardise theirs inside, by 4, so that it is 0.075 here. Users who pass pictures in 0..1 to it get
0.3 as it is.

    python -m benchmarks.faults
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import jaxcam
from benchmarks.environment import write
from benchmarks.removal import summary
from benchmarks.scenes import Scenes, make_scenes
from jaxcam import bundled, maps
from jaxcam.contracts import Method
from jaxcam.methods import grad_cam_pp, peers
from jaxcam.methods.alphas import alphas
from jaxcam.metrics.localisation import localisation
from jaxcam.pipeline import noise
from jaxcam.types import Derivatives

WIDTH = 140
LEVEL = 0.15  # of the noise, as a share of a picture's range
STANDARDISED, AS_IT_IS = 0.3 / 4, 0.3  # torch-cam's deviation, in the units of the pictures
EPS = 1e-8  # torch-cam's
ONE = jnp.float32(1)

Record = dict[str, Any]
Split = jaxcam.Split


class Samples(NamedTuple):
    """Noisy inputs of one scene, ``[n, ...]``: gradients, activations, scores."""

    g: Array
    a: Array
    u: Array


class Found(NamedTuple):
    """A map, and the range of the alphas that count; NaN where that is not asked for."""

    map: NDArray
    low: float = float("nan")
    high: float = float("nan")


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description="What departures from the formula do to a map.")
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--samples", type=int, nargs="+", default=[4, 25])
    parser.add_argument("--layers", nargs="+", default=["block4", "block3"])
    parser.add_argument("--networks", nargs="+", default=["gelu", "relu"])
    parser.add_argument("--out", default="faults")
    options = parser.parse_args()
    # A blank map is a result here: it points at nothing.
    warnings.simplefilter("ignore", jaxcam.JaxcamWarning)
    scenes = make_scenes(options.scenes, 0, "test")
    result = {
        "command": " ".join(["python -m benchmarks.faults", *sys.argv[1:]]),
        "scenes": options.scenes,
        "distance": "median over scenes, and its 95 % interval by bootstrap",
        "networks": {
            kind: {layer: measure(kind, layer, scenes, options.samples) for layer in options.layers}
            for kind in options.networks
        },
    }
    Console(width=WIDTH).print(f"written: {write(options.out, result)}")


def measure(kind: Any, layer: str, scenes: Scenes, counts: list[int]) -> Record:
    """Compare all maps of one layer, and print the comparison."""
    model, variables = bundled.load(kind)
    split = jaxcam.split(model, layer, variables=variables)
    images = (scenes.images[..., None] / 255).astype(np.float32)
    kinds = {
        "Grad-CAM++": partial(clean_maps, split),
        **{f"smoothed, n = {n}": partial(smoothed_maps, split, count=n) for n in counts},
    }
    result = {}
    for name, make in kinds.items():
        found = [
            dict(make(image[None], int(label), jax.random.key(index)))
            for index, (image, label) in enumerate(zip(images, scenes.labels, strict=True))
        ]
        result[name] = {pair: compared([one[pair] for one in found], scenes) for pair in found[0]}
        show(f"{kind} {layer}, {name}, {len(images)} scenes", result[name])
    return result


def clean_maps(split: Split, x: NDArray, label: int, key: Array) -> Iterator[tuple[str, Any]]:
    """Give each departure of Grad-CAM++ by name: the map without it, and the map with it."""
    del key

    def made(method: Method, engine: str = "power") -> NDArray:
        return np.asarray(jaxcam.cam(split, x, method, label, engine=engine).map[0])

    one = drawn(split, jnp.asarray(x), jnp.asarray(label))
    g, a = one.g[0], one.a[0]
    powers = Derivatives(g, g**2, g**3)
    raw = grad_cam_pp(poles="raw")
    right = Found(made(raw), *ranged(quotient(powers, a), g))
    for name, method, options in (
        ("torch-cam: alpha not divided", peers.torch_cam_grad_cam_pp(), {"alpha": "numerator"}),
        ("torch-cam, divided: sum of A D3", peers.grad_cam_pp(third="sum A D3"),
         {"third": "sum A D3"}),
        ("pytorch-grad-cam: eps 1e-6", peers.pytorch_grad_cam_pp(), {"eps": 1e-6}),
        ("tf-keras-vis: alpha sums to one", peers.tf_keras_vis_grad_cam_pp(), {"alpha": "share"}),
        ("xplique: mean of A", peers.xplique_grad_cam_pp(), {"third": "mean A"}),
    ):  # fmt: skip
        yield name, (right, Found(made(method), *ranged(quotient(powers, a, **options), g)))
    bounded = Found(made(grad_cam_pp()))
    yield "jaxcam: poles bounded", (right, bounded)
    yield "all peers: D_k = g^k for exact ones", (Found(made(grad_cam_pp(), "auto")), bounded)


def smoothed_maps(
    split: Split, x: NDArray, label: int, key: Array, *, count: int
) -> Iterator[tuple[str, Any]]:
    """Give each departure of torch-cam's smoothing by name, as above."""
    ids, index = jnp.arange(count), jnp.asarray(label)
    level = jnp.float32(LEVEL)
    noisy = jax.vmap(lambda n: noise.sample(key, n, jnp.asarray(x[0]), level))(ids)
    samples = drawn(split, noisy, index)
    clean = drawn(split, jnp.asarray(x), index).a[0]

    def made(method: Method, engine: str) -> NDArray:
        smooth = jaxcam.smooth(method, num_samples=count, noise_level=LEVEL)
        return np.asarray(jaxcam.cam(split, x, smooth, label, key=key, engine=engine).map[0])

    raw, right = grad_cam_pp(poles="raw"), torch_cam(samples, clean)
    # Maps with departures are put together here; without any it is the library's own.
    yield "none: put together here", (Found(made(raw, "power")), right)
    single: dict[str, Record] = {
        "ReLU(D1) of the last sample": {"last_gradient": True},
        "the map's A of the last sample": {"last_activations": True},
        "sum of A D3": {"third": "sum A D3"},
        "eps 1e-8": {"eps": EPS},
    }
    for name, on in single.items():
        yield f"torch-cam: {name}", (right, torch_cam(samples, clean, **on))
    every = {option: value for on in single.values() for option, value in on.items()}
    yield "torch-cam: these four at once", (right, torch_cam(samples, clean, **every))
    ours_as_it_is = Found(made(grad_cam_pp(), "auto"))
    for deviation in (STANDARDISED, AS_IT_IS):
        other = drawn(split, x + (noisy - x) * deviation / noise.deviation(x[0], level), index)
        faulty = torch_cam(other, clean, **every)
        yield f"torch-cam: deviation {deviation:g}", (right, torch_cam(other, clean))
        yield f"torch-cam as it is, deviation {deviation:g}", (right, faulty)
        yield f"the same against jaxcam as it is, {deviation:g}", (ours_as_it_is, faulty)
    yield "torch-cam: e^u dropped", (Found(made(raw, "exponential")), right)
    yield "jaxcam: poles bounded", (right, Found(made(grad_cam_pp(), "power")))
    exponential = Found(made(grad_cam_pp(), "exponential"))
    yield "all peers: D_k = g^k for exact ones", (ours_as_it_is, exponential)


def torch_cam(
    samples: Samples,
    clean: Array,
    *,
    last_gradient: bool = False,
    last_activations: bool = False,
    **options: Any,
) -> Found:
    """Smooth Grad-CAM++ of powers of gradients, with torch-cam's departures that are asked for."""
    d = Derivatives(*((samples.g**p).mean(0) for p in (1, 2, 3)))
    d = d._replace(d1=samples.g[-1]) if last_gradient else d
    alpha = quotient(d, clean, **options)
    weights = (alpha * jnp.maximum(d.d1, 0)).sum((0, 1))
    shown = samples.a[-1] if last_activations else clean
    return Found(np.maximum(maps.combine(weights, shown), 0), *ranged(alpha, d.d1))


def quotient(d: Derivatives, a: Array, **options: Any) -> Array:
    """Compute alpha: the library's own, or with a peer's options."""
    if not options:
        return alphas(d, a, numerator="d2", poles="raw").alpha
    every = {"third": "sum A", "eps": 0.0, "alpha": "quotient"}
    return peers.alphas(d, a, ONE, **(every | options)).alpha


def ranged(alpha: Array, d1: Array) -> tuple[float, float]:
    """Give the smallest and the largest alpha that counts."""
    counts = np.asarray(alpha)[np.asarray(d1) > 0]
    return float(counts.min()), float(counts.max())


@jax.jit
def drawn(split: Split, x: Array, index: Array) -> Samples:
    """Differentiate the class's logit at each of the inputs ``[n, h, w, c]``."""

    def one(x: Array) -> Samples:
        a = split.features(x[None])[0]
        u, g = jax.value_and_grad(lambda a: split.scores(a[None], x[None])[0, index])(a)
        return Samples(g, a, u)

    return jax.vmap(one)(x)


def compared(pairs: list[tuple[Found, Found]], scenes: Scenes) -> Record:
    """Summarise one departure over the scenes."""
    distances = np.array([distance(right.map, faulty.map) for right, faulty in pairs])
    hits = np.array(
        [
            [
                localisation(found.map, [box for box in boxes.tolist() if box[0] >= 0], (64, 64))[
                    "maximum_in_box"
                ]
                for found in pair
            ]
            for pair, boxes in zip(pairs, scenes.boxes, strict=True)
        ]
    )
    before, after = hits.T
    return {
        "distance": summary(distances, np.median),
        "largest_distance": float(distances.max()),
        "blank": int(sum(not faulty.map.any() for _, faulty in pairs)),
        "pointing": [int(before.sum()), int(after.sum())],
        "gained_lost": [int((after & ~before).sum()), int((before & ~after).sum())],
        "alpha": [span([right for right, _ in pairs]), span([faulty for _, faulty in pairs])],
    }


def distance(right: NDArray, faulty: NDArray) -> float:
    """Compare two maps divided by their maxima; a blank one is at a distance of one."""
    one, other = (found / (found.max() or 1) for found in (right, faulty))
    return float(np.linalg.norm(other - one) / np.linalg.norm(one))


def span(found: list[Found]) -> list[float] | None:
    """Give the range of alpha over the scenes, if it was asked for."""
    low, high = min(one.low for one in found), max(one.high for one in found)
    return None if np.isnan(low) else [low, high]


def show(title: str, result: Record) -> None:
    """Print what was measured."""
    table = Table(title=title)
    for column in ("", "distance", "largest", "pointing", "gained, lost", "alpha", "its alpha"):
        table.add_column(column)
    for name, row in result.items():
        middle, low, high = (100 * value for value in row["distance"])
        before, after = row["pointing"]
        table.add_row(
            name,
            f"{middle:.3g} % [{low:.3g}, {high:.3g}]",
            f"{100 * row['largest_distance']:.3g} %",
            f"{before} to {after}",
            "{}, {}".format(*row["gained_lost"]),
            *("[{:.3g}, {:.3g}]".format(*s) if s else "" for s in row["alpha"]),
        )
    Console(width=WIDTH).print(table)


if __name__ == "__main__":
    main()
