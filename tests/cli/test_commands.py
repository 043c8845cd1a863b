"""The console script: what it prints, writes, refuses and leaves behind."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from console import OPTIONS, assert_asked, run
from PIL import Image

import jaxcam
from jaxcam import bundled, figures
from jaxcam.cli import answers, main, output, report
from jaxcam.cli.commands import compare, explain
from jaxcam.errors import JaxcamError, JaxcamWarning
from jaxcam.metrics.difference import difference
from jaxcam.metrics.localisation import localisation
from jaxcam.split import split

ESCAPE = "\x1b"
QUICK = ("--method", "grad_cam")
"""One gradient, for tests of everything around it."""


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    status, out, err = run(capsys, *words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def is_drawn(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.format == "PNG" and bool(np.asarray(picture.convert("L")).std() > 10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be computed: what is wrong is known before."""

    def answer(*_: object) -> None:
        pytest.fail("computed before refusing")

    for command in (explain, compare):
        monkeypatch.setattr(command, "answer", answer)


# what is computed


def test_explain_reports_what_the_library_computes(capsys, folder):
    facts = run_json(capsys, "explain", "--layer", "block4", "--samples", 3, "--seed", 5)
    model, variables = bundled.load("gelu")
    scene = bundled.scene(0)
    truth = jaxcam.smooth_grad_cam_pp(
        split(model, "block4", variables=variables), scene.image[None],
        key=jax.random.key(5), num_samples=3, progress=lambda done, total: None,
    )  # fmt: skip
    np.testing.assert_allclose(facts["map"], truth.map[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(facts["scores"], truth.scores[0], rtol=1e-5)
    probabilities = jax.nn.softmax(truth.scores[0])
    assert facts["probability"] == pytest.approx(float(probabilities.max()), rel=1e-5)
    assert facts["class"] == int(truth.target[0]) == facts["truth"] == scene.label
    assert facts["label"] == bundled.CLASS_NAMES[scene.label]
    decided, found = truth.diagnostics.report, facts["diagnostics"]
    for name in ("engine", "exact", "proof"):
        assert facts[name] == getattr(decided, name)
    assert tuple(facts["notes"]) == decided.notes
    assert (facts["layer"], facts["shape"], facts["samples"]) == ("block4", [8, 8], 3)
    assert found["effective_samples"] == pytest.approx(
        float(truth.diagnostics.effective_samples[0]), rel=1e-3
    )
    np.testing.assert_allclose(
        found["standard_error"], truth.diagnostics.standard_error[0], rtol=1e-2, atol=1e-4
    )
    assert facts["options"]["seed"] == 5
    assert facts["options"]["poles"] == "bounded"
    assert facts["versions"]["jax"] == jax.__version__
    assert facts["warnings"] == []
    assert facts["output"] == str(folder / "jaxcam-explain.png")
    assert is_drawn(folder / "jaxcam-explain.png")
    assert sorted(path.name for path in folder.iterdir()) == ["jaxcam-explain.png"]


def test_explain_samples_up_to_a_tolerance(capsys, folder):
    words = ("--model", "relu", "--scheme", "antithetic", "--sample-weights", "0.5")
    facts = run_json(capsys, "explain", *words, "--tolerance", "0.004", "--max-samples", "500")
    model, variables = bundled.load("relu")
    truth = jaxcam.smooth_grad_cam_pp(
        split(model, "block3", variables=variables), bundled.scene(0).image[None],
        key=jax.random.key(0), scheme="antithetic", sample_weights=0.5, tolerance=0.004,
        max_samples=500, progress=lambda done, total: None,
    )  # fmt: skip
    np.testing.assert_allclose(facts["map"], truth.map[0], rtol=1e-4, atol=1e-5)
    assert facts["samples"] == int(truth.diagnostics.num_samples[0])
    assert 32 < facts["samples"] < 500
    error = facts["diagnostics"]["relative_standard_error"]
    assert 0 < error <= 0.004
    assert error == pytest.approx(
        np.max(facts["diagnostics"]["standard_error"]) / np.max(facts["map"]), rel=1e-3
    )


@pytest.mark.slow
def test_compare_measures_both_maps_under_the_same_noise(capsys, folder):
    words = ("--layer", "block4", "--samples", 3)
    facts = run_json(capsys, "compare", *words, "--out", "both.PNG")
    exact, approximate = facts["maps"]["exact"], facts["maps"]["approximate"]
    assert (exact["exact"], approximate["exact"]) == (True, False)
    assert approximate["engine"] == "exponential"
    one = run_json(capsys, "explain", *words)
    other = run_json(capsys, "explain", *words, "--engine", "exponential")
    assert (exact["map"], approximate["map"]) == (one["map"], other["map"])
    e, a = np.array(exact["map"]), np.array(approximate["map"])
    assert facts["difference"]["relative_l1"] == pytest.approx(abs(e - a).sum() / e.sum(), rel=1e-4)
    assert facts["difference"]["relative_l1"] > 0.01  # behind LayerNorm they differ
    assert is_drawn(folder / "both.PNG")


@pytest.mark.slow
def test_compare_removes_every_activation_and_holds_the_series_against_it(capsys, folder):
    facts = run_json(capsys, "compare", "--layer", "block4", "--method", "grad_cam_pp")
    true, orders = facts["removal"]["true"], facts["removal"]["orders"]
    model, variables = bundled.load("gelu")
    cut, x = split(model, "block4", variables=variables), bundled.scene(0).image[None]
    check = jaxcam.check_removal(cut, x, order=1, samples=8 * 8 * 48)
    effects = np.zeros(8 * 8 * 48)
    effects[check.elements[0]] = check.removal[0]
    expected = np.maximum(effects.reshape(8, 8, 48).sum(-1), 0)
    np.testing.assert_allclose(true["map"], expected, rtol=1e-3, atol=1e-5)
    assert true["passes"] == 8 * 8 * 48
    for name, order in (("third", 3), ("first", 1)):
        map = jaxcam.cam(cut, x, jaxcam.methods.taylor_cam(order=order)).map[0]
        np.testing.assert_allclose(orders[name]["map"], map, rtol=1e-3, atol=1e-5)
        off = np.linalg.norm(map - expected) / np.linalg.norm(expected)
        assert orders[name]["difference"]["relative_l2"] == pytest.approx(off, rel=0.05)
        assert orders[name]["localisation"]["boxes"] == true["localisation"]["boxes"] == 3
    assert orders["third"]["difference"]["relative_l2"] < 0.01
    assert orders["first"]["difference"]["relative_l2"] > 0.1
    for found in facts["maps"].values():
        alike = np.corrcoef(np.ravel(found["map"]), expected.ravel())[0, 1]
        assert found["correlation_with_removal"] == pytest.approx(alike, abs=1e-3)


@pytest.mark.slow
def test_compare_finds_no_difference_where_the_closed_form_is_exact(capsys, folder):
    facts = run_json(capsys, "compare", "--model", "relu", "--layer", "block4")
    assert facts["maps"]["exact"]["engine"] == "affine"
    assert facts["difference"]["relative_l2"] < 1e-5
    assert facts["difference"]["correlation"] == pytest.approx(1)
    assert facts["difference"]["maximum_moved"] == 0


def test_every_option_reaches_the_library(capsys, folder, monkeypatch):
    seen: list = []

    def cam(*words: object, **options: object) -> None:
        seen.extend((words, options))
        raise JaxcamError("seen")

    monkeypatch.setattr(answers, "cam", cam)
    assert run(capsys, "explain", "--scene", 4, *OPTIONS) == (2, "", "jaxcam: error: seen\n")
    (cut, x, method, target), others = seen
    scene, relu = bundled.scene(4), bundled.load("relu")
    np.testing.assert_array_equal(x, scene.image[None])
    expected = split(relu.model, "block2", variables=relu.variables)
    np.testing.assert_array_equal(cut.features(x), expected.features(x))
    assert_asked(method, target, others)


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_pp"])
def test_methods_without_noise_are_those_of_the_library(name, capsys, folder):
    facts = run_json(capsys, "explain", "--method", name, "--engine", "exponential")
    model, variables = bundled.load("gelu")
    truth = jaxcam.cam(
        split(model, bundled.DEFAULT_LAYER, variables=variables),
        bundled.scene(0).image[None],
        getattr(jaxcam.methods, name)(),
        engine="exponential",
    )
    np.testing.assert_allclose(facts["map"], truth.map[0], rtol=1e-3, atol=1e-5)
    assert facts["samples"] == 0


@pytest.mark.parametrize("order", [1, 2])
def test_the_order_of_taylor_cam_reaches_the_library(order, capsys, folder):
    words = ("--method", "taylor_cam", "--order", order, "--model", "relu", "--layer", "block4")
    facts = run_json(capsys, "explain", *words)
    assert facts["method"] == "taylor_cam"
    assert facts["options"]["order"] == order
    assert facts["engine"] == {1: "gradient", 2: "affine"}[order]
    assert facts["diagnostics"].keys().isdisjoint({"smallest_r"})


def test_the_class_that_is_asked_for_is_explained(capsys, folder):
    facts = run_json(capsys, "explain", *QUICK, "--class", 8)
    assert (facts["class"], facts["label"]) == (8, "8")
    assert facts["probability"] < 0.5
    assert facts["localisation"] is None  # the boxes are of another class


def test_layers_are_those_of_the_network(capsys):
    facts = run_json(capsys, "layers")
    shapes = {layer["name"]: layer["shape"] for layer in facts["layers"]}
    assert shapes[bundled.DEFAULT_LAYER] == [8, 8, 48]
    status, out, err = run(capsys, "layers", "--model", "relu")
    assert (status, err) == (0, "")
    assert re.search(r"^block3 +8 x 8 x 48 +float32", out, re.MULTILINE)


# what a person reads


def test_explain_says_what_a_reader_needs(capsys, folder):
    status, out, err = run(capsys, "explain", "--layer", "block4", "--samples", 3)
    assert (status, err) == (0, "")
    for words in (
        r"class +\d \(right\)",
        r"probability +0\.\d{3}",
        "block4, a map of 8 x 8",
        r"directional, exact|\w+, exact",
        r"effective samples +[\d.]+ of 3",
        r"top class kept +by 100\.0 % of the samples",
        r"smallest r +[\d.-]+",
        r"standard error +at most [\d.]+ % of the largest value",
        r"boxes found +\d of \d",
        rf"^{re.escape(str(folder))}/jaxcam-explain\.png written$",
    ):
        assert re.search(words, out, re.MULTILINE), words


def test_compare_says_how_the_maps_differ(capsys, folder):
    status, out, _ = run(capsys, "compare", "--layer", "block4", "--method", "grad_cam_pp")
    assert status == 0
    assert re.search(r"engine +\w+, exact +exponential, approximate", out)
    assert re.search(r"relative difference +[\d.]+ % in L1, [\d.]+ % in L2", out)
    assert re.search(r"correlation +[\d.]+", out)
    assert "effective samples" not in out  # nothing was sampled
    assert re.search(r"^ +true removal +Taylor-CAM, order 3 +HiResCAM, order 1$", out, re.MULTILINE)
    assert re.search(r"^taken by +3,072 passes +\w+ +gradient$", out, re.MULTILINE)
    third, first = re.search(
        r"^L2 from the true map +(?:under )?([\d.]+) % +([\d.]+) %$", out, re.MULTILINE
    ).groups()
    assert float(third) < 1
    assert float(first) > 10
    assert re.search(r"^correlation with removal +[\d.]+ +[\d.]+$", out, re.MULTILINE)


def test_a_blank_map_is_a_warning_and_not_a_failure(capsys, folder, monkeypatch):
    answer = explain.answer

    def warning(*words: object) -> object:
        warnings.warn("a blank [map]\nof this", JaxcamWarning, stacklevel=2)
        return answer(*words)

    monkeypatch.setattr(explain, "answer", warning)
    status, out, err = run(capsys, "explain", *QUICK, "--json")
    assert (status, err) == (0, "jaxcam: warning: a blank [map] of this\n")
    assert json.loads(out)["warnings"] == ["a blank [map] of this"]


# pictures


def picture(mode: str) -> Image.Image:
    pixels = np.round(255 * bundled.scene(1).image[..., 0]).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB").resize((90, 70)).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_pictures_of_any_mode_are_explained(mode, capsys, folder):
    picture(mode).save(folder / "in.png")
    facts = run_json(capsys, "explain", "in.png", *QUICK)
    assert facts["picture"] == "in.png"
    assert facts["truth"] is facts["localisation"] is None
    assert is_drawn(folder / "jaxcam-explain.png")


def test_a_photograph_is_turned_upright(capsys, folder):
    upright = picture("L")
    upright.save(folder / "upright.png")
    # The camera was held sideways, and of the two entries the second is cut off: nothing is said.
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + struct.pack("<HHII", 0x112, 3, 1, 6)
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    one, other = (
        run_json(capsys, "explain", name, *QUICK) for name in ("upright.png", "turned.png")
    )
    assert one["map"] == other["map"]


# what is refused, before anything is computed or written


def broken(folder: Path) -> None:
    """Files that are no pictures, under the names that the cases below use."""
    picture("RGB").save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "garbled.png").write_bytes(content[:60] + bytes(200) + content[260:])
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()


REFUSED = {
    "missing image": (["nowhere.png"], r"nowhere\.png: No such file"),
    "folder as image": (["folder.png"], r"folder\.png: Is a directory"),
    "truncated image": (["cut.png"], r"cut\.png: needs a picture that can be read"),
    "garbled image": (["garbled.png"], r"garbled\.png: needs a picture that can be read"),
    "text as image": (["text.png"], r"text\.png: needs a picture that can be read"),
    "empty image": (["empty.png"], r"empty\.png: needs a picture that can be read"),
    "scene": (["--scene", "99"], "from 0 to 9; got 99"),
    "class": (["--class", "10"], "from 0 to 9; got 10"),
    "negative class": (["--class", "-1"], "from 0 to 9; got -1"),
    "huge class": (["--class", "99999999999"], "from 0 to 9; got 99999999999"),
    "noise": (["--noise", "-1"], "noise_level of 0 or more"),
    "NaN noise": (["--noise", "nan"], "noise_level of 0 or more"),
    "out folder missing": (["--out", "none/x.png"], "a folder that exists"),
    "out is a folder": (["--out", "folder.png"], "needs a file"),
    "out below a file": (["--out", "text.png/x.png"], "a folder that exists"),
    "out is no PNG": (["--out", "x.jpg"], r"ends in \.png; got x\.jpg"),
    "out is the image": (["whole.png", "--out", "./whole.png"], "another file than the picture"),
    "unknown model": (["--model", "gelv"], "got gelv. Did you mean gelu"),
    "weights of a bundled model": (["--weights", "x.pth"], "nothing for gelu, which is bundled"),
    "out name too long": (["--out", "x" * 300 + ".png"], "File name too long"),
}


@pytest.mark.parametrize("command", ["explain", "compare"])
@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_refuses(command, words, said, capsys, folder, no_answer):
    broken(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    status, out, err = run(capsys, command, *words)
    assert (status, out) == (2, "")
    assert re.fullmatch(f"jaxcam: error: [^\n]*{said}[^\n]*\n", err)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


UNANSWERABLE = {
    "layer": (["--layer", "blok3"], "block3"),
    "sample weights": (["--sample-weights", "equal"], "exact or uniform"),
    "tolerance": (["--tolerance", "-1"], "tolerance of 0 or more"),
    "layer without positions": (["--layer", "head"], "spatial axis"),
    "engine": (["--engine", "exponental"], "exponential"),
    "engine not proved": (["--engine", "affine"], "engine='affine'"),
    "raw logit": (["--target", "logit", "--engine", "exponential"], "exp_logit"),
}


@pytest.mark.parametrize(("words", "said"), UNANSWERABLE.values(), ids=UNANSWERABLE)
def test_a_question_without_an_answer_is_one_line(words, said, capsys, folder):
    status, out, err = run(capsys, "explain", *words, "--json")
    assert (status, out) == (2, "")
    assert re.fullmatch(f"jaxcam: error: [^\n]*{said}[^\n]*\n", err)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["explane"], "explane"),
        (["explain", "--samples", "0"], "from 1 on"),
        (["explain", "--samples", "2.5"], "2.5"),
        (["explain", "--chunk-size", "-3"], "from 1 on"),
        (["explain", "--scheme", "sobol"], "invalid choice"),
        (["explain", "--method", "grad_cam", "--tolerance", "0.1"], "not to grad_cam"),
        (["explain", "--seed", "-1"], "from 0 on"),
        (["explain", "in.png", "--scene", "1"], "not allowed with"),
        (["explain", "--method", "grad_cam", "--poles", "raw"], "not to grad_cam"),
        (["explain", "--method", "grad_cam", "--order", "2"], "--order belongs to taylor_cam"),
        (["explain", "--method", "taylor_cam", "--order", "4"], "invalid choice"),
        (["explain", "--method", "grad_cam_pp", "--samples", "3"], "not to grad_cam_pp"),
        (["compare", "--method", "grad_cam"], "nearest: grad_cam_pp"),
        (["compare", "--against", "affine"], "invalid choice"),
    ],
)
def test_wrong_options_exit_with_two(words, said, capsys, folder):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert list(folder.iterdir()) == []


# files in full or not at all


def half(figure: object, path: Path, error: BaseException) -> None:
    path.write_bytes(b"half a picture")
    raise error


def test_an_interrupt_while_computing_leaves_nothing(capsys, folder, monkeypatch):
    def interrupted(*_: object) -> None:
        # A shell starts what runs behind it with interrupts ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(explain, "answer", interrupted)
    assert run(capsys, "explain") == (130, "", "jaxcam: interrupted\n")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "jaxcam: interrupted\n"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_a_picture_is_written_in_full_or_not_at_all(
    error, status, said, capsys, folder, monkeypatch
):
    (folder / "x.png").write_bytes(b"earlier")
    monkeypatch.setattr(figures, "save", lambda figure, path: half(figure, path, error))
    got, out, err = run(capsys, "explain", *QUICK, "--out", "x.png")
    assert (got, out) == (status, "")
    assert said in err
    assert [path.name for path in folder.iterdir()] == ["x.png"]
    assert (folder / "x.png").read_bytes() == b"earlier"


def test_a_folder_that_cannot_be_written_to_is_refused(capsys, folder, no_answer, monkeypatch):
    def touch(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", touch)
    status, _, err = run(capsys, "explain")
    assert status == 2
    assert "Permission denied" in err


def test_a_link_is_followed_and_rights_are_the_usual_ones(folder):
    (folder / "other").mkdir()
    (folder / "x.png").symlink_to(folder / "other" / "y.png")
    (path,) = output.check(folder / "x.png", [])
    output.write({path: lambda draft: draft.write_bytes(b"done")})
    assert (folder / "x.png").is_symlink()
    assert (folder / "other" / "y.png").read_bytes() == b"done"
    (folder / "usual").touch()
    assert path.stat().st_mode == (folder / "usual").stat().st_mode


# processes


def process(*words: str, **options: object) -> subprocess.Popen[str]:
    root = str(Path(jaxcam.__file__).parents[1])  # it may not be installed
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": root}
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "jaxcam", *words]
    return subprocess.Popen(command, env=environment, **pipes, **options)


def test_a_pipe_gets_no_colours_and_json_alone(folder):
    for words in (["explain", "--model", "relu", "--layer", "block4", "--json"], ["layers"]):
        running = process(*words)
        out, err = running.communicate(timeout=300)
        assert (running.returncode, err) == (0, "")
        assert ESCAPE not in out
        if "--json" in words:
            assert out.count("\n") == 1
            assert json.loads(out)["engine"] == "affine"
            assert is_drawn(folder / "jaxcam-explain.png")


def test_errors_of_a_process_are_one_line_without_a_traceback(folder):
    running = process("explain", "nowhere.png")
    out, err = running.communicate(timeout=300)
    assert (running.returncode, out) == (2, "")
    assert err == "jaxcam: error: nowhere.png: No such file or directory\n"


def test_a_reader_that_leaves_is_no_error(folder):
    running = process("layers")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    err = running.stderr.read()
    assert (running.wait(timeout=300), err) == (0, "")


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"jaxcam {jaxcam.__version__}\n"


# numbers


def test_localisation_by_hand():
    map = np.zeros((4, 4), np.float32)
    map[0, 0], map[3, 3] = 1.0, 0.4
    boxes = [(0, 0, 1, 1), (3, 3, 4, 4), (0, 2, 2, 4)]
    found = localisation(map, boxes, (4, 4))
    # The second box reaches 0.4 of the maximum, the third 0: one found of three.
    assert (found["boxes"], found["found"]) == (3, 1)
    assert found["recall"] == pytest.approx(1 / 3)
    assert found["energy_in_boxes"] == pytest.approx(1)
    assert found["maximum_in_box"]
    assert not localisation(map, boxes[1:], (4, 4))["maximum_in_box"]
    map[3, 3] = 0.5
    assert localisation(map, boxes, (4, 4))["found"] == 2
    map[1, 1] = 0.5
    assert localisation(map, boxes, (4, 4))["energy_in_boxes"] == pytest.approx(0.75)
    blank = localisation(np.zeros((4, 4)), boxes, (8, 8))
    assert (blank["found"], blank["maximum_in_box"]) == (0, False)
    assert np.isnan(blank["energy_in_boxes"])


def test_difference_by_hand():
    found = difference([[3.0, 4.0], [0.0, 0.0]], [[0.0, 4.0], [0.0, 5.0]])
    assert found["relative_l1"] == pytest.approx(8 / 7)
    assert found["relative_l2"] == pytest.approx(np.sqrt(34) / 5)
    assert found["correlation"] == pytest.approx(np.corrcoef([3, 4, 0, 0], [0, 4, 0, 5])[0, 1])
    assert found["maximum_moved"] == 1
    assert np.isnan(difference(np.ones((2, 2)), np.ones((2, 2)))["correlation"])


def test_plain_values_are_json():
    facts = {
        "nan": np.float32("nan"),
        "inf": [float("inf"), np.array([1.5, -np.inf])],
        "short": np.float32(0.15),
        "scalar": np.array(2),
        "flag": np.True_,
        "path": Path("x"),
        "none": None,
        "bfloat16": np.asarray(jnp.ones(1, "bfloat16")),
    }
    assert report.plain(facts) == {
        "nan": None, "inf": [None, [1.5, None]], "short": 0.15, "scalar": 2, "flag": True,
        "path": "x", "none": None, "bfloat16": [1.0],
    }  # fmt: skip
