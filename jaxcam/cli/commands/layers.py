"""The command ``layers``: names and shapes, and if asked, what explaining a layer takes."""

import difflib
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxcam.cli import models, progress, report
from jaxcam.errors import fail
from jaxcam.layer_costs import LayerCost, explain_layers
from jaxcam.split import layers, tokens

Facts = dict[str, Any]


def run(asked: Namespace) -> Facts:
    """List the layers of a network."""
    outputs = models.inspect(asked, layers)
    rows = [{"name": name, "shape": a.shape[1:], "dtype": a.dtype} for name, a in outputs.items()]
    if asked.costs is not None:
        rows = _with_costs(asked, _chosen(rows, asked.costs))
    about = {"command": asked.command, "model": asked.model, "layers": rows}
    return report.plain(about | report.environment())


def _chosen(rows: list[Facts], names: Sequence[str]) -> list[Facts]:
    """Give the rows of the layers that are named, or all; a dot may stand for a slash."""
    known = {row["name"]: row for row in rows}
    wanted = [name if name in known else name.replace(".", "/") for name in names]
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            remedy = f"The nearest are {', '.join(near)}." if near else "Leave the names out."
            fail("--costs", needs="layers that 'jaxcam layers' lists", got=name, remedy=remedy)
    return [known[name] for name in wanted] or rows


def _with_costs(asked: Namespace, rows: list[Facts]) -> list[Facts]:
    """Add engine and cost to the rows; layers that give tokens as the maps that they become."""
    before = models.tokens_before(asked.model)
    flat = [row["name"] for row in rows if before is not None and len(row["shape"]) == 2]
    groups = {tokens(before=before or 0): flat, None: [
        row["name"] for row in rows if row["name"] not in flat]}  # fmt: skip
    costs: dict[str, LayerCost] = {}
    with progress.counted("layers", "layers") as show:
        for to_map, names in groups.items():

            def told(done: int, _: int, so_far: int = len(costs)) -> None:
                show(so_far + done, len(rows))

            if names:
                ask = partial(explain_layers, names=names, to_map=to_map, progress=told)
                costs |= models.inspect(asked, ask)
    return [row | _cost(costs[row["name"]]) for row in rows]


def _cost(cost: LayerCost) -> Facts:
    return {
        "map": cost.shape[1:-1],
        "engine": cost.engine,
        "operations": cost.operations,
        "passes": cost.passes,
        "words": cost.words,
    }
