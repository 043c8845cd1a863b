"""Tables that are read off the code: the catalogue of methods, and their options."""

import inspect
import itertools
from collections.abc import Callable, Iterable

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jaxcam.contracts import Gradient, Queries
from jaxcam.methods.catalogue import ROWS, Row


def methods() -> list[str]:
    """One line a method of the catalogue."""
    rows = (
        (f"`{row.name}`", row.title, _words(row), row.at, _asks(row), row.cost, _linked(row.source))
        for row in ROWS
    )
    return markdown(("name", "method", "what it does", "at", "asks for", "cost", "source"), rows)


def options() -> list[str]:
    """One line a method that has any."""
    rows = (
        (f"`{row.name}`", ", ".join(f"`{name}={value!r}`" for name, value in row.options.items()))
        for row in ROWS
        if row.options
    )
    return markdown(("name", "options"), rows)


def _words(row: Row) -> str:
    """The first sentence of its docstring, and of its wrapper's."""
    first = [inspect.cleandoc(maker.__doc__ or "").partition("\n\n")[0] for maker in row.makers]
    return " ".join(" ".join(text.split()).replace("``", "`").rstrip(":.") + "." for text in first)


def _asks(row: Row) -> str:
    method = row.make()
    if not isinstance(method, Gradient):
        return "scores, a gradient" if isinstance(method, Queries) and method.gradient else "scores"
    names = {0: "activations", 1: "gradients"}
    return names.get(method.order, f"derivatives to order {method.order}")


def _linked(source: str) -> str:
    number = source.removeprefix("arXiv ")
    return source if number == source else f"[{source}](https://arxiv.org/abs/{number})"


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Write a table; what would end a cell is escaped."""
    head = tuple(head)
    lines = itertools.chain([head, ("---",) * len(head)], rows)
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


def directive(lines: Callable[[], list[str]]) -> type[SphinxDirective]:
    """Make a directive that stands for lines of Markdown."""

    class Table(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            inside = nodes.Element()
            self.state.nested_parse(StringList(lines(), self.env.docname), 0, inside)
            return inside.children

    return Table


def setup(app: Sphinx) -> dict[str, bool]:
    """Register."""
    app.add_directive("methods-table", directive(methods))
    app.add_directive("options-table", directive(options))
    return {"parallel_read_safe": True}
