"""What a run is: its images, what is asked of each, and in which chunks. Written down once.

Chunks are fixed here, and with them the shape of the program that explains them, so that a result
depends neither on the number of processes nor on interruptions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jaxcam
from jaxcam.errors import JaxcamError, fail

FORMAT = 1
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow")
"""Whose versions can change a result."""


class Plan(NamedTuple):
    """A run. ``settings`` are plain values that say what is asked; ``images`` are names and bytes.

    batch: how many images a chunk holds; the last one may hold fewer.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    batch: int
    images: tuple[tuple[str, int], ...]


def make_plan(paths: Sequence[Path], settings: Mapping[str, Any], *, batch: int = 16) -> Plan:
    """Plan a run over files that exist. ``settings`` must be values that JSON knows."""
    versions = {"jaxcam": jaxcam.__version__} | {name: version(name) for name in PACKAGES}
    images = tuple((path.as_posix(), path.stat().st_size) for path in paths)
    return Plan(dict(settings), versions, batch, images)


def chunks(plan: Plan) -> list[range]:
    """Give the rows of each chunk."""
    count = len(plan.images)
    return [range(i, min(i + plan.batch, count)) for i in range(0, count, plan.batch)]


def encoded(plan: Plan) -> bytes:
    """Write a plan as JSON, one image a line."""
    head = {"format": FORMAT} | {k: v for k, v in plan._asdict().items() if k != "images"}
    images = ",\n".join(f"  {json.dumps(image)}" for image in plan.images)
    return f'{json.dumps(head, indent=1)[:-2]},\n "images": [\n{images}\n ]\n}}\n'.encode()


def decoded(content: bytes, name: str) -> Plan:
    """Read a plan, or refuse what is none of this version's."""
    try:
        plan = json.loads(content)
        if plan["format"] != FORMAT:
            raise ValueError(f"format {plan['format']}")
        images = tuple((image, size) for image, size in plan["images"])
        return Plan(plan["settings"], plan["versions"], plan["batch"], images)
    except (ValueError, KeyError, TypeError) as error:
        remedy = "Choose another folder."
        raise JaxcamError(
            f"{name}: needs the plan of a sweep; got {type(error).__name__}: {error}. {remedy}"
        ) from error


def check_same(asked: Plan, there: Plan, name: str) -> None:
    """Refuse to go on with a run that is another one, and say what differs."""
    differing = list(_differences(asked, there))
    if differing:
        shown = "; ".join(differing[:4]) + ("; and more" if len(differing) > 4 else "")
        remedy = "Ask as in that run to go on with it, or choose another --out."
        fail("sweep", needs=f"the settings of the run in {name}", got=shown, remedy=remedy)


def _differences(asked: Plan, there: Plan) -> Iterator[str]:
    for name in asked.settings | there.settings:
        yield from _differs(_option(name), asked.settings.get(name), there.settings.get(name))
    yield from _differs("--batch", asked.batch, there.batch)
    for name in asked.versions | there.versions:
        yield from _differs(name, asked.versions.get(name), there.versions.get(name))
    if asked.images != there.images:
        counts = len(asked.images), len(there.images)
        ours, theirs = dict(asked.images), dict(there.images)
        names = sorted(n for n in ours | theirs if ours.get(n) != theirs.get(n))
        one = names[0]
        how = (f"{one!r} is new" if one not in theirs else f"{one!r} is missing" if one not in ours
               else f"{one!r} has {ours[one]} bytes, where it had {theirs[one]}")  # fmt: skip
        yield f"{counts[0]} images, where it has {counts[1]}: {how}"


def _differs(name: str, here: Any, there: Any) -> Iterator[str]:
    if here != there:
        yield f"{name} {_word(here)}, where it has {_word(there)}"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
