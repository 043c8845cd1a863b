"""Which scalar is explained: from one example's scores to the log-score ``u``, ``Y = e^u``.

A target without ``class_index`` explains each image's top class, read off the clean input; an
integer explains one class for all; an array ``[batch]`` one class per image.

- form: what a target is, its class indices, and what is refused of them.
- classes: one class of ``[classes]``, or several, or one against others.
- outputs: of other networks: one logit, a quantity, a dense output, an embedding, anything.
- given: what a call takes for a target.
"""

from jaxcam.targets.classes import (
    any_of,
    contrast,
    counterfactual,
    exp_logit,
    logit,
    rest,
    softmax,
)
from jaxcam.targets.form import (
    ANY,
    BINARY,
    CLASSES,
    EMBEDDING,
    OUTPUTS,
    REGION,
    Aim,
    Form,
    Target,
    check_class,
)
from jaxcam.targets.given import as_target
from jaxcam.targets.outputs import binary, custom, region, regression, similarity

__all__ = [
    "ANY",
    "BINARY",
    "CLASSES",
    "EMBEDDING",
    "OUTPUTS",
    "REGION",
    "Aim",
    "Form",
    "Target",
    "any_of",
    "as_target",
    "binary",
    "check_class",
    "contrast",
    "counterfactual",
    "custom",
    "exp_logit",
    "logit",
    "region",
    "regression",
    "rest",
    "similarity",
    "softmax",
]
