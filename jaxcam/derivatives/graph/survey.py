"""What the tangents of a score look like, and what that proves: words for a reader, and the special
cases that have names.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcam.derivatives.graph.kinds import Node
from jaxcam.derivatives.graph.partials import Differentiated
from jaxcam.derivatives.reasons import where
from jaxcam.derivatives.tangents.axes import Axis, filled
from jaxcam.derivatives.tangents.terms import Tangent, Term

FORMS = ("powered", "coloured")


class Survey(NamedTuple):
    """What the tangents of a score look like.

    bends: the operations that bend, in words. chained: two of them of which one follows the
    other, if there are. elementwise: whether each has one operand and works element by element.
    met: an operation in which tangents of different positions meet, if there is one. placed:
    whether the derivatives depend on the position.
    """

    bends: tuple[str, ...]
    elementwise: bool
    chained: tuple[str, str] | None
    met: str | None
    placed: bool


def survey(score: Differentiated, met: Sequence[Node], *, placed: bool) -> Survey:
    """Put together what was seen while the tangents were traced; ``met``: where positions meet."""
    nodes = score.graph.nodes
    bends = {i: _words(nodes[i]) for i in score.bends}
    elementwise = all(nodes[i].kind == "pointwise" and len(nodes[i].operands) == 1 for i in bends)
    chained = _chained(score)
    pair = None if chained is None else (bends[chained[0]], bends[chained[1]])
    first_met = _words(met[0]) if met else None
    return Survey(tuple(bends.values()), elementwise, pair, first_met, placed)


def positions_meet(node: Node, tangents: list[Tangent], rank: int) -> bool:
    """Say whether tangents of different positions of an ``a`` with ``rank`` axes meet in a node."""
    apart = all(_apart(term, rank) for tangent in tangents for term in tangent)
    return not apart or node.kind == "curved"


def _apart(term: Term, rank: int) -> bool:
    """Say whether the tangents of two positions have no place in common."""
    single = tuple(a for a in term.axes if a.kind == "window" and a.size == 1)
    return _tell_apart(single, rank - 1)


@functools.lru_cache(maxsize=256)
def _tell_apart(places: tuple[Axis, ...], spatial: int) -> bool:
    """Say whether no two positions have the same place along each of these axes."""
    moves = [filled(axis).moves[:spatial] for axis in places]
    sizes = [max((len(axis[d]) for axis in moves), default=0) for d in range(spatial)]
    if not all(sizes):
        return False  # a coordinate on which none depends
    if not sizes:
        return True  # only one position
    where = np.indices(sizes).reshape(spatial, -1)
    nowhere = np.zeros(where.shape[1], int)
    begun = [
        sum((np.asarray(table)[where[d]] for d, table in enumerate(axis) if table), nowhere)
        for axis in moves
    ]
    return np.unique(np.stack(begun), axis=1).shape == np.shape(begun)


def _chained(score: Differentiated) -> tuple[int, int] | None:
    """Find a bend that follows another."""
    follows: dict[int, int] = {}
    bends = set(score.bends)
    for number, node in score.graph.nodes.items():
        earlier = next((i if i in bends else follows[i] for i in node.operands
                        if i in bends or i in follows), None)  # fmt: skip
        if earlier is not None:
            if number in bends:
                return earlier, number
            follows[number] = earlier
    return None


def _words(node: Node) -> str:
    return where(node.telling.equation, node.telling.call)


def against(looks: Survey) -> dict[str, str | None]:
    """Say for each form what speaks against it."""
    powered = None
    if looks.chained:
        powered = f"{looks.chained[1]} follows {looks.chained[0]}, and both bend"
    elif not looks.elementwise:
        powered = f"not one elementwise operation: {looks.bends[0]}"
    return {
        "powered": powered,
        "coloured": looks.met and f"positions meet in {looks.met}",
    }


def in_words(form: str, looks: Survey) -> str:
    """Say what was proved."""
    if not looks.bends:
        return "nothing bends, so that the second and third derivatives are zero"
    bends = ", ".join(dict.fromkeys(looks.bends))
    return {
        "powered": f"one bend on every way to the score ({bends}): transposed passes with the "
        "squares and cubes of what is affine before it",
        "coloured": f"positions never meet where anything bends ({bends})",
        "adjoint": f"tangents up to the last bend, one shared backward pass; what bends: {bends}",
    }[form]
