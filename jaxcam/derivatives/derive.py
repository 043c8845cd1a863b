"""The two public calls: the derivatives of ``u`` and those of ``Y = e^u``, by any engine."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxcam.derivatives import chunks
from jaxcam.derivatives.auto import choose
from jaxcam.derivatives.bell import bell
from jaxcam.derivatives.traced import trace
from jaxcam.errors import fail
from jaxcam.precision import widen
from jaxcam.types import ChunkSize, Derivatives, LogDerivatives, LogScore


def log_derivatives(
    log_score: LogScore, a: Array, *, engine: str = "auto", chunk_size: ChunkSize = "auto"
) -> LogDerivatives:
    """Differentiate a log-score three times along each element of ``a``.

    ``u_k[i] = d^k/dt^k u(a + t e_i)`` at ``t = 0``, for every element ``i``.

    Args:
        log_score: ``u``, a scalar function of one example's activations (no batch axis).
        a: the activations, ``[*spatial, k]``, floating; bfloat16 and float16 give float32 results.
        engine: ``auto`` (the cheapest exact engine that proves its condition), or by name one of
            ``affine``, ``peeled``, ``powered``, ``coloured``, ``adjoint``, ``directional`` (exact)
            and ``exponential``, ``power`` (assumed); see `jaxcam.explain_engine`.
        chunk_size: how many elements are differentiated at once, which bounds the memory;
            ``auto``: as many as are fast, and fit the device.

    Returns:
        `LogDerivatives`, each shaped like ``a``.

    Raises:
        NotProved: an engine asked for by name does not apply; the message says why and which does.
        JaxcamError: ``a`` is not floating, ``log_score`` not a scalar, or ``chunk_size`` neither
            ``auto`` nor at least 1.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> u = lambda a: jnp.sum(a**3)
    >>> u1, u2, u3 = jaxcam.log_derivatives(u, jnp.array([[1.0, 2.0]]))
    >>> print(u1, u2, u3)
    [[ 3. 12.]] [[ 6. 12.]] [[6. 6.]]
    """
    a = jnp.asarray(a)
    check_score("log_derivatives", log_score, a)
    chunk = chunks.checked(chunk_size)
    log_score, a = in_single_precision(log_score, a)
    return choose(engine, trace(log_score, a, chunk_size=chunk)).derive(a)[0]


def derivatives(
    log_score: LogScore, a: Array, *, engine: str = "auto", chunk_size: ChunkSize = "auto"
) -> Derivatives:
    """Differentiate ``Y = e^u`` three times along each element of ``a``, with ``Y`` divided out.

    ``d1 = u1, d2 = u2 + u1^2, d3 = u3 + 3 u1 u2 + u1^3`` (complete Bell polynomials). Arguments
    and errors are those of `log_derivatives`.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> affine = lambda a: jnp.sum(2 * a)
    >>> print(*jaxcam.derivatives(affine, jnp.ones((1, 2))))
    [[2. 2.]] [[4. 4.]] [[8. 8.]]
    """
    return bell(log_derivatives(log_score, a, engine=engine, chunk_size=chunk_size))


def in_single_precision(log_score: LogScore, a: Array) -> tuple[LogScore, Array]:
    """Widen half-precision activations, so that products of derivatives keep float32's range.

    The network itself still runs in the precision of ``a``.
    """
    half = a.dtype
    wide = widen(a)
    if wide.dtype == half:
        return log_score, a
    return lambda a: widen(log_score(a.astype(half))), wide


def check_score(call: str, log_score: LogScore, a: Array) -> None:
    """Refuse what has no derivatives, or is not a scalar of one example."""
    if not jnp.issubdtype(a.dtype, jnp.floating):
        fail(
            call, needs="floating activations", got=a.dtype, remedy="Convert: a.astype('float32')."
        )
    if not a.ndim:
        fail(call, needs="an axis of channels, [*spatial, k]", got="a number", remedy="a[None]")
    shape = getattr(jax.eval_shape(log_score, a), "shape", None)
    if shape != ():
        fail(
            call,
            needs="a scalar log-score of one example",
            got=f"an output of shape {shape}",
            remedy="Pick one class, and vmap over the batch.",
        )
