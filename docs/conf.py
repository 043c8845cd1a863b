"""How the docs are built: ``sphinx-build -W -n docs docs/_build``, without network access."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
# These pages are about the tree in which they stand, whatever else is installed.
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import jaxcam  # noqa: E402

project = "jaxcam"
author = "the authors of jaxcam"
copyright = f"{author}, Apache-2.0"
version = release = jaxcam.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "names", "tables"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "imported-members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
default_role = "named"
nitpick_ignore_regex = [
    ("py:class", r"jax\.jaxlib\..*"),  # how autodoc writes jax.Array
    ("py:.*", r"(typing\.)?Literal\[.*"),
]

html_theme = "furo"
html_title = "jaxcam"
html_show_sourcelink = False
