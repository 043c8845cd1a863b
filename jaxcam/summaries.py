"""Results in ten lines, for `print`, and as a picture, for a notebook.

What is printed of an array is its range, or its numbers where they are few; of a tracer inside
``jit`` its dtype and shape, since it has no numbers yet.
"""

import base64
import io
from collections.abc import Iterator
from html import escape
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

FEW = 6
"""Numbers that are printed one by one, maps beside each other, notes that are told: at most."""
WIDTH = 100
SIDE = 160
"""Pixels of a map in a notebook, along its longer side."""

Lines = Iterator[tuple[str, Any]]


def of_result(result: Any) -> str:
    """Summarise a `jaxcam.CAM`."""
    return _text("CAM", _of_cam(result))


def of_diagnostics(diagnostics: Any) -> str:
    """Summarise `jaxcam.Diagnostics`."""
    return _text("Diagnostics", _of_diagnostics(diagnostics))


def html_of(result: Any) -> str:
    """Show the first maps of a result, each on a scale of its own, and the summary below."""
    words = escape(of_result(result))
    maps = () if _shape_of(result.map) is None or _unknown(result.map) else np.asarray(result.map)
    flat = [map for map in maps[:FEW] if np.ndim(map) == 2]
    return f"<div>{''.join(map(_image, flat))}<pre>{words}</pre></div>"


def _of_cam(result: Any) -> Lines:
    for name in ("map", "weights", "scores"):
        value = getattr(result, name)
        if value is not None:
            shape, numbers = _shape_of(value), _range(value)
            yield name, numbers if shape in (None, numbers) else f"{shape}, {numbers}"
    yield "target", _range(result.target)
    if hasattr(result.diagnostics, "report"):
        yield from _of_diagnostics(result.diagnostics)


def _of_diagnostics(diagnostics: Any) -> Lines:
    report, poles = diagnostics.report, diagnostics.poles
    if hasattr(report, "engine"):
        yield "engine", f"{report.engine}, {'exact' if report.exact else 'approximate'}"
        yield "proof", report.proof.partition(";")[0]
        if report.averaged:
            how = f", {report.rule}" if report.rule else ""
            yield "averaged over", f"{_range(diagnostics.num_samples)} points{how}"
    yield "effective samples", _range(diagnostics.effective_samples)
    yield "top class kept", _range(diagnostics.top_class_kept)
    # Of a path up to a tolerance it is no standard error: what its last nodes changed.
    error = "last change" if getattr(report, "rule", "") else "standard error"
    yield error, _range(diagnostics.relative_error, "of the map's largest value")
    if hasattr(poles, "smallest_r"):
        yield "smallest r", _range(poles.smallest_r)
        yield "share guarded", _range(poles.share_guarded)
    yield "total", _range(diagnostics.total)
    yield "completeness", _range(diagnostics.completeness)
    for name, wrong in (("finite", False), ("blank", True), ("doubtful", True)):
        if _any(getattr(diagnostics, name), wrong):
            yield name, _range(getattr(diagnostics, name))
    for note in getattr(report, "notes", ())[:FEW]:
        yield "note", note


def _text(title: str, lines: Lines) -> str:
    told = [(name, words) for name, words in lines if words]
    wide = max(map(len, dict(told)), default=0)
    return "\n".join([title, *(_cut(f"  {name:{wide}}  {words}") for name, words in told)])


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def _unknown(value: Any) -> bool:
    """Say whether there are no numbers to see: in a trace, or on the devices of other processes."""
    if isinstance(value, Tracer | jax.ShapeDtypeStruct):
        return True
    return not getattr(value, "is_fully_addressable", True)


def _shape_of(value: Any) -> str | None:
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return None
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"


def _range(value: Any, unit: str = "") -> str:
    if value is None:
        return ""
    if _shape_of(value) is None:
        return repr(value)
    if _unknown(value) or not value.size:
        return _shape_of(value) or ""
    numbers = np.asarray(value)
    if numbers.dtype == bool or np.issubdtype(numbers.dtype, np.integer):
        each = [str(number) for number in numbers.ravel()[: FEW + 1].tolist()]
    else:
        each = [f"{number:.3g}" for number in numbers.ravel()[: FEW + 1].astype(float).tolist()]
    if numbers.min() == numbers.max():
        each = each[:1]
    several = f"{numbers.min():.3g} to {numbers.max():.3g}" if numbers.dtype != bool else "some"
    return f"{', '.join(each) if len(each) <= FEW else several} {unit}".rstrip()


def _any(value: Any, wrong: bool) -> bool:
    """Say whether a flag is what it should not be, for any image."""
    if value is None or _shape_of(value) is None or _unknown(value):
        return False
    return bool((np.asarray(value) == wrong).any())


def _image(map: np.ndarray) -> str:
    """Draw one map, black to white over red and yellow, as an image that stands in the page.

    What is negative goes over blue.
    """
    from PIL import Image

    largest = np.nanmax(np.abs(map), initial=0.0)
    share = np.nan_to_num(map / largest if 0 < largest < np.inf else 0 * map)[..., None]
    heat = np.clip(3 * np.abs(share) - np.arange(3), 0, 1)
    heat = np.where(share < 0, heat[..., ::-1], heat)
    file = io.BytesIO()
    Image.fromarray(np.round(255 * heat).astype(np.uint8)).save(file, "png")
    code = base64.b64encode(file.getvalue()).decode()
    side = "height" if map.shape[0] >= map.shape[1] else "width"
    style = f"{side}: {SIDE}px; image-rendering: pixelated; margin-right: 4px"
    return f'<img src="data:image/png;base64,{code}" style="{style}" alt="a map">'
