"""What to average over: the noise, the number of samples, and their weights."""

import math
from typing import Any

from jaxcam.arrays.inputs import Key
from jaxcam.contracts import Gradient, Method, Smoothing
from jaxcam.errors import fail
from jaxcam.methods.averaged import averaged
from jaxcam.methods.options import check_count, checked_number
from jaxcam.pipeline import noise

SAMPLE_WEIGHTS = {"exact": 1.0, "uniform": 0.0}


def smooth(
    method: Method,
    *,
    num_samples: int = 25,
    noise_level: Any = 0.15,
    sample_weights: Any = "exact",
    scheme: str = "independent",
    tolerance: Any = None,
    max_samples: int = 1024,
    noisy: Key = None,
) -> Gradient:
    """Average a gradient method over noisy inputs ``x_n = x + sigma eps_n``, ``eps_n ~ N(0, I)``.

    ``sigma = noise_level (max x - min x)`` per image. ``D1``, ``D2``, ``D3`` are averaged over the
    samples, each on its own; the activations in alpha and in the map are the clean ones::

        mean D_k = sum_n w_n B_k,n / sum_n w_n        w_n = Y_n^t = e^{t u_n}

    Every scheme is unbiased: each ``eps_n`` alone is ``N(0, I)`` (`jaxcam.pipeline.noise`). The
    standard errors in the diagnostics are those of the scheme, from independent groups of samples
    that depend on each other (`jaxcam.pipeline.average`).

    Args:
        method: one of `jaxcam.methods`.
        num_samples: n, at least 1. Not used with a tolerance.
        noise_level: the deviation of the noise as a share of the image's range, at least 0.
        sample_weights: ``exact``, t = 1, weighs sample ``n`` by ``Y_n``, which is what the mean of
            ``D_k`` is; ``uniform``, t = 0, sets every ``Y_n`` to one, as public implementations do.
            A number from 0 to 1 is ``t`` itself: where scores differ much from sample to sample, a
            few of them carry the exact mean (``diagnostics.effective_samples``), and stated errors
            are then too small: of samples that were not met nothing is known. A smaller ``t`` gives
            a steadier map of a question between the two.
        scheme: ``independent``; ``antithetic``, pairs ``eps`` and ``-eps``; ``orthogonal``, such
            pairs along directions at right angles, four at a time. An error needs two units of
            1, 2 or 8 samples, and is good from sixteen on.
        tolerance: take as many samples as it takes until the largest standard error of a map is at
            most this share of its largest value (``diagnostics.relative_error``), image by image.
            It stays large while an element is not known to be on one side of a jump of alpha
            (``D2`` near zero, `jaxcam.pipeline.average`), and such maps take many samples.
            Looked at after 32 samples (``orthogonal``: 128), and then at every quarter more, so
            that an image's result depends neither on its neighbours nor on ``chunk_size``. Then
            the number of turns is not known in advance, and JAX cannot differentiate in reverse
            mode: `jax.grad` needs ``tolerance=None``.
        max_samples: where to stop in any case; used with a tolerance alone.
        noisy: of a network with several inputs, which one gets the noise: its place in the tuple,
            or its name in the dict. The others stay as they are. Not needed where only one of them
            is floating.

    Raises:
        JaxcamError: one of them is not what it should be.

    >>> import jaxcam
    >>> method = jaxcam.smooth(jaxcam.methods.grad_cam(), num_samples=50)
    >>> method = jaxcam.smooth(jaxcam.methods.grad_cam(), scheme="antithetic", tolerance=0.05)
    """
    if scheme not in noise.SCHEMES:
        fail(
            "smooth",
            needs=f"a scheme of {', '.join(noise.SCHEMES)}",
            got=repr(scheme),
            remedy="See its docstring.",
        )
    check_count("smooth", "num_samples", num_samples, 1, "Default: 25.")
    adaptive = tolerance is not None
    if adaptive:
        least = 2 * noise.SCHEMES[scheme].unit
        check_count("smooth", "max_samples", max_samples, least, "An error needs two units.")
        tolerance = checked_number("smooth", "tolerance", tolerance, 0, math.inf, "Try 0.05.")
    noise_level = checked_number(
        "smooth", "noise_level", noise_level, 0, math.inf, "Default: 0.15."
    )
    points = Smoothing(
        int(max_samples if adaptive else num_samples), noise_level, _temper(sample_weights),
        scheme, tolerance, adaptive, noisy,
    )  # fmt: skip
    return averaged("smooth", method, points)


def _temper(sample_weights: Any) -> Any:
    """Give ``t`` of ``w_n = e^{t u_n}``."""
    if isinstance(sample_weights, str) and sample_weights in SAMPLE_WEIGHTS:
        return SAMPLE_WEIGHTS[sample_weights]
    names = " or ".join(SAMPLE_WEIGHTS)
    if isinstance(sample_weights, str):
        fail(
            "smooth",
            needs=f"sample_weights {names}, or a number from 0 to 1",
            got=repr(sample_weights),
            remedy="See its docstring.",
        )
    return checked_number("smooth", "sample_weights", sample_weights, 0, 1, f"Or by name: {names}.")
