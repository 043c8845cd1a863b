"""What a call takes for a target."""

from typing import Any, cast

from jaxcam.arrays.door import as_array
from jaxcam.targets.classes import exp_logit
from jaxcam.targets.form import Target, narrow
from jaxcam.targets.outputs import custom


def as_target(target: Any) -> Target:
    """Accept a `Target`, a class index or ``[batch]`` of them, None (the top class), a function."""
    if not isinstance(target, Target):
        target = custom(cast(Any, target)) if callable(target) else exp_logit(target)
    if target.class_index is None:
        return target
    index = as_array(target.class_index, "target", "integer class indices")
    return target._replace(class_index=narrow(index, "target", target.class_index))
