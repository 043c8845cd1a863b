"""Answers as facts: dictionaries of plain values, for JSON as they are and for tables in words."""

import math
from argparse import Namespace
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

import jaxcam
from jaxcam.cli.answers import Answer, Removed
from jaxcam.cli.models import Model
from jaxcam.cli.question import Picture, Question
from jaxcam.metrics.difference import difference
from jaxcam.metrics.localisation import localisation

PACKAGES = ("jax", "jaxlib", "flax", "numpy")
NOT_OPTIONS = (
    "command", "json", "verbose", "cache", "images", "out", "overlay", "model", "weights", "part",
    "layer", "layers", "method",
)  # fmt: skip


def setting(asked: Namespace, question: Question) -> dict[str, Any]:
    """Say what was asked, of all pictures and classes alike."""
    model = question.model
    return {
        "command": asked.command,
        "model": model.name,
        "weights": weights(model),
        "layer": " and ".join(cut.layer for cut in question.cuts),
        "method": asked.method,
        "options": {k: v for k, v in vars(asked).items() if k not in NOT_OPTIONS},
        **environment(),
    }


def weights(model: Model) -> dict[str, Any] | None:
    """Say where a published network's weights are from, and what decides their results."""
    return {**model.origin, **model.identity} or None


def about(question: Question, answer: Answer) -> dict[str, Any]:
    """Say what the network says of a picture. seen: left, top, right, bottom in its pixels."""
    scores, index = answer.cam.scores.astype(np.float64), int(answer.cam.target)
    shares = np.exp(scores - scores.max())
    return {
        "picture": answer.picture.source,
        "size": answer.picture.image.size,
        "seen": answer.picture.box,
        "truth": answer.picture.truth,
        "class": index,
        "label": question.model.class_names[index],
        "probability": float(shares[index] / shares.sum()),
        "scores": answer.cam.scores,
        "shape": answer.cam.map.shape,
    }


def environment() -> dict[str, Any]:
    """Say what a reader needs to repeat the numbers."""
    versions = {"jaxcam": jaxcam.__version__} | {name: version(name) for name in PACKAGES}
    return {"device": jax.devices()[0].device_kind, "versions": versions}


def findings(answer: Answer) -> dict[str, Any]:
    """Say what one engine found.

    samples, nodes: how many noisy inputs, or gradients along a path, were averaged; none where they
    are proved not to matter.
    localisation: null where it is not known what a map should find.
    """
    result, report = answer.cam, answer.cam.diagnostics.report
    taken, path = result.diagnostics.num_samples, bool(report.rule)
    return {
        "engine": report.engine,
        "exact": report.exact,
        "proof": report.proof,
        "samples": 0 if taken is None or path else taken,
        "nodes": taken if path else 0,
        "notes": answer.notes,
        "diagnostics": diagnostics(answer),
        "map": result.map,
        "localisation": _localisation(answer.picture, result.map, answer.boxes),
        "seconds": answer.seconds,
    } | _parts(answer)


def _parts(answer: Answer) -> dict[str, Any]:
    """Say what was found at each layer, where several are fused."""
    parts = [{"layer": part.layer, "shape": part.cam.map.shape} | findings(part)
             for part in answer.parts]  # fmt: skip
    return {"layers": parts} if parts else {}


def removals(true: Removed, orders: dict[str, Answer], exact: Answer) -> dict[str, Any]:
    """Say what removing activations does, and how near Taylor's series comes to it.

    true: the map of one forward pass for each activation. orders: those of the series. difference:
    how far each is from the true one (`measure.difference`).
    """
    near = {
        name: findings(answered) | {"difference": difference(true.map, answered.cam.map)}
        for name, answered in orders.items()
    }
    where = _localisation(exact.picture, true.map, exact.boxes)
    return {"true": {**true._asdict(), "localisation": where}, "orders": near}


def _localisation(picture: Picture, map: Any, boxes: list) -> dict[str, Any] | None:
    """Judge what speaks for the class."""
    width, height = picture.image.size
    return localisation(np.maximum(map, 0), boxes, (height, width)) if boxes else None


def diagnostics(answer: Answer) -> dict[str, Any]:
    """Say what a reader needs to judge a map; ``jaxcam.Diagnostics`` has the definitions.

    relative_standard_error: the largest one, as a share of the map's largest value.
    """
    d = answer.cam.diagnostics
    poles = d.poles._asdict() if d.poles is not None else {}
    return {
        **poles,
        "effective_samples": d.effective_samples,
        "top_class_kept": d.top_class_kept,
        "relative_standard_error": d.relative_error,
        "standard_error": d.standard_error,
        "total": d.total,
        "completeness": d.completeness,
        "gap": d.gap,
        "finite": d.finite,
        "blank": d.blank,
    }


def plain(value: Any) -> Any:
    """Turn facts into what JSON knows; what is not a finite number becomes null."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return [plain(inner) for inner in value]
    if isinstance(value, np.floating):
        return plain(float(str(value)))  # 0.15, where float(value) has the digits of float64
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
