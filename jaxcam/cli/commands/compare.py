"""The command ``compare``: exact derivatives beside the approximation, and beside removals."""

import math
from argparse import Namespace
from functools import partial

from jaxcam import figures
from jaxcam.cli import captions, output, report
from jaxcam.cli.answers import Answer, activations, answer, remove
from jaxcam.cli.commands.parts import Facts, shown, written
from jaxcam.cli.question import Question, ask
from jaxcam.methods import taylor_cam
from jaxcam.metrics.difference import difference

REMOVALS = 1 << 15
"""Activations that are removed one by one, at most: each is a forward pass."""


def run(asked: Namespace) -> Facts:
    """Explain one picture with exact and with approximate derivatives, under the same noise.

    And by removal of activations: the true one, and Taylor's series to third and to first order;
    not where the layer has too many of them.
    """
    places = output.check(asked.out, asked.images)
    question = ask(asked)
    (exact,) = answer(question, "auto", "exact")
    (approximate,) = answer(question, asked.against, "approximate")
    pair = {"exact": exact, "approximate": approximate}
    facts = report.setting(asked, question) | report.about(question, exact) | {
        "maps": {name: report.findings(answered) for name, answered in pair.items()},
        "difference": difference(exact.cam.map, approximate.cam.map),
        "removal": None,
    }  # fmt: skip
    removed = None
    size = math.prod(activations(question))
    if size <= REMOVALS:
        removed = _remove(question, exact, facts)
    else:
        facts["note"] = (
            f"{size:,} activations would take a forward pass each: none were removed "
            "(jaxcam.check_removal does it on a sample)"
        )
    facts = report.plain(facts | written(places))
    if removed is not None:
        notes = captions.removal_notes(facts)
        removed = removed._replace(caption=captions.removal_caption(facts), notes=notes)
    figure = figures.compare_figure(
        shown(exact.picture),
        exact.cam.map,
        approximate.cam.map,
        title=captions.title(facts),
        caption=captions.compare_caption(facts),
        corner=facts["model"],
        notes=captions.compare_notes(facts),
        removal=removed,
        boxes=exact.boxes,
    )
    output.write(dict.fromkeys(places, partial(figures.save, figure)))
    return facts


def _remove(question: Question, exact: Answer, facts: Facts) -> figures.Removal:
    """Add to the facts what removals say, and give what there is to draw of it."""
    true = remove(question)
    orders = {}
    for name, order in (("third", 3), ("first", 1)):
        asked = question._replace(method=taylor_cam(order=order))
        (orders[name],) = answer(asked, "auto", f"{name} order")
    facts["removal"] = report.removals(true, orders, exact)
    for map_facts in facts["maps"].values():
        alike = difference(true.map, map_facts["map"])["correlation"]
        map_facts["correlation_with_removal"] = alike
    maps = (map_facts.cam.map for map_facts in orders.values())
    return figures.Removal(true.map, *maps, caption="")
