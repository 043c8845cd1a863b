"""Programs that the command line keeps for the next time."""

import os
import subprocess
import sys
import types
import warnings

import jax
import pytest

from jaxcam.cli import cache, main


@pytest.fixture(autouse=True)
def allowed(monkeypatch, tmp_path):
    """Tests switch JAX's cache off: here it is on, and the user's folder is one of the test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_ENABLE_COMPILATION_CACHE")
    jax.config.update("jax_enable_compilation_cache", True)
    yield
    jax.config.update("jax_enable_compilation_cache", False)


def settings():
    return {name: value for name, value in jax.config.values.items() if "cache" in name}


def test_programs_are_written_once_and_read_again(tmp_path):
    code = (
        "import sys, jax, jax.numpy as jnp\n"
        "from jaxcam.cli import cache\n"
        "seen = []\n"
        "jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))\n"
        "cache.WORTH_KEEPING = 0\n"
        "with cache.kept(sys.argv[1] == 'kept'):\n"
        "    jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(3)).block_until_ready()\n"
        "print(sum('cache_hits' in name for name in seen))"
    )

    def run(word):
        done = subprocess.run(
            [sys.executable, "-c", code, word], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert run("anew") == 0
    assert not (tmp_path / "cache").exists()
    assert run("kept") == 0
    assert list((tmp_path / "cache" / "jaxcam").iterdir())
    assert run("kept") > 0
    assert run("anew") == 0


def test_settings_are_those_of_before_afterwards():
    before = settings()
    with cache.kept(True):
        assert jax.config.jax_compilation_cache_dir == str(cache.folder())
        assert jax.config.jax_compilation_cache_max_size == cache.LARGEST
    assert settings() == before


def test_a_users_own_cache_is_left_as_it_is(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    before = settings()
    with cache.kept(True):
        assert settings() == before
    jax.config.update("jax_compilation_cache_dir", None)


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    before = settings()
    with cache.kept(True):
        assert settings() == before


def test_without_the_library_that_bounds_it_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    before = settings()
    with cache.kept(True):
        assert settings() == before
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_read_is_no_news(capsys, monkeypatch):
    def broken(asked):
        warnings.warn("Error reading persistent compilation cache entry", stacklevel=2)
        return {"command": "methods", "methods": [], "warnings": []}

    monkeypatch.setattr("jaxcam.cli.commands.run", broken)
    assert main(["methods", "--json"]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("platform", "end"),
    [("linux", "own/jaxcam"), ("darwin", "Library/Caches/jaxcam"), ("win32", "local/jaxcam")],
)
def test_each_system_has_its_folder(monkeypatch, platform, end):
    monkeypatch.setattr(cache, "sys", types.SimpleNamespace(platform=platform))
    monkeypatch.setattr(
        cache,
        "os",
        types.SimpleNamespace(environ={"XDG_CACHE_HOME": "own", "LOCALAPPDATA": "local"}),
    )
    assert str(cache.folder()).endswith(end.replace("/", os.sep))
