"""Several maps in one figure: of the most probable classes, of pictures, of layers."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from console import run
from PIL import Image
from published import photo

import jaxcam
from jaxcam import bundled
from jaxcam.cli import answers, main
from jaxcam.split import split

RELU = ("--model", "relu", "--layer", "block4")
PLAIN = ("--method", "grad_cam_pp")
BLOCK3 = ("--model", "relu", "--layer", "block3")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Scenes as files, the current folder."""
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        pixels = np.round(255 * bundled.scene(i).image[..., 0]).astype(np.uint8)
        Image.fromarray(pixels).save(f"{i}.png")
    return tmp_path


def run_json(capsys, *words: object) -> dict:
    status, out, err = run(capsys, "explain", *words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def library(layer: str, x, target=None, samples: int = 3):
    model, variables = bundled.load("relu")
    return jaxcam.smooth_grad_cam_pp(
        split(model, layer, variables=variables), x, target, key=jax.random.key(0),
        num_samples=samples,
    )  # fmt: skip


# classes


def test_the_most_probable_classes(capsys, folder, monkeypatch):
    asked = []
    cam = answers.cam

    def watched(network, x, method, target, **options):
        asked.append((x.shape, target.class_index))
        return cam(network, x, method, target, **options)

    monkeypatch.setattr(answers, "cam", watched)
    facts = run_json(capsys, "--scene", 2, *BLOCK3, "--top", 3, "--samples", 3)
    x = bundled.scene(2).image[None]
    model, variables = bundled.load("relu")
    scores = np.asarray(model.apply(variables, x))[0]
    top = np.argsort(-scores)[:3].tolist()
    # One program, and its batch has a row for each class.
    assert [shape for shape, _ in asked] == [(3, 64, 64, 1)]
    assert asked[0][1].tolist() == top
    rows = facts["explanations"]
    assert [row["class"] for row in rows] == top
    shares = [row["probability"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    np.testing.assert_allclose(shares, jax.nn.softmax(scores)[np.array(top)], rtol=1e-4)
    for row in rows:  # the same noise as alone
        alone = library("block3", x, row["class"])
        np.testing.assert_allclose(row["map"], alone.map[0], rtol=1e-3, atol=1e-4)
    assert rows[0]["localisation"]["boxes"] > 0
    assert rows[1]["localisation"] is None
    assert Image.open("jaxcam-explain.png").height > 1000


def test_one_class_is_a_list_of_one(capsys, folder):
    facts = run_json(capsys, "--scene", 2, *RELU, *PLAIN, "--top", 1)
    assert len(facts["explanations"]) == 1


# pictures


def test_several_pictures_are_explained_in_one_program(capsys, folder, monkeypatch):
    batches = []
    cam = answers.cam
    monkeypatch.setattr(answers, "cam", lambda s, x, *w, **o: (batches.append(len(x)),
                                                               cam(s, x, *w, **o))[1])  # fmt: skip
    facts = run_json(capsys, "0.png", "1.png", "2.png", *RELU, *PLAIN)
    assert batches == [3]
    assert [row["picture"] for row in facts["explanations"]] == ["0.png", "1.png", "2.png"]
    for i, row in enumerate(facts["explanations"]):
        alone = run_json(capsys, f"{i}.png", *RELU, *PLAIN, "--out", "alone.png")
        np.testing.assert_allclose(row["map"], alone["map"], rtol=1e-4, atol=1e-5)
        assert row["class"] == alone["class"]


@pytest.mark.slow
def test_a_person_reads_a_row_for_each(capsys, folder):
    status, out, err = run(capsys, "explain", "0.png", "2.png", *BLOCK3, "--samples", 3)
    assert (status, err) == (0, "")
    for words in (
        r"engine +affine, exact$", r"picture +class +probability +samples +standard error$",
        r"0\.png +\d +[\w. ]+ +3 +[\d.]+ %$", r"2\.png +\d +[\w. ]+ +3 +[\d.]+ %$",
    ):  # fmt: skip
        assert re.search(f"^{words}", out, re.MULTILINE), words


def test_one_that_cannot_be_read_is_named_and_nothing_is_written(capsys, folder):
    Path("text.jpg").write_text("not a picture")
    before = sorted(folder.iterdir())
    status, out, err = run(capsys, "explain", "0.png", "text.jpg", "2.png", *RELU)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"jaxcam: error: text\.jpg: needs a picture [^\n]*\n", err)
    assert sorted(folder.iterdir()) == before


# layers


def test_the_maps_of_several_layers_are_fused(capsys, folder):
    words = ("--scene", 1, *PLAIN, "--model", "relu", "--layer", "block3", "--layer", "block4")
    facts = run_json(capsys, *words)
    model, variables = bundled.load("relu")
    x = bundled.scene(1).image[None]
    maps = [
        jaxcam.cam(split(model, layer, variables=variables), x, jaxcam.methods.grad_cam_pp()).map
        for layer in ("block3", "block4")
    ]
    np.testing.assert_allclose(facts["map"], jaxcam.fuse(maps)[0], rtol=1e-3, atol=1e-5)
    assert facts["layer"] == "block3 and block4"
    assert [part["layer"] for part in facts["layers"]] == ["block3", "block4"]
    for part, map in zip(facts["layers"], maps, strict=True):
        np.testing.assert_allclose(part["map"], map[0], rtol=1e-3, atol=1e-5)
    assert facts["proof"].startswith("block3: piecewise affine")
    assert facts["diagnostics"]["standard_error"] is None
    largest = run_json(capsys, *words, "--fuse", "max")
    np.testing.assert_allclose(
        largest["map"], jaxcam.fuse(maps, how="max")[0], rtol=1e-3, atol=1e-5
    )


def test_maps_of_paths_are_fused(capsys, folder):
    words = ("--scene", 1, "--model", "relu", "--method", "integrated_gradients")
    facts = run_json(capsys, *words, "--layer", "block4", "--layer", "block2")
    assert (facts["samples"], facts["nodes"]) == (0, 16)
    assert facts["diagnostics"]["completeness"] is None  # known of each map, not of their mean
    assert facts["layers"][1]["diagnostics"]["completeness"] is not None


# overlays


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_an_overlay_has_the_picture_s_own_pixels(suffix, capsys, folder):
    photo("photo.png", (130, 90))
    words = ("photo.png", *RELU, *PLAIN, "--overlay", f"over.{suffix}")
    facts = run_json(capsys, *words)
    assert facts["overlay"] == str(folder / f"over.{suffix}")
    with Image.open(f"over.{suffix}") as over:
        assert over.size == (130, 90)
        assert over.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix]
        found = np.asarray(over.convert("RGB"), int)
    original = Image.open("photo.png").convert("RGB")
    whole = (0.0, 0.0, 130.0, 90.0)
    expected = jaxcam_overlay(original, facts["map"], whole)
    assert abs(found - expected).mean() < (0.1 if suffix == "png" else 4)


def jaxcam_overlay(picture, map, box):
    from jaxcam.figures import full_overlay

    return np.asarray(full_overlay(picture, np.asarray(map), box), int)


def test_an_overlay_that_its_format_cannot_hold_leaves_nothing(capsys, folder):
    Image.new("L", (2, 17_000), 99).save("long.png")
    before = sorted(folder.iterdir())
    words = ("explain", "long.png", *RELU, *PLAIN, "--overlay", "over.webp")
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    said = "jaxcam: error: --overlay: needs a picture that the format can hold; got 2 x 17000"
    assert err.splitlines()[-1].startswith(said)
    assert sorted(folder.iterdir()) == before


REFUSED = {
    "too many classes": (["--top", "11"], "at most 10; got 11"),
    "too many rows": (["--top", "65"], "at most 64 rows for one figure; got 65"),
    "overlay of a strange kind": (["0.png", "--overlay", "x.gif"], r"ends in \.png or \.jpg"),
    "overlay over the picture": (["0.png", "--overlay", "0.png"], "another file than the picture"),
    "overlay over the figure": (["0.png", "--overlay", "a.png", "--out", "./a.png"],
                                "another file than --out"),
    "out over a picture": (["0.png", "1.png", "--out", "1.png"], "another file than the picture"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_refuses(words, said, capsys, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    status, out, err = run(capsys, "explain", *words, *RELU)
    assert (status, out) == (2, "")
    assert re.fullmatch(f"jaxcam: error: [^\n]*{said}[^\n]*\n", err)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "--top", "3", "--class", "1"], "not allowed with --class"),
        (["explain", "0.png", "1.png", "--top", "3"], "--top is for one picture"),
        (["explain", "0.png", "1.png", "--overlay", "x.png"], "one picture and one class"),
        (["explain", "--top", "3", "--overlay", "x.png"], "one picture and one class"),
        (["explain", "--top", "0"], "from 1 on"),
        (["explain", "0.png", "--scene", "1"], "not allowed with"),
        (["explain", "--fuse", "sum"], "invalid choice"),
        (["compare", "0.png", "1.png"], "unrecognized"),
    ],
)
def test_wrong_options_exit_with_two(words, said, capsys, folder):
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
