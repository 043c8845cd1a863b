"""What a wrapper does to a method, whatever it averages over."""

from jaxcam.contracts import Gradient, Method, Points
from jaxcam.errors import fail


def averaged(call: str, method: Method, points: Points) -> Gradient:
    """Give the method with its derivatives averaged over points, or refuse."""
    if not isinstance(method, Gradient):
        got = getattr(method, "name", None) or type(method).__name__
        remedy = "For example jaxcam.methods.grad_cam()."
        fail(call, needs="a method that weighs derivatives", got=got, remedy=remedy)
    if method.order == 0:
        got = f"{method.name}, which takes none"
        remedy = "There is nothing to average. For example jaxcam.methods.grad_cam()."
        fail(call, needs="a method that weighs derivatives", got=got, remedy=remedy)
    if method.points is not None:
        fail(
            call,
            needs="a method that is not averaged over points yet",
            got=f"{method.name}, averaged over {type(method.points).__name__.lower()}",
            remedy="Wrap the method of jaxcam.methods itself.",
        )
    return method._replace(points=points)
