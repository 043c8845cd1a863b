"""The README's code runs as it stands, on networks such as its reader has."""

import json
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
from flax import nnx
from PIL import Image

import jaxcam
from jaxcam import bundled, zoo
from jaxcam.cli import main, options
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.vit import VisionTransformer

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
X = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for name in ("block3", "layer4"):
            x = nn.gelu(nn.Conv(8, (3, 3), (2, 2), name=name)(x))
        return nn.Dense(300)(x.mean(axis=(1, 2)))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 3, (3, 3), rngs=rngs)

    def __call__(self, x):
        return x + nnx.relu(self.conv1(x))


class Stage(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs), Block(rngs)])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.layer3 = Stage(rngs)
        self.head = nnx.Linear(3, 300, rngs=rngs)

    def __call__(self, x):
        return self.head(self.layer3(x).mean(axis=(1, 2)))


class Last(nnx.Module):
    def __init__(self, rngs):
        self.layer4 = nnx.Conv(3, 4, (3, 3), (8, 8), rngs=rngs)
        self.fc = nnx.Linear(4, 300, rngs=rngs)

    def __call__(self, x):
        return self.fc(self.layer4(x).mean(axis=(1, 2)))


def block(*words: str) -> str:
    """Find the one block of the README that holds all the words."""
    found = [code for code in BLOCKS if all(word in code for word in words)]
    assert len(found) == 1, (words, len(found))
    return found[0]


def run(code: str, **names):
    """Execute a block under the names that its reader has, with JAX's own promotion rules."""
    promotion = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with promotion[0], promotion[1]:
        exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def linen():
    model = Linen()
    return {"model": model, "variables": model.init(jax.random.key(0), X), "x": X}


def test_a_linen_model_in_ten_lines(linen, capsys):
    code = block("variables=variables", "jaxcam.overlay")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names = run(code, **linen)
    assert names["picture"].shape == (16, 16, 3)
    assert names["picture"].dtype == np.uint8
    assert names["result"].map.shape == (2, 4, 4)
    printed = capsys.readouterr().out
    assert "layer4" in printed
    assert "Report(engine=" in printed


def test_an_nnx_model():
    names = run(block("layer3/blocks/1/conv1"), model=NNX(nnx.Rngs(0)), x=X)
    assert names["result"].map.shape == (2, 16, 16)
    assert (names["result"].target == 281).all()


def test_a_pair_of_functions_and_other_methods():
    def features(params, x):
        return jax.nn.relu(x @ params["a"])

    def scores(params, a, x):
        return a.mean(axis=(1, 2)) @ params["b"]

    params = {"a": jnp.ones((3, 4)) / 3, "b": jnp.eye(4, 5)}
    names = run(block("Partial(features, params)"), features=features, scores=scores, params=params)
    more = run(block("jaxcam.smooth("), jax=jax, jaxcam=jaxcam, split=names["split"], x=X)
    assert more["result"].map.shape == (2, 16, 16)
    assert more["result"].diagnostics.report.engine == "gradient"


def test_a_network_of_the_zoo(tmp_path, monkeypatch):
    """As it stands but for the weights, which are drawn: the tests have no network access."""
    model = Last(rngs=nnx.Rngs(0))
    small = IMAGENET._replace(resize=36, crop=(32, 32))
    asked = []

    def load(name, weights):
        asked.append((name, weights))
        return zoo.Loaded(
            model, zoo.Card(name, weights, "timm", small, "here", 300, None, "", None)
        )

    monkeypatch.setattr(zoo, "load", load)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40), "red").save("cat.jpg")
    names = run(block("zoo.load"))
    assert names["result"].map.shape == (1, 4, 4)
    assert {name for name, _ in asked} == {"resnet50"}
    assert [weights[:5] for _, weights in asked] == ["hf://", "resne"]


def test_which_layer(linen, capsys):
    names = run(block("last_layer"), jaxcam=jaxcam, **linen)
    assert names["heat"].shape == (2, 16, 16)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["layer4", "block3", "layer4"]
    assert lines[1].split()[-2] == "adjoint"


class Pair(nn.Module):
    """Called as the README calls it: a dict for a result, and a stem of two calls."""

    @nn.compact
    def __call__(self, x):
        stem = Twice(name="stem")
        x, rest = stem(x)
        x, _ = stem(x)
        return {"logits": nn.Dense(5)(x.mean((1, 2)) + rest.mean())}


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.gelu(nn.Conv(3, (3, 3))(x)), x


def test_tokens_inputs_regions_and_embeddings():
    """With the network's variables, which a reader of the section above knows to pass."""
    vit = VisionTransformer(width=8, depth=12, heads=2, side=32, classes=3, rngs=nnx.Rngs(0))
    variables = Pair().init(jax.random.key(0), X)
    bound = Pair().bind(variables)
    two = jaxcam.Split(
        lambda x: jnp.tanh(x["image"] + x["depth"]), lambda a, x: a.mean((1, 2)) * x["depth"].mean()
    )
    names = run(
        block("jaxcam.tokens("),
        jaxcam=jaxcam, vit=vit, model=bound, x=X, depth=X[..., :1], two=two, key=jax.random.key(0),
        segments=jaxcam.Split(jnp.tanh, lambda a, x: jnp.repeat(a, 3, axis=-1)),
        embeds=jaxcam.Split(jnp.tanh, lambda a, x: a.mean((1, 2))),
        mask=np.ones((16, 16), bool), reference=np.ones(3, np.float32),
    )  # fmt: skip
    assert names["split"].features(X).shape == (2, 16, 16, 3)
    assert names["result"].map.shape == (2, 16, 16)


def test_training_code(linen):
    names = run(block("def loss("), jax=jax, jaxcam=jaxcam, model=linen["model"])
    inside = np.zeros((2, 8, 8), np.float32)
    inside[:, 2:5, 2:5] = 1
    labels = np.array([3, 4])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        value, gradient = jax.value_and_grad(names["loss"])(
            linen["variables"]["params"], X, labels, inside, jax.random.key(0)
        )
    assert -1 <= value <= 0
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert max(np.abs(leaf).max() for leaf in leaves) > 0


def test_the_check_of_derivatives():
    log_score = lambda a: jnp.tanh(a).sum()  # noqa: E731
    run(block("check_derivatives"), jaxcam=jaxcam, log_score=log_score, a=jnp.ones((2, 2, 3)))


def test_the_check_of_removals(linen, capsys):
    split = jaxcam.split(linen["model"], "block3", variables=linen["variables"], train=False)
    names = run(block("check_removal"), jaxcam=jaxcam, split=split, x=X)
    assert names["result"].map.shape == (2, 8, 8)
    assert names["check"].l2_error.shape == (2, 3)
    assert (names["check"].l2_error[:, 2] < names["check"].l2_error[:, 0]).all()
    assert capsys.readouterr().out


def test_several_devices(linen):
    split = jaxcam.split(linen["model"], "block3", variables=linen["variables"], train=False)
    names = run(block("jaxcam.spread("), jax=jax, jaxcam=jaxcam, split=split, x=X)
    assert names["result"].map.shape == (2, 8, 8)


def test_half_precision(linen):
    split = jaxcam.split(linen["model"], "block3", variables=linen["variables"], train=False)
    names = run(block("jaxcam.half_precision("), jaxcam=jaxcam, split=split)
    a, halved = split.features(X), names["split"].features(X)
    assert (halved == halved.astype("bfloat16").astype("float32")).all()
    assert 0 < float(abs(halved - a).max() / abs(a).max()) < 0.1


def test_a_folder_of_images(tmp_path, monkeypatch):
    """Each command as it stands, its options apart from the addresses of processes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    pixels = np.round(255 * bundled.scene(0).image[..., 0]).astype(np.uint8)
    Image.fromarray(pixels).save("photos/scene.png")
    alone, *several = re.findall(r"^jaxcam (sweep .*?)(?: &)?$", README, re.MULTILINE)
    quick = ["--method", "grad_cam"]
    assert main([*alone.split(), *quick]) == 0
    assert np.load("maps/maps.npy").shape == (1, 8, 8)
    asked = [options.parse(command.split()) for command in several]
    assert [(one.process, one.processes) for one in asked] == [(0, 2), (1, 2)]
    assert asked[0].coordinator == asked[1].coordinator
    assert callable(jaxcam.sweep.run)


def test_photographs_by_a_published_network(tmp_path, monkeypatch, capsys):
    """Each command as it stands, by a checkpoint of a small network in place of the hub's."""
    published.published(tmp_path, monkeypatch)
    published.tiny.rename(monkeypatch, "tiny_resnet50", "resnet50")
    published.saved("resnet50", "hub/model.safetensors")
    names = ["tench, Tinca tinca", "tabby, tabby cat", "a", "b", "c"]
    Path("hub/config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
    Path("preprocessor_config.json").rename("hub/preprocessor_config.json")
    asked = []

    def snapshot_download(repository, **_):
        asked.append(repository)
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    published.photo("cat.jpg", (120, 90))
    published.photo("dog.png", (90, 120), seed=1)
    commands = re.findall(r"^jaxcam ((?:layers|explain) .*)$", README, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        words = command.split()
        quick = [] if words[0] == "layers" else ["--method", "grad_cam_pp"]
        status = main([*words, *quick])
        out, err = capsys.readouterr()
        assert (status, err) == (0, ""), command
        assert "layer4" in out
    assert set(asked) == {"microsoft/resnet-50"}
    assert Image.open("tabby.png").size == (120, 90)
    for name in ("jaxcam-explain.png", "top.png", "both.png"):
        assert Image.open(name).width > 1000


def test_every_block_is_run():
    """That for Equinox in `tests/collections`, with the library there."""
    assert len(BLOCKS) == 13


def test_commands_are_marked_for_the_machine_that_checks_them():
    marks = re.findall(r"<!-- command: (\w+) -->\n```sh\n(.*?)\n```", README)
    assert [name for name, _ in marks] == ["explain", "test"]
    assert all("\n" not in command for _, command in marks)


def test_pictures_and_files_that_are_named_exist():
    root = Path(__file__).parents[1]
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", README):
        assert (root / path).exists(), path
