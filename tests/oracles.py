"""The slow, obvious definitions in float64 that the library is held against, and shares nothing of.

One example at a time: ``a: [*spatial, k]``, ``features: x -> a``, ``scores: (a, x) -> [classes]``.
Derivatives come from nested `jax.grad` along one element; everything after them is numpy and loops.
What other libraries compute, with their faults, is in peers.py.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The oracle is compiled without what makes programs fast, and without the fusions of XLA:CPU that
# have given wrong third derivatives: the engines are tested under all of them.
PLAIN = {"xla_backend_optimization_level": 0, "xla_cpu_experimental_ynn_fusion_type": ""}

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


def log_score(scores: Callable, index: int, kind: str) -> Callable:
    """Give ``u(a)``: ``exp_logit`` is ``S_c``, ``softmax`` is ``log(e^{S_c} / sum_m e^{S_m})``."""
    if kind == "exp_logit":
        return lambda a: scores(a)[index]
    if kind == "softmax":
        return lambda a: log_share(jnp.exp(scores(a)), index)
    raise ValueError(kind)


def log_share(exponentials: jax.Array, index: int) -> jax.Array:
    """``log(e_c / sum_m e_m)``."""
    return jnp.log(exponentials[index] / exponentials.sum())


def contrast(scores: np.ndarray, index: int, others: Sequence[int], gamma: float) -> float:
    """``S_c - gamma mean_d S_d``."""
    return scores[index] - gamma * sum(scores[d] for d in others) / len(others)


def nearest(scores: np.ndarray, index: int, count: int) -> list[int]:
    """Sort the other classes by ``|S_d - S_c|``; of equal ones the first comes first."""
    others = [d for d in range(len(scores)) if d != index]
    return sorted(others, key=lambda d: abs(scores[d] - scores[index]))[:count]


def rest(scores: np.ndarray, index: int) -> float:
    """``S_c + log p_c``."""
    return scores[index] + np.log(np.exp(scores[index]) / np.exp(scores).sum())


def any_of(scores: np.ndarray, classes: Sequence[int], *, probability: bool) -> float:
    """``log sum_{c in C} e^{S_c}``, or that of ``p_c``."""
    total = sum(np.exp(scores[c]) for c in set(classes))
    return np.log(total / np.exp(scores).sum() if probability else total)


def brute_force(u: Callable, a: np.ndarray) -> Triple:
    """Differentiate ``t -> u(a + t e_i)`` three times at ``t = 0``, for every element ``i``."""
    return differentiated(u)(a)


def differentiated(u: Callable) -> Callable[..., Triple]:
    """Compile brute force for ``u(a, *rest)`` once, to be called for several ``a`` and ``rest``."""

    def along(direction: jax.Array, point: jax.Array, *rest: jax.Array) -> tuple:
        def line(t: jax.Array) -> jax.Array:
            return u(point + t * direction, *rest)

        zero = jnp.zeros((), point.dtype)
        first = jax.grad(line)
        second = jax.grad(first)
        third = jax.grad(second)
        return first(zero), second(zero), third(zero)

    @partial(jax.jit, compiler_options=PLAIN)
    def every(directions: jax.Array, point: jax.Array, *rest: jax.Array) -> tuple:
        return jax.vmap(lambda direction: along(direction, point, *rest))(directions)

    def derivatives(a: np.ndarray, *rest: np.ndarray) -> Triple:
        with jax.enable_x64(True):
            point = jnp.asarray(a, jnp.float64)
            unit_vectors = jnp.eye(a.size, dtype=jnp.float64).reshape(a.size, *a.shape)
            u1, u2, u3 = every(unit_vectors, point, *map(jnp.asarray, rest))
        return tuple(np.asarray(v).reshape(a.shape) for v in (u1, u2, u3))

    return derivatives


def bell(u1: np.ndarray, u2: np.ndarray, u3: np.ndarray) -> Triple:
    """Give ``D1, D2, D3`` of ``Y = e^u``, divided by ``Y``: differentiate ``e^u`` three times."""
    return u1, u2 + u1 * u1, u3 + 3 * u1 * u2 + u1 * u1 * u1


def alpha(d1, d2, d3, a: np.ndarray, numerator: str = "d2") -> np.ndarray:
    """``alpha_ij^k = D2 / (2 D2 + (sum_ab A_ab^k) D3)``, and 0 where ``D2 = D3 = 0``.

    ``numerator="d1"`` is Smooth Grad-CAM++ as printed: ``D1`` above the same denominator.
    """
    out = np.zeros(a.shape)
    above = {"d1": d1, "d2": d2}[numerator]
    for k in range(a.shape[-1]):
        total = sum(a[..., k].ravel())
        for ij in np.ndindex(a.shape[:-1]):
            here = (*ij, k)
            if not d2[here] == d3[here] == 0:
                out[here] = above[here] / (2 * d2[here] + total * d3[here])
    return out


def bounded_alpha(d1, d2, d3, a: np.ndarray, numerator: str = "d2") -> np.ndarray:
    """``alpha = 1 / r`` clipped to [0, 1], and 1 where ``r = 2 + (sum A) D3 / D2 <= 0``.

    For ``numerator="d1"``, ``alpha = (D1^2 / D2) / (D1 r)``, and ``D1^2 / D2`` is guarded alike.
    """
    out = np.zeros(a.shape)
    for k in range(a.shape[-1]):
        total = sum(a[..., k].ravel())
        for ij in np.ndindex(a.shape[:-1]):
            here = (*ij, k)
            if d2[here] != 0:
                out[here] = bounded_reciprocal(2 + total * d3[here] / d2[here])
            if numerator == "d1" and d1[here] != 0:
                out[here] *= bounded_reciprocal(d2[here] / d1[here] ** 2) / d1[here]
    return out


def bounded_reciprocal(r: float) -> float:
    """``1 / r`` clipped to [0, 1], and 1 where ``r <= 0``."""
    return 1.0 if r <= 0 else min(1 / r, 1.0)


class Explained(NamedTuple):
    """A map ``[*spatial]``, its weights ``[k]``, and where there was noise what it averaged."""

    map: np.ndarray
    weights: np.ndarray
    means: Triple | None = None
    effective_samples: float | None = None


def weighted_map(weights: np.ndarray, a: np.ndarray) -> np.ndarray:
    """``ReLU(sum_k w_k A^k)``, one position at a time."""
    out = np.zeros(a.shape[:-1])
    for ij in np.ndindex(out.shape):
        out[ij] = max(0, sum(weights[k] * a[(*ij, k)] for k in range(a.shape[-1])))
    return out


def grad_cam(d1: np.ndarray, a: np.ndarray) -> Explained:
    """``w_k = mean_ij D1``."""
    weights = np.array([d1[..., k].mean() for k in range(a.shape[-1])])
    return Explained(weighted_map(weights, a), weights)


def grad_cam_pp(d1, d2, d3, a: np.ndarray, *, numerator="d2", poles="raw") -> Explained:
    """``w_k = sum_ij alpha_ij^k ReLU(D1_ij^k)``; ``poles``: how alpha is guarded."""
    alphas = {"raw": alpha, "bounded": bounded_alpha}[poles](d1, d2, d3, a, numerator)
    weights = np.zeros(a.shape[-1])
    for here in np.ndindex(a.shape):
        weights[here[-1]] += alphas[here] * max(0, d1[here])
    return Explained(weighted_map(weights, a), weights)


def removals(u: Callable, a: np.ndarray) -> np.ndarray:
    """``u(A) - u(A without a_i)`` for every element ``i``, one forward pass after the other."""
    out = np.zeros(a.shape)
    with jax.enable_x64(True):
        run = jax.jit(u, compiler_options=PLAIN)
        whole = run(jnp.asarray(a, jnp.float64))
        for here in np.ndindex(a.shape):
            without = np.array(a, np.float64)
            without[here] = 0
            out[here] = whole - run(jnp.asarray(without))
    return out


def taylor(derivatives: Triple, a: np.ndarray, order: int) -> np.ndarray:
    """``sum_k u_k a^k (-1)^(k + 1) / k!`` up to ``order``: minus the series of the step ``-a``."""
    out = np.zeros(a.shape)
    for k in range(1, order + 1):
        out -= derivatives[k - 1] * (-a) ** k / math.factorial(k)
    return out


def taylor_cam(derivatives: Triple, a: np.ndarray, order: int) -> np.ndarray:
    """``ReLU(sum_k t^k)``, of effects that are summed as they are, without any weight."""
    return np.maximum(taylor(derivatives, a, order).sum(axis=-1), 0)


def normal_expectation(f: Callable, points: int = 40) -> float:
    """``E f(e_1, e_2)`` of independent ``N(0, 1)``, by Gauss and Hermite's rule in each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    total = 0.0
    for first, p in zip(nodes, weights, strict=True):
        for second, q in zip(nodes, weights, strict=True):
            total += p * q * f(first, second)
    return total


def sampled(
    noisy: Sequence[np.ndarray], features: Callable, scores: Callable, index: int,
    kind: str = "exp_logit",
) -> list[tuple[float, Triple]]:  # fmt: skip
    """Give ``u_n`` and ``B_1, B_2, B_3`` of every noisy input, each on its own."""

    def u(a: jax.Array, x_n: jax.Array) -> jax.Array:
        return log_score(lambda a: scores(a, x_n), index, kind)(a)

    derive, samples = differentiated(u), []
    for x_n in noisy:
        with jax.enable_x64(True):
            wide = jnp.asarray(x_n, jnp.float64)
            a_n = features(wide)
            height = float(u(a_n, wide))
        samples.append((height, bell(*derive(np.asarray(a_n), np.asarray(wide)))))
    return samples


def averaged(samples: list[tuple[float, Triple]], temper: float = 1.0) -> tuple[Triple, float]:
    """Average derivatives with weights ``e^{t u_n}``, and give the effective samples."""
    heights = np.array([height for height, _ in samples])
    w = np.exp(temper * (heights - heights.max()))
    brackets = [b for _, b in samples]
    means = [sum(w[n] * b[p] for n, b in enumerate(brackets)) / w.sum() for p in range(3)]
    return tuple(means), w.sum() ** 2 / (w**2).sum()


def smooth_grad_cam_pp(
    noisy: Sequence[np.ndarray],
    x: np.ndarray,
    features: Callable,
    scores: Callable,
    index: int,
    *,
    kind: str = "exp_logit",
    temper: float = 1.0,
    numerator: str = "d2",
    poles: str = "raw",
) -> Explained:
    """Average ``D1, D2, D3`` of ``Y`` over noisy inputs, each on its own; ``A`` is the clean one.

    ``D_p = e^{u_n} B_p(x_n)``; the mean is divided by that of ``e^{u_n}``, which cancels in the
    map up to a factor. ``temper`` is the ``t`` of ``e^{t u_n}`` in its place; 0 leaves it out.
    """
    means, effective = averaged(sampled(noisy, features, scores, index, kind), temper)
    with jax.enable_x64(True):
        clean = np.asarray(features(jnp.asarray(x, jnp.float64)))
    explained = grad_cam_pp(*means, clean, numerator=numerator, poles=poles)
    return explained._replace(means=means, effective_samples=effective)


def gradient(u: Callable, a: np.ndarray) -> np.ndarray:
    """``du / da_i``, in float64."""
    with jax.enable_x64(True):
        return np.asarray(jax.grad(u)(jnp.asarray(a, jnp.float64)))


def hires_cam(u: Callable, a: np.ndarray) -> np.ndarray:
    """``sum_k u1 A``, before the ReLU."""
    return (gradient(u, a) * a).sum(axis=-1)


def layer_cam(d1: np.ndarray, a: np.ndarray) -> np.ndarray:
    """``sum_k ReLU(D1) A``, before the ReLU."""
    return (np.maximum(d1, 0) * a).sum(axis=-1)


def grad_cam_plus(d1: np.ndarray, a: np.ndarray) -> np.ndarray:
    """``sum_k mean_ij(ReLU(D1)) A``, before the ReLU."""
    weights = np.array([np.maximum(d1[..., k], 0).mean() for k in range(a.shape[-1])])
    return (weights * a).sum(axis=-1)


def xgrad_cam(u: Callable, a: np.ndarray) -> np.ndarray:
    """``sum_k (sum_ij u1 A / sum_ij A) A``, before the ReLU."""
    g, out = gradient(u, a), np.zeros(a.shape[:-1])
    for k in range(a.shape[-1]):
        out += (g[..., k] * a[..., k]).sum() / a[..., k].sum() * a[..., k]
    return out


def grad_cam_elementwise(d1: np.ndarray, a: np.ndarray) -> np.ndarray:
    """``sum_k ReLU(D1 A)``, one element at a time."""
    out = np.zeros(a.shape[:-1])
    for here in np.ndindex(a.shape):
        out[here[:-1]] += max(0, d1[here] * a[here])
    return out


def sensitivity_map(u: Callable, a: np.ndarray) -> np.ndarray:
    """``max_k |u1|``, one position at a time."""
    g, out = gradient(u, a), np.zeros(a.shape[:-1])
    for ij in np.ndindex(out.shape):
        out[ij] = max(abs(g[(*ij, k)]) for k in range(a.shape[-1]))
    return out


def recipro_cam(scores: Callable, index: int, a: np.ndarray) -> np.ndarray:
    """The class's probability with one position's activations alone, position by position."""
    out = np.zeros(a.shape[:-1])
    with jax.enable_x64(True):
        for ij in np.ndindex(out.shape):
            alone = np.zeros(a.shape)
            alone[ij] = a[ij]
            exponentials = np.exp(np.asarray(scores(jnp.asarray(alone))))
            out[ij] = exponentials[index] / exponentials.sum()
    return out


def integrated(
    u: Callable, a: np.ndarray, start: np.ndarray, nodes: Sequence[tuple[float, float]]
) -> np.ndarray:
    """``sum_k (A - B) sum_n w_n u1(B + t_n (A - B))``, one node ``(t, w)`` after the other."""
    way = a - start
    return sum(w * (gradient(u, start + t * way) * way).sum(axis=-1) for t, w in nodes)


def class_gradient(u: Callable, a: np.ndarray) -> np.ndarray:
    """``sum_k ReLU(u1)``."""
    return np.maximum(gradient(u, a), 0).sum(axis=-1)


def moments(gradients: Sequence[np.ndarray], form: str) -> np.ndarray:
    """The largest over colours of ``|mean g|``, ``mean g^2`` or the variance of ``g``."""
    g = np.stack(gradients)
    found = {"mean": abs(g.mean(0)), "square": (g**2).mean(0), "variance": g.var(0)}[form]
    return found.max(axis=-1)


def rectified_gradient(
    weights: Sequence[np.ndarray], x: np.ndarray, last: np.ndarray, rule: str
) -> np.ndarray:
    """Pass ``last`` back through ``ReLU(... ReLU(x W_1) ... W_L)``, at each position alone.

    A ReLU that is given ``z`` passes back ``p`` where ``z > 0``, ``p > 0`` or both, by the rule.
    """
    below, value = [], x
    for w in weights:
        below.append(value @ w)
        value = np.maximum(below[-1], 0)
    p = np.broadcast_to(last, value.shape)
    for z, w in zip(below[::-1], weights[::-1], strict=True):
        opens = {"gradient": z > 0, "deconvolution": p > 0, "guided": (z > 0) & (p > 0)}[rule]
        p = (p * opens) @ w.T
    return p
