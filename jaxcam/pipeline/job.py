"""What is asked in one call, and what the clean pass found: what parts of a program hand on."""

from typing import Any, NamedTuple

import jax
from jax import Array

from jaxcam.arrays.inputs import Inputs
from jaxcam.contracts import Gradient, Method, Points
from jaxcam.pipeline.blank import Seen
from jaxcam.pipeline.network import Network
from jaxcam.targets import Aim, Target
from jaxcam.types import Derivatives, Report, Shared, Spread


class Numbers(NamedTuple):
    """What the points of a method are made from (points.py); with queries, their keys.

    ``baseline``: where a path starts, inputs of the batch; ``start``: or activations.
    """

    keys: Array | None = None
    noise_level: Any = 0.0
    temper: Any = 0.0
    tolerance: Any = 0.0
    baseline: Any = None
    start: Array | None = None


class Job(NamedTuple):
    """The arrays of one call; everything here may change without compiling anew.

    ``change``: that of the method, a `jax.tree_util.Partial` without arrays.
    """

    shared: Shared
    x: Inputs
    target: Target
    numbers: Numbers = Numbers()
    channels: Array | None = None
    neurons: Array | None = None
    change: Any = None

    @property
    def network(self) -> Network:
        """The network that is differentiated, and its target, as one example sees them."""
        split = self.shared.split()
        return Network(split if self.change is None else self.change(split), self.target)

    @property
    def plain(self) -> Network:
        """The network as it was given: its scores have their own derivatives."""
        return Network(self.shared.split(), self.target)


class Settings(NamedTuple):
    """What the program is compiled for. ``signed``: maps keep what is negative."""

    method: Method
    engine: str
    chunk_size: int | None
    spread: Spread | None = None
    signed: bool = False

    @property
    def gradient(self) -> Gradient:
        """The method; only asked where derivatives are taken."""
        if not isinstance(self.method, Gradient):
            raise TypeError(f"{self.method.name} takes no derivatives")
        return self.method

    def shown(self, signed: Array) -> Array:
        """Give what is shown of a signed map: what is positive, or all of it."""
        return signed if self.signed else jax.nn.relu(signed)

    @property
    def visible(self) -> Seen:
        """What has to be there, anywhere, for a map not to be blank."""
        return Seen.POSITIVE | Seen.NEGATIVE if self.signed else Seen.POSITIVE

    @property
    def points(self) -> Points:
        """Over which points it is averaged; only asked of methods that are."""
        if self.gradient.points is None:
            raise TypeError(f"{self.method.name} is not averaged over points")
        return self.gradient.points


class Clean(NamedTuple):
    """The clean pass. ``u: [batch]``, and ``scale: [batch]``, the unit of the derivatives.

    See `bell.unit`. ``least: [batch]``: below it, what the layer does to the score may be rounding
    (blank.py). ``start``: of a path, its first activations, and ``total: [batch]``, what the score
    gains on the way, ``u(A) - u(B)``; of an additive method without one, ``u(A) - u(0)``.
    """

    a: Array
    scores: Array
    aim: Aim
    u: Array
    scale: Array
    derivatives: Derivatives
    report: Report
    least: Array
    start: Array | None = None
    total: Array | None = None


class Begun(NamedTuple):
    """A call after its clean pass: what is asked, how, and what is known by then."""

    job: Job
    settings: Settings
    clean: Clean

    @property
    def network(self) -> Network:
        """The network and its target, as one example sees them."""
        return self.job.network

    @property
    def method(self) -> Gradient:
        """The method, which takes derivatives."""
        return self.settings.gradient

    @property
    def points(self) -> Points:
        """The points over which they are averaged."""
        return self.settings.points

    @property
    def report(self) -> Report:
        """What was decided about the network."""
        return self.clean.report
