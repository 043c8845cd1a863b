"""What importing costs, and where imports may point."""

import ast
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


def imports(path: Path) -> set[str]:
    """Collect the modules that a file imports at its top level or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    place, found = path.relative_to(PACKAGE).as_posix(), imports(path)
    if not place.startswith(("split/", "bundled/", "zoo/")):
        assert not {name for name in found if name.split(".")[0] == "flax"}
    if not place.startswith(("plot.py", "figures/", "cli/")):
        assert not {name for name in found if name.split(".")[0] == "matplotlib"}
    core = place.startswith(("split/", "derivatives/", "methods/")) or place in {
        "types.py", "errors.py", "precision.py", "targets.py", "noise.py", "average.py",
        "maps.py", "alphas.py", "plan.py", "explain.py", "cam.py", "job.py", "example.py",
        "samples.py", "smoothing.py", "checks.py", "half.py", "memory.py", "devices.py",
        "inputs.py", "aims.py", "layer_costs.py",
    }  # fmt: skip
    if core:
        outer = {"jaxcam.cli", "jaxcam.plot", "jaxcam.figures", "jaxcam.bundled", "jaxcam.zoo"}
        assert not {name for name in found if name.startswith(tuple(outer))}
    if place in {"types.py", "errors.py", "precision.py", "noise.py"}:
        assert {n for n in found if n.startswith("jaxcam")} <= {
            "jaxcam.errors", "jaxcam.errors.fail", "jaxcam.types",
        }  # fmt: skip


def test_public_names_are_documented_and_sorted():
    assert jaxcam.__all__ == sorted(jaxcam.__all__)
    for name in jaxcam.__all__:
        assert getattr(jaxcam, name).__doc__, name
