"""The commands, one a file: each asks, answers, draws, and gives the facts to print.

explain, compare: a figure. sweep: a folder of images. layers, methods: what there is.
"""

import importlib
from argparse import Namespace
from typing import Any


def run(asked: Namespace) -> dict[str, Any]:
    """Run the command that was asked for; what the others import is not needed."""
    return importlib.import_module(f"{__name__}.{asked.command}").run(asked)
