"""The command ``explain``: one picture, its most probable classes, or several pictures."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jaxcam import figures
from jaxcam.cli import captions, output, report
from jaxcam.cli.answers import Answer, answer
from jaxcam.cli.commands.parts import Facts, shown, written
from jaxcam.cli.question import ask
from jaxcam.errors import fail

ROWS = 64
"""Pictures or classes in one figure and in one program, at most."""


def run(asked: Namespace) -> Facts:
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
    answers = answer(question, asked.engine, "explaining")
    each = [report.about(question, one) | report.findings(one) for one in answers]
    alone = asked.top is None and len(each) == 1
    facts = report.setting(asked, question) | (each[0] if alone else {"explanations": each})
    facts = report.plain(facts | written(places))
    draw = _one if alone else _rows
    saves: list[Callable[[Path], None]] = [partial(figures.save, draw(answers, facts))]
    if asked.overlay is not None:
        saves.append(partial(_save_overlay, asked.signed, answers[0]))
    output.write(dict(zip(places, saves, strict=True)))
    return facts


def _one(answers: list[Answer], facts: Facts) -> Any:
    (one,) = answers
    return figures.explain_figure(
        shown(one.picture),
        one.cam.map,
        title=captions.title(facts),
        caption=captions.explain_caption(facts),
        corner=facts["model"],
        standard_error=one.cam.diagnostics.standard_error,
        notes=captions.explain_notes(facts),
        boxes=one.boxes,
        signed=facts["options"]["signed"],
    )


def _rows(answers: list[Answer], facts: Facts) -> Any:
    rows = [
        figures.Row(
            shown(one.picture),
            one.cam.map,
            one.cam.diagnostics.standard_error,
            captions.name(about),
            captions.row_lines(facts, about),
            one.boxes,
            facts["options"]["signed"],
        )
        for one, about in zip(answers, facts["explanations"], strict=True)
    ]
    return figures.rows_figure(
        rows,
        title=captions.rows_title(facts),
        caption=captions.rows_caption(facts),
        corner=facts["model"],
    )


def _save_overlay(signed: bool, one: Answer, path: Path) -> None:
    picture = figures.full_overlay(one.picture.image, one.cam.map, one.picture.box, signed=signed)
    output.save_picture(picture, path)
