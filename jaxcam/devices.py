"""Work spread over several devices: images, noisy samples, or elements of the layer.

Everything runs under `jax.shard_map`, where each device sees its own part: no operation is
partitioned by the compiler, so whatever a network does works on one device as on many. What a
sample's noise is depends on the key and its number alone, wherever it is drawn.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcam.errors import fail
from jaxcam.types import Spread

ROLES = ("batch", "samples", "elements")


def spread(
    mesh: Mesh | None = None,
    *,
    batch: str | int | None = None,
    samples: str | int | None = None,
    elements: str | int | None = None,
) -> Spread:
    """Say over which devices the work is spread: the ``spread=`` of `jaxcam.cam`.

    Args:
        mesh: your own mesh, from `jax.make_mesh`, with explicit axes or not; the other arguments
            then name its axes. None makes one, and they are numbers of devices.
        batch: over which the images are spread; it must divide their number.
        samples: over which the noisy samples are; any number.
        elements: over which the elements of the layer are, by engines that differentiate along each
            of them. Of no use to engines of one gradient.

    Raises:
        JaxcamError: more devices than there are, or an axis that the mesh has not.

    >>> import jaxcam
    >>> dict(jaxcam.spread(samples=1).mesh.shape)
    {'samples': 1}
    """
    asked = {role: value for role, value in zip(ROLES, (batch, samples, elements), strict=True)
             if value is not None}  # fmt: skip
    if not asked:
        fail("spread", needs="batch, samples or elements", got="none of them",
             remedy="For example jaxcam.spread(samples=jax.device_count()).")  # fmt: skip
    if mesh is None:
        return Spread(_made(asked), **{role: role for role in asked})
    for role, axis in asked.items():
        if axis not in mesh.axis_names:
            fail(f"spread({role}={axis!r})", needs="an axis of the mesh", got=repr(axis),
                 remedy=f"It has {', '.join(map(repr, mesh.axis_names))}.")  # fmt: skip
    if len(set(asked.values())) < len(asked):
        fail("spread", needs="an axis for each", got=asked, remedy="Make a mesh of more axes.")
    return Spread(mesh, **{role: str(axis) for role, axis in asked.items()})


def _made(asked: dict[str, Any]) -> Mesh:
    count = 1
    for role, number in asked.items():
        if not isinstance(number, int) or number < 1:
            fail(f"spread({role}={number!r})", needs="a number of devices", got=repr(number),
                 remedy="With a mesh, name its axis.")  # fmt: skip
        count *= number
    there = jax.device_count()
    if count > there:
        fail("spread", needs=f"{count} devices", got=f"{there} {jax.default_backend()} devices",
             remedy="Ask for as many as jax.device_count() says.")  # fmt: skip
    devices = jax.devices()[:count]
    # Not explicit axes: results would ask of every operation behind them how it is divided.
    automatic = (AxisType.Auto,) * len(asked)
    return jax.make_mesh(tuple(asked.values()), tuple(asked), automatic, devices=devices)


def check(asked: Spread | None, images: int, *, shown: bool) -> None:
    """Refuse a batch that the devices of its axis do not divide, and a display of progress."""
    if asked is None:
        return
    if not isinstance(asked, Spread):
        fail("spread", needs="the devices of a mesh, from jaxcam.spread", got=repr(asked),
             remedy="For example jaxcam.spread(samples=jax.device_count()).")  # fmt: skip
    devices = 1 if asked.batch is None else asked.mesh.shape[asked.batch]
    if images % devices:
        fail(f"spread(batch={asked.batch!r})", needs=f"a multiple of {devices} images",
             got=f"{images}", remedy="Pad the batch, or spread the samples.")  # fmt: skip
    if shown:
        fail("spread", needs="one compiled program", got="progress, which runs it in parts",
             remedy="Leave progress out.")  # fmt: skip


def placed(argument: Any, asked: Spread, per_image: Any) -> Any:
    """Bring arrays to the devices of a mesh; inside a trace they are brought by the program."""

    def place(value: Any, sliced: bool) -> Any:
        sharding = NamedSharding(asked.mesh, _spec(asked, sliced=sliced))
        return value if isinstance(value, Tracer) else jax.device_put(value, sharding)

    return jax.tree.map(place, argument, per_image)


def on_each(
    function: Callable[[Any], Any], asked: Spread, argument: Any, per_image: Any
) -> Any:  # fmt: skip
    """Run a function of a pytree on every device, each with its own images.

    per_image: the same pytree of booleans, true for leaves whose first axis is the batch's. All
    leaves of the result have it.
    """
    specs = jax.tree.map(lambda sliced: _spec(asked, sliced=sliced), per_image)
    if AxisType.Explicit in asked.mesh.axis_types:
        argument = jax.tree.map(
            lambda value, spec: jax.sharding.reshard(value, NamedSharding(asked.mesh, spec)),
            argument, specs,
        )  # fmt: skip
    return jax.shard_map(
        function, mesh=asked.mesh, in_specs=(specs,), out_specs=_spec(asked, sliced=True),
        check_vma=False,
    )(argument)  # fmt: skip


def _spec(asked: Spread, *, sliced: bool) -> PartitionSpec:
    return PartitionSpec(asked.batch) if sliced else PartitionSpec()


def count(axis: str | None) -> int:
    """Give the number of devices along an axis; one without."""
    return 1 if axis is None else lax.axis_size(axis)


def mine(parts: Array, axis: str | None) -> Array:
    """Of ``[n, ...]``, give every device along an axis its rows; n must divide."""
    if axis is None:
        return parts
    size = parts.shape[0] // lax.axis_size(axis)
    return lax.dynamic_slice_in_dim(parts, lax.axis_index(axis) * size, size)


def together(parts: Any, axis: str | None) -> Any:
    """Put the rows of all devices along an axis together again, on each of them."""
    if axis is None:
        return parts
    return jax.tree.map(lambda rows: lax.all_gather(rows, axis, tiled=True), parts)
