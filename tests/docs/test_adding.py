"""The recipes of "How to add", applied to a copy of the repository and tested there."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import RECIPES, ROOT, blocks, commands

WHERE = re.compile(r"(?:# |<!-- )(?P<file>\S+?)(?:, (?P<how>.+?))?(?: -->)?\n")


def apply(block: str, folder: Path) -> None:
    """Put one block where its first line says."""
    found = WHERE.match(block)
    assert found, block
    path, how, code = folder / found["file"], found["how"] or "", block[found.end() :]
    if not how and not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
        return
    lines = path.read_text().splitlines(keepends=True)
    lines.insert(place(how, lines), code if how else f"\n\n{code}")
    path.write_text("".join(lines))


def place(how: str, lines: list[str]) -> int:
    """Say before which line of a file a block goes; without a word, at its end."""
    if not how:
        return len(lines)
    if how == "in its table":
        return max(n for n, line in enumerate(lines) if line.startswith("| ")) + 1
    tree = ast.parse("".join(lines))
    if how == "after the imports":
        return max(n.end_lineno for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
    side, name = how.split()
    (table,) = (node for node in tree.body if name in assigned(node))
    return {"in": table.end_lineno - 1, "before": table.lineno - 1}[side]


def assigned(node: ast.stmt) -> list[str]:
    """Name what a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Apply all recipes to a copy, and run all their commands there in one process."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("jaxcam", "tests", "docs"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_build")
        )
    shutil.copy(ROOT / "pyproject.toml", copy)
    for language in ("python", "markdown"):
        for block in blocks(RECIPES, language):
            apply(block, copy)
    files, chosen = [], []
    for command in commands(RECIPES):
        *run, selected = shlex.split(command)
        assert run[:3] == ["python", "-m", "pytest"]
        assert run.pop() == "-k"
        files += run[3:]
        chosen.append(selected)
    words = [sys.executable, "-m", "pytest", "-rA", "-q", *dict.fromkeys(files)]
    done = subprocess.run(
        [*words, "-k", " or ".join(chosen)], cwd=copy, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(copy), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )  # fmt: skip
    return done.stdout


# What each recipe has to pass; names are of tests and of what they are given.
PASSED = {
    "positive_cam": ("test_it_is_the_oracles_inside_jit", "test_neither_neighbours_nor_chunks",
                     "test_options_are_those_of", "test_imports_point_one_way"),
    "occlude_cam": ("test_it_is_the_oracles_inside_jit", "test_it_says_what_it_did"),
    "scatter_sub": ("test_each_rule_is_its_operation", "test_scatter_sub_bends_nothing"),
    "concentration": ("test_concentration_of_one_peak", "test_imports_point_one_way"),
    "lenet5": ("test_sizes_and_names", "test_layers_are_listed", "test_a_file_in_any_format",
               "test_the_docs_table_has_it"),
}  # fmt: skip


@pytest.mark.parametrize("recipe", PASSED)
def test_a_recipe_as_it_stands(outcome, recipe):
    lines = [line for line in outcome.splitlines() if recipe in line]
    assert not [line for line in lines if line.startswith(("FAILED", "ERROR"))], outcome
    passed = [line for line in lines if line.startswith("PASSED")]
    for name in PASSED[recipe]:
        assert any(name in line for line in passed), (name, outcome)
