"""The slow, obvious definitions in float64 that the library is held against, and shares nothing of.

One example at a time: ``a: [*spatial, k]``, ``features: x -> a``, ``scores: (a, x) -> [classes]``.
Derivatives come from nested `jax.grad` along one element; everything after them is numpy and loops.
What other libraries compute, with their faults, is in peers.py.
"""

import itertools
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


def ablation_cam(u: Callable, a: np.ndarray) -> np.ndarray:
    """``sum_k (S - S_k) / |S| A^k``, one feature map set to zero after the other."""
    out = np.zeros(a.shape[:-1])
    with jax.enable_x64(True):
        whole = float(u(jnp.asarray(a)))
        for k in range(a.shape[-1]):
            without = a.copy()
            without[..., k] = 0
            out += (whole - float(u(jnp.asarray(without)))) / abs(whole) * a[..., k]
    return out


def occlusion(
    u: Callable, a: np.ndarray, size: Sequence[int], stride: Sequence[int], fill: np.ndarray
) -> np.ndarray:
    """The mean loss over the windows that hold a place, window by window; of two axes."""
    total, count = np.zeros(a.shape[:-1]), np.zeros(a.shape[:-1])
    tops, lefts = (
        sorted({min(start, length - s) for start in range(0, length, step)})
        for length, s, step in zip(total.shape, size, stride, strict=True)
    )
    with jax.enable_x64(True):
        whole = float(u(jnp.asarray(a)))
        for i in tops:
            for j in lefts:
                inside = np.s_[i : i + size[0], j : j + size[1]]
                filled = a.copy()
                filled[inside] = fill
                total[inside] += whole - float(u(jnp.asarray(filled)))
                count[inside] += 1
    return total / count


def enlarged(map: np.ndarray, size: Sequence[int], *, corners: bool = False) -> np.ndarray:
    """Resize linearly: middles of squares stay where they are, or first and last points do."""
    for axis, length in enumerate(size):
        own, i = map.shape[axis], np.arange(length)
        where = i * (own - 1) / (length - 1) if corners else (i + 0.5) * own / length - 0.5
        map = np.apply_along_axis(lambda v, w=where: np.interp(w, range(len(v)), v), axis, map)
    return map


def stretched(map: np.ndarray) -> np.ndarray:
    """To the range 0 to 1; a constant map becomes 0."""
    span = map.max() - map.min()
    return (map - map.min()) / span if span > 0 else np.zeros_like(map)


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


def score_cam(
    scores: Callable, index: int, x: np.ndarray, a: np.ndarray, convention: str = "paper"
) -> np.ndarray:
    """``sum_k w_k A^k``: of the input behind one feature map after the other."""
    probabilities = convention in ("authors", "tf-keras-vis")
    found = np.zeros(a.shape[-1])
    for k in range(a.shape[-1]):
        if convention == "torch-cam":
            mask = enlarged(stretched(a[..., k]), x.shape[:-1])
        else:
            corners = convention == "pytorch-grad-cam"
            mask = stretched(enlarged(a[..., k], x.shape[:-1], corners=corners))
        logits = np.asarray(scores(x * mask[..., None]))
        found[k] = softmax(logits)[index] if probabilities else logits[index]
        if convention == "authors" and a[..., k].max() == a[..., k].min():
            found[k] = 0
    return ((found if probabilities else softmax(found)) * a).sum(axis=-1)


def ss_cam(score: Callable, x: np.ndarray, a: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Score-CAM of masks plus ``noise: [samples, *spatial of x, k]``, scores averaged."""
    found = np.zeros(a.shape[-1])
    for k in range(a.shape[-1]):
        mask = stretched(enlarged(a[..., k], x.shape[:-1]))
        noisy = [x * (mask + one[..., k])[..., None] for one in noise]
        found[k] = np.mean([float(score(one)) for one in noisy])
    return (softmax(found) * a).sum(axis=-1)


def is_cam(score: Callable, x: np.ndarray, a: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Score-CAM of masks times each of ``shares``, scores averaged."""
    found = np.zeros(a.shape[-1])
    for k in range(a.shape[-1]):
        behind = x * stretched(enlarged(a[..., k], x.shape[:-1]))[..., None]
        found[k] = np.mean([float(score(share * behind)) for share in shares])
    return (softmax(found) * a).sum(axis=-1)


def abs_cam(
    scores: Callable, index: int, x: np.ndarray, d1: np.ndarray, a: np.ndarray
) -> np.ndarray:
    """``sum_k y_k s(w_k A^k)``, ``w_k = mean |D1|``, ``y_k`` the probability behind that map."""
    out = np.zeros(a.shape[:-1])
    for k in range(a.shape[-1]):
        weighted = abs(d1[..., k]).mean() * a[..., k]
        mask = stretched(enlarged(weighted, x.shape[:-1]))
        out += softmax(scores(x * mask[..., None]))[index] * stretched(weighted)
    return out


def fd_cam(u: Callable, d1: np.ndarray, a: np.ndarray, theta: float) -> np.ndarray:
    """``sum_k (exp(s(z)_k) s(mean D1)_k - 1/2) A^k``; ``z_k``: the group alone, and its loss."""
    count = a.shape[-1]
    columns = [a[..., k].ravel() for k in range(count)]
    z = np.zeros(count)
    with jax.enable_x64(True):
        whole = float(u(jnp.asarray(a)))
        for k in range(count):
            cosines = np.array([
                columns[k] @ other / np.linalg.norm(columns[k]) / np.linalg.norm(other)
                for other in columns
            ])  # fmt: skip
            group = cosines > np.quantile(cosines, theta)
            alone, without = (float(u(jnp.asarray(a * kept))) for kept in (group, ~group))
            z[k] = alone + whole - without
    means = np.array([d1[..., k].mean() for k in range(count)])
    return ((np.exp(stretched(z)) * stretched(means) - 0.5) * a).sum(axis=-1)


def rise(
    scores: Callable, index: int, x: np.ndarray, drawn: Sequence[tuple], probability: float
) -> np.ndarray:
    """``1 / (N p) sum_n p_c(x M_n) M_n``; drawn: grids of open cells, and where they are cut."""
    total = np.zeros(x.shape[:-1])
    for grid, corner in drawn:
        cells = len(grid)
        sizes = [math.ceil(length / cells) for length in total.shape]
        whole = enlarged(np.asarray(grid, float), [(cells + 1) * size for size in sizes])
        (i, j), (height, width) = corner, total.shape
        mask = whole[i : i + height, j : j + width]
        total += softmax(scores(x * mask[..., None]))[index] * mask
    return total / len(drawn) / probability


def integrated(
    u: Callable, a: np.ndarray, start: np.ndarray, nodes: Sequence[tuple[float, float]]
) -> np.ndarray:
    """``sum_k (A - B) sum_n w_n u1(B + t_n (A - B))``, one node ``(t, w)`` after the other."""
    way = a - start
    return sum(w * (gradient(u, start + t * way) * way).sum(axis=-1) for t, w in nodes)


def integrated_grad_cam(
    features: Callable, u: Callable, x: np.ndarray, nodes: Sequence[tuple[float, float]]
) -> np.ndarray:
    """``sum_k (sum_n q_n mean_ij u1(A(t_n x))) (A^k(x) - A^k(0))``, from black."""
    a, black = (np.asarray(features(jnp.asarray(one))) for one in (x, 0 * x))
    weights = np.zeros(a.shape[-1])
    for t, q in nodes:
        there = jnp.asarray(t * x)
        slope = gradient(lambda a, x=there: u(a, x), np.asarray(features(there)))
        weights += q * slope.reshape(-1, a.shape[-1]).mean(axis=0)
    return ((a - black) * weights).sum(axis=-1)


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


def centred(values: np.ndarray) -> np.ndarray:
    """Give each feature map less its mean, one row for each position."""
    rows = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
    return rows - rows.mean(axis=0)


def principal(values: np.ndarray) -> np.ndarray:
    """Project positions on their first right singular vector, along with the mean of the maps."""
    rows = centred(values)
    image = rows @ np.linalg.svd(rows)[2][0]
    return (image * np.sign(image @ rows.mean(axis=1))).reshape(values.shape[:-1])


def kernel_principal(
    a: np.ndarray, kernel: Callable[[np.ndarray, np.ndarray], float]
) -> np.ndarray:
    """The first kernel component, entry by entry of the kernel."""
    rows = centred(a)
    n = len(rows)
    table = np.array([[kernel(p, q) for q in rows] for p in rows])
    off = np.eye(n) - np.ones((n, n)) / n
    sizes, vectors = np.linalg.eigh(off @ table @ off)
    image = np.sqrt(sizes[-1]) * vectors[:, -1]
    return (image * np.sign(image @ rows.mean(axis=1))).reshape(a.shape[:-1])


def fem(a: np.ndarray, deviations: float) -> np.ndarray:
    """``sum_k w_k A^k``, the weight counted position by position."""
    out = np.zeros(a.shape[:-1])
    for k in range(a.shape[-1]):
        values = a[..., k].ravel()
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        count = sum(value > mean + deviations * spread for value in values)
        out += count / len(values) * a[..., k]
    return out


def coalition_worth(u: Callable, a: np.ndarray, start: np.ndarray) -> Callable:
    """Give ``v(S)``: the score with ``a`` at the positions of S and ``start`` elsewhere."""
    with jax.enable_x64(True):
        score = jax.jit(u)

    def worth(inside: set) -> float:
        mixed = np.array(start, np.float64)
        for ij in inside:
            mixed[ij] = a[ij]
        with jax.enable_x64(True):
            return float(score(jnp.asarray(mixed)))

    return worth


def walked(worth: Callable, orders: Sequence[Sequence], shape: tuple[int, ...]) -> np.ndarray:
    """Credit who comes with the gain, the mean over orders of positions."""
    out = np.zeros(shape)
    for order in orders:
        inside, before = set(), worth(set())
        for ij in order:
            inside.add(ij)
            after = worth(inside)
            out[ij] += (after - before) / len(orders)
            before = after
    return out


def shapley(worth: Callable, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over all coalitions without a player: ``|S|! (n - |S| - 1)! / n!`` times its gain."""
    everyone = list(np.ndindex(shape))
    n, out = len(everyone), np.zeros(shape)
    for ij in everyone:
        others = [p for p in everyone if p != ij]
        for size in range(n):
            share = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for some in itertools.combinations(others, size):
                out[ij] += share * (worth({*some, ij}) - worth(set(some)))
    return out


def along(u: Callable, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the gradient and ``H a``, from the whole Hessian."""
    with jax.enable_x64(True):
        flat = jnp.asarray(a, jnp.float64).ravel()
        hessian = jax.hessian(lambda flat: u(flat.reshape(a.shape)))(flat)
        return gradient(u, a), np.asarray(hessian @ flat).reshape(a.shape)


def shapley_cam(u: Callable, a: np.ndarray) -> np.ndarray:
    """``sum_k mean_ij(u1 - H a / 2) A^k``, before the ReLU."""
    u1, moved = along(u, a)
    weights = [(u1 - moved / 2)[..., k].mean() for k in range(a.shape[-1])]
    return sum(w * a[..., k] for k, w in enumerate(weights))
