"""Tables of cases: one of each kind runs by default, all of them among the slow tests."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest


def table(
    argument: str, rows: Mapping[str, Any] | Iterable[str], quick: Collection[str]
) -> pytest.MarkDecorator:
    """Run a test on every row under its name; those that are not ``quick`` are slow.

    Rows without names are names themselves.
    """
    rows = rows if isinstance(rows, Mapping) else {name: name for name in rows}
    unknown = set(quick) - set(rows)
    assert not unknown, unknown
    return pytest.mark.parametrize(
        argument,
        [
            pytest.param(row, id=name, marks=() if name in quick else pytest.mark.slow)
            for name, row in rows.items()
        ],
    )
