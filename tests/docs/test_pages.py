"""The code of the pages runs as it stands, on networks such as its reader has."""

import functools
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
from pages import (
    NNX,
    PAGES,
    README,
    RECIPES,
    ROOT,
    X,
    block,
    blocks,
    commands,
    linen,
    quickly,
    run,
    variables,
)
from PIL import Image

import jaxcam
from jaxcam import bundled, zoo
from jaxcam.cli import main, options
from jaxcam.zoo.card import IMAGENET
from jaxcam.zoo.vit import VisionTransformer

quick = pytest.fixture(scope="module", autouse=True)(quickly)
DOCS = [page for page in PAGES if page not in (README, RECIPES)]
SHELL = [line for line in commands(*DOCS) if line.startswith("jaxcam ")]


class Last(nnx.Module):
    def __init__(self, rngs):
        self.layer4 = nnx.Conv(3, 4, (3, 3), (8, 8), rngs=rngs)
        self.fc = nnx.Linear(4, 300, rngs=rngs)

    def __call__(self, x):
        return self.fc(self.layer4(x).mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def behind():
    """A split with a GELU convolution behind it, and how to run a block on it."""
    made = linen()
    split = jaxcam.split(made["model"], "block3", variables=made["variables"], train=False)
    return {"split": split, "x": X, "jax": jax, "jnp": jnp, "jaxcam": jaxcam}


# models


def test_linen_and_nnx():
    names = run(block("# nnx, Keras"), jaxcam=jaxcam, other=NNX(nnx.Rngs(0)), **linen())
    assert jax.eval_shape(names["split"].features, X).shape == (2, 16, 16, 3)


def test_a_pair_of_functions_and_other_methods():
    def features(params, x):
        return jax.nn.relu(x @ params["a"])

    def scores(params, a, x):
        return a.mean(axis=(1, 2)) @ params["b"]

    params = {"a": jnp.ones((3, 4)) / 3, "b": jnp.eye(4, 5)}
    names = run(block("Partial(features, params)"), features=features, scores=scores, params=params)
    more = run(block("noise_level=0.1"), jax=jax, jaxcam=jaxcam, split=names["split"], x=X)
    assert more["result"].map.shape == (2, 16, 16)
    assert more["result"].diagnostics.report.engine == "gradient"


class Pair(nn.Module):
    """Called as the page calls it: a dict for a result, and a stem of two calls."""

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
    make = functools.partial(VisionTransformer, width=8, depth=12, heads=2, side=32, classes=3)
    vit = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))  # is cut, and not run
    bound = Pair().bind(variables(Pair()))
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


# layers


def test_which_layer(capsys):
    names = run(block("last_layer"), jaxcam=jaxcam, **linen())
    assert names["heat"].shape == (2, 16, 16)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["layer4", "block3", "layer4"]
    assert lines[1].split()[-2] == "adjoint"


def test_the_input_as_a_layer(capsys):
    names = run(block("pixels"), jaxcam=jaxcam, key=jax.random.key(0), **linen())
    maps = [names[name].map for name in ("plain", "smoothed", "attributed")]
    assert {heat.shape for heat in maps} == {(2, 16, 16)}
    assert all(heat.max() > 0 for heat in maps)
    assert (names["attributed"].diagnostics.gap < 0.05).all()
    assert capsys.readouterr().out


# exact, sampling, paths, removal, peers


def test_the_check_of_derivatives(capsys):
    log_score = lambda a: jnp.tanh(a).sum()  # noqa: E731
    run(block("check_derivatives"), jaxcam=jaxcam, log_score=log_score, a=jnp.ones((2, 2, 3)))
    assert "powered*" in capsys.readouterr().out


def test_targets(behind):
    names = run(block("targets.any_of"), **behind)
    assert names["result"].target.tolist() == [-1, -1]


def test_a_tolerance(behind, capsys):
    diagnostics = run(block("tolerance=0.05"), **behind)["d"]
    assert (diagnostics.relative_error <= 0.05).all()
    assert capsys.readouterr().out


def test_a_path_and_its_certificate(behind, capsys):
    names = run(block("d.completeness"), **behind)
    assert (names["d"].gap < 0.05).all()
    assert (names["d"].num_samples == 16).all()
    assert "gauss" in capsys.readouterr().out


def test_a_path_up_to_a_tolerance(behind, capsys):
    names = run(block("tolerance=0.01"), **behind)
    assert (names["d"].relative_error <= 0.01).all()
    assert (names["d"].gap <= 0.01).all()
    assert capsys.readouterr().out


def test_baselines(behind):
    """All four fit; what they give is in test_methods.py."""
    names = run(block("grey ="), **behind)
    split, x = behind["split"], behind["x"]
    for name in ("black", "grey", "mean", "inputs", "others"):
        found = jax.eval_shape(lambda x, m=names[name]: jaxcam.cam(split, x, m), x)
        assert found.map.shape == (2, 8, 8)
        assert found.diagnostics.report.averaged


def test_shapley_values(behind, capsys):
    names = run(block("num_permutations=64"), **behind)
    np.testing.assert_allclose(names["result"].signed.sum((1, 2)), names["d"].total, rtol=1e-4)
    assert (names["d"].relative_error < 0.5).all()
    assert capsys.readouterr().out


def test_the_check_of_removals(behind, capsys):
    names = run(block("check_removal"), **behind)
    assert names["result"].map.shape == (2, 8, 8)
    assert names["check"].l2_error.shape == (2, 3)
    assert (names["check"].l2_error[:, 2] < names["check"].l2_error[:, 0]).all()
    assert capsys.readouterr().out


def test_a_peer(behind):
    names = run(block("peers.pytorch_grad_cam_pp"), target=3, **behind)
    assert names["result"].diagnostics.report.engine == "power"
    assert (names["result"].target == 3).all()


# training


def test_training_code():
    """Two steps of the loop on the page, by the loss on the page."""
    names = run(block("def loss("), jax=jax, jaxcam=jaxcam, model=linen()["model"])
    inside = np.zeros((2, 8, 8), np.float32)
    inside[:, 2:5, 2:5] = 1
    steps = jax.random.split(jax.random.key(0), 2)
    every = [np.stack([array, array]) for array in (X, np.array([3, 4]), inside)]
    before = linen()["variables"]["params"]
    code = block("jax.lax.scan")
    done = run(code, loss=names["loss"], jax=jax, params=before, batches=(*every, steps))
    assert done["values"].shape == (2,)
    assert (done["values"] <= 0).all()
    assert (done["values"] >= -1).all()
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), done["params"], before)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(moved))
    assert max(jax.tree.leaves(moved)) > 0


def test_several_devices(behind):
    assert run(block("jaxcam.spread("), **behind)["result"].map.shape == (2, 8, 8)


def test_half_precision(behind):
    halved = run(block("jaxcam.half_precision("), **behind)["split"]
    halved, a = (jax.jit(lambda x, s=s: s.features(x))(X) for s in (halved, behind["split"]))
    assert (halved == halved.astype("bfloat16").astype("float32")).all()
    assert 0 < float(abs(halved - a).max() / abs(a).max()) < 0.1


# networks, command line


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


def test_a_folder_of_images(tmp_path, monkeypatch):
    """Each command as it stands, its options apart from the addresses of processes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    pixels = np.round(255 * bundled.scene(0).image[..., 0]).astype(np.uint8)
    Image.fromarray(pixels).save("photos/scene.png")
    alone, *several = [line.removesuffix(" &").split()[1:] for line in SHELL if "sweep" in line]
    assert main([*alone, "--method", "grad_cam"]) == 0
    assert np.load("maps/maps.npy").shape == (1, 8, 8)
    asked = [options.parse(command) for command in several]
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
    lines = [line for line in SHELL if "sweep" not in line]
    assert len(lines) == 6
    for command in lines:
        words = command.split()[1:]
        quickly = [] if words[0] == "layers" else ["--method", "grad_cam"]
        status = main([*words, *quickly])
        out, err = capsys.readouterr()
        assert (status, err) == (0, ""), command
        assert "layer4" in out
    assert set(asked) == {"microsoft/resnet-50"}
    assert Image.open("tabby.png").size == (120, 90)
    for name in ("jaxcam-explain.png", "top.png", "both.png"):
        assert Image.open(name).width > 1000


# all pages


BLOCKS = {"models": 4, "layers": 2, "methods": 1, "exact": 1, "sampling": 1, "paths": 4,
          "removal": 1, "peers": 1, "training": 4, "networks": 1, "targets": 1}  # fmt: skip


def test_every_block_is_run():
    """That for Equinox in `tests/collections`, with the library there."""
    found = {page.stem: len(blocks(page)) for page in DOCS if blocks(page)}
    assert found == BLOCKS


def test_commands_of_every_page_are_run():
    assert [line for line in commands(*DOCS) if line not in SHELL] == []


def test_pictures_and_files_that_are_named_exist():
    for page in (*DOCS, RECIPES, ROOT / "CONTRIBUTING.md"):
        for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", page.read_text()):
            assert (page.parent / path).exists(), (page.name, path)


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text()
    trees = re.findall(r"```\{toctree\}\n(.*?)```", index, flags=re.DOTALL)
    lines = [line for tree in trees for line in tree.splitlines()]
    named = sorted(line for line in lines if line and not line.startswith(":"))
    assert named == sorted(page.stem for page in (*DOCS, RECIPES) if page.stem != "index")
