"""What a target is, the classes that it names, and what is refused of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxcam.arrays.door import as_array, known
from jaxcam.errors import fail

CLASSES, REGION, EMBEDDING, ANY = "classes", "region", "embedding", "any"
BINARY, OUTPUTS = "binary", "outputs"


@jax.tree_util.register_static
@dataclass(frozen=True)
class Form:
    """What a target is called, and whether ``Y = e^u`` (else ``Y = u``, a raw score).

    scores: what it takes for scores, one example's: ``classes`` ``[classes]``, ``region``
    ``[*spatial, classes]``, ``embedding`` ``[d]`` or a pair ``[2, d]``, ``binary`` ``[1]``,
    ``outputs`` ``[outputs]`` that do not compete, or ``any``. nearest: against how many other
    classes a class is set where they are not named. plain: a class is explained as it is, not its
    other side, its distance from others or several of them: so that its probability is another
    scalar of the same.
    """

    name: str
    exponentiated: bool = True
    scores: str = CLASSES
    nearest: int = 0
    plain: bool = False


class Aim(NamedTuple):
    """What a target is taken for, of one image or with a batch axis: the class, and its array.

    about: the region, the reference, or the other classes.
    """

    class_index: Array
    about: Array | None = None


class Target(NamedTuple):
    """A log-score ``(scores, aim) -> u []`` of one example, and what it is taken for.

    about: the region, the reference or the other classes, one for all images or one for each.
    """

    form: Form
    log_score: Callable[[Array, Aim], Array]
    class_index: Any = None
    about: Any = None


def narrow(index: Array, call: str, given: Any) -> Array:
    """Give class indices as int32, or refuse what are none."""
    if not jnp.issubdtype(index.dtype, jnp.integer):
        fail(call, needs="integer class indices", got=repr(given), remedy="Pass an int.")
    values = known(index)
    if values is not None and (values != values.astype(np.int32)).any():
        fail(call, needs="class indices below 2^31", got=repr(given), remedy="Pass an int.")
    return as_array((index if values is None else values).astype(np.int32), call)


def check_class(target: Target, classes: int, chosen: Any = None) -> None:
    """Refuse a class that the network does not score, where its value is known.

    Where it is traced it gives NaN (`of_class`), and ``diagnostics.finite`` is False. chosen: the
    classes ``[batch]`` that were explained.
    """
    form = target.form
    if form.scores in (ANY, EMBEDDING):
        return
    index = None if target.class_index is None else known(target.class_index)
    if form.scores == BINARY:
        _check_range("target 'binary'", index, 2, "0 is the other side of the logit, 1 its own.")
        return
    remedy = f"The network scores {classes} classes."
    if classes == 1:
        remedy = (
            "The network has one score: class 0 explains it, and "
            "jaxcam.targets.exp_logit(0, negative=True) the other side of it."
        )
    _check_range("target", index, classes, remedy)
    if form.scores == CLASSES and target.about is not None:
        others = known(target.about)
        _check_range(f"target {form.name!r}", others, classes, remedy)
        _check_apart(form, others, known(chosen) if index is None and chosen is not None else index)


def _check_range(
    call: str, index: NDArray[Any] | None, classes: int, remedy: str
) -> None:  # fmt: skip
    wrong = np.zeros(0) if index is None else index[(index < 0) | (index >= classes)]
    if wrong.size:
        needs = f"a class index from 0 to {classes - 1}"
        fail(call, needs=needs, got=int(wrong.flat[0]), remedy=remedy)


def _check_apart(form: Form, others: NDArray[Any] | None, index: NDArray[Any] | None) -> None:
    """Refuse a class that is set against itself."""
    if form.name != "contrast" or others is None or index is None:
        return
    own, listed = np.broadcast_arrays(index[..., None], others)
    same = own == listed
    if same.any():
        fail(
            "target 'contrast'",
            needs="references that are other classes",
            got=f"class {int(own[same][0])} against itself",
            remedy="Leave it out, or references=None: the nearest others of each image.",
        )


def score(scores: Array, aim: Aim) -> Array:
    """``S_c``; NaN for a class that is none."""
    own = jnp.asarray(scores).at[..., aim.class_index].get(mode="clip")
    return of_class(own, scores, aim.class_index)


def of_class(u: Array, scores: Array, index: Array) -> Array:
    """Give NaN for a class that is none: clipped or wrapped it would be another one."""
    return where_known(u, (index >= 0) & (index < scores.shape[-1]))


def where_known(u: Array, known: Array) -> Array:
    """Give NaN elsewhere."""
    return u * jnp.where(known, 1, jnp.nan).astype(u.dtype)  # by a factor: its derivatives too
