"""Sweeps from Python, over a network of two lines."""

import csv
import re
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam.errors import JaxcamError
from jaxcam.sweep import Job, Launch, driver, folder, loading, make_plan, run
from jaxcam.sweep.crew import Crew, gathered

NAMES = ("cat", "dog, wet", "é")
SHAPE = (3, 4, 2)
WEIGHTS = jnp.array([[1.0, -1.0, 0.3], [0.5, 2.0, -0.2]])
SMOOTHED = jaxcam.smooth(jaxcam.methods.grad_cam_pp(), num_samples=2)
KEY = jax.random.key(3)


def features(x):
    return jnp.tanh(x)


def scores(weights, a, x):
    return jax.nn.silu((a * a).mean(axis=(1, 2)) @ weights)


SPLIT = jaxcam.Split(jax.tree_util.Partial(features), jax.tree_util.Partial(scores, WEIGHTS))


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def read(path: Path) -> np.ndarray:
    if path.stem == "3":
        raise OSError(5, "Input/output error", str(path))
    return image(int(path.stem))


def explain(split, x):
    """One gradient, for tests of everything around it."""
    return jaxcam.cam(split, x, jaxcam.methods.grad_cam())


def smoothed(split, x):
    return jaxcam.cam(split, x, SMOOTHED, key=KEY)


JOB = Job(SPLIT, explain, read, NAMES, SHAPE)


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / f"{i}.image" for i in range(7)]
    for path in made:
        path.touch()
    return made


def sweep(paths, out, job=JOB, batch=3, **options):
    return run(make_plan(paths, {}, batch=batch), out, lambda: job, **options)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_gets_the_map_that_it_has_alone(tmp_path, paths):
    ended = sweep(paths, tmp_path / "out", JOB._replace(explain=smoothed))
    assert (ended.images, ended.failed, ended.found) == (7, 1, 0)
    one = jax.jit(smoothed)
    maps, rows = np.load(tmp_path / "out" / "maps.npy"), table(tmp_path / "out")
    assert [row["image"] for row in rows] == [path.as_posix() for path in paths]
    for i, row in enumerate(rows):
        if i == 3:
            assert np.isnan(maps[i]).all()
            assert row["error"] == f"[Errno 5] Input/output error: '{paths[3]}'"
            assert set(row.values()) == {row["image"], row["error"], ""}
            continue
        alone = one(SPLIT, image(i)[None])
        np.testing.assert_allclose(maps[i], alone.map[0], rtol=1e-5, atol=1e-7)
        index, found = int(alone.target[0]), alone.diagnostics
        assert (int(row["class"]), row["label"]) == (index, NAMES[index])
        probability = float(jax.nn.softmax(alone.scores[0])[index])
        expected = {
            "score": alone.scores[0, index], "probability": probability,
            "effective_samples": found.effective_samples[0],
            "top_class_kept": found.top_class_kept[0], "smallest_r": found.poles.smallest_r[0],
            "share_large": found.poles.share_large[0],
            "share_guarded": found.poles.share_guarded[0],
            "share_concave": found.poles.share_concave[0],
            "relative_standard_error": found.standard_error[0].max() / alone.map[0].max(),
        }  # fmt: skip
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
        assert (row["engine"], row["exact"]) == (found.report.engine, "yes")
        assert (row["blank"], row["error"]) == ("no", "")
    assert ended.report == alone.diagnostics.report


def test_neighbours_and_chunks_do_not_matter(tmp_path, paths):
    sweep(paths, tmp_path / "three")
    sweep(paths[5:], tmp_path / "two", batch=2)
    some, all_of_them = (np.load(tmp_path / name / "maps.npy") for name in ("two", "three"))
    np.testing.assert_allclose(some, all_of_them[5:], rtol=1e-6, atol=1e-7)


def test_numbers_are_written_with_all_their_digits(tmp_path, paths):
    sweep(paths[:1], tmp_path / "out", batch=1)
    score = table(tmp_path / "out")[0]["score"]
    assert np.float32(score) == jax.jit(explain)(SPLIT, image(0)[None]).scores.max()


class Stopped(Exception):
    """Somebody pulls the plug."""


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_resumed_run_redoes_nothing_and_ends_with_the_same_bytes(chunk, tmp_path, paths):
    sweep(paths, tmp_path / "undisturbed")
    seen = []

    def watched(path: Path) -> np.ndarray:
        seen.append(path)
        return read(path)

    def stop(done: int, total: int) -> None:
        assert total == 7
        if done >= 3 * chunk:
            raise Stopped

    with pytest.raises(Stopped):
        sweep(paths, tmp_path / "out", progress=stop)
    told = []
    job = JOB._replace(read=watched)
    ended = sweep(
        paths, tmp_path / "out", job, resume=True, progress=lambda *words: told.append(words)
    )
    assert ended.found == told[0][0] == 3 * chunk
    assert told[-1] == (7, 7)
    assert sorted(seen) == paths[3 * chunk :]
    for name in ("plan.json", "maps.npy", "table.csv"):
        left, right = (tmp_path / place / name for place in ("out", "undisturbed"))
        assert left.read_bytes() == right.read_bytes()
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_complete_run_is_not_computed_again(tmp_path, paths):
    sweep(paths, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "parts").mkdir()  # killed before it was removed
    (tmp_path / "parts" / "000000.npz").touch()
    ended = run(
        make_plan(paths, {}, batch=3), tmp_path, lambda: pytest.fail("prepared"), resume=True
    )
    assert (ended.images, ended.failed, ended.found, ended.report) == (7, 1, 7, None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_maps_that_went_missing_are_made_again(tmp_path, paths):
    sweep(paths, tmp_path)
    before = (tmp_path / "maps.npy").read_bytes()
    (tmp_path / "maps.npy").unlink()
    sweep(paths, tmp_path, resume=True)
    assert (tmp_path / "maps.npy").read_bytes() == before


def test_all_images_may_be_broken(tmp_path, paths):
    assert sweep(paths[3:4], tmp_path / "out").failed == 1
    assert np.isnan(np.load(tmp_path / "out" / "maps.npy")).all()
    assert np.load(tmp_path / "out" / "maps.npy").shape == (1, 3, 4)


def test_a_map_that_is_not_finite_is_an_error_of_its_image_alone(tmp_path, paths):
    def huge(path: Path) -> np.ndarray:
        found = read(path)
        if path.stem == "1":
            found[0, 0] = 1e30  # infinite behind the square, and there alone
        return found

    def bounded(weights, a, x):
        return jnp.minimum(a, 1).mean(axis=(1, 2)) @ weights

    job = JOB._replace(split=jaxcam.Split(jnp.square, jax.tree_util.Partial(bounded, WEIGHTS)))
    sweep(paths, tmp_path / "whole", job)
    ended = sweep(paths, tmp_path / "out", job._replace(read=huge))
    assert ended.failed == 2
    maps, whole = (np.load(tmp_path / name / "maps.npy") for name in ("out", "whole"))
    assert np.isnan(maps[1]).all()
    np.testing.assert_array_equal(np.delete(maps, 1, 0), np.delete(whole, 1, 0))
    assert table(tmp_path / "out")[1]["error"].startswith("the map is not finite")


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (image(1) * np.float32("inf"), "needs finite values; got NaN or infinity"),
        ("a word", r"needs an array of numbers; got str"),
        (image(1)[:1], r"needs an array \[3, 4, 2\]; got \[1, 4, 2\]"),
    ],
)
def test_an_array_that_is_no_input_is_an_error_of_its_image_alone(odd, said, tmp_path, paths):
    ended = sweep(paths[:3], tmp_path, JOB._replace(
        read=lambda path: odd if path.stem == "1" else read(path)))  # fmt: skip
    assert ended.failed == 1
    assert re.search(said, table(tmp_path)[1]["error"])
    assert np.isfinite(np.load(tmp_path / "maps.npy")[[0, 2]]).all()


def test_one_program_is_traced_whatever_the_chunks(tmp_path, paths):
    traced = []

    def counted(split, x):
        traced.append(x.shape)
        return explain(split, x)

    sweep(paths, tmp_path / "out", JOB._replace(explain=counted))
    assert traced == [(3, *SHAPE)]


def test_a_process_takes_every_nth_chunk_and_leaves_the_rest_to_the_others(
    tmp_path, paths, monkeypatch
):
    @contextmanager
    def gathered(out, launch):
        yield Crew(out, 1, 3)

    def wait(crew, ready, told=None):
        if not ready():
            raise Stopped

    monkeypatch.setattr(driver, "gathered", gathered)
    monkeypatch.setattr(Crew, "check", lambda crew: None)
    monkeypatch.setattr(Crew, "wait", wait)
    plan = make_plan(paths, {}, batch=1)
    (tmp_path / "out" / "parts").mkdir(parents=True)
    with pytest.raises(Stopped):  # no plan yet
        run(plan, tmp_path / "out", lambda: JOB)
    assert not (tmp_path / "out" / "plan.json").exists()  # it is for process 0 to write
    folder.write_plan(tmp_path / "out", plan)
    with pytest.raises(Stopped):  # no result yet
        run(plan, tmp_path / "out", lambda: JOB, resume=True)
    assert folder.done(tmp_path / "out") == {1, 4}


def test_a_question_without_an_answer_leaves_nothing(tmp_path, paths):
    flat = SPLIT._replace(scores=lambda a, x: x.mean(axis=(1, 2)))
    with pytest.raises(JaxcamError, match="a layer on whose values the score depends"):
        sweep(paths, tmp_path / "made" / "out", JOB._replace(split=flat))
    assert not (tmp_path / "made" / "out").exists()


def test_a_folder_in_which_another_sweep_is_at_work_is_refused(tmp_path, paths):
    with (
        gathered(tmp_path / "out", None),
        pytest.raises(JaxcamError, match="another sweep at work"),
    ):
        sweep(paths, tmp_path / "out")
    sweep(paths, tmp_path / "out")


def test_files_that_are_of_no_sweep_are_not_written_over(tmp_path, paths):
    for name in ("maps.npy", "table.csv", "parts/000000.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
        for resume in (False, True):
            with pytest.raises(JaxcamError, match="a folder without results"):
                sweep(paths, tmp_path, resume=resume)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "notes.txt").write_text("mine")
    sweep(paths, tmp_path)


def test_without_the_loader_nothing_is_begun(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(JaxcamError, match=r"grain.*pip install 'jaxcam-xai\[sweep\]'"):
        sweep(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_come_in_their_order_and_ahead_of_who_asks():
    read = []

    def broken_first(path: Path) -> np.ndarray:
        read.append(int(path.name))
        if path.name == "0":
            raise ValueError("no picture:\n<BytesIO object at 0x7f32ab>")
        return np.array(int(path.name))

    loaded = loading.ahead([Path(str(i)) for i in range(20)], broken_first, images=8)
    assert next(loaded) == (None, "no picture: <BytesIO object>")
    assert [int(one.image) for one in loaded] == list(range(1, 20))
    assert sorted(read) == list(range(20))


def test_a_lock_is_that_of_its_holder(tmp_path):
    with gathered(tmp_path / "out", None) as crew:
        crew.check()
        with pytest.raises(JaxcamError, match="process 0 of the sweep: needs all of the others"):
            crew._replace(processes=2).check()
        assert crew._replace(process=1).check() is None
    assert not (tmp_path / "out").exists()
    with pytest.raises(JaxcamError, match="got process 0 dead"):
        crew._replace(process=1, processes=2).wait(lambda: False)
    crew._replace(process=1, processes=2).wait(lambda: True)


def test_an_address_that_does_not_exist_is_refused_before_anybody_waits(tmp_path, paths):
    launch = Launch("nowhere.invalid:1234", 2, 1)
    with pytest.raises(JaxcamError, match=r"HOST:PORT of process 0; got nowhere\.invalid:1234"):
        sweep(paths, tmp_path / "out", launch=launch)
    assert not (tmp_path / "out").exists()
