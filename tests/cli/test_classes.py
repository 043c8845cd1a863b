"""Classes by name, and files of names."""

import json
from pathlib import Path

import pytest

from jaxcam.cli.classes import index_of, read_names
from jaxcam.errors import JaxcamError

NAMES = ("tench, Tinca tinca", "crane", "tabby, tabby cat", "crane", "Persian cat", "3")


@pytest.mark.parametrize(
    ("text", "index"),
    [("2", 2), ("-1", -1), ("99", 99), ("+4", 4), ("tabby", 2), ("TABBY  Cat", 2), (" tench ", 0),
     ("tinca TINCA", 0), ("tabby, tabby cat", 2), ("persian cat", 4), ("3", 3)],
)  # fmt: skip
def test_by_index_or_by_any_synonym_in_any_case(text, index):
    assert index_of(text, NAMES) == index


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crane", r"got 'crane', which is 1 \(crane\) or 3 \(crane\)\. Give the index"),
        ("taby", r"got 'taby'\. The nearest are 2 \(tabby, tabby cat\)"),
        ("cat", r"The nearest are .*2 \(tabby, tabby cat\).*4 \(Persian cat\)"),
        ("tabby ca", r"The nearest are 2 \(tabby, tabby cat\)"),
        ("xyzzyx", r"got 'xyzzyx'\. No name is near it"),
        ("2.5", "got '2.5'"),
    ],
)
def test_a_name_that_is_not_there_or_twice(text, said):
    with pytest.raises(JaxcamError, match=rf"--class: needs one of 6 classes.*{said}"):
        index_of(text, NAMES)


GIVEN = {
    "lines": "a b\nc, d\né\n",
    "lines with a mark": "\ufeffa b\r\nc, d\r\né",
    "list": json.dumps(["a b", "c, d", "é"]),
    "object": json.dumps({"2": "é", "0": "a b", "1": "c, d"}),
}


@pytest.mark.parametrize("content", GIVEN.values(), ids=GIVEN)
def test_a_file_of_names(content, tmp_path):
    path = tmp_path / "names"
    path.write_text(content, encoding="utf-8")
    assert read_names(path, 3) == ("a b", "c, d", "é")


WRONG = {
    "two": (b"a\nb\n", "needs 3 names, one for each class; got 2"),
    "four": (b'["a", "b", "c", "d"]', "got 4"),
    "empty": (b"", "got 0"),
    "gap": (b"a\n\nc\n", "no name for class 1"),
    "numbers": (b"[1, 2, 3]", "1, which is no text"),
    "pairs": (b'{"0": ["n01", "a"], "1": ["n02", "b"], "2": ["n03", "c"]}', "no text"),
    "from one": (b'{"1": "a", "2": "b", "3": "c"}', "no entry 0 among 3"),
    "half": (b'["a", "b', "Unterminated string"),
    "no text": (b"\xff\xfe\x00", "codec can't decode"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_none_of_names(content, said, tmp_path):
    path = tmp_path / "names"
    path.write_bytes(content)
    with pytest.raises(JaxcamError, match=rf"--class-names .*{said}"):
        read_names(path, 3)


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_names(Path("nowhere"), 3)
