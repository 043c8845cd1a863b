"""The command ``jaxcam sweep``: what it explains, says, refuses and leaves behind."""

import csv
import json
import re
from pathlib import Path

import console
import jax
import numpy as np
import pytest
from console import OPTIONS, assert_asked
from PIL import Image

import jaxcam
from jaxcam import bundled, pictures
from jaxcam.cli import main
from jaxcam.cli.commands import sweep as command
from jaxcam.split import split
from jaxcam.sweep.crew import Launch

QUICK = ("--method", "grad_cam", "--model", "relu", "--layer", "block4")
PROCESS = ("--coordinator", "h:1", "--processes", "2", "--process", "1")
COUNT = 5
"""Pictures that can be read, of which one is in a folder; and one that cannot."""


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folder with the pictures ``photos`` in it, the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for i in range(COUNT):
        pixels = np.round(255 * bundled.scene(i).image[..., 0]).astype(np.uint8)
        name = "sub/4.png" if i == 4 else f"{i}.png"
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.jpg").write_text("no picture")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    return console.run(capsys, "sweep", *words)


def table(name: str = "out") -> list[dict[str, str]]:
    with Path(name, "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def left(name: str = "out") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def test_a_folder_is_explained_as_its_pictures_are_one_by_one(capsys, photos):
    status, out, err = run(capsys, "photos", "--out", "out", *QUICK, "--batch", 2, "--json")
    facts = json.loads(out)
    assert status == 1
    said = "1 of 6 images could not be explained: the column 'error' of out/table.csv says why"
    assert err == f"jaxcam: warning: {said}\n"
    assert facts["warnings"] == [said]
    assert (facts["images"], facts["failed"], facts["found"]) == (6, 1, 0)
    assert (facts["engine"], facts["exact"], facts["processes"]) == ("gradient", True, 1)
    assert (facts["model"], facts["layer"], facts["options"]["batch"]) == ("relu", "block4", 2)
    assert (facts["maps"], facts["table"]) == ("out/maps.npy", "out/table.csv")
    assert sorted(left()) == ["maps.npy", "plan.json", "table.csv"]
    maps, rows = np.load("out/maps.npy"), table()
    assert [Path(row["image"]).stem for row in rows] == ["0", "1", "2", "3", "broken", "4"]
    relu = bundled.load("relu")
    cut = split(relu.model, "block4", variables=relu.variables)
    for map, row in zip(maps, rows, strict=True):
        if "broken" in row["image"]:
            assert np.isnan(map).all()
            assert "photos/broken.jpg: needs a picture that can be read" in row["error"]
            assert row["class"] == row["score"] == ""
            continue
        x = bundled.prepare(pictures.read(Path(row["image"])))[None]
        alone = jaxcam.cam(cut, x, jaxcam.methods.grad_cam())
        np.testing.assert_allclose(map, alone.map[0], rtol=1e-5, atol=1e-6)
        assert int(row["class"]) == int(alone.target[0])
        assert float(row["score"]) == pytest.approx(float(alone.scores.max()), rel=1e-5)
        assert row["error"] == ""


def test_a_person_reads_how_it_ended(capsys, photos):
    status, out, err = run(capsys, "photos/0.png", "photos/sub", "photos/sub/4.png", "--out",
                           "new/out", *QUICK)  # fmt: skip
    assert status == 0
    said = "1 of the images were named more than once, and are explained once"
    assert err == f"jaxcam: warning: {said}\n"
    for words in (
        r"images +2$", r"method +Grad-CAM at block4$", r"engine +gradient, exact$",
        r"seconds +[\d.]+$", r"new/out/maps\.npy written$", r"new/out/table\.csv written$",
    ):  # fmt: skip
        assert re.search(f"^{words}", out, re.MULTILINE), words
    assert "processes" not in out


def test_every_option_reaches_the_library(capsys, photos, monkeypatch):
    seen: dict = {}

    def cam(*words: object, **options: object) -> None:
        seen.update(words=words, options=options)
        raise jaxcam.JaxcamError("seen")

    monkeypatch.setattr(command, "cam", cam)
    assert run(capsys, "photos", "--out", "out", *OPTIONS, "--batch", 4) == (
        2,
        "",
        "jaxcam: error: seen\n",
    )
    (_, x, method, target), others = seen["words"], seen["options"]
    assert x.shape == (4, 64, 64, 1)
    assert_asked(method, target, others)
    assert not Path("out").exists()


def test_the_options_of_processes_reach_the_library(photos, monkeypatch):
    seen = []

    def stop(*_, launch, **__):
        seen.append(launch)
        raise jaxcam.JaxcamError("seen")

    monkeypatch.setattr(command.sweeping, "run", stop)
    alone = ("sweep", "photos", "--out", "out")
    for more in (
        "", "--distributed", "--coordinator h:99 --processes 3 --process 2 --wait 7",
    ):  # fmt: skip
        assert main([*alone, *more.split()]) == 2
    assert seen == [None, Launch(), Launch("h:99", 3, 2, 7)]


# going on


@pytest.fixture
def undisturbed(capsys, photos):
    run(capsys, "photos", "--out", "whole", *QUICK, "--batch", 2)
    return left("whole")


def interrupted(capsys, monkeypatch, after: int) -> None:
    """Press Ctrl-C behind so many pictures."""
    write, count = command.folder.write_part, 0

    def stopping(*words):
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        write(*words)

    monkeypatch.setattr(command.folder, "write_part", stopping)
    status, out, err = run(capsys, "photos", "--out", "out", *QUICK, "--batch", 2)
    assert (status, out) == (130, "")
    assert err == "jaxcam: interrupted: what was written stays, and --resume goes on with it\n"
    monkeypatch.setattr(command.folder, "write_part", write)


def test_an_interrupted_sweep_goes_on_and_ends_with_the_same_bytes(
    capsys, photos, monkeypatch, undisturbed
):
    interrupted(capsys, monkeypatch, after=2)
    before = left("out/parts")
    assert len(before) == 2
    status, _, err = run(capsys, "photos", "--out", "out", *QUICK, "--batch", 2)
    assert status == 2
    assert "got a sweep, unfinished. Add --resume" in err
    assert left("out/parts") == before
    words = ("photos", "--out", "out", *QUICK, "--batch", 2, "--resume")
    status, out, _ = run(capsys, *words)
    assert status == 1
    assert re.search(r"^done before +4$", out, re.MULTILINE)
    assert left() == undisturbed
    monkeypatch.setattr(command, "_job", lambda asked: pytest.fail("computed"))
    status, out, err = run(capsys, *words)
    assert (status, left()) == (1, undisturbed)
    assert "1 of 6 images could not be explained" in err
    assert re.search(r"^done before +6$", out, re.MULTILINE)


def test_resume_begins_where_nothing_is(capsys, photos, undisturbed):
    assert run(capsys, "photos", "--out", "out", *QUICK, "--batch", 2, "--resume")[0] == 1
    assert left() == undisturbed


def test_a_full_disk_is_one_line_and_what_was_written_stays(capsys, photos, undisturbed):
    Path("out/parts").mkdir(parents=True)
    Path("out/parts/000001.npz.draft").symlink_to("/dev/full")
    words = ("photos", "--out", "out", *QUICK, "--batch", 2)
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert re.fullmatch(
        r"jaxcam: error: out/parts/000001\.npz: No space left on device\. [^\n]*--resume\.\n", err
    )
    assert command.folder.read_part(Path("out"), 0).maps.shape == (2, 8, 8)
    assert sorted(left("out/parts")) == ["000000.npz"]
    assert run(capsys, *words, "--resume")[0] == 1
    assert left() == undisturbed


DIFFERENT = {
    "network": (["--model", "gelu"], "--model gelu, where it has relu"),
    "layer": (["--layer", "block3"], "--layer block3, where it has block4"),
    "class": (["--class", "3"], "--class 3, where it has none"),
    "target": (["--target", "softmax"], "--target softmax, where it has exp_logit"),
    "method": (["--method", "grad_cam_pp"], "--method grad_cam_pp, where it has grad_cam"),
    "engine": (["--engine", "power"], "--engine power, where it has auto"),
    "chunk": (["--chunk-size", "1"], "--chunk-size 1, where it has auto"),
    "batch": (["--batch", "3"], "--batch 3, where it has 2"),
    "noise": (
        ["--method", "smooth_grad_cam_pp", "--noise", "0.2", "--seed", "1"],
        "--method smooth_grad_cam_pp, where it has grad_cam; --noise 0.2, where it has 0.15; "
        "--seed 1, where it has 0",
    ),
    "fewer": (["photos/0.png"], "1 images, where it has 6: 'photos/1.png' is missing"),
}


def test_a_sweep_with_other_settings_is_refused_by_name(capsys, photos, undisturbed, monkeypatch):
    monkeypatch.setattr(command, "_job", lambda asked: pytest.fail("computed"))
    words = ["--out", "whole", *QUICK, "--batch", "2", "--resume"]

    def said(*more: str) -> str:
        status, out, err = run(capsys, *words, *more)
        assert (status, out) == (2, "")
        expected = r"jaxcam: error: sweep: needs the settings of the run in whole; [^\n]*\n"
        assert re.fullmatch(expected, err)
        return err

    for more, expected in DIFFERENT.values():
        images = () if more[0].startswith("photos") else ("photos",)
        assert expected in said(*images, *more)
    Image.new("L", (9, 9)).save("photos/9.png")
    assert "7 images, where it has 6: 'photos/9.png' is new" in said("photos")
    Path("photos/9.png").unlink()
    size = Path("photos/3.png").stat().st_size
    Path("photos/3.png").write_bytes(b"longer")
    assert f"'photos/3.png' has 6 bytes, where it had {size}" in said("photos")
    plan = json.loads(Path("whole/plan.json").read_text())
    plan["versions"]["jax"] = "0.0.1"
    Path("whole/plan.json").write_text(json.dumps(plan))
    assert f"jax {jax.__version__}, where it has 0.0.1" in said("photos/1.png")
    undisturbed["plan.json"] = left("whole")["plan.json"]
    assert left("whole") == undisturbed


# refused before anything is computed or written

REFUSED = {
    "missing image": (["nowhere.png", "--out", "out"], r"nowhere\.png: No such file"),
    "no images": (["empty", "--out", "out"], "at least one image; got none in empty"),
    "out is a file": (["photos", "--out", "photos/0.png"], r"needs a folder; got the file"),
    "out below a file": (["photos", "--out", "photos/0.png/x"], "Not a directory"),
    "model": (["photos", "--out", "out", "--model", "rely"], "got rely. Did you mean relu"),
    "class": (["photos", "--out", "out", "--class", "10"], "from 0 to 9; got 10"),
    "noise": (["photos", "--out", "out", "--noise", "-1"], "noise_level of 0 or more"),
    "layer": (["photos", "--out", "out", "--layer", "blok3"], "block3"),
    "engine": (["photos", "--out", "out", "--engine", "exponental"], "exponential"),
    "host": (
        ["photos", "--out", "out", *PROCESS, "--coordinator", "nowhere.invalid:9"],
        r"HOST:PORT of process 0; got nowhere\.invalid:9",
    ),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_refuses(words, said, capsys, photos):
    Path("empty").mkdir()
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*")}
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert re.fullmatch(f"jaxcam: error: [^\n]*{said}[^\n]*\n", err)
    assert {path: path.stat().st_mtime_ns for path in photos.rglob("*")} == before


def test_a_folder_that_cannot_be_written_to_is_refused(capsys, photos, monkeypatch):
    def mkdir(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    status, _, err = run(capsys, "photos", "--out", "out", *QUICK)
    assert (status, err) == (2, "jaxcam: error: out/parts: Permission denied\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos"], "--out"),
        (["--out", "out"], "IMAGES"),
        (["photos", "--out", "out", "--batch", "0"], "from 1 on"),
        (["photos", "--out", "out", "--method", "grad_cam", "--poles", "raw"], "not to grad_cam"),
        (["photos", "--out", "out", "--processes", "2"], "belong together"),
        (["photos", "--out", "out", "--coordinator", "here"], "needs HOST:PORT"),
        (["photos", "--out", "out", "--coordinator", "here:99999"], "needs HOST:PORT"),
        (["photos", "--out", "out", *PROCESS, "--process", "2"], "from 0 to 1"),
        (["photos", "--out", "out", *PROCESS, "--distributed"], "--distributed finds out"),
    ],
)
def test_wrong_options_exit_with_two(words, said, capsys, photos):
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", *words])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()
