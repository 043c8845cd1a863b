"""Explain on eight virtual devices, and say how far that is from one device; run by test_devices.

Devices must be asked for before JAX starts, so this is a process of its own. Prints a JSON object.
"""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam

DEVICES = 8
IMAGES = 4


def network():
    """Give a network that bends twice behind the layer, with weights that are leaves.

    All of them are positive, so that no map is blank.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((2, 6), (6, 5), (5, 3))
    weights = [jax.random.uniform(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    def scores(weights, a, x):
        return jnp.tanh(jnp.tanh(a @ weights[1]).mean((1, 2)) + x.mean()) @ weights[2]

    features = jax.tree_util.Partial(lambda weights, x: jnp.tanh(x @ weights[0]), weights)
    return jaxcam.Split(features, jax.tree_util.Partial(scores, weights))


def dense_network():
    """Give a network of two inputs with a dense output."""

    def features(x):
        return jnp.tanh(x["image"] @ jnp.ones((2, 3)) / x["gain"][:, None, None, None])

    return jaxcam.Split(features, lambda a, x: jnp.sin(a) * x["gain"][:, None, None, None])


def dense_questions():
    """Regions for all images and for each; as many rows in a mask as there are images."""
    masks = np.random.default_rng(1).random((IMAGES, IMAGES, 5)) < 0.5
    return {"region_for_all": masks[0], "region_for_each": masks, "region_on_top": None}


def meshes():
    """Name the ways of spreading."""
    explicit = jax.make_mesh((2, 4), ("one", "two"))
    auto = jax.make_mesh((2, 4), ("one", "two"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    return {
        "samples": jaxcam.spread(samples=8),
        "batch": jaxcam.spread(batch=4),
        "elements": jaxcam.spread(elements=3),
        "batch_and_samples": jaxcam.spread(batch=2, samples=4),
        "all_three": jaxcam.spread(batch=2, samples=2, elements=2),
        "explicit_mesh": jaxcam.spread(explicit, batch="one", samples="two"),
        "auto_mesh": jaxcam.spread(auto, samples="two"),
    }


def questions():
    """Name the questions, and the ways in which each is answered."""
    a_class = jnp.arange(IMAGES) % 3
    neurons = np.random.default_rng(0).random((IMAGES, 3, 3, 6)) < 0.7
    tolerance = {"tolerance": 0.02, "max_samples": 160}
    return {
        "odd_number": ({"num_samples": 13}, ["samples", "elements", "explicit_mesh"]),
        "fewer_than_devices": ({"num_samples": 3}, ["samples", "all_three"]),
        "antithetic": ({"num_samples": 20, "scheme": "antithetic"}, ["samples", "auto_mesh"]),
        "directional": (
            {"num_samples": 6, "engine": "directional", "chunk_size": 5},
            ["elements", "batch"],
        ),
        "power": ({"num_samples": 9, "engine": "power", "chunk_size": 2}, ["batch_and_samples"]),
        "classes_and_neurons": (
            {"num_samples": 8, "target": a_class, "neurons": neurons},
            ["batch", "batch_and_samples"],
        ),
        "tolerance": ({"noise_level": 0.6} | tolerance, ["batch_and_samples"]),
    }


def apart(ours, truth):
    """Give the largest difference of each array of a result, as a share of its largest value.

    And the smallest of the largest values of each map, which would be zero for a blank one.
    """
    found = {"brightest": float(np.asarray(truth.map).max((1, 2)).min())}
    fields = {"map": lambda r: r.map, "weights": lambda r: r.weights, "scores": lambda r: r.scores,
              "error": lambda r: r.diagnostics.standard_error,
              "samples": lambda r: r.diagnostics.num_samples,
              "effective": lambda r: r.diagnostics.effective_samples}  # fmt: skip
    for name, field in fields.items():
        x, y = np.asarray(field(ours), float), np.asarray(field(truth), float)
        found[name] = float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-30))
    return found


def users_own(split, x, key):
    """Explain in the user's own `jax.shard_map`, and images that lie on explicit axes."""
    explicit, rows = jax.make_mesh((IMAGES,), ("d",)), jax.P("d")
    auto = jax.make_mesh((IMAGES,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))

    def one(x):
        return jaxcam.smooth_grad_cam_pp(split, x, key=key)

    each = jax.shard_map(one, mesh=auto, in_specs=rows, out_specs=rows)
    placed = jax.device_put(x, jax.NamedSharding(explicit, rows))
    return {"own_shard_map": jax.jit(each)(x), "explicit_images": one(placed)}


def main():
    """Compare every way with one device."""
    warnings.simplefilter("ignore")
    split, key = network(), jax.random.key(3)
    x = jax.random.uniform(jax.random.key(1), (IMAGES, 3, 3, 2))
    result = {}
    for name, (asked, ways) in questions().items():
        truth = jaxcam.smooth_grad_cam_pp(split, x, key=key, **asked)
        for way in ways:
            ours = jaxcam.smooth_grad_cam_pp(split, x, key=key, spread=meshes()[way], **asked)
            result[f"{name}/{way}"] = apart(ours, truth)
    spread = jaxcam.spread(samples=8)
    committed = jax.device_put((split, x), jax.devices()[3])
    ours = jaxcam.smooth_grad_cam_pp(*committed, key=key, spread=spread)
    truth = jaxcam.smooth_grad_cam_pp(split, x, key=key)
    result["committed/samples"] = apart(ours, truth)

    @jax.jit
    def inside(split, x):
        return jaxcam.smooth_grad_cam_pp(split, x, key=key, spread=spread)

    result["inside_jit/samples"] = apart(inside(split, x), truth)
    result |= {name: apart(ours, truth) for name, ours in users_own(split, x, key).items()}
    dense, inputs = dense_network(), {
        "image": jax.random.uniform(jax.random.key(2), (IMAGES, IMAGES, 5, 2)),
        "gain": 1 + jnp.arange(IMAGES, dtype=jnp.float32),
    }  # fmt: skip
    for name, mask in dense_questions().items():
        asked = {"key": key, "num_samples": 8, "noisy": "image", "sample_weights": "uniform"}
        asked["target"] = jaxcam.targets.region(mask=mask, mean=True)
        truth = jaxcam.smooth_grad_cam_pp(dense, inputs, **asked)
        way = meshes()["batch_and_samples"]
        result[name] = apart(jaxcam.smooth_grad_cam_pp(dense, inputs, spread=way, **asked), truth)
    plain = jaxcam.cam(split, x, jaxcam.methods.grad_cam_pp())
    ours = jaxcam.cam(split, x, jaxcam.methods.grad_cam_pp(), spread=jaxcam.spread(batch=2))
    result["not_smoothed/batch"] = {"map": float(abs(ours.map - plain.map).max() / plain.map.max())}
    result["devices_used"] = len(ours.map.sharding.device_set)
    print(json.dumps(result))


if __name__ == "__main__":
    # Not at import: pytest imports this file for its examples, in a process where JAX has started.
    jax.config.update("jax_num_cpu_devices", DEVICES)
    main()
