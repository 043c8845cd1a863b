"""Classes by name: which one is meant, and what they are called."""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcam.errors import fail


def index_of(text: str, names: Sequence[str], option: str = "--class") -> int:
    """Find a class by its index, or by its name or one of its synonyms, in any case.

    ``names`` may hold synonyms, divided by commas, as ImageNet's do: "tabby, tabby cat". A whole
    number is an index; `jaxcam.targets.check_class` refuses one that is out of range.
    """
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    wanted = _folded(text)
    indices = [i for i, name in enumerate(names) if wanted in (_folded(name), *_synonyms(name))]
    if len(indices) == 1:
        return indices[0]
    needs = f"one of {len(names)} classes, by name or index"
    if indices:
        shown = _listed(names, indices)
        fail(option, needs=needs, got=f"{text!r}, which is {shown}", remedy="Give the index.")
    near = _nearest(wanted, names)
    remedy = f"The nearest are {_listed(names, near)}." if near else "No name is near it."
    fail(option, needs=needs, got=repr(text), remedy=remedy)


def read_names(path: Path, count: int) -> tuple[str, ...]:
    """Read a name for each class: a line each, or a JSON list or object ``{index: name}``."""
    call = f"--class-names {path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _decoded(text) if text.lstrip()[:1] in ("[", "{") else text.rstrip().splitlines()
        names = [name.strip() for name in names]
        if not all(names):
            raise ValueError(f"no name for class {names.index('')}")
    except (ValueError, AttributeError, KeyError) as error:  # also what is no UTF-8, or no JSON
        remedy = "One name a line, or a JSON list or object {index: name}."
        got = " ".join(str(error).split())
        fail(call, needs="a name for each class", got=got, remedy=remedy)
    if len(names) != count:
        remedy = "Are they the names of this network's classes?"
        fail(call, needs=f"{count} names, one for each class", got=len(names), remedy=remedy)
    return tuple(names)


def _decoded(text: str) -> list[str]:
    content: Any = json.loads(text)
    if isinstance(content, dict):
        missing = [i for i in range(len(content)) if str(i) not in content]
        if missing:
            raise ValueError(f"no entry {missing[0]} among {len(content)}")
        content = [content[str(i)] for i in range(len(content))]
    wrong = [name for name in content if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"{json.dumps(wrong[0])[:60]}, which is no text")
    return content


def _synonyms(name: str) -> list[str]:
    return [_folded(part) for part in name.split(",")]


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _nearest(wanted: str, names: Sequence[str]) -> list[int]:
    known: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        for own in _synonyms(name):
            known.setdefault(own, []).append(index)
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    near += [own for own in known if wanted in own.split() and own not in near][:3]
    return list(dict.fromkeys(index for own in near for index in known[own]))[:5]


def _listed(names: Sequence[str], indices: Sequence[int]) -> str:
    return " or ".join(f"{index} ({names[index]})" for index in indices)
