"""Small published networks, and checkpoints of them: those of the zoo's own tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))

import files
import safetensors.numpy
import tiny


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder to work in, the current one, and a zoo of small networks with a checkpoint each.

    They are called tiny_resnet18 and so on; ``resnet18.safetensors``, ``.pth`` hold their weights.
    """
    monkeypatch.chdir(tmp_path)
    tiny.register(monkeypatch)
    return tmp_path


def saved(name: str, file: str, change=lambda tensors: None) -> str:
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
