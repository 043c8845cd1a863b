"""The commands on pictures and checkpoints of one's own, which these tests make themselves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from console import run
from PIL import Image
from published import HOW, SIDE, files, photo, published, saved, tiny

import jaxcam
from jaxcam import pictures, zoo
from jaxcam.cli import main

RESNET = ("--model", "tiny_resnet18", "--weights", "resnet18.safetensors")
QUICK = ("--method", "grad_cam_pp")
NAMES = ["tabby, tabby cat", "crane", "Crane", "night owl", "barn owl"]


def run_json(capsys, *words: object) -> dict:
    status, out, err = run(capsys, *words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    published(tmp_path, monkeypatch)
    return tmp_path


def alone(path: str, layer: str, target=None, method=None):
    """What the library says of one picture."""
    model, card = zoo.load("tiny_resnet18", "resnet18.safetensors")
    x = zoo.prepare(pictures.read(Path(path)), card.preprocessing)[None]
    method = method or jaxcam.methods.grad_cam_pp()
    key = jax.random.key(0)
    return jaxcam.cam(jaxcam.split(model, layer), x, method, target, key=key)


def test_a_photo_by_a_published_network(capsys, folder):
    words = ("explain", "photo.png", *RESNET, "--layer", "layer2", "--samples", 3)
    facts = run_json(capsys, *words)
    method = jaxcam.smooth(jaxcam.methods.grad_cam_pp(), num_samples=3)
    truth = alone("photo.png", "layer2", method=method)
    np.testing.assert_allclose(facts["map"], truth.map[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(facts["scores"], truth.scores[0], rtol=1e-4, atol=1e-5)
    assert facts["label"] == f"class {facts['class']}"
    assert (facts["model"], facts["layer"]) == ("tiny_resnet18", "layer2")
    assert facts["size"] == [90, 60]
    assert facts["seen"] == pytest.approx([18.33, 3.33, 71.67, 56.67], abs=0.01)
    weights = facts["weights"]
    assert (weights["place"], weights["naming"]) == (RESNET[3], "torchvision and timm")
    assert weights["preprocessing"]["crop"] == [SIDE, SIDE]
    assert weights["preprocessing_from"] == "preprocessor_config.json"
    assert len(weights["sha256"]) == 64


def test_a_person_reads_which_weights_and_whose_preparation(capsys, folder):
    status, out, err = run(capsys, "explain", "photo.png", *RESNET, *QUICK)
    assert (status, err) == (0, "")
    for words in (
        r"model +tiny_resnet18$", r"weights +resnet18\.safetensors$",
        r"prepared by +preprocessor_config\.json$", r"layer +layer4, a map of 2 x 2$",
    ):  # fmt: skip
        assert re.search(f"^{words}", out, re.MULTILINE), words


def test_the_last_layer_with_positions_where_none_is_named(capsys, folder):
    facts = run_json(capsys, "explain", "photo.png", *RESNET, *QUICK)
    assert facts["layer"] == "layer4"
    np.testing.assert_allclose(facts["map"], alone("photo.png", "layer4").map[0], rtol=1e-4)
    again = run_json(capsys, "explain", "photo.png", *RESNET, *QUICK, "--layer", "auto")
    assert again["map"] == facts["map"]


def test_a_later_call_of_a_layer_by_the_name_that_layers_gives_it(capsys, folder):
    listed = run_json(capsys, "layers", "--model", "tiny_resnet18")["layers"]
    name = "layer3/0/relu call=1"
    assert name in [layer["name"] for layer in listed]
    facts = run_json(capsys, "explain", "photo.png", *RESNET, *QUICK, "--layer", name)
    block = run_json(capsys, "explain", "photo.png", *RESNET, *QUICK, "--layer", "layer3")
    np.testing.assert_allclose(facts["map"], block["map"], rtol=1e-5)


@pytest.mark.slow
def test_two_derivatives_beside_each_other(capsys, folder):
    words = ("--layer", "layer3", "--method", "grad_cam_pp")
    facts = run_json(capsys, "compare", "photo.png", *RESNET, *words)
    assert facts["maps"]["exact"]["engine"] == "affine"
    assert facts["difference"]["relative_l2"] < 1e-5
    assert facts["removal"]["true"]["passes"] == np.prod(
        alone("photo.png", "layer3").map.shape) * 32  # fmt: skip


def test_where_there_are_too_many_activations_none_is_removed(capsys, folder, monkeypatch):
    monkeypatch.setattr("jaxcam.cli.commands.compare.REMOVALS", 100)
    status, out, err = run(capsys, "compare", "photo.png", *RESNET, "--method", "grad_cam_pp")
    assert (status, err) == (0, "")
    assert "note: 256 activations would take a forward pass each: none were removed" in out
    assert "Taylor-CAM" not in out


# parts of a checkpoint


def in_parts(path: str) -> dict:
    """Write weights, their averages and options, as training scripts do."""
    own = tiny.tensors(tiny.network("resnet18"), "resnet18", "torchvision and timm")
    content = {"state_dict": own, "ema": {f"module.{name}": own[name] for name in own}, "epoch": 3,
               "args": files.thing("argparse", "Namespace", lr=0.1)}  # fmt: skip
    content["ema"] |= {"module.fc.bias": own["fc.bias"][::-1].copy()}
    Path(path).write_bytes(files.made(content))
    return content


def test_a_part_of_a_checkpoint_is_named_and_so_is_what_is_not_used(capsys, folder):
    content = in_parts("run.pth")
    words = ("explain", "photo.png", *RESNET[:3], "run.pth", *QUICK)
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert "got 2 in the checkpoint: 'state_dict', 'ema.module'" in err
    scores = {}
    for part in ("state_dict", "ema"):
        facts = run_json(capsys, *words, "--part", part)
        scores[part] = facts["scores"]
        assert facts["weights"]["part"] == {"ema": "ema.module"}.get(part, part)
    moved = content["state_dict"]["fc.bias"][::-1] - content["state_dict"]["fc.bias"]
    difference = np.subtract(scores["ema"], scores["state_dict"])
    np.testing.assert_allclose(difference, moved, atol=1e-4)
    assert facts["weights"]["beside"] == [
        f"state_dict ({len(content['state_dict'])} tensors)", "epoch", "args (argparse.Namespace)",
        "code that was not run (argparse.Namespace)",
    ]  # fmt: skip


def test_a_part_of_nothing(capsys, folder):
    for words in (["explain", "photo.png"], ["layers"], ["layers", *RESNET[:2]]):
        status, out, err = run(capsys, *words, "--part", "ema")
        assert (status, out) == (2, "")
        assert "--part: needs the weights that it is a part of; got none" in err
    in_parts("run.pth")
    facts = run_json(capsys, "layers", *RESNET[:3], "run.pth", "--part", "state_dict")
    assert facts["layers"]


# tokens

VIT = ("--model", "tiny_vit_b_16", "--weights", "vit/model.safetensors")


@pytest.fixture
def vit(folder):
    saved("vit_b_16", "vit/model.safetensors")
    Path("vit/preprocessor_config.json").write_text(json.dumps(HOW))


def test_tokens_become_a_map_of_the_picture(capsys, vit):
    layer = "encoder.layers.encoder_layer_1.ln_1"
    words = (*QUICK, "--engine", "exponential", "--layer", layer)
    facts = run_json(capsys, "explain", "photo.png", *VIT, *words)
    model, card = zoo.load("tiny_vit_b_16", "vit/model.safetensors")
    x = zoo.prepare(pictures.read(Path("photo.png")), card.preprocessing)[None]
    cut = jaxcam.split(model, layer, to_map=jaxcam.tokens(before=1))
    truth = jaxcam.cam(cut, x, jaxcam.methods.grad_cam_pp(), engine="exponential")
    assert facts["shape"] == [4, 4]
    np.testing.assert_allclose(facts["map"], truth.map[0], rtol=1e-4, atol=1e-6)
    assert np.ptp(facts["map"]) > 0
    assert facts["notes"][0] == (
        f"{layer} gives tokens: the map is the 4 x 4 of the picture, and the first 1 (the class "
        "token) stays as it is"
    )


def test_without_a_name_tokens_that_still_matter_and_by_auto_a_picture(capsys, vit):
    words = ("explain", "photo.png", *VIT, *QUICK, "--engine", "exponential")
    assert run_json(capsys, *words)["layer"] == "encoder.layers.encoder_layer_1.ln_1"
    facts = run_json(capsys, *words, "--layer", "auto")
    assert facts["layer"] == "conv_proj"
    assert facts["notes"][0].startswith("layer auto is conv_proj, the last one that is a picture")


# classes


def test_a_class_by_its_name(capsys, folder):
    Path("names.txt").write_text("\n".join(NAMES))
    words = ("explain", "photo.png", *RESNET, *QUICK, "--class-names", "names.txt")
    facts = run_json(capsys, *words, "--class", "Tabby CAT")
    assert (facts["class"], facts["label"]) == (0, NAMES[0])
    np.testing.assert_allclose(facts["map"], alone("photo.png", "layer4", 0).map[0], rtol=1e-4)
    top = run_json(capsys, *words)
    assert top["label"] == NAMES[top["class"]]
    assert top["class"] == int(alone("photo.png", "layer4").target[0])


def test_names_that_a_checkpoint_brings(capsys, folder):
    Path("config.json").write_text(json.dumps({"id2label": dict(enumerate(NAMES))}))
    facts = run_json(capsys, "explain", "photo.png", *RESNET, *QUICK, "--class", "night owl")
    assert (facts["class"], facts["label"]) == (3, "night owl")


# layers


def test_layers_by_the_definition_alone(capsys, folder):
    """Nothing is computed, and there is no checkpoint."""
    facts = run_json(capsys, "layers", "--model", "tiny_resnet18")
    shapes = {layer["name"]: layer["shape"] for layer in facts["layers"]}
    assert shapes["layer4"] == [7, 7, 64]
    assert shapes["fc"] == [1000]


def test_layers_of_a_checkpoint_have_its_classes_and_its_size(capsys, folder):
    facts = run_json(capsys, "layers", *RESNET)
    shapes = {layer["name"]: layer["shape"] for layer in facts["layers"]}
    assert shapes["layer4"] == [2, 2, 64]
    assert shapes["fc"] == [tiny.CLASSES]


def test_the_costs_of_layers_are_those_of_the_library(capsys, vit):
    """Of tokens as the map that they become; and a dot may stand for a slash."""
    tokens, last = "encoder/ln", "heads"
    listed = run_json(capsys, "layers", *VIT, "--costs", tokens.replace("/", "."), last)["layers"]
    assert [layer["name"] for layer in listed] == [tokens, last]
    model, _ = zoo.load(VIT[1], VIT[3])
    x = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), "float32")
    to_map = jaxcam.tokens(before=1)
    truth = jaxcam.explain_layers(model, x, names=[tokens], to_map=to_map)[tokens]
    assert listed[0]["map"] == [4, 4]
    assert listed[0]["engine"] == truth.engine is not None
    assert listed[0]["passes"] == pytest.approx(truth.passes)
    assert listed[1]["engine"] is None


def test_the_costs_of_layers_by_the_definition_alone(capsys, folder):
    words = ("layers", "--model", "tiny_resnet18", "--costs", "layer4.0.conv2", "layer4")
    early, late = run_json(capsys, *words)["layers"]
    assert (early["engine"], late["engine"]) == ("affine", "affine")
    assert late["passes"] < early["passes"]


def test_a_person_reads_what_a_layer_takes(capsys):
    status, out, err = run(capsys, "layers", "--model", "relu", "--costs", "block3", "head")
    assert (status, err) == (0, "")
    assert re.search(r"^layer +output +dtype +engine +cost in network passes$", out, re.MULTILINE)
    assert re.search(r"^block3 +8 x 8 x 48 +float32 +affine +0\.\d+$", out, re.MULTILINE)
    assert re.search(r"^head +10 +float32 +none +needs activations", out, re.MULTILINE)
    status, out, err = run(capsys, "layers", "--costs", "blok3")
    assert (status, out) == (2, "")
    assert "got blok3. The nearest are block3" in err


# what is refused: one line, status 2, nothing executed, nothing left behind


def nan(tensors):
    tensors["layer3.0.conv1.weight"][0, 0, 0, 0] = np.nan


def bad(folder: Path) -> None:
    """Files that are wrong, under the names that the cases below use."""
    content = Path("resnet18.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(content[: len(content) // 2])
    saved("resnet18", "nan.safetensors", nan)
    saved("convnext_tiny", "other.safetensors")
    tensors = tiny.tensors(tiny.network("resnet18"), "resnet18", "torchvision and timm")
    run = files.called(files.name("os", "system"), files.text(f"touch {folder / 'executed'}"))
    Path("code.pth").write_bytes(files.zipped(files.pickled(tensors, extra=run), tensors))
    Path("names.txt").write_text("\n".join(NAMES))
    Path("two.txt").write_text("a\nb\n")
    Path("text.jpg").write_text("not a picture")
    whole = photo("whole.jpg", (300, 200)).read_bytes()
    Path("cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (15_000, 12_000)).save("bomb.png")
    Image.new("F", (8, 8)).save("floats.tif")


NAMED = ("photo.png", *RESNET, "--class-names", "names.txt")
REFUSED = {
    "no weights": (["photo.png", *RESNET[:2]], "needs the weights of tiny_resnet18; got none"),
    "no picture": ([*RESNET], "a picture for tiny_resnet18 to see"),
    "unknown model": (["photo.png", "--model", "tiny_resnet81", *RESNET[2:]],
                      "got tiny_resnet81. Did you mean tiny_resnet18"),
    "missing weights": (["photo.png", *RESNET[:3], "none.pth"], "none.pth, which does not exist"),
    "another network": (["photo.png", *RESNET[:3], "other.safetensors"],
                        "They are those of tiny_convnext_tiny: load it by that name"),
    "truncated weights": (["photo.png", *RESNET[:3], "cut.safetensors"], "a whole safetensors"),
    "NaN weights": (["photo.png", *RESNET[:3], "nan.safetensors"],
                    "needs finite weights; got NaN or infinity in layer3.0.conv1.weight, 1 times"),
    "code": (["photo.png", *RESNET[:3], "code.pth"], "os.system"),
    "text as weights": (["photo.png", *RESNET[:3], "text.jpg"], "needs a checkpoint"),
    "text as picture": (["text.jpg", *RESNET], "text.jpg: needs a picture that can be read"),
    "truncated picture": (["cut.jpg", *RESNET], "cut.jpg: needs a picture that can be read"),
    "180 megapixels": (["bomb.png", *RESNET], r"Image size \(180000000 pixels\) exceeds limit"),
    "picture without a range": (["floats.tif", *RESNET], "mode 'F'"),
    "layer without extent": (["photo.png", *RESNET, "--layer", "fc"], "spatial axis"),
    "unknown layer": (["photo.png", *RESNET, "--layer", "layer5"], "layer4"),
    "class beyond": (["photo.png", *RESNET, "--class", "5"], "from 0 to 4; got 5"),
    "class without names": (["photo.png", *RESNET, "--class", "cat"], "one of 5 classes"),
    "class unknown": ([*NAMED, "--class", "barn owls"], r"nearest are 4 \(barn owl\)"),
    "class twice": ([*NAMED, "--class", "crane"], r"1 \(crane\) or 2 \(Crane\)\. Give the index"),
    "too few names": ([*NAMED[:-1], "two.txt"], "needs 5 names, one for each class; got 2"),
    "missing names": ([*NAMED[:-1], "no.txt"], "no.txt: No such file"),
}  # fmt: skip


def test_refuses(capsys, folder):
    bad(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for name, (words, said) in REFUSED.items():
        status, out, err = run(capsys, "explain", *words, *QUICK)
        assert (status, out) == (2, ""), name
        assert re.fullmatch(f"jaxcam: error: [^\n]*{said}[^\n]*\n", err), (name, err)
        after = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert after == before, name


@pytest.mark.parametrize("command", ["compare", "sweep", "layers"])
def test_the_other_commands_refuse_the_same_weights(command, capsys, folder):
    bad(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    images = {"compare": ["photo.png"], "sweep": ["photo.png", "--out", "out"], "layers": []}
    for name in ("another network", "truncated weights", "NaN weights", "code", "missing weights"):
        words, said = REFUSED[name]
        status, out, err = run(capsys, command, *images[command], *words[1:])
        assert (status, out) == (2, ""), name
        assert re.fullmatch(f"jaxcam: error: [^\n]*{said}[^\n]*\n", err), (name, err)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before, name


EXPLAINED = {
    "1x1": lambda: Image.new("RGB", (1, 1), "red"),
    "thin": lambda: Image.new("RGB", (2, 9000), "red"),
    "CMYK": lambda: Image.open(photo("c.png")).convert("CMYK"),
    "grey with alpha": lambda: Image.open(photo("c.png")).convert("LA"),
    "16 bits": lambda: Image.fromarray(
        np.random.default_rng(0).integers(0, 65536, (40, 60), dtype=np.uint16)
    ),
}


@pytest.mark.slow
def test_pictures_of_all_kinds_are_explained(capsys, folder):
    for name, make in EXPLAINED.items():
        make().save("in.tif")
        facts = run_json(capsys, "explain", "in.tif", *RESNET, *QUICK, "--overlay", "over.png")
        with Image.open("over.png") as over:
            assert list(over.size) == facts["size"], name


@pytest.mark.slow
def test_forty_megapixels(capsys, folder):
    photo("in.jpg", (7746, 5164))
    facts = run_json(capsys, "explain", "in.jpg", *RESNET, *QUICK, "--overlay", "over.jpg")
    with Image.open("over.jpg") as over:
        assert over.size == tuple(facts["size"]) == (7746, 5164)


def test_the_zoo_is_imported_only_when_asked_for():
    root = str(Path(jaxcam.__file__).parents[1])
    code = (
        "import sys; from jaxcam.cli import main; status = main(['layers', '--json']); "
        "sys.exit(status or any(name.startswith('jaxcam.zoo') for name in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny"])
def test_a_full_network(name, capsys, tmp_path, monkeypatch):
    from flax import nnx

    monkeypatch.chdir(tmp_path)
    model = zoo.build(name, rngs=nnx.Rngs(0))
    naming = next(iter(tiny.FULL[name].namings))
    Path("model.pth").write_bytes(files.pth(tiny.tensors(model, name, naming)))
    photo("photo.jpg", (640, 480))
    assert main(["explain", "photo.jpg", "--model", name, "--weights", "model.pth"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"a map of 7 x 7$", out, re.MULTILINE)
