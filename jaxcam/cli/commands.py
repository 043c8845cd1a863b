"""The commands: each asks, answers, draws, and gives the facts to print."""

import math
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from jaxcam import figures, pictures
from jaxcam.cli import captions, listing, output, report
from jaxcam.cli.answers import Answer, activations, answer, remove
from jaxcam.cli.measure import difference
from jaxcam.cli.question import Picture, Question, ask
from jaxcam.errors import fail
from jaxcam.methods import taylor_cam

Facts = dict[str, Any]

ROWS = 64
"""Pictures or classes in one figure and in one program, at most."""
REMOVALS = 1 << 15
"""Activations that `compare` removes one by one, at most: each is a forward pass."""
LONGEST = 512
"""Pixels of a picture in a figure, along its longer side."""


def explain(asked: Namespace) -> Facts:
    """Explain one picture, its most probable classes, or several pictures."""
    count = asked.top or len(asked.images)
    if count > ROWS:
        remedy = "'jaxcam sweep' explains any number of pictures."
        fail("explain", needs=f"at most {ROWS} rows for one figure", got=count, remedy=remedy)
    places = output.check(asked.out, asked.images)
    if asked.overlay is not None:
        places += output.check(asked.overlay, asked.images, "--overlay", output.PICTURES)
    if len(set(places)) < len(places):
        remedy = "Give them different names."
        fail("--overlay", needs="another file than --out", got=asked.out, remedy=remedy)
    question = ask(asked)
    found = answer(question, asked.engine, "explaining")
    each = [report.about(question, one) | report.findings(one) for one in found]
    alone = asked.top is None and len(each) == 1
    facts = report.setting(asked, question) | (each[0] if alone else {"explanations": each})
    facts = report.plain(facts | _written(places))
    draw = _one if alone else _rows
    saves: list[Callable[[Path], None]] = [partial(figures.save, draw(found, facts))]
    if asked.overlay is not None:
        saves.append(partial(_save_overlay, found[0]))
    output.write(dict(zip(places, saves, strict=True)))
    return facts


def compare(asked: Namespace) -> Facts:
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
        "maps": {name: report.findings(found) for name, found in pair.items()},
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
    facts = report.plain(facts | _written(places))
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


def sweep(asked: Namespace) -> Facts:
    """Explain a folder of images."""
    # What it locks files with is not there on every system.
    from jaxcam.cli import sweep

    return sweep.facts(asked)


COMMANDS = {"explain": explain, "compare": compare, "sweep": sweep, "layers": listing.facts}


def shown(picture: Picture) -> NDArray:
    """Give what the network sees of a picture, in the picture's own shape, for a figure."""
    return pictures.part(picture.image, picture.box, LONGEST)


def _remove(question: Question, exact: Answer, facts: Facts) -> figures.Removal:
    """Add to the facts what removals say, and give what there is to draw of it."""
    true = remove(question)
    orders = {}
    for name, order in (("third", 3), ("first", 1)):
        asked = question._replace(method=taylor_cam(order=order))
        (orders[name],) = answer(asked, "auto", f"{name} order")
    facts["removal"] = report.removals(true, orders, exact)
    for found in facts["maps"].values():
        alike = difference(true.map, found["map"])["correlation"]
        found["correlation_with_removal"] = alike
    maps = (found.cam.map for found in orders.values())
    return figures.Removal(true.map, *maps, caption="")


def _one(found: list[Answer], facts: Facts) -> Any:
    (one,) = found
    return figures.explain_figure(
        shown(one.picture),
        one.cam.map,
        title=captions.title(facts),
        caption=captions.explain_caption(facts),
        corner=facts["model"],
        standard_error=one.cam.diagnostics.standard_error,
        notes=captions.explain_notes(facts),
        boxes=one.boxes,
    )


def _rows(found: list[Answer], facts: Facts) -> Any:
    rows = [
        figures.Row(
            shown(one.picture),
            one.cam.map,
            one.cam.diagnostics.standard_error,
            captions.name(about),
            captions.row_lines(facts, about),
            one.boxes,
        )
        for one, about in zip(found, facts["explanations"], strict=True)
    ]
    return figures.rows_figure(
        rows,
        title=captions.rows_title(facts),
        caption=captions.rows_caption(facts),
        corner=facts["model"],
    )


def _save_overlay(one: Answer, path: Path) -> None:
    picture = figures.full_overlay(one.picture.image, one.cam.map, one.picture.box)
    output.save_picture(picture, path)


def _written(places: list[Path]) -> Facts:
    return {"output": places[0], "overlay": places[1] if len(places) > 1 else None}
