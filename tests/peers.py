"""What other libraries compute, in numpy and float64, line by line, each fault with a switch.

Read in the sources of pytorch-grad-cam 1.5.7, torch-cam 0.5.0, tf-keras-vis 0.8.7, xplique 2.0.2.
One example at a time, channels last: the gradient ``g`` of a logit and the activations ``a``, both
``[*spatial, k]``. ``faults`` names those that are switched on, all of them by default: then it is
the library's result. With none it is Grad-CAM++ with ``D_k = g^k``, alpha not guarded.
"""

from collections.abc import Collection, Sequence

import numpy as np
from oracles import Explained, weighted_map

Faults = Collection[str]
PYTORCH_GRAD_CAM = ("eps 1e-6",)
TORCH_CAM = ("not divided", "sum A D3", "eps 1e-8")  # with the first the others have no effect
TORCH_CAM_SMOOTH = ("last gradient", "last activations", "sum A D3", "eps 1e-8", "e^u dropped")
TF_KERAS_VIS = ("share",)
XPLIQUE = ("mean A",)


def pytorch_grad_cam(g: np.ndarray, a: np.ndarray) -> Explained:
    """``GradCAM``: no fault."""
    weights = g.mean(positions(a))
    return Explained(weighted_map(weights, a), weights)


def pytorch_grad_cam_pp(g, a, faults: Faults = PYTORCH_GRAD_CAM) -> Explained:
    """``GradCAMPlusPlus``. eps 1e-6: added to the denominator, whatever the unit of the score."""
    eps = 1e-6 if "eps 1e-6" in faults else 0
    total = a.sum(positions(a), keepdims=True)
    alphas = quotient(g**2, 2 * g**2 + total * g**3 + eps)
    weights = (np.maximum(g, 0) * alphas).sum(positions(a))
    return Explained(weighted_map(weights, a), weights)


def pytorch_grad_cam_scaled(maps: np.ndarray) -> np.ndarray:
    """Stretch each of ``[batch, *spatial]`` as it does before enlarging, and again after it."""
    lowest = maps.min((1, 2), keepdims=True)
    return (maps - lowest) / (1e-7 + (maps - lowest).max((1, 2), keepdims=True))


def torch_cam(g: np.ndarray, a: np.ndarray) -> Explained:
    """``GradCAM``: no fault."""
    return pytorch_grad_cam(g, a)


def torch_cam_pp(g, a, faults: Faults = TORCH_CAM) -> Explained:
    """``GradCAMpp``.

    not divided: ``alpha[mask].div_(...)`` divides the copy that indexing by a mask makes, so that
    alpha stays ``g^2``. sum A D3, eps 1e-8: of the denominator that is then not used.
    """
    alphas = g**2
    if "not divided" not in faults:
        alphas = quotient(g**2, torch_cam_denominator(g**2, g**3, a, faults))
    weights = (alphas * np.maximum(g, 0)).sum(positions(a))
    return Explained(weighted_map(weights, a), weights)


def torch_cam_smooth_pp(
    gradients: Sequence[np.ndarray],
    activations: Sequence[np.ndarray],
    clean: np.ndarray,
    scores: Sequence[float],
    faults: Faults = TORCH_CAM_SMOOTH,
) -> Explained:
    """``SmoothGradCAMpp`` of noisy inputs that were drawn elsewhere: it draws them itself.

    Of the n-th the gradient, the activations and the score; ``clean``: the activations without
    noise. last gradient: ``ReLU(D1)`` is that of the last noisy input, not of the mean. last
    activations: so are the activations of the map, which should be the clean ones. sum A D3, eps
    1e-8: in the denominator. e^u dropped: all inputs count alike, where the mean of the derivatives
    of ``e^u`` weighs the n-th by ``e^{u_n}``.
    """
    heights = np.asarray(scores, np.float64)
    dropped = "e^u dropped" in faults
    w = np.ones(len(heights)) if dropped else np.exp(heights - heights.max())
    d1, d2, d3 = (
        sum(w_n * g**p for w_n, g in zip(w, gradients, strict=True)) / w.sum() for p in (1, 2, 3)
    )
    alphas = quotient(d2, torch_cam_denominator(d2, d3, clean, faults))
    first = gradients[-1] if "last gradient" in faults else d1
    weights = (alphas * np.maximum(first, 0)).sum(positions(clean))
    shown = activations[-1] if "last activations" in faults else clean
    return Explained(weighted_map(weights, shown), weights, (d1, d2, d3))


def torch_cam_denominator(d2, d3, a, faults: Faults) -> np.ndarray:
    """Sum ``A D3`` over positions in the place of ``(sum A) D3``; add eps whatever the sign."""
    if "sum A D3" in faults:
        term = (a * d3).sum(positions(a), keepdims=True)
    else:
        term = a.sum(positions(a), keepdims=True) * d3
    return 2 * d2 + term + (1e-8 if "eps 1e-8" in faults else 0)


def torch_cam_scaled(maps: np.ndarray) -> np.ndarray:
    """Stretch each of ``[batch, *spatial]`` as it does: its 1e-8 is of the unit of the map."""
    lowest = maps.min((1, 2), keepdims=True)
    return (maps - lowest) / ((maps - lowest).max((1, 2), keepdims=True) + 1e-8)


def tf_keras_vis_pp(g, a, faults: Faults = TF_KERAS_VIS) -> Explained:
    """``GradcamPlusPlus`` without its factor ``e^S``. share: alpha over its sum over positions."""
    alphas = quotient(g**2, 2 * g**2 + g**3 * a.sum(positions(a), keepdims=True))
    if "share" in faults:
        total = alphas.sum(positions(a), keepdims=True)
        alphas = alphas / (total + (total == 0))
    weights = (np.maximum(g, 0) * alphas).sum(positions(a))
    return Explained(weighted_map(weights, a), weights)


def xplique_pp(g, a, faults: Faults = XPLIQUE) -> Explained:
    """``GradCAMPP`` times the number of positions. mean A: in the place of the sum of A."""
    kind = np.mean if "mean A" in faults else np.sum
    alphas = quotient(g**2, 2 * g**2 + g**3 * kind(a, positions(a), keepdims=True))
    weights = (alphas * np.maximum(g, 0)).sum(positions(a))
    return Explained(weighted_map(weights, a), weights)


def positions(a: np.ndarray) -> tuple[int, ...]:
    """Give the axes of the positions."""
    return tuple(range(a.ndim - 1))


def quotient(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the numerator is: each of them sees to that in its way."""
    return np.divide(top, bottom, out=np.zeros(top.shape), where=top != 0)
