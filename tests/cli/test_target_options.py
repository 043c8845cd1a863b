"""Targets by their names on the command line, and what is said of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from console import run
from PIL import Image

import jaxcam
from jaxcam import bundled, targets
from jaxcam.cli import main, options, words
from jaxcam.cli.question import target_of
from jaxcam.errors import JaxcamError

CLASSES = SimpleNamespace(class_names=("cat", "dog", "tabby, tabby cat"))


@pytest.mark.parametrize(("asked", "expected", "said"), [
    (["counterfactual", "--class", "dog"], targets.counterfactual(1), "what speaks against it"),
    (["rest"], targets.rest(), "its logit and its log-probability"),
    (["contrast"], targets.contrast(), "its logit against the nearest by score"),
    (["contrast", "--class", "0", "--other", "tabby cat", "--other", "1", "--gamma", "1"],
     targets.contrast(0, [2, 1], gamma=1.0), "its logit against 2 others"),
    (["any_of", "--class", "cat", "--other", "tabby"], targets.any_of([0, 2]), "any of 2 classes"),
])  # fmt: skip
def test_a_target_by_its_name_is_the_librarys_own(asked, expected, said):
    asked = options.parse(["explain", "--target", *asked])
    found = target_of(asked, CLASSES)
    assert (found.form, found.class_index) == (expected.form, expected.class_index)
    assert found.log_score.func is expected.log_score.func
    assert np.array_equal(found.log_score.args, expected.log_score.args)
    assert np.array_equal(found.about, expected.about)
    assert words.target(vars(asked)) == said


@pytest.mark.parametrize(("asked", "said"), [
    (["--other", "1"], "--other belongs to the targets contrast and any_of, not to exp_logit"),
    (["--target", "rest", "--gamma", "1"], "--gamma belongs to the target contrast, not to rest"),
    (["--target", "any_of", "--other", "1"], "any_of: needs --class"),
])  # fmt: skip
def test_options_of_other_targets_are_refused(asked, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *asked])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("other", "said"), [
    ("cow", "--other: needs one of 3 classes"),
    ("5", "from 0 to 2; got 5"),
    ("0", "class 0 against itself"),
])  # fmt: skip
def test_others_that_are_none(other, said):
    asked = options.parse(["explain", "--target", "contrast", "--class", "cat", "--other", other])
    with pytest.raises(JaxcamError, match=said):
        target_of(asked, CLASSES)


def test_a_contrast_is_drawn_and_said(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    question = ("--model", "relu", "--layer", "block4", "--method", "hires_cam")
    status, said, _ = run(capsys, "explain", *question, "--target", "contrast")
    assert status == 0
    assert "its logit against the nearest by score" in said
    assert (tmp_path / "jaxcam-explain.png").stat().st_size > 10_000
    relu = bundled.load("relu")
    split = jaxcam.split(relu.model, "block4", variables=relu.variables)
    x = bundled.scene(0).image[None]
    found = jaxcam.cam(split, x, jaxcam.methods.hires_cam(), targets.contrast())
    assert f"{bundled.scene(0).label}" in said
    assert found.map.max() > 0


def test_a_signed_map_by_a_method_whose_sign_counts(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = ("explain", "--model", "relu", "--layer", "block4", "--signed", "--json", "--method")
    status, said, _ = run(capsys, *asked, "hires_cam")
    assert status == 0
    facts = json.loads(said)
    assert facts["options"]["signed"]
    assert np.min(facts["map"]) < 0 < np.max(facts["map"])
    pixels = np.asarray(Image.open("jaxcam-explain.png").convert("RGB"), int)
    colder = pixels[..., 2] - pixels[..., 0]
    assert (colder > 60).mean() > 0.005 < (colder < -60).mean()
    status, _, said = run(capsys, *asked, "layer_cam")
    assert status == 2
    assert "layer_cam: needs a method whose sign says for or against" in said
