"""``jaxcam sweep`` by a published network: its plan holds what decides the result."""

import csv
import json
import re
import shutil
from pathlib import Path

import console
import numpy as np
import pytest
from published import HOW, files, photo, published, saved, tiny

import jaxcam
from jaxcam import pictures, zoo
from jaxcam.cli.commands import sweep as command

NETWORK = ("--model", "tiny_resnet18", "--weights", "resnet18.safetensors")
NAMES = ["tabby, tabby cat", "crane", "hen", "night owl", "barn owl"]
WORDS = ("photos", "--out", "out", "--method", "grad_cam_pp", "--batch", "2",
         "--class", "Tabby", "--class-names", "names.txt")  # fmt: skip


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three photos of different shapes, in a folder beside a checkpoint."""
    published(tmp_path, monkeypatch)
    Path("names.txt").write_text("\n".join(NAMES))
    Path("photos").mkdir()
    for i, size in enumerate([(90, 60), (60, 90), (300, 200)]):
        photo(f"photos/{i}.png", size, seed=i)
    return tmp_path


def run(capsys, *words: object) -> tuple[int, str, str]:
    return console.run(capsys, "sweep", *WORDS, *words)


def table() -> list[dict[str, str]]:
    with Path("out", "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def left() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}


def test_rows_name_the_class_and_maps_are_those_of_single_pictures(capsys, photos):
    status, out, err = run(capsys, *NETWORK, "--json")
    assert (status, err) == (0, "")
    facts = json.loads(out)
    assert (facts["model"], facts["layer"], facts["images"]) == ("tiny_resnet18", "layer4", 3)
    model, card = zoo.load("tiny_resnet18", NETWORK[3])
    cut = jaxcam.split(model, "layer4")
    for row, map in zip(table(), np.load("out/maps.npy"), strict=True):
        assert (row["class"], row["label"]) == ("0", NAMES[0])
        x = zoo.prepare(pictures.read(Path(row["image"])), card.preprocessing)[None]
        alone = jaxcam.cam(cut, x, jaxcam.methods.grad_cam_pp(), 0)
        np.testing.assert_allclose(map, alone.map[0], rtol=1e-4, atol=1e-6)
    settings = json.loads(Path("out/plan.json").read_text())["settings"]
    assert settings["class"] == 0
    assert settings["weights_sha256"] == card.digest
    assert settings["weights_preprocessing"]["crop"] == [64, 64]
    assert not any(NETWORK[3] in str(value) for value in settings.values())


def interrupted(capsys, monkeypatch) -> None:
    """Press Ctrl-C behind the first chunk."""
    write, count = command.folder.write_part, 0

    def stopping(*words):
        nonlocal count
        if count:
            raise KeyboardInterrupt
        count += 1
        write(*words)

    with monkeypatch.context() as patch:
        patch.setattr(command.folder, "write_part", stopping)
        assert run(capsys, *NETWORK)[0] == 130


def change_bias(tensors):
    tensors["fc.bias"][0] += 1e-6


def test_a_run_goes_on_with_the_same_weights_alone(capsys, photos, monkeypatch):
    """The same file elsewhere is the same; another one in the same place is not."""
    interrupted(capsys, monkeypatch)
    before = left()
    names, digest = Path("names.txt").read_text(), zoo.load(*NETWORK[1::2]).card.digest

    def refused(said: str) -> None:
        status, out, err = run(capsys, *NETWORK, "--resume")
        assert (status, out) == (2, "")
        assert re.fullmatch(
            f"jaxcam: error: sweep: needs the settings of [^\n]*{said}[^\n]*\n", err
        )
        assert left() == before

    saved("resnet18", NETWORK[3], change_bias)
    refused(f"--weights-sha256 [0-9a-f]{{64}}, where it has {digest}")
    saved("resnet18", NETWORK[3])
    Path("preprocessor_config.json").write_text(json.dumps(HOW | {"resample": 3}))
    refused("--weights-preprocessing .*bicubic.*, where it has .*bilinear")
    Path("preprocessor_config.json").write_text(json.dumps(HOW))
    Path("names.txt").write_text(names.replace("hen", "cock"))
    refused("--class-names [0-9a-f]{64}, where it has")
    Path("names.txt").write_text(names)

    Path("elsewhere").mkdir()
    for name in (NETWORK[3], "preprocessor_config.json"):
        shutil.move(name, f"elsewhere/{name}")
    moved = (*NETWORK[:3], "elsewhere")
    shutil.move(f"elsewhere/{NETWORK[3]}", "elsewhere/model.safetensors")
    status, out, _ = run(capsys, *moved, "--resume")
    assert status == 0
    assert re.search(r"^done before +2$", out, re.MULTILINE)
    resumed = left()
    shutil.rmtree("out")
    assert run(capsys, *moved)[0] == 0
    assert left() == resumed


def test_a_run_goes_on_with_the_same_part_alone(capsys, photos, monkeypatch):
    """By the part that it was, whatever it was asked for by; a file may hold several."""
    own = tiny.tensors(tiny.network("resnet18"), "resnet18", "torchvision and timm")
    ema = {f"module.{name}": tensor for name, tensor in own.items()}
    Path("run.pth").write_bytes(files.made({"model": own, "ema": ema}))
    network = (*NETWORK[:3], "run.pth", "--part")
    monkeypatch.setattr(f"{__name__}.NETWORK", (*network, "ema"))
    interrupted(capsys, monkeypatch)
    status, out, err = run(capsys, *network, "model", "--resume")
    assert (status, out) == (2, "")
    assert "--weights-part model, where it has ema.module" in err
    status, out, err = run(capsys, *network, "ema.module", "--resume")
    assert (status, err) == (0, "")
    assert re.search(r"^done before +2$", out, re.MULTILINE)
    assert re.search(r"^part of them +ema\.module$", out, re.MULTILINE)
    assert re.search(r"^not used +model \(\d+ tensors\)$", out, re.MULTILINE)


def test_the_network_is_not_on_a_device_before_the_processes_meet(photos, monkeypatch):
    """`jax.distributed` begins before anything else does: what a plan holds needs no device."""
    from jaxcam.cli import models, options

    made = []
    monkeypatch.setattr("jaxcam.zoo.loading.filled", lambda *_: made.append(1))
    asked = options.parse(["sweep", *WORDS, *NETWORK])
    model = models.find(asked)
    assert len(model.class_names) == tiny.CLASSES
    assert made == []
    model.load()
    assert made == [1]


def test_pictures_of_which_the_network_sees_different_sizes_are_refused(capsys, photos):
    how = {key: value for key, value in HOW.items() if "crop" not in key}
    Path("preprocessor_config.json").write_text(json.dumps(how))
    status, out, err = run(capsys, *NETWORK)
    assert (status, out) == (2, "")
    assert "sweep: needs pictures that the network sees in one size" in err
    assert not Path("out").exists()
    images = ("explain", "photos/0.png", "photos/1.png", *NETWORK)
    status, out, err = console.run(capsys, *images)
    assert (status, out) == (2, "")
    assert "one size; got [72, 108, 3] and [108, 72, 3]" in err
