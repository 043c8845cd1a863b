"""The pictures of the command line: one explanation, several below or beside each other.

    panels      what all of them are made of: a layout, a picture, a map over it, colour bars
    explain     one picture and one class
    compare     maps of one picture beside each other
    rows        a row for each picture, or for each class
    full        the map over the picture at the picture's own size, and nothing else

Made without pyplot: no global state is touched and no window opens. Maps, smooth, lie over their
picture, whose pixels stay pixels; a panel of a map itself shows each position of the layer as the
one cell that it is. matplotlib is imported when something is drawn, and not before.
"""

from jaxcam.figures.compare import Removal, compare_figure
from jaxcam.figures.explain import explain_figure
from jaxcam.figures.full import full_overlay
from jaxcam.figures.panels import BOX, ERRORS, save
from jaxcam.figures.rows import Row, rows_figure

__all__ = [
    "BOX",
    "ERRORS",
    "Removal",
    "Row",
    "compare_figure",
    "explain_figure",
    "full_overlay",
    "rows_figure",
    "save",
]
