"""SmoothGrad (Smilkov et al., arXiv 1706.03825): samples that all count alike."""

from typing import Any

from jaxcam.arrays.inputs import Key
from jaxcam.contracts import Gradient, Method
from jaxcam.methods.sensitivity_map import sensitivity_map
from jaxcam.methods.smooth import smooth


def smooth_grad(
    method: Method | None = None,
    *,
    num_samples: int = 50,
    noise_level: Any = 0.15,
    scheme: str = "independent",
    tolerance: Any = None,
    max_samples: int = 1024,
    noisy: Key = None,
) -> Gradient:
    """Average gradients over noisy inputs, all alike: ``max_k |mean_n u1(x + sigma eps_n)|``.

    The order is the paper's: signed gradients are averaged, and then the size is taken.
    `jaxcam.smooth` of a sensitivity map with ``sample_weights="uniform"``; ``sigma = noise_level
    (max x - min x)`` per image. Meant for ``jaxcam.split(model, "input")``. The mean gradient
    itself, signed, ``[batch, *spatial, k]``, is ``weights``. n forward and backward passes, and a
    clean one.

    It is the gradient of the score averaged over the noise (Gaussian-smoothed), without bias. Right
    where gradients of ReLU networks shatter; wrong where the noise leaves what the network knows:
    ``diagnostics.top_class_kept`` says how often. The paper takes 50 samples and 10 to 20 % of the
    range. PAIR's code has 25, and squares by default, which is `smooth_grad_squared`; xplique's
    sigma is 0.2 of no range.

    Args:
        method: what is averaged; by default `sensitivity_map`. `smooth_grad_squared` and `var_grad`
            are others.
        num_samples: n, at least 1. Not used with a tolerance.
        noise_level: the deviation of the noise as a share of the image's range.
        scheme: of the noise, as for `jaxcam.smooth`.
        tolerance: sample until the standard error is this share of the map's largest value.
        max_samples: where to stop in any case; used with a tolerance alone.
        noisy: of a network with several inputs, which one gets the noise.

    Raises:
        JaxcamError: as `jaxcam.smooth`.

    >>> import jaxcam
    >>> method = jaxcam.methods.smooth_grad(num_samples=25, noise_level=0.1)
    """
    return smooth(
        sensitivity_map() if method is None else method,
        num_samples=num_samples, noise_level=noise_level, sample_weights="uniform", scheme=scheme,
        tolerance=tolerance, max_samples=max_samples, noisy=noisy,
    )  # fmt: skip
