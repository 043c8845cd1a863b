"""How the bundled networks were trained, how good they are, and which pictures are bundled.

    python -m benchmarks.train_bundled

Trains both kinds of `jaxcam.bundled.network.DigitNet` on 16,000 scenes, rounds their variables to
float16, measures the ROUNDED networks on scenes of digit images that training never saw, and writes
networks and ten pictures into ``jaxcam/bundled/data`` and the figures into ``benchmarks/results``
(all into one folder with ``--out``). On a CPU, XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=
makes convolutions faster; the flags of a run are written down with its results.
"""

import argparse
import json
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks.environment import RESULTS, environment
from benchmarks.scenes import Scenes, make_scenes
from jaxcam.bundled.network import KINDS, DigitNet

DATA = Path(__file__).parents[1] / "jaxcam/bundled/data"
NOISE_LEVEL = 0.15  # of each picture's range: what Smooth Grad-CAM++ adds by default
PICTURES = ((3, 3), (5, 3), (2, 3), (6, 3), (0, 3), (8, 3), (4, 2), (7, 2), (1, 2), (9, 1))
"""The bundled pictures in their order: the digit and how often it is there."""


class State(NamedTuple):
    """What a training step hands to the next."""

    variables: dict[str, Any]
    optimizer: Any


@partial(jax.jit, static_argnames=("model", "optimizer", "smoothing"), donate_argnames="state")
def step(state: State, images, labels, *, model, optimizer, smoothing):
    """One step on ``images: uint8 [batch, 64, 64]``; returns the state and the mean loss."""

    def loss(params):
        variables = {**state.variables, "params": params}
        logits, moved = model.apply(variables, unit(images), train=True, mutable=["batch_stats"])
        wanted = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
        return optax.softmax_cross_entropy(logits, wanted).mean(), moved

    params = state.variables["params"]
    (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradient, state.optimizer, params)
    return State({"params": optax.apply_updates(params, updates), **moved}, moments), value


@partial(jax.jit, static_argnames="model")
def logits_of(variables, x, *, model):
    """Logits in evaluation mode; the weights are arguments, not constants."""
    return model.apply(variables, x)


def unit(images):
    """``uint8 [n, 64, 64] -> float32 [n, 64, 64, 1]`` in 0..1."""
    return jnp.asarray(images, jnp.float32)[..., None] / 255


def train(model: DigitNet, scenes: Scenes, args: argparse.Namespace) -> dict[str, Any]:
    """AdamW with warm-up and cosine decay; returns the trained variables."""
    per_epoch = len(scenes.labels) // args.batch
    steps = args.epochs * per_epoch
    schedule = optax.warmup_cosine_decay_schedule(0.0, args.rate, steps // 20, steps)
    optimizer = optax.adamw(schedule, b2=0.98, weight_decay=0.01)
    variables = dict(model.init(jax.random.key(args.seed), unit(scenes.images[:1])))
    state = State(variables, optimizer.init(variables["params"]))
    still = {"model": model, "optimizer": optimizer, "smoothing": args.label_smoothing}
    for epoch in range(args.epochs):
        start, losses = time.perf_counter(), []
        order = np.random.default_rng((args.seed, epoch)).permutation(len(scenes.labels))
        for rows in order[: per_epoch * args.batch].reshape(per_epoch, args.batch):
            state, loss = step(state, scenes.images[rows], scenes.labels[rows], **still)
            losses.append(loss)
        mean = float(jnp.stack(losses).mean())
        seconds = time.perf_counter() - start
        print(f"{model.kind} epoch {epoch + 1}/{args.epochs}: loss {mean:.4f}, {seconds:.1f} s")
    return state.variables


def rounded(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """As stored: ``{"params/block1/enter/conv/kernel": float16 array, ...}``."""
    named = flatten_dict(variables, sep="/")
    return {name: np.asarray(value, np.float16) for name, value in named.items()}


def predict(model: DigitNet, arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Logits ``[n, 10]`` of pictures by the variables as stored, 250 pictures at a time."""
    named = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}
    variables = unflatten_dict(named, sep="/")
    parts = [images[row : row + 250] for row in range(0, len(images), 250)]
    return np.concatenate([logits_of(variables, unit(part), model=model) for part in parts])


def measure(logits: np.ndarray, noisy: np.ndarray, scenes: Scenes) -> dict[str, Any]:
    """Accuracies: overall, per number of instances, and under the noise that smoothing adds."""
    right = logits.argmax(1) == scenes.labels
    return {
        "accuracy": float(right.mean()),
        "accuracy_by_count": {str(n): float(right[scenes.counts == n].mean()) for n in (1, 2, 3)},
        "accuracy_noisy": float((noisy.argmax(1) == scenes.labels).mean()),
    }


def add_noise(images: np.ndarray) -> np.ndarray:
    """The pictures with noise of sigma = 0.15 (max - min), not clipped."""
    sigma = NOISE_LEVEL * np.ptp(images, axis=(1, 2), keepdims=True).astype(np.float32)
    return images + sigma * np.random.default_rng(0).standard_normal(images.shape, np.float32)


def pick(scenes: Scenes, right: np.ndarray) -> np.ndarray:
    """Rows of the bundled pictures: the clearest of each sort that both networks get right."""
    clear = np.array([clearness(*one) for one in zip(scenes.images, scenes.boxes, strict=True)])
    rows = []
    for label, count in PICTURES:
        fits = right & (scenes.labels == label) & (scenes.counts == count)
        if fits.any():
            rows.append(int(np.where(fits, clear, -np.inf).argmax()))
        else:
            print(f"left out: no held-out scene with {count} of digit {label} is classified right")
    return np.array(rows, int)


def clearness(image: np.ndarray, boxes: np.ndarray) -> float:
    """How far the faintest instance's ink is above the ground's median, in the ground's spread."""
    ink = min(np.percentile(image[r0:r1, c0:c1], 75) for r0, c0, r1, c1 in boxes if r0 >= 0)
    ground = np.median(image)
    return float((ink - ground) / (8 + ground - np.percentile(image, 10)))


def provenance() -> dict[str, Any]:
    """The environment, with the packages that matter here and the command to repeat it."""
    place = environment()
    extra = {name: version(name) for name in ("optax", "scikit-learn", "pillow")}
    command = " ".join(["python -m benchmarks.train_bundled", *sys.argv[1:]])
    return {"command": command, **place, "versions": {**place["versions"], **extra}}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train, measure and store the bundled networks.")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=16000, help="training scenes")
    parser.add_argument("--held-out", type=int, default=4000, help="test scenes")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--label-smoothing", type=float, default=0.05)
    parser.add_argument("--out", type=Path, help="write everything here, not into the package")
    return parser.parse_args()


def main() -> None:
    args = parse()
    data, results = args.out or DATA, args.out or RESULTS
    for folder in (data, results):
        folder.mkdir(parents=True, exist_ok=True)
    scenes = make_scenes(args.scenes, args.seed)
    held_out = make_scenes(args.held_out, args.seed, "test")
    noisy, right, networks = add_noise(held_out.images), np.ones(args.held_out, bool), {}
    for kind in KINDS:
        model, start = DigitNet(kind), time.perf_counter()
        arrays = rounded(train(model, scenes, args))
        seconds = round(time.perf_counter() - start, 1)
        np.savez_compressed(data / f"{kind}.npz", allow_pickle=False, **arrays)
        logits = predict(model, arrays, held_out.images)
        right &= logits.argmax(1) == held_out.labels
        size = sum(value.size for name, value in arrays.items() if name.startswith("params/"))
        figures = measure(logits, predict(model, arrays, noisy), held_out)
        networks[kind] = {**figures, "parameters": size, "train_seconds": seconds}
        print(kind, networks[kind])
    rows = pick(held_out, right)
    pictures = {name: value[rows] for name, value in held_out._asdict().items()}
    np.savez_compressed(data / "scenes.npz", allow_pickle=False, **pictures)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    record = {"settings": settings, "networks": networks, "pictures": rows.tolist()}
    text = json.dumps({**record, **provenance()}, indent=2)
    (results / "train_bundled.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
