"""The two pure functions of a split, ``features`` and ``scores``, for any adapter.

Both run the whole model. ``features`` returns what the layer returned; ``scores`` puts ``a`` in
its place, so that whatever goes around the layer is right, and XLA removes what has become dead.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from jaxcam.arrays.door import as_array
from jaxcam.arrays.inputs import taken
from jaxcam.arrays.outputs import check_activations, check_scores, describe
from jaxcam.arrays.running import running
from jaxcam.errors import fail
from jaxcam.split.arrange import arranged, put_back
from jaxcam.split.last import located
from jaxcam.split.pick import holds, pick, replace
from jaxcam.split.refusals import refuse_layer
from jaxcam.split.site import Site, join
from jaxcam.types import Split


class Seen(NamedTuple):
    """One call of the layer: its output if that was asked for, and a witness of shape ``[0]``.

    The witness leaves ``scan`` and ``vmap`` with another axis: the call stands for many.
    """

    value: Any
    witness: Array

    @property
    def stacked(self) -> bool:
        """Whether a transformation has stacked what it left with."""
        return self.witness.ndim != 1


def cut(site: Site, weights: Any, arrays: tuple[Any, ...]) -> Split:
    """The split at ``site``. The leaves of both halves are the weights and the keyword arrays."""
    return Split(Partial(features, site, weights, arrays), Partial(scores, site, weights, arrays))


def features(site: Site, weights: Any, arrays: tuple[Any, ...], x: Any) -> Array:
    """``a``: the layer's output for ``x``."""
    x = taken(x, f"{site}.features(x)")
    site = located(site, weights, arrays, x)
    output, seen = _run(site, weights, arrays, None, x)
    a = seen[site.call].value
    if site.to_map is not None:
        a = arranged(str(site), site.to_map, a)
    check_activations(str(site), a, x)
    check_scores(str(site), logits_of(site, output), x)
    return a


def scores(site: Site, weights: Any, arrays: tuple[Any, ...], a: Array, x: Any) -> Array:
    """``[batch, classes]`` of ``x`` with ``a`` in place of the layer's output."""
    call = f"{site}.scores(a, x)"
    a, x = as_array(a, call), taken(x, call)
    site = located(site, weights, arrays, x)
    check_activations(str(site), a, x)
    output, _ = _run(site, weights, arrays, a, x)
    logits = logits_of(site, output)
    check_scores(str(site), logits, x)
    return logits


def visit(site: Site, before: tuple[Seen, ...], output: Any, a: Array | None) -> tuple[Any, Seen]:
    """What an adapter's hook does when the layer returns: what goes on, and what is kept.

    ``before`` are its earlier calls. Counting by a value and not by a Python number makes the
    count right where a trace is cached (``nn.jit``, ``nnx.jit``).
    """
    if len(before) != site.call:
        return output, Seen(None, jnp.zeros(0))
    layer = pick(output, site.select, call=str(site), what="a layer's output", option="select")
    if not holds(output, layer):
        fail(
            str(site),
            needs="select= to pick one array of the layer's output as it is",
            got=f"a new array, computed from {describe(output)}",
            remedy="Let select= return an entry of the output unchanged.",
        )
    if a is None:
        return output, Seen(layer, jnp.zeros(0))
    shape = layer if site.to_map is None else jax.eval_shape(site.to_map, layer)
    if a.shape != shape.shape:
        fail(
            f"{site}.scores(a, x)",
            needs=f"a of the layer's own shape, {describe(shape)}",
            got=describe(a),
            remedy="Pass features(x), or something of its shape, and the same batch of x.",
        )
    new = a if site.to_map is None else put_back(str(site), site.to_map, layer, a)
    return replace(output, layer, new), Seen(None, jnp.zeros(0))


def _run(
    site: Site, weights: Any, arrays: tuple[Any, ...], a: Array | None, x: Any
) -> tuple[Any, tuple[Seen, ...]]:
    """Run the model once, or say why the layer cannot be watched in it.

    A layer inside a loop or a branch fails in as many ways as there are of them, so whatever goes
    wrong, the census is asked first; where it has no objection the error itself stands.
    """
    try:
        output, seen = site.adapter.run(site, weights, join(site.arguments, arrays), a, x)
        if len(seen) <= site.call or seen[site.call].stacked:
            fail(
                str(site),
                needs="a layer whose output can be taken out of the model",
                got="one inside a transformation that keeps it",
                remedy="Take a layer outside of it; jaxcam.layers lists the candidates.",
            )
    except Exception as error:
        refuse_layer(site, weights, arrays, x)
        with running(str(site), x):
            raise error
    return output, seen


def logits_of(site: Site, output: Any) -> Array:
    """Pick the scores from the model's output."""
    return pick(output, site.logits, call=str(site), what="a model's output", option="logits")
