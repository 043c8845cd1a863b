"""Integrated Grad-CAM (arXiv 2102.07805)."""

from typing import Any

from jaxcam.contracts import Gradient
from jaxcam.methods.grad_cam import grad_cam
from jaxcam.methods.integrate import integrate


def integrated_grad_cam(
    *,
    baseline: Any = None,
    num_nodes: int = 16,
    rule: str = "auto",
    tolerance: Any = None,
    max_nodes: int = 128,
) -> Gradient:
    """Average Grad-CAM's weights over a path of inputs ``x_t = B + t (x - B)`` from a baseline B.

    With ``A(x)`` the layer's activations, nodes ``t_n`` and their weights ``q_n``::

        w_k = sum_n q_n mean_ij u1_ij^k(A(x_{t_n}))    map = ReLU(sum_k w_k (A^k(x) - A^k(B)))

    The formula is from memory, and not checked against the paper. There the ReLU is taken at each
    node, before the mean, as far as we remember; here weights are averaged first, as everywhere in
    this library, and what one node speaks against another's evidence counts. It is
    ``integrate(grad_cam(), at="input")``, and not complete.

    Args:
        baseline, num_nodes, rule, tolerance, max_nodes: as in `jaxcam.integrate`; the baseline is
            an input.

    Raises:
        JaxcamError: as `jaxcam.integrate`.

    >>> import jax.numpy as jnp
    >>> import jaxcam
    >>> squares = jaxcam.Split(lambda x: x**2, lambda a, x: (a**2).sum(axis=1))
    >>> method = jaxcam.methods.integrated_grad_cam(num_nodes=2)
    >>> print(jaxcam.cam(squares, jnp.array([[[3.0], [6.0]]]), method).map.round())
    [[135. 540.]]
    """
    method = integrate(
        grad_cam(), baseline=baseline, num_nodes=num_nodes, rule=rule, at="input",
        tolerance=tolerance, max_nodes=max_nodes,
    )  # fmt: skip
    return method._replace(name="integrated_grad_cam")
