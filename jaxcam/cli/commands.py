"""The commands: each asks, answers, draws, and gives the facts to print."""

from argparse import Namespace
from functools import partial
from typing import Any

import jax

from jaxcam import bundled, figures
from jaxcam.cli import captions, output, report
from jaxcam.cli.measure import difference
from jaxcam.cli.question import answer, ask, remove
from jaxcam.methods import taylor_cam
from jaxcam.split import layers as every_layer

Facts = dict[str, Any]


def explain(asked: Namespace) -> Facts:
    """Explain one picture."""
    out = output.check(asked.out, asked.image)
    question = ask(asked)
    found = answer(question, asked.engine, "explaining")
    facts = report.about(asked, question, found) | report.findings(question, found)
    facts = report.plain(facts | {"output": out})
    figure = figures.explain_figure(
        question.image,
        found.cam.map,
        title=captions.title(facts),
        caption=captions.explain_caption(facts),
        standard_error=found.cam.diagnostics.standard_error,
        notes=captions.explain_notes(facts),
        boxes=found.boxes,
    )
    output.write(out, partial(figures.save, figure))
    return facts


def compare(asked: Namespace) -> Facts:
    """Explain one picture with exact and with approximate derivatives, under the same noise.

    And by removal of activations: the true one, and Taylor's series to third and to first order.
    """
    out = output.check(asked.out, asked.image)
    question = ask(asked)
    exact = answer(question, "auto", "exact")
    approximate = answer(question, asked.against, "approximate")
    pair = {"exact": exact, "approximate": approximate}
    true = remove(question)
    orders = {
        name: answer(question._replace(method=taylor_cam(order=order)), "auto", f"{name} order")
        for name, order in (("third", 3), ("first", 1))
    }
    facts = report.about(asked, question, exact) | {
        "maps": {
            name: report.findings(question, found)
            | {"correlation_with_removal": difference(true.map, found.cam.map)["correlation"]}
            for name, found in pair.items()
        },
        "difference": difference(exact.cam.map, approximate.cam.map),
        "removal": report.removals(question, true, orders, exact.boxes),
    }
    facts = report.plain(facts | {"output": out})
    figure = figures.compare_figure(
        question.image,
        exact.cam.map,
        approximate.cam.map,
        title=captions.title(facts),
        caption=captions.compare_caption(facts),
        notes=captions.compare_notes(facts),
        removal=figures.Removal(
            true.map, *(found.cam.map for found in orders.values()),
            caption=captions.removal_caption(facts), notes=captions.removal_notes(facts),
        ),
        boxes=exact.boxes,
    )  # fmt: skip
    output.write(out, partial(figures.save, figure))
    return facts


def layers(asked: Namespace) -> Facts:
    """List the layers of a bundled network."""
    model, variables = bundled.load(asked.network)
    x = jax.ShapeDtypeStruct((1, bundled.SIZE, bundled.SIZE, 1), "float32")
    found = every_layer(model, x, variables=variables)
    rows = [{"name": name, "shape": a.shape[1:], "dtype": a.dtype} for name, a in found.items()]
    facts = {"command": asked.command, "network": asked.network, "layers": rows}
    return report.plain(facts | report.environment())


def sweep(asked: Namespace) -> Facts:
    """Explain a folder of images."""
    # What it locks files with is not there on every system.
    from jaxcam.cli import sweep

    return sweep.facts(asked)


COMMANDS = {"explain": explain, "compare": compare, "sweep": sweep, "layers": layers}
