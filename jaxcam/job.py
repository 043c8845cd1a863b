"""What is asked in one call, and what the clean pass found: what parts of a program hand on."""

from typing import NamedTuple

from jax import Array

from jaxcam import noise
from jaxcam.inputs import Inputs
from jaxcam.targets import Aim, Target
from jaxcam.types import Derivatives, Method, Report, Shared, Smoothing, Spread


class Job(NamedTuple):
    """The arrays of one call; everything here may change without compiling anew."""

    shared: Shared
    x: Inputs
    target: Target
    keys: Array | None
    noise_level: Array
    temper: Array | float = 0.0
    tolerance: Array | float = 0.0
    channels: Array | None = None
    neurons: Array | None = None


class Settings(NamedTuple):
    """What the program is compiled for."""

    method: Method
    engine: str
    chunk_size: int | None
    spread: Spread | None = None

    @property
    def smoothing(self) -> Smoothing:
        """How noise is averaged over; only asked of methods that are."""
        if self.method.smoothing is None:
            raise TypeError(f"{self.method.name} is not smoothed")
        return self.method.smoothing

    @property
    def unit(self) -> int:
        """How many samples of the scheme depend on each other."""
        return noise.SCHEMES[self.smoothing.scheme].unit


class Clean(NamedTuple):
    """The clean pass. ``scale: [batch]`` is the unit of the derivatives (see `bell.unit`)."""

    a: Array
    scores: Array
    aim: Aim
    scale: Array
    derivatives: Derivatives
    report: Report
