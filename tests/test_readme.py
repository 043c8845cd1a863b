"""The README's code runs as it stands, on networks such as its reader has."""

import re

import numpy as np
import pytest
from flax import nnx
from pages import NNX, README, ROOT, X, block, blocks, linen, quickly, run

from jaxcam import methods
from jaxcam.methods.catalogue import ROWS

TEXT = README.read_text()
quick = pytest.fixture(scope="module", autouse=True)(quickly)


def test_a_linen_model_in_ten_lines(capsys):
    code = block("variables=variables", "jaxcam.overlay")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names = run(code, **linen())
    assert names["picture"].shape == (16, 16, 3)
    assert names["picture"].dtype == np.uint8
    assert names["result"].map.shape == (2, 4, 4)
    printed = capsys.readouterr().out
    assert "layer4" in printed
    assert "Report(engine=" in printed


def test_an_nnx_model_in_ten_lines(capsys):
    code = block("jaxcam.integrate", "layer3/blocks/1/conv1")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names = run(code, model=NNX(nnx.Rngs(4)), x=X)
    assert names["result"].map.shape == (2, 16, 16)
    assert (names["result"].target == 281).all()
    assert (names["result"].diagnostics.gap < 0.05).all()
    assert "(2, 16, 16)" in capsys.readouterr().out


def test_every_block_is_run_and_the_readme_is_short():
    assert len(blocks(README)) == 2
    assert len(TEXT.splitlines()) <= 200


def test_commands_are_marked_for_the_machine_that_checks_them():
    marks = re.findall(r"<!-- command: (\w+) -->\n```sh\n(.*?)\n```", TEXT)
    assert [name for name, _ in marks] == ["explain", "test"]
    assert all("\n" not in command for _, command in marks)


def test_pictures_and_files_that_are_named_exist():
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", TEXT):
        assert (ROOT / path).exists(), path


def test_pages_and_methods_that_are_named_are_all_there_are():
    named = set(re.findall(r"\(docs/(\w+)\.md\)", TEXT))
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert named == pages - {"index"}
    table = TEXT.split("## Which method")[1].split("## What comes")[0]
    makers = {maker.__name__ for row in ROWS for maker in row.makers}
    called = {*makers, "check_removal", "split"}
    for name in re.findall(r"`(\w+)[`(]", table):
        assert name in called or name in methods.names(), name
