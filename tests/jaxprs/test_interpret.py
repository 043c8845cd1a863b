"""Equations run again: as they are where that is possible, and under the name that they had."""

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core, source_info_util

from jaxcam.jaxprs.interpret import arguments, evaluate, results

A = jnp.linspace(-1.0, 1.0, 9).reshape(3, 3)


def plain(a):
    """Apply operations that have no program among their parameters."""
    a = jax.lax.cumsum(jnp.tanh(a @ a.T), 0)
    return jax.lax.reduce_window(a, 0.0, jax.lax.add, (2, 1), (1, 1), "SAME")[::-1].sum(0)


def with_programs(a):
    return plain(jax.nn.relu(jax.lax.cond(a.sum() > 0, jnp.sin, jnp.cos, a)))


def once_more(function):
    """Give the same function, its equations run again one by one."""

    def again(a):
        closed = jax.make_jaxpr(function)(a)
        known = arguments(closed.jaxpr, closed.consts, [a])
        return results(closed.jaxpr, evaluate(closed.jaxpr.eqns, known))[0]

    return again


@pytest.mark.parametrize(("function", "count"), [(plain, 0), (with_programs, 2)])
def test_only_what_has_programs_inside_is_run_as_one(function, count, monkeypatch):
    programs, as_function = [], core.jaxpr_as_fun
    expected = function(A)
    monkeypatch.setattr(core, "jaxpr_as_fun", lambda one: programs.append(one) or as_function(one))
    assert (once_more(function)(A) == expected).all()
    assert len(programs) == count


@pytest.mark.parametrize("function", [jnp.tanh, jax.nn.relu])
def test_what_is_run_again_keeps_its_name_and_its_line(function):
    def named(a):
        with jax.named_scope("block"):
            return function(a)

    (equation,) = jax.make_jaxpr(once_more(named))(A).eqns
    assert str(equation.source_info.name_stack) == "block"
    line = named.__code__.co_firstlineno + 2
    assert f"test_interpret.py:{line}" in source_info_util.summarize(equation.source_info)
