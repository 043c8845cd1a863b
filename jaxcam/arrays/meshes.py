"""The user's own meshes: arrays whose types name the axes that they vary or are divided along.

Inside `jax.shard_map` the type of an array says along which axes of the mesh its values differ from
device to device, and JAX takes a derivative along an array that does not differ for a question to
all devices: it sums the answers of them all. An explanation is each device's own. So everything
that goes into one is made to differ along the same axes first (`alike`), whatever it comes from.

Outside of it, arrays that are divided along an explicit axis (`jax.make_mesh` makes such) ask every
operation how its result is divided, which networks seldom say. There the compiler may decide
(`automatically`).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Axes = frozenset[str]


def varying_axes(tree: Any) -> Axes:
    """Give the axes of meshes along which any array of a tree differs; none outside `shard_map`."""
    return frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))


def _varying(value: Any) -> Axes:
    kind = getattr(jax.typeof(value), "manual_axis_type", None)
    return getattr(kind, "varying", frozenset())


def axes_through(function: Callable[..., Any], *arguments: Any) -> Axes:
    """Give the axes along which the results of a function differ, by whatever it closes over."""
    seen: list[Axes] = []

    def look(*arguments: Any) -> None:
        seen.append(varying_axes(function(*arguments)))

    jax.eval_shape(look, *arguments)
    return seen[0]


def inside_shard_map() -> bool:
    """Say whether each device runs the code that is being traced by itself."""
    return AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types


def varying(tree: Any, axes: Axes) -> Any:
    """Mark every array of a tree as one that may differ along axes."""

    def marked(value: Any) -> Any:
        missing = axes - _varying(value)
        return lax.pcast(value, tuple(sorted(missing)), to="varying") if missing else value

    return jax.tree.map(marked, tree) if axes else tree


def alike(tree: Any, axes: Axes = frozenset()) -> Any:
    """Mark every array of a tree as differing along all axes that any of them does, and others."""
    return varying(tree, axes | varying_axes(tree))


def automatically(function: Callable[..., Any], *arguments: Any, spec: Any) -> Any:
    """Run ``function(*arguments)``, divided as the compiler likes if arrays are explicitly divided.

    spec: how all results are divided, as a `PartitionSpec`, where they are.
    """
    mesh = explicit_mesh(arguments)
    if mesh is None:
        return function(*arguments)
    pairs = zip(mesh.axis_names, mesh.axis_types, strict=True)
    axes = tuple(name for name, kind in pairs if kind is AxisType.Explicit)
    where = NamedSharding(mesh, spec)
    return jax.sharding.auto_axes(function, axes=axes, out_sharding=where)(*arguments)


def undivided(tree: Any) -> Any:
    """Give known arrays that are explicitly divided the same places without saying so."""
    mesh = explicit_mesh(tree)
    if mesh is None:
        return tree

    def place(value: Any) -> Any:
        if explicit_mesh(value) is None:
            return value
        mesh, spec = value.sharding.mesh, value.sharding.spec
        types = (AxisType.Auto,) * len(mesh.axis_names)
        same = Mesh(mesh.devices, mesh.axis_names, axis_types=types)
        return jax.device_put(value, NamedSharding(same, spec))

    return jax.tree.map(place, tree)


def explicit_mesh(tree: Any) -> Any:
    """Give the mesh along whose explicit axes arrays of a tree are divided, if they are."""
    for leaf in jax.tree.leaves(tree):
        mesh = getattr(getattr(jax.typeof(leaf), "sharding", None), "mesh", None)
        if AxisType.Explicit in getattr(mesh, "axis_types", ()):
            return mesh
    return None


def spec_of(value: Any) -> PartitionSpec:
    """Say how an array is explicitly divided along each of its axes."""
    return jax.typeof(value).sharding.spec


def rows_of(tree: Any) -> PartitionSpec:
    """Say how the first axis of the arrays of a tree is explicitly divided."""
    specs = map(spec_of, jax.tree.leaves(tree))
    return next((PartitionSpec(spec[0]) for spec in specs if spec and spec[0]), PartitionSpec())
