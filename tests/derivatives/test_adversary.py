"""Random scores against every exact engine: a few by default, hundreds among the slow tests."""

import adversary
import attacks
import jax.numpy as jnp
import numpy as np
import pytest
from adversary import drawn, examine

# Quick ones that together use many kinds of operation, and every engine.
FEW = (2052, 2072, 2108, 2114)
MANY = (2071, 2101, 2109, 2116, *range(100_000, 100_200))


def words(report):
    return "\n".join([str(report.program), *(" | ".join(found) for found in report.findings)])


@pytest.mark.parametrize("number", FEW)
def test_what_applies_is_right(number):
    report = examine(drawn(number))
    assert not report.findings, words(report)
    assert report.applied


@pytest.mark.slow
@pytest.mark.parametrize("number", MANY)
def test_what_applies_is_right_on_many(number):
    report = examine(drawn(number), thorough=number % 5 == 0)
    assert not report.findings, words(report)


def test_prints_itself_as_code():
    program = drawn(FEW[0])
    names = vars(attacks) | {"jnp": jnp}
    with adversary.in_double():
        exec(str(program), names)
        assert names["u"](names["a"]) == program.score()(jnp.asarray(program.start()))


def test_draws_every_kind():
    names = {step.name for number in range(40) for step in drawn(number).steps}
    for kind, operations in {**attacks.KINDS, "of two": attacks.BINARY}.items():
        assert names & set(operations), kind


def test_tells_wrong_from_right():
    truth = [np.array([1.0, 2.0, np.nan]), np.zeros(3), np.array([1e-20, 0, 0])]
    assert adversary.compare(truth, truth) == ([], 0)
    off = [truth[0] + [0, 1e-8, 0], truth[1], truth[2]]
    assert [what for what, _ in adversary.compare(off, truth)[0]] == ["wrong"]
    less = [truth[0] * [1, np.nan, 1], *truth[1:]]
    assert [what for what, _ in adversary.compare(less, truth)[0]] == ["not finite"]
