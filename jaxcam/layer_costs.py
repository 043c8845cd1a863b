"""Which layer to explain: what engine would serve at each, and at what cost."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
from jax import Array

from jaxcam.arrays.inputs import Inputs, first, taken
from jaxcam.derivatives.auto import choose
from jaxcam.derivatives.proof import analyse
from jaxcam.errors import JaxcamError
from jaxcam.jaxprs.cost import needs
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline.checks import check_progress
from jaxcam.pipeline.network import Network
from jaxcam.pipeline.plan import UNCONNECTED, traced_score
from jaxcam.split import layers, split
from jaxcam.split.census import Place
from jaxcam.targets import as_target
from jaxcam.types import Shared, shared


class LayerCost(NamedTuple):
    """What a map at a layer takes.

    shape: ``[batch, *spatial, k]``, after ``to_map``. engine: the cheapest exact one, None where
    there is none. operations: multiplications and additions of the derivatives of one image, and
    passes: that as a multiple of the network's own. words: what was proved, or why it is no layer
    to explain.
    """

    shape: tuple[int, ...]
    engine: str | None
    operations: float | None
    passes: float | None
    words: str


def explain_layers(
    model: Any,
    x: Any,
    target: Any = None,
    *,
    names: Iterable[str] | str | None = None,
    order: int = 3,
    progress: Callable[[int, int], None] | None = None,
    variables: Any = None,
    to_map: Any = None,
    logits: Any = None,
    **kwargs: Any,
) -> dict[str, LayerCost]:
    """Say of each layer which engine would serve there, and how many operations that takes.

    Nothing is computed: ``x`` may be a `jax.ShapeDtypeStruct`. But every layer takes a trace of the
    model and of its derivatives, a second or so for a large one: ``names`` asks about some of them.
    Counted is the traced program, as by `jaxcam.explain_engine`.

    Args:
        model, x, variables, to_map, logits, kwargs: as in `jaxcam.split`.
        target: as in `jaxcam.cam`.
        names: of layers, as `jaxcam.layers` gives them; all by default.
        order: the highest derivative that the method needs: 3 for Grad-CAM++, 1 for Grad-CAM.
        progress: called as ``progress(done, total)`` after each layer.

    >>> import flax.linen as nn, jax
    >>> import jaxcam
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = nn.gelu(nn.Conv(8, (3, 3), name="early")(x))
    ...         x = nn.relu(nn.Conv(8, (3, 3), name="late")(x))
    ...         return nn.Dense(5, name="head")(x.mean((1, 2)))
    >>> x = jax.ShapeDtypeStruct((1, 16, 16, 3), "float32")
    >>> variables = jax.eval_shape(Net().init, jax.random.key(0), x)
    >>> for name, cost in jaxcam.explain_layers(Net(), x, variables=variables).items():
    ...     print(name, cost.engine)
    early powered
    late affine
    head None
    """
    check_progress(progress)
    x = taken(x, "jaxcam.explain_layers(model, x)")
    outputs = layers(model, x, variables=variables, **kwargs)
    names = [names] if isinstance(names, str) else names
    asked = list(outputs) if names is None else list(names)
    costs: dict[str, LayerCost] = {}
    for done, name in enumerate(asked, start=1):
        layer, call = Place.read(name)
        try:
            cut = split(
                model, layer, variables=variables, call=call, to_map=to_map, logits=logits, **kwargs
            )
            costs[name] = _cost(shared(cut), x, target, order)
        except JaxcamError as error:
            costs[name] = LayerCost(_shape(outputs.get(name)), None, None, None, str(error))
        if progress is not None:
            progress(done, len(asked))
    return costs


def _cost(given: Shared, x: Inputs, target: Any, order: int) -> LayerCost:
    """Trace the derivatives of one image at a layer, and count."""
    costs: list[LayerCost] = []

    def look(given: Shared, x: Inputs) -> Array:
        cut = given.split()
        a = cut.features(x)
        scores = cut.scores(a, x)
        network = Network(cut, as_target(target))
        aim = aims.resolve(network.target, scores)
        traced = traced_score(network, a, x, aim)
        depends = traced.once(analyse).score
        if depends in UNCONNECTED:
            words = f"the score {UNCONNECTED[depends]}"
            costs.append(LayerCost(a.shape, None, None, None, words))
            return scores
        choice = choose("auto", traced, order=order)
        whole = jax.make_jaxpr(lambda x: network.scores(network.features(x), x))(first(x))
        passes = choice.operations / max(1, needs(whole, shared=True).operations)
        words = choice.proof.words
        costs.append(LayerCost(a.shape, choice.name, choice.operations, passes, words))
        return scores

    jax.eval_shape(look, given, x)
    return costs[0]


def _shape(output: Any) -> tuple[int, ...]:
    return tuple(output.shape) if hasattr(output, "shape") else ()
