"""Photos and checkpoints for tests of the command line: small networks of the zoo's own tests."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

from jaxcam.zoo.card import IMAGENET

sys.path.insert(0, str(Path(__file__).parent / "zoo"))

import files
import tiny

SIDE = 64
HOW = {"size": {"shortest_edge": 72}, "do_center_crop": True, "resample": 2,
       "crop_size": {"height": SIDE, "width": SIDE},
       "image_mean": list(IMAGENET.mean), "image_std": list(IMAGENET.std)}  # fmt: skip


def saved(name: str, file: str, change: Callable[[dict], object] = lambda tensors: None) -> str:
    """Write a checkpoint of a small network, in the first of its namings."""
    tensors = tiny.tensors(tiny.network(name), name, next(iter(tiny.FULL[name].namings)))
    change(tensors)
    path = Path(file)
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(tensors, path)
    else:
        path.write_bytes(files.pth(tensors))
    return file


def photo(name: str, size: tuple[int, int] = (90, 60), seed: int = 0) -> Path:
    """Save a picture of something at all scales."""
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (3, 9, 40)]
    large = [np.asarray(Image.fromarray(a).resize(size), np.float32) for a in layers]
    Image.fromarray(np.uint8(sum(large) / len(large))).save(name)
    return Path(name)


def published(folder: Path, monkeypatch) -> None:
    """Make a folder the current one, with a photo, and a checkpoint of a zoo of small networks.

    They are called tiny_resnet18 and so on, and prepare pictures of 64x64.
    """
    monkeypatch.chdir(folder)
    tiny.register(monkeypatch)
    photo("photo.png")
    saved("resnet18", "resnet18.safetensors")
    Path("preprocessor_config.json").write_text(json.dumps(HOW))
