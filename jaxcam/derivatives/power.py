"""What public code computes: ``D_k = g^k``, with ``e^u`` dropped. Not proved, not exact.

For one input it equals `exponential`. Averaged over noisy inputs it weighs all of them alike,
where the exponential weighs sample ``n`` by ``e^{u_n}``.
"""

from typing import Any

from jaxcam.derivatives.affine import derive
from jaxcam.types import Engine, LogScore, Proof


def prove(log_score: LogScore, a: Any, name: str = "") -> Proof:
    """Apply to anything: an assumption asks for no proof, and says that it is one."""
    del log_score, a, name
    return Proof(True, "assumed, not proved: D_k = g^k, powers of the gradient")


ENGINE = Engine("power", exact=False, prove=prove, derive=derive, single=True, scaled=False)
