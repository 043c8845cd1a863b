"""Names in backticks: a link where the name has an entry, an error where nothing has that name.

Docstrings of jaxcam write names in single backticks, `smooth` or `jaxcam.smooth`; so do the pages,
where names that begin with ``jaxcam.`` are looked up. A name with an entry is a link to it. One
that exists without an entry (of JAX, or of a room behind the public ones) is set as code. One that
nothing has is a warning, and the docs are built with ``-W``.
"""

import builtins
import functools
import importlib
import pkgutil
import re
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.transforms import SphinxTransform

import jaxcam

NAME = re.compile(r"jaxcam(\.\w+)+")
OPTIONAL = ("jaxcam.split.keras",)  # needs Keras


@functools.cache
def known() -> frozenset[str]:
    """Name everything that jaxcam has: modules, what is in them, and fields of classes."""
    names = {"jaxcam"}
    for found in pkgutil.walk_packages(jaxcam.__path__, "jaxcam."):
        names.add(found.name)
        if found.name in OPTIONAL or found.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(found.name)).items():
            if isinstance(value, ModuleType):
                continue
            names.add(f"{found.name}.{name}")
            if isinstance(value, type):
                members = {*vars(value), *getattr(value, "__annotations__", {})}
                names |= {f"{found.name}.{name}.{member}" for member in members}
    return frozenset(names)


def exists(target: str) -> bool:
    """Say whether a name is one: of Python, of jaxcam (its last parts do), or of a library."""
    if hasattr(builtins, target) or any(f".{name}".endswith(f".{target}") for name in known()):
        return True
    root, *parts = target.split(".")
    if root == "jaxcam":  # by way of what it re-exports
        return _has(jaxcam, parts)
    try:
        found = importlib.import_module(root)
        while parts and not hasattr(found, parts[0]):
            found = importlib.import_module(f"{found.__name__}.{parts.pop(0)}")
    except ImportError:
        return False
    return "." in target and _has(found, parts)


def _has(value: Any, parts: list[str]) -> bool:
    for part in parts:
        fields = getattr(value, "__annotations__", {})
        if not hasattr(value, part) and part not in fields:
            return False
        value = getattr(value, part, None)
    return True


def resolve(
    app: Sphinx, env: Any, node: nodes.Element, inside: nodes.TextElement
) -> nodes.Element | None:
    """Give what a name that Sphinx finds no entry for becomes."""
    if node.get("refdomain") != "py":
        return None
    target, entries = node["reftarget"], env.get_domain("py").objects
    last = target if target.startswith("jaxcam.") else f".{target}"
    own = f"jaxcam.{target.rpartition('.')[2]}"
    near = sorted((name for name in entries if name.endswith(last)), key=len)
    if own in entries and (target.startswith("jaxcam.") or not near):
        near = [own]  # written where it is defined, and documented where it is used from
    if near:
        entry = entries[near[0]]
        uri = f"{app.builder.get_relative_uri(node['refdoc'], entry.docname)}#{entry.node_id}"
        return nodes.reference("", "", inside, internal=True, refuri=uri, reftitle=near[0])
    return inside if exists(target) else None


class Code(SphinxTransform):
    """Look up what pages set as code and is the name of something in jaxcam."""

    default_priority = 300

    def apply(self, **kwargs: Any) -> None:
        """Wrap such a literal in a reference."""
        del kwargs
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext()
            linked = isinstance(literal.parent, addnodes.pending_xref | nodes.reference)
            if NAME.fullmatch(name) and not linked:
                where = {"refdoc": self.env.docname, "refdomain": "py", "reftype": "obj"}
                reference = addnodes.pending_xref("", reftarget=name, refwarn=True, **where)
                literal.replace_self(reference)
                reference += literal


def skipped(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of a NamedTuple, which the text of its class describes."""
    del app, what, name, skip, options
    return True if str(value.__doc__).startswith("Alias for field number") else None


def named(kind: str, raw: str, text: str, line: int, inliner: Any, *rest: Any) -> Any:
    """What single backticks are: the role ``py:obj``, with what is looked up above."""
    del kind
    return PyXRefRole()("py:obj", raw, text, line, inliner, *rest)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register."""
    app.add_role("named", named)
    app.add_transform(Code)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-skip-member", skipped)
    return {"parallel_read_safe": True}
