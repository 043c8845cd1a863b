"""What public code computes: ``D_k = g^k``, with ``e^u`` dropped. Not proved, not exact.

For one input it equals `exponential`. Averaged over noisy inputs it weighs all of them alike,
where the exponential weighs sample ``n`` by ``e^{u_n}``.
"""

from jaxcam.contracts import Engine, Proof, Traced
from jaxcam.derivatives.engines.affine import derive


def prove(traced: Traced, name: str = "") -> Proof:
    """Apply to anything: an assumption asks for no proof, and says that it is one."""
    del traced, name
    return Proof(True, "assumed, not proved: D_k = g^k, powers of the gradient")


ENGINE = Engine("power", exact=False, prove=prove, derive=derive, single=True, scaled=False)
