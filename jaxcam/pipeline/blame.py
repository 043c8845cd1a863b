"""Why a map is not finite, in words: looked for only after one is not."""

import jax

from jaxcam.arrays.precision import widen
from jaxcam.derivatives.graph.culprit import culprits
from jaxcam.pipeline import aim as aims
from jaxcam.pipeline.job import Job
from jaxcam.pipeline.plan import traced_score


def blamed(job: Job, order: int, image: int) -> str | None:
    """Name the operations behind the layer that are not finite on one clean image, if any are."""
    network = job.network
    a = network.split.features(job.x)
    aim = aims.resolve(job.target, network.split.scores(a, job.x))
    a, x, aim = jax.tree.map(lambda v: v[image : image + 1], (a, job.x, aim))
    traced = traced_score(network, a, x, aim)
    return culprits(traced, order, widen(a[0]), *jax.tree.leaves(jax.tree.map(lambda v: v[0], x)))
