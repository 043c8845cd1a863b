"""The papers' closed form: ``u2 = u3 = 0`` assumed, so that ``D_k = Y g^k``. Not proved, not exact.

This is Grad-CAM++'s approximation (arXiv 1710.11063, eq. 19). It is right where `affine` applies,
and is here to be compared with the exact engines everywhere else.
"""

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.engines.affine import derive


def prove(traced: Traced, name: str = "") -> Proof:
    """Apply to anything: an assumption asks for no proof, and says that it is one."""
    del traced, name
    return Proof(True, "assumed, not proved: D_k = Y g^k, the papers' closed form")


ENGINE = Engine("exponential", exact=False, prove=prove, derive=derive, single=True)
