"""The bundled networks and pictures: whole, small, right, and made as their record says."""

import json
import subprocess
import sys
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from benchmarks import scenes as generator
from benchmarks import train_bundled
from benchmarks.scenes import digit_indices, make_scenes
from jaxcam import bundled
from jaxcam.bundled.network import KINDS, DigitNet
from jaxcam.errors import JaxcamError

RECORD = Path(__file__).parents[2] / "benchmarks/results/train_bundled.json"


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads(RECORD.read_text())


def classify(kind: str, images: np.ndarray) -> np.ndarray:
    """Top class of float32 pictures ``[n, 64, 64, 1]``."""
    model, variables = bundled.load(kind)
    logits = jax.jit(model.apply)
    parts = [images[row : row + 250] for row in range(0, len(images), 250)]
    return np.concatenate([np.argmax(logits(variables, part), 1) for part in parts])


def unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32)[..., None] / 255


def test_the_files_are_small():
    data = files("jaxcam.bundled").joinpath("data")
    sizes = {entry.name: len(entry.read_bytes()) for entry in data.iterdir()}
    assert sizes.keys() == {"gelu.npz", "relu.npz", "scenes.npz"}
    assert sum(sizes.values()) < 600_000


@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_variables_are_the_models(kind, record):
    model, variables = bundled.load(kind)
    wanted = jax.eval_shape(DigitNet(kind).init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    assert model == DigitNet(kind)
    assert jax.tree.map(lambda v: (v.shape, v.dtype), variables) == jax.tree.map(
        lambda v: (v.shape, v.dtype), dict(wanted)
    )
    assert all(bool(jnp.isfinite(v).all()) for v in flatten_dict(variables).values())
    parameters = sum(v.size for v in flatten_dict(variables["params"]).values())
    assert parameters == record["networks"][kind]["parameters"] < 110_000


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_named_and_sized_as_documented(kind):
    model, variables = bundled.load(kind)
    kept = model.apply(
        variables,
        bundled.scene(0).image[None],
        capture_intermediates=lambda module, _: str(module.name).startswith("block"),
    )[1]["intermediates"]
    blocks = {name: block["__call__"][0] for name, block in kept.items()}
    assert {name: a.shape[1:] for name, a in blocks.items()} == {
        "block1": (32, 32, 16),
        "block2": (16, 16, 32),
        "block3": (8, 8, 48),
        "block4": (8, 8, 48),
    }
    assert bundled.DEFAULT_LAYER in blocks
    if kind == "relu":
        assert all(float(a.min()) >= 0 for a in blocks.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_position_sees_the_pixels_around_its_own_centre(kind):
    model, variables = bundled.load(kind)

    def middle(x):
        kept = model.apply(variables, x, capture_intermediates=True)[1]["intermediates"]
        return kept["block2"]["__call__"][0][0, 8, 8].sum()

    seen = jax.grad(middle)(bundled.scene(0).image[None])[0, :, :, 0] != 0
    for axis in (0, 1):
        pixels = np.flatnonzero(seen.any(axis))
        assert (pixels[0] + pixels[-1] + 1) / 2 == 8.5 * 64 / 16


@pytest.mark.parametrize("kind", KINDS)
def test_every_bundled_picture_is_classified_right(kind):
    every = bundled.scenes()
    found = classify(kind, np.stack([scene.image for scene in every]))
    assert found.tolist() == [scene.label for scene in every]


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_held_out_scenes_are_classified(kind):
    fresh = make_scenes(500, 1, "test")
    assert np.mean(classify(kind, unit(fresh.images)) == fresh.labels) >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_record_is_of_the_stored_networks(kind, record):
    settings, networks = record["settings"], record["networks"]
    held_out = make_scenes(settings["held_out"], settings["seed"], "test")
    accuracy = np.mean(classify(kind, unit(held_out.images)) == held_out.labels)
    assert accuracy == pytest.approx(networks[kind]["accuracy"], abs=0.001)
    assert networks[kind]["accuracy"] >= 0.97


@pytest.mark.slow
def test_a_short_training_run_writes_where_it_is_told(tmp_path, monkeypatch):
    words = ["train", "--epochs=1", "--scenes=64", "--held-out=40", "--batch=16"]
    monkeypatch.setattr(sys, "argv", [*words, f"--out={tmp_path}"])
    before = RECORD.read_bytes()
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules rely on it
        train_bundled.main()
    written = json.loads((tmp_path / "train_bundled.json").read_text())
    assert written["settings"]["scenes"] == 64
    assert written["networks"].keys() == set(KINDS)
    assert {path.name for path in tmp_path.glob("*.npz")} == {"gelu.npz", "relu.npz", "scenes.npz"}
    assert RECORD.read_bytes() == before


def test_the_pictures_are_the_recorded_held_out_ones(record):
    every = bundled.scenes()
    for scene, row in zip(every, record["pictures"], strict=True):
        image, label, boxes = generator._scene(record["settings"]["seed"], "test", row)
        # One grey level of room: another Pillow may round an enlarged digit differently.
        np.testing.assert_allclose(255 * scene.image[..., 0], image, atol=1.01)
        assert (scene.label, scene.boxes.tolist()) == (label, np.array(boxes).tolist())
    assert 8 <= len(every) <= 12
    assert len(every[0].boxes) == 3
    assert sum(len(scene.boxes) == 3 for scene in every) >= 4
    assert {scene.label for scene in every} == set(range(10))


def test_pictures_are_network_inputs_with_boxes():
    for scene in bundled.scenes():
        assert (scene.image.shape, scene.image.dtype) == ((64, 64, 1), np.float32)
        assert 0 <= scene.image.min() < 0.3
        assert 0.5 < scene.image.max() <= 1
        check_boxes(scene.image[..., 0], scene.boxes)


def test_boxes_hold_bright_digits_and_do_not_overlap():
    drawn = make_scenes(200, 2)
    assert drawn.boxes.shape == (200, 3, 4)
    assert set(drawn.counts) == {1, 2, 3}
    for image, boxes, count in zip(drawn.images, drawn.boxes, drawn.counts, strict=True):
        assert (boxes[count:] == -1).all()
        check_boxes(image / 255, boxes[:count])


def check_boxes(image: np.ndarray, boxes: np.ndarray) -> None:
    covered = [np.zeros((64, 64), bool) for _ in boxes]
    for (row0, col0, row1, col1), cover in zip(boxes, covered, strict=True):
        assert 0 <= row0 < row1 <= 64
        assert 0 <= col0 < col1 <= 64
        assert 12 <= row1 - row0 <= 20  # a whole digit's height
        cover[row0:row1, col0:col1] = True
        # Ink touches all four sides: the box is the digit's, not a margin wider or a pixel off.
        inside = image[row0:row1, col0:col1]
        sides = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
        assert min(side.max() for side in sides) > np.median(image)
        assert inside.mean() > np.median(image) + 0.05
    assert not any((one & other).any() for one, other in combinations(covered, 2))


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_a_handwritten_digit_occurs_in_one_split_only(monkeypatch, split, other):
    drawn, ink = set(), generator._ink
    monkeypatch.setattr(generator, "_ink", lambda digit, size: drawn.add(digit) or ink(digit, size))
    make_scenes(300, 3, split)
    assert len(drawn) > 300
    assert drawn <= set(digit_indices(split).tolist())
    assert not drawn & set(digit_indices(other).tolist())
    assert len(digit_indices(split)) + len(digit_indices(other)) == 1797


def test_scenes_depend_on_seed_split_and_index_alone():
    short, long = make_scenes(3, 5), make_scenes(5, 5)
    assert all(np.array_equal(a, b[:3]) for a, b in zip(short, long, strict=True))
    assert not np.array_equal(short.images, make_scenes(3, 6).images)
    assert not np.array_equal(short.images, make_scenes(3, 5, "test").images)
    assert not np.array_equal(long.images[0], long.images[1])


def test_prepare_leaves_a_scene_as_it_is():
    image = bundled.scene(3).image
    stored = np.round(255 * image).astype(np.uint8)
    for same in (stored, stored[..., 0], np.repeat(stored, 3, axis=2)):
        np.testing.assert_array_equal(bundled.prepare(same), image)
        np.testing.assert_array_equal(bundled.prepare(Image.fromarray(same.squeeze())), image)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_prepare_takes_any_mode_and_size(mode):
    source = Image.new("RGB", (300, 50))
    source.paste((255, 255, 255), (0, 0, 150, 50))
    ready = bundled.prepare(source.convert(mode))
    assert (ready.shape, ready.dtype) == ((64, 64, 1), np.float32)
    np.testing.assert_allclose(ready[:, :30], 1, atol=0.02)
    np.testing.assert_allclose(ready[:, 34:], 0, atol=0.02)


def test_prepare_averages_what_it_shrinks():
    stripes = np.tile(np.array([[0], [255]], np.uint8), (320, 640))
    np.testing.assert_allclose(bundled.prepare(stripes), 0.5, atol=0.02)


def test_prepare_shows_transparent_parts_on_white():
    half = np.zeros((64, 64, 4), np.uint8)
    half[:, :32, 3] = 255
    for picture in (half, Image.fromarray(half), Image.fromarray(half).convert("LA")):
        assert bundled.prepare(picture)[:, [0, 63], 0].mean(0).tolist() == [0, 1]


def test_prepare_keeps_the_range_of_16_bits():
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert bundled.prepare(deep)[0, [0, 63], 0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bundled.load("tanh"), r"kind in \('gelu', 'relu'\); got 'tanh'"),
        (lambda: DigitNet("tanh").init(jax.random.key(0), jnp.zeros((1, 64, 64, 1))), "'tanh'"),
        (lambda: bundled.scene(10), "index from 0 to 9; got 10"),
        (lambda: bundled.scene(-1), "index from 0 to 9; got -1"),
        (lambda: bundled.prepare(np.zeros((64, 64))), r"uint8 .*got float64 \[64, 64\]"),
        (lambda: bundled.prepare(np.zeros((3, 64, 64), np.uint8)), r"got uint8 \[3, 64, 64\]"),
        (lambda: bundled.prepare(np.zeros((0, 64), np.uint8)), r"got uint8 \[0, 64\]"),
        (lambda: bundled.prepare("digit.png"), "a Pillow image.*got str"),
        (lambda: bundled.prepare(Image.new("F", (8, 8))), "got mode 'F'.*convert it to mode 'L'"),
    ],
)
def test_errors_say_what_to_do(call, words):
    with pytest.raises(JaxcamError, match=words):
        call()


def test_importing_the_library_leaves_the_networks_alone():
    code = "import sys, jaxcam; sys.exit(any('bundled' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
