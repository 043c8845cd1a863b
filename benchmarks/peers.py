"""How long does torch-cam's Smooth Grad-CAM++ take on the same weights?

ResNet-50 as transformers has it, random weights, written by `save_pretrained` and read by
`jaxcam.zoo`; one image of 224x224, float32, n noisy samples, in one run on one machine. Each
library has a process of its own, and they take turns: in one process their threads wait actively
for work while the other one works (torch-cam took 3.1 s there instead of 2.2). First the logits of
both are compared, so that the networks are the same.

torch-cam takes one noisy sample after the other, and one gradient of each, from the class back to
the layer; it approximates (``alpha`` from powers of the first derivative of the raw score), so its
maps are others and are not compared here.

    pip install -e .[zoo] torch==2.13.0 transformers && pip install --no-deps torchcam
    python -m benchmarks.peers
"""

# pyright: reportMissingImports=false
import argparse
import importlib.metadata
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.environment import median_ratio, write

# The place, and the layer's name in torchvision's words and in transformers'.
LAYERS = {
    "one block before the last": ("layer4.1", "resnet.encoder.stages.3.layers.1"),
    "the last block": ("layer4", "resnet.encoder.stages.3"),
}
CLASS = 3
Calls = dict[str, Callable[[], Any]]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch_cam = started(torch_cam_calls, folder, options.samples)  # writes the weights
        threads = torch_cam.recv()
        jaxcam = started(jaxcam_calls, folder, options.samples)
        jaxcam.recv()
        sides = {"jaxcam": jaxcam, "torch-cam": torch_cam}
        logits = [asked(side, "logits")[0] for side in sides.values()]
        seconds = {f"{place}: {name}": [] for place in LAYERS for name in sides}
        for turn in range(options.repeats + 1):
            for place in LAYERS:
                for name, side in sides.items():
                    _, taken = asked(side, place)
                    if turn:  # the first one compiles
                        seconds[f"{place}: {name}"].append(taken)
        for side in sides.values():
            side.send(None)
    result = {
        "command": "python -m benchmarks.peers",
        "network": "ResNet-50 of transformers, random weights, 224x224, float32, one image",
        "samples": options.samples,
        "logits_apart": float(abs(logits[0] - logits[1]).max() / abs(logits[1]).max()),
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio": {
            place: median_ratio(seconds, f"{place}: jaxcam", f"{place}: torch-cam")
            for place in LAYERS
        },
        "threads_of_torch": threads,
        "peers": {n: importlib.metadata.version(n) for n in ("torch", "torchcam", "transformers")},
    }
    show(result)
    Console().print(f"written: {write('peers', result)}")


def started(calls: Callable[[str, int], tuple[Calls, Any]], *words: Any) -> Connection:
    """Start a process that answers names of calls with their results and seconds."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=answer, args=(theirs, calls, *words), daemon=True
    )
    process.start()
    return ours


def answer(pipe: Connection, make: Callable[[str, int], tuple[Calls, Any]], *words: Any) -> None:
    """Answer until there is nothing more to do."""
    calls, said = make(*words)
    pipe.send(said)
    while (name := pipe.recv()) is not None:
        began = time.perf_counter()
        found = calls[name]()
        pipe.send((found, time.perf_counter() - began))


def asked(side: Connection, name: str) -> tuple[np.ndarray, float]:
    """Have one call made."""
    side.send(name)
    return side.recv()


def image() -> np.ndarray:
    """Draw the input: ``[1, 224, 224, 3]``."""
    return np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)


def jaxcam_calls(folder: str, samples: int) -> tuple[Calls, Any]:
    """Call this library as a user does."""
    import jax

    import jaxcam
    from jaxcam import zoo

    model, _ = zoo.load("resnet50", folder)
    x, key = image(), jax.random.key(0)

    def smoothed(layer: str) -> Callable[[], Any]:
        split = jaxcam.split(model, layer)
        return lambda: np.asarray(
            jaxcam.smooth_grad_cam_pp(split, x, CLASS, key=key, num_samples=samples).map
        )

    calls = {place: smoothed(layer) for place, (layer, _) in LAYERS.items()}
    return {**calls, "logits": lambda: np.asarray(model(x))}, None


def torch_cam_calls(folder: str, samples: int) -> tuple[Calls, Any]:
    """Call torch-cam as its documentation does."""
    import torch
    import transformers
    from torchcam.methods import SmoothGradCAMpp

    class Logits(torch.nn.Module):
        """The network with a plain tensor for a result, which torch-cam needs."""

        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).logits

    torch.manual_seed(0)
    config: Any = transformers.ResNetConfig()
    config.num_labels = 1000
    published: Any = transformers.ResNetForImageClassification(config)
    published.save_pretrained(folder)
    model = Logits(published).eval()
    x = torch.from_numpy(image().transpose(0, 3, 1, 2).copy())

    def smoothed(layer: str) -> Callable[[], Any]:
        def call() -> Any:
            with SmoothGradCAMpp(model, f"model.{layer}", num_samples=samples) as extractor:
                model(x)
                return extractor(class_idx=CLASS)[0].numpy()

        return call

    calls = {place: smoothed(layer) for place, (_, layer) in LAYERS.items()}
    logits = lambda: model(x).detach().numpy()  # noqa: E731
    return {**calls, "logits": logits}, torch.get_num_threads()


def show(result: dict[str, Any]) -> None:
    """Print what was measured."""
    table = Table(title=f"{result['network']}, n = {result['samples']}")
    for column in ("", "seconds"):
        table.add_column(column)
    for name, seconds in result["seconds"].items():
        table.add_row(name, f"{seconds:.3f}")
    Console().print(table)
    Console().print("jaxcam's time as a share of torch-cam's:", result["ratio"])


if __name__ == "__main__":
    main()
