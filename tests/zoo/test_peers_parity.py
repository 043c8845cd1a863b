"""Against pytorch-grad-cam and torch-cam themselves, on networks of shared random weights.

Nothing is skipped: without the extra ``parity`` these tests fail, and both libraries must have the
versions that were read. Maps are compared before and after what a library does to them, relative to
the largest value. Each image's class is that of its largest score. Behind a global mean its map is
not blank, since the score is the mean of the map before its ReLU, and a bias; elsewhere it might be
with random weights, and that it is not is asserted.
"""

import copy
import functools
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import peers as theirs
import pytest
from flax import nnx

import jaxcam
from jaxcam import methods, zoo
from jaxcam.types import Split

pytestmark = pytest.mark.parity

CLOSE, CLOSE_IN_DOUBLE = 1e-4, 1e-8
SIDE = 112
NUM_SAMPLES, STD = 4, 0.3  # torch-cam's defaults
# The library and network, our layer, its name there.
LAYERS = {
    "resnet18, layer4": ("torchvision", "resnet18", "layer4", "layer4"),
    "resnet18, layer3": ("torchvision", "resnet18", "layer3", "layer3"),
    "vgg16, features.29": ("torchvision", "vgg16", "features.29", "features.29"),
    "resnet18 of transformers, layer4": (
        "transformers", "resnet18", "layer4", "resnet.encoder.stages.3",
    ),
}  # fmt: skip
RESNETS = [name for name in LAYERS if "resnet" in name]


class Shared:
    """One network in both worlds, an input, a class for each image, and what is inside."""

    def __init__(self, folder, library, name, ours, layer):
        import references
        import torch

        reference = references.network(library, name, classes=37)
        self.model, _ = zoo.load(name, references.saved(library, reference, name, folder))
        self.split, self.x = jaxcam.split(self.model, ours), pictures()
        self.torch, self.ours, self.layer = plain(reference), ours, f"model.{layer}"
        self.input = torch.from_numpy(self.x.transpose(0, 3, 1, 2).copy())
        self.classes = references.logits(reference, self.x).argmax(1)
        self.inside = jax.jit(inside)(self.split, self.x, self.classes)
        self.results = {}

    def explained(self, method):
        """Make our map, once for each method."""
        if method not in self.results:
            target = jnp.asarray(self.classes)
            self.results[method] = jaxcam.cam(self.split, self.x, method, target, engine="power")
        return self.results[method]

    def by_oracle(self, oracle, **faults):
        """Make a map of each image by an oracle, from our gradients and activations."""
        g, a, _ = (np.asarray(kind, np.float64) for kind in self.inside)
        return [oracle(*one, **faults).map for one in zip(g, a, strict=True)]

    def in_double(self):
        """Give our network with weights of double precision, for use in it."""
        graph, state = nnx.split(self.model)
        wide = jax.tree.map(
            lambda v: v.astype(jnp.float64) if jnp.issubdtype(v.dtype, jnp.floating) else v, state
        )
        return jaxcam.split(nnx.merge(graph, wide), self.ours)


@pytest.fixture(scope="module", params=LAYERS)
def shared(request, tmp_path_factory):
    return Shared(tmp_path_factory.mktemp("weights"), *LAYERS[request.param])


def plain(model):
    """Give the network with a tensor for a result, which both libraries need."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            output = self.model(x)
            return getattr(output, "logits", output)

    return Logits().eval()


def pictures():
    """Two that have nothing in common: noise at all scales from pixels to the whole picture."""
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=(2, n, n, 3)) for n in (1, 2, 7, 28, 56, SIDE)]
    grown = (v.repeat(SIDE // v.shape[1], 1).repeat(SIDE // v.shape[1], 2) for v in drawn)
    return sum(grown).astype(np.float32)


def inside(split: Split, x, classes):
    """Give the gradient of a class's score, the activations, and the scores."""
    a = split.features(x)
    own = lambda a: jnp.take_along_axis(split.scores(a, x), classes[:, None], 1)[:, 0]  # noqa: E731
    scores, pull = jax.vjp(own, a)
    return pull(jnp.ones_like(scores))[0], a, scores


def close(found, expected, what, to=CLOSE):
    """Compare maps image by image, and see that they are not blank."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    top = expected.max((1, 2), keepdims=True)
    assert (top > 0).all()
    assert ((expected > 0.1 * top).mean((1, 2)) > 0.02).all()
    error = np.abs(found - expected).max((1, 2)) / top[:, 0, 0]
    print(f"{what}: {error.max():.1e}")
    assert error.max() <= to, what


def apart(one, other):
    """Give the distance of maps whose largest value is one: L2, relative, the largest of images."""
    one, other = (m / m.max((1, 2), keepdims=True) for m in map(np.asarray, (one, other)))
    return (np.linalg.norm(one - other, axis=(1, 2)) / np.linalg.norm(other, axis=(1, 2))).max()


@pytest.mark.parametrize(("package", "version"), [("grad-cam", "1.5.7"), ("torchcam", "0.5.0")])
def test_the_libraries_are_those_that_were_read(package, version):
    assert importlib.metadata.version(package) == version


@pytest.mark.parametrize(
    ("theirs_name", "method", "oracle"),
    [
        ("GradCAM", methods.grad_cam, theirs.pytorch_grad_cam),
        ("GradCAMPlusPlus", methods.peers.pytorch_grad_cam_pp, theirs.pytorch_grad_cam_pp),
    ],
    ids=["GradCAM", "GradCAMPlusPlus"],
)
def test_pytorch_grad_cam(shared, theirs_name, method, oracle):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(index)) for index in shared.classes]
    layer = shared.torch.get_submodule(shared.layer)
    with getattr(pytorch_grad_cam, theirs_name)(shared.torch, [layer]) as cam:
        finished = cam(shared.input, targets)
        a, g = (
            kept[0].numpy()
            for kept in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        raw = np.maximum(cam.get_cam_image(shared.input, layer, targets, a, g), 0)

    found = shared.explained(method())
    close(found.map, raw, "map")
    # It stretches maps, enlarges them, and stretches them again.
    small = theirs.pytorch_grad_cam_scaled(np.asarray(found.map))
    large = np.asarray(jaxcam.upsample(jnp.asarray(small), (SIDE, SIDE)))
    close(theirs.pytorch_grad_cam_scaled(large), finished, "finished")
    close(jaxcam.normalize(jaxcam.upsample(found.map, (SIDE, SIDE))), finished, "by our own words")

    close(shared.by_oracle(oracle), raw, "oracle")
    if theirs_name == "GradCAMPlusPlus":
        ours = shared.explained(methods.grad_cam_pp()).map
        close(ours, shared.by_oracle(oracle, faults=()), "without the fault")
        print(f"eps 1e-6 moves the map by {100 * apart(raw, ours):.2g} %")


@pytest.mark.parametrize(
    ("theirs_name", "method", "oracle"),
    [
        ("GradCAM", methods.grad_cam, theirs.torch_cam),
        ("GradCAMpp", methods.peers.torch_cam_grad_cam_pp, theirs.torch_cam_pp),
    ],
    ids=["GradCAM", "GradCAMpp"],
)
def test_torch_cam(shared, theirs_name, method, oracle):
    import torchcam.methods

    with getattr(torchcam.methods, theirs_name)(shared.torch, shared.layer) as extractor:
        maps = {}
        for normalized in (False, True):
            scores = shared.torch(shared.input)
            maps[normalized] = extractor(shared.classes.tolist(), scores, normalized)[0].numpy()

    found = shared.explained(method())
    close(found.map, maps[False], "map")
    close(theirs.torch_cam_scaled(np.asarray(found.map)), maps[True], "finished")
    close(shared.by_oracle(oracle), maps[False], "oracle")
    if theirs_name == "GradCAMpp":
        ours = shared.explained(methods.grad_cam_pp()).map
        close(ours, shared.by_oracle(oracle, faults=()), "without the faults")
        print(f"alpha not divided moves the map by {100 * apart(maps[False], ours):.2g} %")
        print(f"its largest value after stretching: {maps[True].max():.4f}")


@pytest.mark.parametrize("shared", RESNETS, indirect=True, scope="module")
def test_torch_cam_smoothed(shared):
    """Its own noise is drawn again from torch's seed; the rest is our network's.

    In double precision: its alpha has poles, and near them single precision leaves few digits of
    its maps. How few is printed. Not of VGG-16, whose dense layers fill 3 GB then.
    """
    import torch
    from torchcam.methods import SmoothGradCAMpp

    def explained(network, x):
        with SmoothGradCAMpp(network, shared.layer, num_samples=NUM_SAMPLES, std=STD) as extractor:
            network(x)
            torch.manual_seed(0)
            return extractor(shared.classes.tolist(), normalized=False)[0].numpy()

    single = explained(shared.torch, shared.input)
    x = shared.input.double()
    raw = explained(copy.deepcopy(shared.torch).double(), x)
    torch.manual_seed(0)
    normal = torch.distributions.normal.Normal(0, STD)
    noisy = [x + normal.sample(x.size()) for _ in range(NUM_SAMPLES)]
    with jax.enable_x64(True):
        run = functools.partial(jax.jit(inside), shared.in_double())
        inputs = (v.numpy().transpose(0, 2, 3, 1) for v in (*noisy, x))
        *drawn, (_, clean, _) = [jax.device_get(run(v, shared.classes)) for v in inputs]
    gradients, activations, scores = (np.stack(kind, 1) for kind in zip(*drawn, strict=True))
    samples = list(zip(gradients, activations, clean, scores, strict=True))

    found = [theirs.torch_cam_smooth_pp(*one).map for one in samples]
    close(found, raw, "oracle", to=CLOSE_IN_DOUBLE)
    print(f"its map in single precision is off by {100 * apart(single, raw):.2g} %")
    for fault in theirs.TORCH_CAM_SMOOTH:
        rest = set(theirs.TORCH_CAM_SMOOTH) - {fault}
        without = [theirs.torch_cam_smooth_pp(*one, rest).map for one in samples]
        print(f"without {fault}: {100 * apart(without, raw):.2g} %")


# What else they do, on a small network of their own.


def small(convolution, pool, *, in_place=False, channels=3):
    """Make a network of one convolution in torch, and an input of as many axes as it takes."""
    import torch

    torch.manual_seed(1)
    axes = convolution.__name__.count("3d") + 2
    network = torch.nn.Sequential(
        convolution(2, channels, 3, padding=1), torch.nn.ReLU(inplace=in_place), pool(1),
        torch.nn.Flatten(), torch.nn.Linear(channels, 4),
    )  # fmt: skip
    with torch.no_grad():
        network[4].weight.abs_()
    return network.eval(), torch.randn(1, 2, *range(5, 5 + axes))


def kept_by_pytorch_grad_cam(network, layer, x):
    """Give its map and the gradient and activations that it kept, channels last."""
    from pytorch_grad_cam import GradCAMPlusPlus

    with GradCAMPlusPlus(network, [network[layer]]) as cam:
        cam(x, None)
        kept = cam.activations_and_grads
        a, g = kept.activations[0].numpy().copy(), kept.gradients[0].numpy().copy()
        found = np.maximum(cam.get_cam_image(x, network[layer], None, a, g), 0)[0]
    return found, *(np.moveaxis(one[0], 0, -1).astype(np.float64) for one in (g, a))


def test_pytorch_grad_cam_explains_volumes_too():
    """In version 1.5.7 no axes are written into it: a convolution in space is explained too."""
    import references  # noqa: F401
    import torch

    network, x = small(torch.nn.Conv3d, torch.nn.AdaptiveAvgPool3d)
    found, g, a = kept_by_pytorch_grad_cam(network, 1, x)
    assert found.shape == (5, 6, 7)
    np.testing.assert_allclose(found, theirs.pytorch_grad_cam_pp(g, a).map, rtol=1e-5)
    assert found.max() > 0


def test_torch_cam_leaves_out_what_is_not_a_number():
    """Its sum over feature maps skips NaN, so that a broken network has a map."""
    import references  # noqa: F401
    import torch
    from torchcam.methods import GradCAM

    network, x = small(torch.nn.Conv2d, torch.nn.AdaptiveAvgPool2d)
    with GradCAM(network, "1") as extractor:
        scores = network(x)
        whole = extractor(0, scores, normalized=False)[0][0].numpy()
        with torch.no_grad():
            network[0].bias[1] = float("nan")
        scores = network(x)
        assert scores.isnan().all()
        kept = extractor.hook_a[0][0]
        found = extractor(0, scores, normalized=False)[0][0].numpy()
    assert kept[1].isnan().all()
    others = (network[4].weight[0, [0, 2], None, None] * kept[[0, 2]]).sum(0) / found.size
    np.testing.assert_allclose(found, others.detach().numpy(), rtol=1e-5)
    assert np.abs(found - whole).max() > 1e-3


def test_before_a_relu_in_place_they_explain_what_is_behind_it():
    """The activations they keep share memory with those that the ReLU overwrites.

    So does the tensor that torch-cam differentiates by: its map is that of the ReLU itself.
    pytorch-grad-cam keeps the gradient before the ReLU and the activations behind it.
    """
    import references  # noqa: F401
    import torch
    from torchcam.methods import GradCAMpp

    network, x = small(torch.nn.Conv2d, torch.nn.AdaptiveAvgPool2d, in_place=True)
    maps = []
    for layer in ("0", "1"):
        with GradCAMpp(network, layer) as extractor:
            maps.append(extractor(0, network(x), normalized=False)[0].numpy())
    np.testing.assert_array_equal(*maps)
    assert maps[0].max() > 0

    _, g, a = kept_by_pytorch_grad_cam(network, 0, x)
    _, behind_g, behind_a = kept_by_pytorch_grad_cam(network, 1, x)
    np.testing.assert_array_equal(a, behind_a)
    np.testing.assert_array_equal(g, np.where(a > 0, behind_g, 0))
    assert (a == 0).any()


# Methods that ask for scores, on a network of two convolutions in both worlds.


@functools.cache
def two_convolutions():
    """Give a network in torch, the same cut at its first ReLU and behind its pool, and an input."""
    import references  # noqa: F401
    import torch

    torch.manual_seed(3)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 3),
    ).eval()  # fmt: skip
    with torch.no_grad():
        network[7].weight.mul_(200)  # so that feature maps differ in their shares
    w = {name: value.detach().numpy() for name, value in network.named_parameters()}

    def convolved(x, layer):
        kernel = w[f"{layer}.weight"].transpose(2, 3, 1, 0)
        dims = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)
        return found + w[f"{layer}.bias"].reshape(1, 1, 1, -1)

    def pooled(a):
        batch, height, width, k = a.shape
        return a.reshape(batch, height // 2, 2, width // 2, 2, k).max((2, 4))

    def head(a):
        a = jax.nn.relu(convolved(a, 3)).mean((1, 2))
        return a @ w["7.weight"].T + w["7.bias"].reshape(1, -1)

    first = lambda x: jax.nn.relu(convolved(x, 0))  # noqa: E731
    cuts = {
        "1": Split(first, lambda a, x: head(pooled(a))),
        "2": Split(lambda x: pooled(first(x)), lambda a, x: head(a)),
    }
    x = np.random.default_rng(1).normal(size=(2, 12, 8, 2)).astype(np.float32)
    given = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    scores = cuts["2"].scores(cuts["2"].features(x), x)
    np.testing.assert_allclose(scores, network(given).detach(), rtol=1e-4)
    return network, given, cuts, jnp.asarray(x)


@pytest.mark.parametrize(
    ("theirs_name", "layer", "method"),
    [
        ("ScoreCAM", "2", methods.score_cam(convention="torch-cam")),
        ("ISCAM", "1", methods.is_cam(steps="cumulative")),
    ],
    ids=["ScoreCAM", "ISCAM"],
)
def test_torch_cam_asks_for_scores(theirs_name, layer, method):
    """At the pool masks are enlarged; where nothing is, ours of IS-CAM are theirs."""
    network, given, cuts, x = two_convolutions()
    import torchcam.methods

    with getattr(torchcam.methods, theirs_name)(network, layer) as extractor:
        scores = network(given)
        theirs_map = extractor([1, 1], scores, normalized=False)[0].numpy()
    found = jaxcam.cam(cuts[layer], x, method, 1)
    assert np.asarray(found.weights).max() > 0.25
    other = jaxcam.cam(cuts[layer], x, methods.score_cam(), 1).map
    print(f"the paper's Score-CAM is off by {100 * apart(other, theirs_map):.2g} %")
    assert apart(other, theirs_map) > 0.01
    close(found.map, theirs_map, "map")


@pytest.mark.parametrize(
    ("theirs_name", "method"),
    [
        ("ScoreCAM", methods.score_cam(convention="pytorch-grad-cam")),
        ("AblationCAM", methods.ablation_cam(unit="score")),
    ],
    ids=["ScoreCAM", "AblationCAM"],
)
def test_pytorch_grad_cam_asks_for_scores(theirs_name, method):
    network, given, cuts, x = two_convolutions()
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    aims = [ClassifierOutputTarget(1)] * len(x)
    a = cuts["2"].features(x)
    with getattr(pytorch_grad_cam, theirs_name)(copy.deepcopy(network), [network[2]]) as cam:
        cam.target_layers = [cam.model[2]]
        there = np.asarray(a).transpose(0, 3, 1, 2)
        expected = cam.get_cam_weights(given, cam.model[2], aims, there, None)
    found = jaxcam.cam(cuts["2"], x, method, 1).weights
    error = np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()
    print(f"weights: {error:.1e}")
    assert error <= CLOSE
