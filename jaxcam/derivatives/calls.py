"""The two public calls: the derivatives of ``u`` and those of ``Y = e^u``, by any engine."""

from jax import Array

from jaxcam.arrays.door import as_array
from jaxcam.arrays.meshes import alike, automatically, axes_through, spec_of
from jaxcam.arrays.precision import widen
from jaxcam.derivatives.auto import choose
from jaxcam.derivatives.bell import bell
from jaxcam.derivatives.traced import check_score, trace, warn_of_constant
from jaxcam.jaxprs import loops as chunks
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
        `LogDerivatives`, each shaped like ``a``. Not finite along an element that has no such
        derivative (a root at zero, the norm of a channel that is zero). What a channel or a place
        does not move, and what nothing behind it sees (``sqrt(a) * mask``, of zeros at both),
        stays zero, though an operation's slope be infinite there: so it is in the engines that
        carry tangents (``peeled`` to ``adjoint``); the others give what `jax.grad` and `jax.jvp`
        give, which may be NaN.

    Functions with a derivative written by hand (`jax.custom_jvp`) have the derivatives that nested
    `jax.grad` finds, whatever their author meant: where the rule gives a plain value and not the
    function itself, the second derivative does not follow the rule.

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
    a = as_array(a, "log_derivatives")
    chunk = chunks.checked(chunk_size)

    def derived(a: Array) -> LogDerivatives:
        check_score("log_derivatives", log_score, a)
        score, wide = in_single_precision(log_score, a)
        wide = alike(wide, axes_through(score, wide))
        traced = trace(score, wide, chunk_size=chunk)
        warn_of_constant("log_derivatives", traced)
        return choose(engine, traced).derive(wide)[0]

    return automatically(derived, a, spec=spec_of(a))


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
