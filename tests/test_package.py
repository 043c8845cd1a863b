"""What importing costs, and where imports may point."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxcam

PACKAGE = Path(jaxcam.__file__).parent


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_import_brings_neither_matplotlib_nor_the_bundled_network_nor_nnx():
    loaded = python("import jax, flax, sys; before = set(sys.modules); import jaxcam;"
                    "print(*sorted(set(sys.modules) - before))").split()  # fmt: skip
    assert "jaxcam" in loaded
    roots = {name.split(".")[0] for name in loaded}
    assert not roots & {"matplotlib", "PIL", "rich", "sklearn", "grain"}
    assert not {
        n
        for n in loaded
        if n.startswith(("jaxcam.bundled", "jaxcam.cli", "jaxcam.sweep", "jaxcam.zoo", "flax.nnx"))
    }


def test_import_adds_under_a_tenth_of_a_second(tmp_path):
    """From bytecode, as an installed package is; the first process writes it.

    The least processor time of several processes: a busy machine only adds.
    """
    code = ("import jax, flax, sys, time; sys.dont_write_bytecode = False;"
            f"sys.pycache_prefix = {str(tmp_path)!r};"
            "t = time.process_time(); import jaxcam; print(time.process_time() - t)")  # fmt: skip
    assert min(float(python(code)) for _ in range(5)) < 0.1


def test_import_changes_no_setting_of_jax():
    code = "import jax; v = dict(jax.config.values); import jaxcam; print(v == jax.config.values)"
    assert python(code).strip() == "True"


def name_of(path: Path) -> str:
    return ".".join(("jaxcam", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Collect the modules that a file imports at its top level or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in MODULES else node.module for name in inside}
    return found


# From what everything stands on to what stands on everything; what is in one room may import from
# the rooms before it, and from its own.
ROOMS = (
    "errors", "summaries", "arrays", "types", "devices", "jaxprs", "targets", "maps", "contracts",
    "derivatives.reasons", "derivatives.tangents", "derivatives.graph", "derivatives.proof",
    "derivatives.engines", "derivatives", "split", "pipeline", "methods", "cam", "layer_costs",
    "metrics", "pictures", "bundled", "zoo", "plot", "figures", "", "sweep", "cli", "__main__",
)  # fmt: skip


def room(module: str) -> int:
    """Say in which room a module is: the longest of the names that it begins with."""
    parts = module.split(".")[1:]
    inside = (".".join(parts[:n]) for n in range(len(parts), -1, -1))
    return ROOMS.index(next(name for name in inside if name in ROOMS and (name or not parts)))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    found = imports(MODULES[module])
    roots = {name.split(".")[0] for name in found}
    where = module.split(".")[1] if "." in module else ""
    assert "flax" not in roots or where in {"split", "bundled", "zoo"}
    assert "matplotlib" not in roots or where in {"plot", "figures", "cli"}
    ours = {name for name in found if name in MODULES and name != "jaxcam"}
    upwards = {name for name in ours if room(name) > room(module)}
    assert not upwards, f"{module} imports from rooms above it"


def test_no_imports_in_a_circle():
    left = {
        name: {n for n in imports(path) if n in MODULES} - {"jaxcam", name}
        for name, path in MODULES.items()
    }
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left


# Folders that tell what is in them, a line for each room.
LISTED = (
    "arrays", "derivatives", "derivatives.engines", "derivatives.graph", "derivatives.tangents",
    "jaxprs", "jaxprs.logarithms",
)  # fmt: skip


@pytest.mark.parametrize("folder", LISTED)
def test_a_folder_lists_its_rooms_a_line_each(folder):
    path = MODULES[f"jaxcam.{folder}"]
    words = ast.get_docstring(ast.parse(path.read_text())) or ""
    listed = re.findall(r"^- (\w+): ", words, re.MULTILINE)
    rooms = [inside.stem for inside in path.parent.iterdir() if not inside.stem.startswith("_")]
    assert sorted(listed) == sorted(rooms)


def test_public_names_are_documented_and_sorted():
    assert jaxcam.__all__ == sorted(jaxcam.__all__)
    for name in jaxcam.__all__:
        assert getattr(jaxcam, name).__doc__, name
