"""Each network's checkpoint given to each other one, at full size but without numbers."""

from functools import cache

import numpy as np
import pytest
from flax import nnx

from jaxcam import zoo
from jaxcam.errors import JaxcamError
from jaxcam.zoo import loading
from jaxcam.zoo.catalogue import ARCHITECTURES
from jaxcam.zoo.weights.contents import Contents, Entry
from jaxcam.zoo.weights.files import Checkpoint

CASES = [(name, naming) for name in zoo.names() for naming in ARCHITECTURES[name].namings]


@pytest.fixture(autouse=True)
def _files_without_numbers(monkeypatch):
    monkeypatch.setattr(loading, "read", lambda call, weights: checkpoint(*weights.split(": ")))


@cache
def checkpoint(name: str, naming: str) -> Checkpoint:
    """Every tensor of its shape, and each of one zero in memory."""
    wanted = loading._wanted(name, 1000)[naming]
    tensors = {k: np.broadcast_to(np.float32(0), slot.shape) for k, slot in wanted.items()}
    entries = {k: Entry(tensor.shape, "float32") for k, tensor in tensors.items()}
    contents = Contents(entries, {}, (), lambda names: {k: tensors[k] for k in names})
    return Checkpoint(contents, {}, {}, name, "0" * 64)


@pytest.mark.parametrize(("name", "naming"), CASES)
def test_every_other_network_refuses_it_and_names_its_own(name, naming):
    for other in zoo.names():
        if other == name:
            continue
        with pytest.raises(JaxcamError) as caught:
            zoo.load(other, f"{name}: {naming}")
        assert f"They are those of {name}: load it by that name." in str(caught.value)


@pytest.mark.parametrize(("name", "naming"), CASES)
def test_its_own_network_takes_it(name, naming, monkeypatch):
    def no_arrays(call, model, rules, tensors):
        return nnx.Dict()

    monkeypatch.setattr(loading, "filled", no_arrays)
    _, card = zoo.load(name, f"{name}: {naming}")
    assert (card.architecture, card.naming) == (name, naming)
