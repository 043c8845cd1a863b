"""Values in words, the same in tables and in figures. An empty string stands for nothing."""

from typing import Any

from jaxcam.methods import catalogue


def method(name: str) -> str:
    """Give a method's name as it is written: ``Smooth Grad-CAM++``."""
    return catalogue.rows()[name].title


def probability(value: float) -> str:
    """Word a probability without claiming certainty."""
    return "above 0.999" if value > 0.999 else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Word a share; one that is not nothing does not read as nothing."""
    if value is None:
        return ""
    return "under 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    """Word a number."""
    return "" if value is None else f"{value:.{digits}g}"


def by(shape: list[int]) -> str:
    """Word a shape: ``8 x 8 x 48``."""
    return " x ".join(map(str, shape))


def target(options: dict[str, Any]) -> str:
    """Word what of a class is explained, where it is not its logit."""
    count = len(options["other"] or ())
    against = f"{count} other{'s' * (count > 1)}" if count else "the nearest by score"
    return {
        "exp_logit": "",
        "softmax": "its log-probability",
        "logit": "its raw logit",
        "counterfactual": "what speaks against it",
        "rest": "its logit and its log-probability",
        "contrast": f"its logit against {against}",
        "any_of": f"any of {1 + count} classes",
    }[options["target"]]
