"""The command ``methods``: the catalogue."""

from argparse import Namespace

from jaxcam.cli import report
from jaxcam.cli.commands.parts import Facts
from jaxcam.cli.options import options_of
from jaxcam.methods import catalogue


def run(asked: Namespace) -> Facts:
    """List the methods, what each costs, and where it is defined."""
    rows = [
        {
            "name": row.name,
            "title": row.title,
            "at": row.at,
            "cost": row.cost,
            "options": options_of(row.name),
            "source": row.source,
        }
        for row in catalogue.ROWS
    ]
    return report.plain({"command": asked.command, "methods": rows} | report.environment())
