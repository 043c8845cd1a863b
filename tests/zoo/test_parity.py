"""Against the PyTorch implementations of torchvision, timm and transformers, by their own files.

Nothing is skipped: without the extra ``parity`` these tests fail. ``references`` is imported inside
of them, because the default run collects this file too.
"""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxcam import zoo
from jaxcam.zoo import loading
from jaxcam.zoo.catalogue import ARCHITECTURES

pytestmark = pytest.mark.parity

LIBRARIES = {  # those that have a network of the same arithmetic
    "vgg16": ("torchvision", "timm"),
    "vgg16_bn": ("torchvision", "timm"),
    "resnet18": ("torchvision", "timm", "transformers"),
    "resnet50": ("torchvision", "timm", "transformers"),
    "resnet101": ("torchvision", "timm", "transformers"),
    "densenet121": ("torchvision", "timm"),
    "mobilenet_v3_large": ("torchvision", "timm"),
    "efficientnet_b0": ("torchvision", "timm"),
    "convnext_tiny": ("torchvision", "timm", "transformers"),
    "vit_b_16": ("torchvision", "timm", "transformers"),
    "deit_small_patch16_224": ("timm", "transformers"),
}
# Files of torchvision's that have no recipe here, because they hold no network of these:
# VGG with a classifier of NaN, and ViT for pictures of 384x384.
UNREADABLE = {"88682ab5", "9ac1b537"}


def images():
    """Two that have nothing in common: noise at all scales from pixels to the whole picture."""
    keys = jax.random.split(jax.random.key(0), 6)
    sizes = (1, 2, 7, 28, 112, 224)
    noise = [jax.random.normal(k, (2, n, n, 3)) for k, n in zip(keys, sizes, strict=True)]
    return np.asarray(
        sum(x.repeat(224 // x.shape[1], 1).repeat(224 // x.shape[1], 2) for x in noise)
    )


@pytest.mark.parametrize(
    ("name", "library"), [(name, library) for name in LIBRARIES for library in LIBRARIES[name]]
)
def test_logits_of_a_library_s_own_file(name, library, tmp_path):
    import references

    x = images()
    reference = references.network(library, name, classes=37)
    expected = references.logits(reference, x)
    model, card = zoo.load(name, references.saved(library, reference, name, tmp_path))
    assert library in card.naming
    # The weights as arguments: as constants XLA would fold them.
    found = nnx.jit(lambda model, x: model(x))(model, x)
    # By what distinguishes two images, so that biases, which all images share, hide nothing.
    scale = np.abs(expected[0] - expected[1]).max()
    error = np.abs(found - expected).max() / scale
    print(f"{name}, {library}: {error:.1e}")
    assert error <= 1e-4


@pytest.mark.parametrize(
    ("name", "renamed"), [("densenet121", ".denselayer"), ("vit_b_16", ".mlp.")]
)
def test_names_that_torchvision_has_given_up_are_those_that_it_still_reads(name, renamed, tmp_path):
    """Its published files have them: it renames them itself, and so do we, to the same tensors."""
    import references
    import torch

    reference = references.network("torchvision", name, classes=5)
    namings = loading._wanted(name, 5)
    own, old = (
        {slot.path: theirs for theirs, slot in namings[naming].items()}
        for naming in (next(iter(namings)), "torchvision, published")
    )
    state = reference.state_dict()
    published = {old[path]: state[own[path]] for path in own}
    assert all((own[path] != old[path]) == (renamed in own[path]) for path in own)
    torch.save(published, tmp_path / "old.pth")

    other = references.network("torchvision", name, classes=5)
    references.read_by_torchvision(name, other, dict(published))
    x = images()
    expected = references.logits(other, x)
    np.testing.assert_array_equal(expected, references.logits(reference, x))
    model, card = zoo.load(name, tmp_path / "old.pth")
    assert card.naming == "torchvision, published"
    found = nnx.jit(lambda model, x: model(x))(model, x)
    scale = np.abs(expected[0] - expected[1]).max()
    assert np.abs(found - expected).max() <= 1e-4 * scale


@pytest.mark.parametrize("name", ["resnet18"])
def test_the_older_format_of_torch(name, tmp_path):
    import references
    import torch

    reference = references.network("torchvision", name, classes=5)
    path = tmp_path / "old.pth"
    torch.save(reference.state_dict(), path, _use_new_zipfile_serialization=False)
    with_parameters = {"epoch": 3, "state_dict": dict(reference.named_parameters())}
    torch.save(with_parameters | {"state_dict": reference.state_dict()}, tmp_path / "new.pth")
    old, new = zoo.load(name, path).model, zoo.load(name, tmp_path / "new.pth").model
    weight = reference.fc.weight.detach().numpy().T
    np.testing.assert_array_equal(old.fc.kernel[...], weight)
    np.testing.assert_array_equal(new.fc.kernel[...], weight)


@pytest.mark.parametrize("name", [n for n in LIBRARIES if "torchvision" in LIBRARIES[n]])
def test_recipes_are_torchvision_s(name):
    """What it says of each of its files, and `prepare` does the same to a picture."""
    import references
    import torch
    from PIL import Image

    published = references.torchvision.models.get_model_weights(name)
    pixels = np.random.default_rng(0).integers(0, 256, (301, 400, 3), np.uint8)
    recipes = ARCHITECTURES[name].recipes
    digests = {w.url.rsplit("-", 1)[1].removesuffix(".pth"): w for w in published}
    assert digests.keys() - UNREADABLE == recipes.keys()
    for digest, how in recipes.items():
        weights = digests[digest]
        expected = weights.transforms(antialias=True)(Image.fromarray(pixels))
        assert isinstance(expected, torch.Tensor)
        found = zoo.prepare(Image.fromarray(pixels), how)
        np.testing.assert_allclose(found, expected.permute(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_library_s_preprocessing_is_read_from_its_folder(library, tmp_path):
    import references
    from PIL import Image

    reference = references.network(library, "convnext_tiny", classes=5)
    _, card = zoo.load(
        "convnext_tiny", references.saved(library, reference, "convnext_tiny", tmp_path)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (301, 401, 3), np.uint8)
    picture = Image.fromarray(pixels)
    expected = references.prepared(library, reference, tmp_path, picture)
    error = np.abs(zoo.prepare(picture, card.preprocessing) - expected)
    # transformers resizes by torch and not by Pillow: a colour in a hundred is one of 255 off.
    assert error.max() <= 1.01 / 255 / min(card.preprocessing.std)
    assert (error > 1e-5).mean() < (0.01 if library == "transformers" else 1e-9)
