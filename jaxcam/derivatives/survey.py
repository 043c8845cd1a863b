"""What the tangents of a score look like, and what that proves: words for a reader, and the special
cases that have names.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxcam.derivatives.bends import Bends
from jaxcam.derivatives.program import Node
from jaxcam.derivatives.refusal import BILINEAR, LINEAR, where
from jaxcam.derivatives.tangents import Tangent, Term

FORMS = ("powered", "coloured")


class Survey(NamedTuple):
    """What the tangents of a score look like.

    bending: the operations that bend, in words. chained: two of them of which one follows the
    other, if there are. elementwise: whether each has one operand and works element by element.
    met: an operation in which tangents of different positions meet, if there is one. placed:
    whether the derivatives depend on the position.
    """

    bending: tuple[str, ...]
    elementwise: bool
    chained: tuple[str, str] | None
    met: str | None
    placed: bool


def survey(found: Bends, met: Sequence[Node], *, placed: bool) -> Survey:
    """Put together what was seen while the tangents were traced; ``met``: where positions meet."""
    nodes = found.graph.nodes
    bending = {i: _words(nodes[i]) for i in found.bending}
    elementwise = all(nodes[i].kind == "pointwise" and len(nodes[i].operands) == 1 for i in bending)
    chained = _chained(found)
    pair = None if chained is None else (bending[chained[0]], bending[chained[1]])
    first_met = _words(met[0]) if met else None
    return Survey(tuple(bending.values()), elementwise, pair, first_met, placed)


def positions_meet(node: Node, tangents: list[Tangent], rank: int) -> bool:
    """Say whether tangents of different positions of an ``a`` with ``rank`` axes meet in a node."""
    apart = all(_apart(term, rank) for tangent in tangents for term in tangent)
    return not apart or node.kind == "curved"


def _apart(term: Term, rank: int) -> bool:
    """Say whether the tangents of two positions have no place in common."""
    single = [axis.step for axis in term.axes if axis.kind == "window" and axis.size == 1]
    return all(any(step[d] for step in single) for d in range(rank - 1))


def _chained(found: Bends) -> tuple[int, int] | None:
    """Find a bending node that follows another."""
    follows: dict[int, int] = {}
    bending = set(found.bending)
    for number, node in found.graph.nodes.items():
        earlier = next((i if i in bending else follows[i] for i in node.operands
                        if i in bending or i in follows), None)  # fmt: skip
        if earlier is not None:
            if number in bending:
                return earlier, number
            follows[number] = earlier
    return None


def _words(node: Node) -> str:
    """Name a node; a chain by its last operation that is more than a sum or a product."""
    plain = LINEAR | BILINEAR
    telling = [o for o in node.operations if o.call or o.name not in plain]
    last = (telling or node.operations)[-1]
    return where(last.equation, last.call)


def against(found: Survey) -> dict[str, str | None]:
    """Say for each form what speaks against it."""
    powered = None
    if found.chained:
        powered = f"{found.chained[1]} follows {found.chained[0]}, and both bend"
    elif not found.elementwise:
        powered = f"not one elementwise operation: {found.bending[0]}"
    return {
        "powered": powered,
        "coloured": found.met and f"positions meet in {found.met}",
    }


def in_words(form: str, found: Survey) -> str:
    """Say what was proved."""
    if not found.bending:
        return "nothing bends, so that the second and third derivatives are zero"
    bending = ", ".join(dict.fromkeys(found.bending))
    return {
        "powered": f"one bend on every way to the score ({bending}): transposed passes with the "
        "squares and cubes of what is affine before it",
        "coloured": f"positions never meet where anything bends ({bending})",
        "adjoint": f"tangents up to the last bend, one shared backward pass; what bends: {bending}",
    }[form]
