"""Which images a sweep is about: the same list on every machine."""

import os
import re
from pathlib import Path

import pytest

from jaxcam.errors import JaxcamError
from jaxcam.sweep import find


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = "b.png A.JPG z/a.png z/b/c.jpeg notes.txt .hidden.png z/.x/d.png odd.image"
    for name in files.split():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    return tmp_path


def names(*places: str) -> list[str]:
    return [path.as_posix() for path in find(map(Path, places)).paths]


def test_folders_are_walked_in_an_order_that_does_not_depend_on_the_disk(folder, monkeypatch):
    expected = ["A.JPG", "b.png", "z/a.png", "z/b/c.jpeg"]
    assert names(".") == expected
    walk = os.walk

    def backwards(*words, **options):
        for place, folders, files in walk(*words, **options):
            folders.reverse()
            files.reverse()
            yield place, folders, files

    monkeypatch.setattr(os, "walk", backwards)
    assert names(".") == expected


def test_the_order_of_the_arguments_does_not_matter(folder):
    assert names("z", "b.png") == names("b.png", "z") == ["b.png", "z/a.png", "z/b/c.jpeg"]


def test_a_file_that_is_named_may_be_called_anything(folder):
    assert names("odd.image", ".hidden.png") == [".hidden.png", "odd.image"]


def test_images_that_are_named_more_than_once_are_there_once(folder):
    found = find([Path("z"), Path("z/a.png"), Path("z/../z/a.png"), folder / "z" / "b"])
    assert found.twice == 3
    assert len(found.paths) == 2
    assert len({os.path.realpath(path) for path in found.paths}) == 2


def test_links_to_files_are_files_and_links_to_folders_do_not_loop(folder):
    (folder / "z" / "link.png").symlink_to(folder / "b.png")
    (folder / "z" / "loop").symlink_to(folder / "z")
    assert names("z") == ["z/a.png", "z/b/c.jpeg", "z/link.png"]


def test_a_hidden_folder_that_is_named_is_looked_into(folder):
    assert names("z/.x") == ["z/.x/d.png"]


@pytest.mark.parametrize("place", ["empty", "texts"])
def test_a_folder_without_images_is_refused(folder, place):
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").touch()
    with pytest.raises(
        JaxcamError, match=re.escape(f"needs at least one image; got none in {place}")
    ):
        find([Path(place)])


def test_what_is_not_there_is_an_error(folder):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        find([Path("b.png"), Path("nowhere.png")])
