"""The console script for tests: how it is called, and options that all commands pass on alike."""

from typing import Any

import jax
import pytest

import jaxcam
from jaxcam.cli import main

OPTIONS = (
    "--model", "relu", "--layer", "block2", "--class", 8, "--target", "softmax", "--samples", 7,
    "--noise", 0.3, "--seed", 11, "--sample-weights", "uniform", "--numerator", "d1",
    "--poles", "raw", "--engine", "power", "--chunk-size", 3,
)  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Give the status, and what was written to both streams."""
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def assert_asked(method: Any, target: Any, others: dict) -> None:
    """Compare what the library was asked with `OPTIONS`."""
    assert method == jaxcam.smooth(
        jaxcam.methods.grad_cam_pp(numerator="d1", poles="raw"),
        num_samples=7, noise_level=0.3, sample_weights="uniform",
    )  # fmt: skip
    assert (target.form.name, target.class_index) == ("softmax", 8)
    assert (others["engine"], others["chunk_size"]) == ("power", 3)
    assert others["key"] == jax.random.key(11)
