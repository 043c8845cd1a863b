"""Methods and their options on the command line: those of the catalogue, whatever stands in it."""

import json

import pytest

import jaxcam
from jaxcam.cli import main, options
from jaxcam.cli.question import method_of
from jaxcam.methods import catalogue


@pytest.mark.parametrize("name", catalogue.names())
def test_a_method_by_its_name_is_the_librarys_own(name):
    made = method_of(options.parse(["explain", "--method", name]))
    assert made == catalogue.make(name, **options_given(name))


def options_given(name):
    """Its own options are given, as the command line gives all that it has words for."""
    row = catalogue.rows()[name]
    known = set(options.OPTIONS.values())
    return {option: value for option, value in row.options.items() if option in known}


def test_every_option_reaches_its_method():
    asked = options.parse(
        ["explain", "--method", "integrated_gradients", "--nodes", "3", "--rule", "gauss"]
    )
    hires = jaxcam.methods.hires_cam()
    assert method_of(asked) == jaxcam.integrate(hires, num_nodes=3, rule="gauss")
    asked = options.parse(["explain", "--method", "sensitivity_map", "--over", "sum"])
    assert method_of(asked) == jaxcam.methods.sensitivity_map(over="sum")
    asked = options.parse(["explain", "--method", "recipro_cam", "--gaussian"])
    assert method_of(asked) == jaxcam.methods.recipro_cam(gaussian=True)
    asked = options.parse(["explain", "--method", "occlusion", "--window", "4", "--stride", "2"])
    assert method_of(asked) == jaxcam.methods.occlusion(window=4, stride=2)
    asked = options.parse(
        ["explain", "--method", "score_cam", "--convention", "authors", "--max-maps", "9"]
    )
    assert method_of(asked) == jaxcam.methods.score_cam(convention="authors", max_maps=9)
    words = ["--masks", "50", "--cells", "4", "--probability", "0.5", "--seed", "3"]
    asked = options.parse(["explain", "--method", "rise", *words])
    assert method_of(asked) == jaxcam.methods.rise(num_masks=50, cells=4, probability=0.5)
    assert asked.seed == 3
    assert options.options_of("shapley")["seed"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "grad_cam_p"], "nearest: grad_cam"),
        (["--method", "layer_cam", "--samples", "3"], "--samples belongs to smooth_grad_cam_pp"),
        (["--method", "grad_cam", "--nodes", "3"], "--nodes belongs to integrated_gradients"),
        (["--method", "taylor_cam", "--seed", "3"], "--seed belongs to smooth_grad_cam_pp"),
    ],
)
def test_others_are_refused(capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        options.parse(["explain", *words])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_methods_are_listed(capsys):
    assert main(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["methods"]
    assert [row["name"] for row in listed] == list(jaxcam.methods.names())
    assert listed[0]["options"]["samples"] == 25
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in jaxcam.methods.names())


@pytest.mark.parametrize(
    "name", ["integrated_gradients", "sensitivity_map", "recipro_cam", "shapley"]
)
def test_methods_of_every_kind_are_drawn(capsys, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    words = ["explain", "--model", "relu", "--method", name, "--layer", "block4"]
    words = words[:-2] if name == "sensitivity_map" else words
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["layer"] == ("input" if name == "sensitivity_map" else "block4")
    assert facts["samples"] == (64 if name == "shapley" else 0)
    complete = name in ("integrated_gradients", "shapley")
    assert (facts["diagnostics"]["completeness"] is not None) == complete
    assert (tmp_path / "jaxcam-explain.png").stat().st_size > 10_000


def test_a_proof_is_one_line_and_the_rest_is_asked_for(capsys, monkeypatch, tmp_path):
    from jaxcam.cli.tables import _proof

    words = "tangents up to the last bend; what bends: tanh in a, mul in b"
    assert _proof(words, verbose=False) == "tangents up to the last bend (--verbose: the rest)"
    assert _proof(words, verbose=True) == words
    assert _proof("one gradient", verbose=False) == "one gradient"
