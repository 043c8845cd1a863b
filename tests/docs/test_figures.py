"""Figures of the pages are those of the JSON files beside them, as far as they are shown."""

import ast
import functools
import json
import re

import pytest
from pages import PAGES, README, ROOT

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?: %)?")


@functools.cache
def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def shown(text: str) -> list[tuple[float, float]]:
    """Read numbers, and by how much each may be rounded: half a unit of its last digit."""
    found = []
    for word in NUMBER.findall(text):
        digits = word.removesuffix(" %").replace(",", "")
        whole, _, decimals = digits.partition(".")
        zeros = len(whole) - len(whole.rstrip("0")) if not decimals else 0
        unit = 10.0 ** (-len(decimals) if decimals else zeros if whole.strip("-0") else 0)
        share = 0.01 if word.endswith("%") else 1
        found.append((float(digits) * share, unit * share / 2 * (1 + 1e-9)))
    return found


def assert_shown(text: str, *values: float) -> None:
    """Compare the numbers of a text with what they round."""
    found = shown(text)
    assert len(found) == len(values), (text, values)
    for (number, rounded), value in zip(found, values, strict=True):
        assert abs(number - value) <= rounded, (text, number, value)


def row(page: str, *begins: str) -> list[str]:
    """Find the one row of a page whose first cells begin so, and give the others."""
    lines = (ROOT / "docs" / f"{page}.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")
    ]
    found = [r for r in rows if all(c.startswith(b) for c, b in zip(r, begins, strict=False))]
    assert len(found) == 1, (begins, found)
    return found[0][len(begins) :]


def words(page: str, pattern: str) -> str:
    """Find a passage, whose groups are what is compared."""
    text = " ".join((ROOT / "docs" / f"{page}.md").read_text().split())
    found = re.search(pattern, text)
    assert found, pattern
    return " ; ".join(found.groups())


def test_measurements():
    trained = results("train_bundled")["networks"]
    accuracies = (trained[kind]["accuracy"] for kind in ("gelu", "relu"))
    assert_shown(row("measurements", "held-out accuracy")[0], *accuracies)
    cost = results("smoothing_cost")
    assert_shown(
        row("measurements", "ResNet-50, 224x224")[0], cost["ratio"]["one block before the last"]
    )
    passes = cost["forward_passes"]["the last block"]
    assert_shown(row("measurements", "the same at the last block")[0], passes)
    memory = cost["temporary_bytes"].values()
    assert_shown(row("measurements", "scratch memory")[0], *memory)
    draws = [1000 * cost["seconds"][f"noise by {who}"] for who in ("jaxcam", "jax.random.normal")]
    compiled = cost["noise_compile_seconds"].values()
    assert_shown(row("measurements", "its noise alone")[0], *draws, *compiled)
    assert_shown(
        row("measurements", "the same map by torch-cam")[0], *results("peers")["ratio"].values()
    )
    by = {(r["network"], r["precision"]): r for r in results("device")["rows"]}
    assert_shown(
        row("measurements", "ConvNeXt-T")[0].replace("ResNet-50", ""),
        by["convnext_tiny", "float32"]["ratio"],
        *(by[n, "bfloat16"]["apart_from_float32_on_cpu"] for n in ("convnext_tiny", "resnet50")),
    )


ENGINES = {
    "GAP-LayerNorm-Dense": "gap_norm_dense",
    "the same, softmax over 1,000 classes": "gap_norm_dense_softmax",
    "1x1 convolution-BatchNorm": "efficientnet_head",
    "LayerNorm per position": "norm_gap_dense",
    "two 3x3 convolutions": "two_convolutions",
    "a ConvNeXt block": "convnext_block",
    "squeeze-and-excite": "squeeze_excite",
}


@pytest.mark.parametrize("label", ENGINES)
def test_engines(label):
    tail = results("engines")["tails"][ENGINES[label]]
    shape, engine, faster, seconds = row("measurements", label)
    assert shape == "x".join(map(str, tail["shape"]))
    name = engine.strip("`")
    taken = tail["engines"][tail["auto"]]
    assert name in (tail["auto"], taken["form"])
    assert_shown(
        faster,
        tail["target"]["measured"] if name != "adjoint" else taken["times_faster_than_directional"],
    )
    assert_shown(seconds, taken["seconds"] * (1000 if seconds.endswith("ms") else 1))


def test_engines_of_affine_tails_and_compilation():
    tails = results("engines")["tails"]
    measured = (tails[name]["target"]["measured"] for name in ("gap_dense", "resnet50_blocks"))
    assert_shown(row("measurements", "GAP-Dense;")[-1], *measured)
    times = [tail["compile_over_gradient"] for tail in tails.values()]
    assert_shown(
        words("measurements", "compiling it takes (.*?) times as long"), min(times), max(times)
    )


MOVING = {
    "padding by": ["pad"], "maximum over": ["max_pool_3"], "`jnp.pad` edge": ["edge"],
    "`jnp.pad` reflect": ["reflect"], "`jnp.pad` wrap": ["wrap"], "nearest": ["nearest"],
    "crop, stride": ["crop", "strided_slice", "flip", "roll", "split", "average_pool"],
}  # fmt: skip


@pytest.mark.parametrize("label", MOVING)
def test_moving(label):
    found = [results("moving")["operations"][name] for name in MOVING[label]]
    for cell, of in zip(row("measurements", label), ("operations", "seconds"), strict=True):
        assert_shown(cell, max(one[f"{of}_over_plain"] for one in found))


def test_moving_in_keras():
    networks = results("moving")["keras"].values()
    shares = [one["passes"] / one["zoo_passes"] for layers in networks for one in layers.values()]
    assert_shown(words("measurements", "MobileNetV3 take (.*?) of the"), min(shares), max(shares))


SAMPLING = {
    "GELU network, `block4`": ("sampling", "gelu block4, scene 0, noise 0.15"),
    "GELU network, `block3`": ("sampling", "gelu block3, scene 0, noise 0.15"),
    "ReLU network, `block3`": ("sampling", "relu block3, scene 0, noise 0.15"),
    "random ResNet-50": ("sampling_resnet50", "ResNet-50 layer3.5, 64x64, noise 0.15"),
}


@pytest.mark.parametrize("label", SAMPLING)
def test_sampling(label):
    file, case = SAMPLING[label]
    schemes = results(file)["cases"][case]["errors"]["exact"].values()
    for cell, share in zip(row("sampling", label), ("0.05", "0.02", "0.01"), strict=True):
        if cell:
            assert_shown(cell, *(scheme["needed"][share] for scheme in schemes))


def test_sample_weights():
    cases = results("sampling")["cases"]
    exact = {name: case["tempered"]["1.0"] for name, case in cases.items()}
    default = [e["effective_of_25"] for name, e in exact.items() if name.endswith("noise 0.15")]
    text = words(
        "sampling", "leaves (.*?) effective samples of 25.*?leaves (.*?), and.*?by (.*?) at"
    )
    noisy = cases["gelu block4, scene 0, noise 0.5"]["tempered"]
    one = noisy["1.0"]
    assert_shown(text, min(default), max(default), one["effective_of_25"], one["deviation"])
    text = words("sampling", r"\(uniform: (.*?), and (.*?) times")
    assert_shown(text, noisy["0.0"]["deviation"], noisy["0.0"]["distance_from_exact"])


REMOVAL = {
    "error of single effects": ("errors", "elements, L2"),
    "error of the map": ("errors", "map, L2"),
    "maximum in": ("found", "pointing"), "share of the map": ("found", "energy"),
    "instances found": ("found", "recall"),
}  # fmt: skip


@pytest.mark.parametrize("label", REMOVAL)
def test_removal(label):
    part, name = REMOVAL[label]
    both = [results("removal")["networks"]["gelu"][layer][part] for layer in ("block4", "block3")]
    *orders, plus = row("removal", label)
    for order, cell in enumerate(orders):
        found = (
            one[name][order] if part == "errors" else one[f"order {order + 1}"][name]
            for one in both
        )
        assert_shown(cell, *(value[0] for value in found))
    if part == "found":
        assert_shown(plus, *(one["Grad-CAM++ exact"][name][0] for one in both))


def test_the_price_of_removal():
    gelu, relu = (results("removal")["networks"][kind] for kind in ("gelu", "relu"))
    time = gelu["block3"]["time"]
    text = words(
        "removal", r"included: (.*?) of the time .*?\((.*?) ms against (.*?)\) and (.*?) at"
    )
    seconds = (1000 * time["seconds"][name] for name in ("order 3", time["fastest_removal"]))
    shares = (gelu[layer]["time"]["order_3_of_removal"] for layer in ("block3", "block4"))
    assert_shown(text, next(shares), *seconds, next(shares))
    assert_shown(
        words("removal", "`block4` and ([^`]*?) off at"), relu["block3"]["errors"]["map, L2"][0][0]
    )


FAULTS = {
    "pytorch-grad-cam": "pytorch-grad-cam: eps 1e-6",
    "torch-cam: alpha": "torch-cam: alpha not divided",
    "tf-keras-vis": "tf-keras-vis: alpha sums to one", "xplique": "xplique: mean of A",
    "torch-cam, smoothed": "torch-cam: the map's A of the last sample",
    "ReLU(D1)": "torch-cam: ReLU(D1) of the last sample",
    "the sum of A D3": "torch-cam: sum of A D3",
    "1e-8": "torch-cam: eps 1e-8", "all four, with its": "torch-cam as it is, deviation 0.075",
    "all four, with 0.3": "torch-cam as it is, deviation 0.3", "`e^u`": "torch-cam: e^u dropped",
    "every library": "all peers: D_k = g^k for exact ones",
    "the same, smoothed": "all peers: D_k = g^k for exact ones",
}  # fmt: skip
PLAIN = ("pytorch-grad-cam", "torch-cam: alpha", "tf-keras-vis", "xplique", "every library")


@pytest.mark.parametrize("label", FAULTS)
def test_peers(label):
    kind = "Grad-CAM++" if label in PLAIN else "smoothed, n = 4"
    for cell, network in zip(row("peers", label), ("gelu", "relu"), strict=True):
        both = [results("faults")["networks"][network][at][kind] for at in ("block4", "block3")]
        assert_shown(cell, *(one[FAULTS[label]]["distance"][0] for one in both))


def test_every_command_and_every_file_of_results_is_there():
    """Commands name modules that there are, and options that these have."""
    text = "\n".join(page.read_text() for page in PAGES)
    commands = set(re.findall(r"`(?:python -m )?(benchmarks\.\w+)((?: --?[\w-]+| [\w.]+)*)`", text))
    assert len(commands) > 8
    for module, options in commands:
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        known = {
            node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
        }
        assert set(re.findall(r"--\w+", options)) <= known, (module, options)
    linked = set(re.findall(r"benchmarks/results/(\w+\.\w+)", text))
    assert linked == {
        path.name
        for path in (ROOT / "benchmarks" / "results").glob("*.*")
        if not path.stem.endswith("_quick")
    } | {"explain.png", "compare.png"}
    assert README in PAGES
