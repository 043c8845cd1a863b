"""The words that the console script understands. Imports nothing that takes time."""

import argparse
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxcam import __version__
from jaxcam.methods import catalogue
from jaxcam.types import ChunkSize

METHODS = catalogue.names()
EXACT_AND_NOT = tuple(row.name for row in catalogue.ROWS if "poles" in row.options)
"""Methods that closed forms can approximate: those with alphas."""
OPTIONS = {
    "samples": "num_samples", "noise": "noise_level",
    "nodes": "num_nodes", "rule": "rule", "over": "over", "order": "order",
    "numerator": "numerator", "poles": "poles", "sample_weights": "sample_weights",
    "scheme": "scheme", "tolerance": "tolerance", "max_samples": "max_samples",
    "max_nodes": "max_nodes",
    "gaussian": "gaussian", "window": "window", "stride": "stride",
    "convention": "convention", "max_maps": "max_maps",
    "masks": "num_masks", "cells": "cells", "probability": "probability",
    "permutations": "num_permutations", "max_permutations": "max_permutations",
    "kernel": "kernel", "elementwise": "elementwise",
}  # fmt: skip
"""What an option of the command line is called by the methods that have it; the others refuse it.

Left out, they are not in what `argparse` returns. The seed is no option of a method: it is of the
key of those that draw.
"""


TARGETS = ("exp_logit", "softmax", "logit", "counterfactual", "rest", "contrast", "any_of")
"""Those of `jaxcam.targets` that a class says."""


def options_of(method: str) -> dict[str, Any]:
    """Give a method's options by the words of the command line, and their defaults."""
    known = catalogue.rows()[method].options
    options = {word: known[name] for word, name in OPTIONS.items() if name in known}
    return options | ({"seed": 0} if catalogue.rows()[method].make().random else {})


def every_option() -> dict[str, Any]:
    """Give the options of all methods, and their defaults."""
    return {word: value for name in METHODS for word, value in options_of(name).items()}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, or say what is wrong with it and exit with status 2."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if "method" in asked:
        _complete(parser, asked)
        _check_target(parser, asked)
    if asked.command == "sweep":
        _check_processes(parser, asked)
    if asked.command == "explain":
        _check_rows(parser, asked)
    if asked.command == "compare":
        asked.images = [asked.images] if asked.images else []
        asked.layers = [asked.layer] if asked.layer else None
        asked.top, asked.fuse, asked.signed = None, "mean", False
    return asked


def _complete(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    """Add the method's own options where they were left out, and refuse those of others."""
    own = options_of(asked.method)
    for word in (*OPTIONS, "seed"):
        if word in asked and word not in own:
            of = [method for method in METHODS if word in options_of(method)]
            name = word.replace("_", "-")
            parser.error(f"--{name} belongs to {' and '.join(of)}, not to {asked.method}")
    for word, value in own.items():
        setattr(asked, word, getattr(asked, word, value))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxcam",
        description="Class activation maps with exact derivatives, of your pictures.",
        epilog="'jaxcam COMMAND --help' lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"jaxcam {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    explain = commands.add_parser("explain", help="explain what a network sees in pictures")
    _add_pictures(explain, "*")
    _add_question(explain, METHODS)
    explain.add_argument(
        "--layer", action="append", dest="layers", metavar="LAYER",
        help="as 'jaxcam layers' names it, or auto, the last one with positions (block3 of the "
        "bundled networks, else auto); given several times, their maps are fused",
    )  # fmt: skip
    fusions = ("mean", "max", "product")
    explain.add_argument("--fuse", choices=fusions, default="mean", help="how; default: mean")
    explain.add_argument(
        "--top", type=_at_least(1), metavar="K", help="explain the K most probable classes"
    )
    _add_engine(explain)
    _add_out(explain, "jaxcam-explain.png")
    explain.add_argument(
        "--overlay", type=Path, metavar="FILE",
        help="write the map over the picture as well, at the picture's own size (png, jpg, webp)",
    )  # fmt: skip
    compare = commands.add_parser("compare", help="exact derivatives beside the approximation")
    _add_pictures(compare, "?")
    _add_question(compare, EXACT_AND_NOT)
    _add_layer(compare)
    compare.add_argument(
        "--against",
        choices=("exponential", "power"),
        default="exponential",
        help="which approximation: the papers' closed form, or what public code makes of it",
    )
    _add_out(compare, "jaxcam-compare.png")
    sweep = commands.add_parser("sweep", help="explain a folder of images")
    sweep.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="files and folders")
    _add_question(sweep, METHODS)
    _add_layer(sweep)
    _add_engine(sweep)
    _add_run(sweep)
    layers = commands.add_parser("layers", help="list the layers that can be explained")
    _add_model(layers)
    layers.add_argument(
        "--costs", nargs="*", metavar="LAYER",
        help="say of these layers, or of all, which engine would serve and what it takes; a second "
        "or so for each layer of a large network",
    )  # fmt: skip
    methods = commands.add_parser("methods", help="list the methods")
    every = (explain, compare, sweep, layers, methods)
    for command, words in zip(every, _DESCRIPTIONS, strict=True):
        command.description = words
        command.add_argument("--json", action="store_true", help="print one JSON object instead")
    for command in (explain, sweep):
        command.add_argument(
            "--signed", action="store_true",
            help="keep what speaks against the class, as negative values, where the method's sign "
            "says that",
        )  # fmt: skip
    for command in (explain, compare, sweep):
        _add_common(command)
    return parser


_DESCRIPTIONS = (
    "Explain pictures, or a bundled scene of digits, by exact Smooth Grad-CAM++, and draw it: one "
    "picture, its most probable classes below each other (--top), or several pictures, a row for "
    "each. Pictures are turned upright as their EXIF data say, and transparent parts lie on white.",
    "Explain with exact derivatives and with an approximation, under the same noise, and by what "
    "removing activations does to the score; draw and measure how the maps differ.",
    "Explain a folder of images, on one process or several: maps.npy holds the maps (float32, "
    "images x height x width), and table.csv a row for each. Every image gets the same noise, so "
    "that its map does not depend on which others there are. An image that cannot be read has a "
    "row that says why, and the exit status is then 1.",
    "List the layers of a network in call order, with the shapes of their outputs.",
    "List the methods: for which layer each is meant, what it costs (F a forward pass, B a "
    "backward pass, h one of the head, n samples or nodes), its options and its source.",
)


def _add_model(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--model", default="gelu", metavar="NAME",
        help="a bundled network, smooth (gelu, the default) or piecewise affine (relu), or one of "
        "jaxcam.zoo: resnet50, convnext_tiny, vit_b_16, ...",
    )  # fmt: skip
    add(
        "--weights", metavar="PLACE",
        help="of a network of jaxcam.zoo: a .safetensors or .pth file, a folder with one, or "
        "hf://owner/name",
    )  # fmt: skip
    add(
        "--part", metavar="NAME",
        help="where in them, if they hold the network several times: state_dict_ema, teacher, ...",
    )  # fmt: skip


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--verbose", action="store_true", help="print proofs whole")
    command.add_argument(
        "--no-cache", dest="cache", action="store_false",
        help="compile anew, where compiled programs would be kept in the user's cache folder",
    )  # fmt: skip


def _add_layer(command: argparse.ArgumentParser) -> None:
    command.add_argument("--layer", help="as 'jaxcam layers' names it, or auto")


def _add_pictures(command: argparse.ArgumentParser, count: str) -> None:
    picture = command.add_mutually_exclusive_group()
    picture.add_argument(
        "images", nargs=count, type=Path, default=[], metavar="IMAGE", help="what is explained"
    )
    picture.add_argument("--scene", type=int, help="a bundled scene, by number (0)")


def _add_question(command: argparse.ArgumentParser, methods: Sequence[str]) -> None:
    """What is explained, and by which method: the same words for one map as for many."""
    _add_model(command)
    add = command.add_argument
    add("--class", dest="class_name", metavar="NAME", help="or its index; default: the top class")
    add("--class-names", type=Path, metavar="FILE",
        help="a name a line, or a JSON list or object {index: name}")  # fmt: skip
    add("--target", choices=TARGETS, default="exp_logit",
        help="what of the class is explained; default: its logit")  # fmt: skip
    add("--other", action="append", metavar="NAME",
        help="of contrast: a class that it is set against (default: the three nearest by score); "
        "of any_of: a class that counts as well; may be repeated")  # fmt: skip
    add("--gamma", type=float, help="of contrast: how much of the others is taken off (0.6)")
    listed = "as 'jaxcam methods' lists it" if methods is METHODS else " | ".join(methods)
    add("--method", type=_one_of(methods), default=methods[0], metavar="METHOD", help=listed)
    _add_options_of(methods, command)
    add("--chunk-size", type=_chunk_size, default="auto", metavar="N|auto", help="at once (auto)")


def _add_options_of(methods: Sequence[str], command: argparse.ArgumentParser) -> None:
    """Add what any of the methods understands; left out, it is not in what `argparse` returns."""
    understood = {word for method in methods for word in options_of(method)}

    def add(flag: str, **how: Any) -> None:
        if flag.removeprefix("--").replace("-", "_") in understood:
            command.add_argument(flag, default=argparse.SUPPRESS, **how)

    add("--samples", type=_at_least(1), metavar="N", help="noisy samples (25)")
    add("--noise", type=float, help="its deviation, of the picture's range (0.15)")
    add("--seed", type=_at_least(0), help="of what is drawn, such as noise (0)")
    add("--sample-weights", type=_weights, metavar="exact|uniform|T",
        help="e^{t u}: exact is t = 1 (the default), uniform 0")  # fmt: skip
    schemes = ("independent", "antithetic", "orthogonal")
    add("--scheme", choices=schemes, help="of the noise; default: independent")
    add("--tolerance", type=float, metavar="SHARE",
        help="sample up to this standard error, or add nodes up to this change and gap, as a share "
        "of the map's largest value")  # fmt: skip
    add("--max-samples", type=_at_least(1), metavar="N",
        help="where to stop in any case, with a tolerance (1024)")  # fmt: skip
    add("--numerator", choices=("d2", "d1"), help="of alpha; default: d2")
    add("--poles", choices=("bounded", "raw"), help="of alpha; default: bounded")
    add("--order", type=int, choices=(1, 2, 3), help="of taylor_cam (3), shapley_cam (2)")
    add("--nodes", type=_at_least(1), metavar="N",
        help="gradients along the path from an input of zeros (16)")  # fmt: skip
    rules = ("auto", "gauss", "midpoint")
    add("--max-nodes", type=_at_least(1), metavar="N",
        help="where to stop in any case, with a tolerance (128)")  # fmt: skip
    add("--rule", choices=rules, help="of those nodes; default: auto")
    add("--over", choices=("max", "sum"),
        help="what a sensitivity map makes of the colours; default: max")  # fmt: skip
    add("--gaussian", action="store_true",
        help="recipro_cam: let the neighbours of a position pass as well")  # fmt: skip
    add("--window", type=_at_least(1), metavar="N",
        help="occlusion: its side (an eighth of each axis)")  # fmt: skip
    add("--stride", type=_at_least(1), metavar="N", help="of the window (half of it)")
    add("--convention", metavar="NAME", help="score_cam: whose; default: paper")
    add("--max-maps", type=_at_least(1), metavar="N",
        help="score_cam: the maps of the largest variance alone (all)")  # fmt: skip
    add("--masks", type=_at_least(1), metavar="N", help="rise: how many (6000)")
    add("--cells", type=_at_least(1), metavar="N", help="rise: along each axis of a mask (8)")
    add("--probability", type=float, help="rise: of a cell to be open (0.1)")
    add("--permutations", type=_at_least(2), metavar="N",
        help="shapley: how many are drawn, each walked both ways (64)")  # fmt: skip
    add("--max-permutations", type=_at_least(2), metavar="N",
        help="where to stop in any case, with a tolerance (4096)")  # fmt: skip
    add("--kernel", metavar="NAME", help="kpca_cam: whose similarity; default: sigmoid")
    add("--elementwise", action="store_true", help="shapley_cam: a weight for each activation")


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--engine", default="auto", help="how derivatives are taken (auto)")


def _add_run(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where results are written")
    add("--resume", action="store_true", help="go on with a sweep that was interrupted, if any")
    add(
        "--batch", type=_at_least(1), default=16, metavar="N",
        help="images at once, and in one file until all are done (16)",
    )  # fmt: skip
    several = command.add_argument_group(
        "several processes", "Start the same command for each of them, with one shared DIR."
    )
    add = several.add_argument
    add("--coordinator", metavar="HOST:PORT", type=_address, help="of process 0, a free port")
    add("--processes", type=_at_least(1), metavar="N", help="how many there are")
    add("--process", type=_at_least(0), metavar="I", help="which one this is, from 0 on")
    add(
        "--distributed", action="store_true",
        help="ask jax.distributed for the three: on Slurm, Open MPI, TPU pods, Kubernetes",
    )  # fmt: skip
    add(
        "--wait", type=_at_least(1), default=300, metavar="SECONDS",
        help="how long to wait for the others to start (300)",
    )  # fmt: skip


def _check_processes(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    given = [word is not None for word in (asked.coordinator, asked.processes, asked.process)]
    if any(given) and not all(given):
        parser.error("--coordinator, --processes and --process belong together")
    if any(given) and asked.distributed:
        parser.error("--distributed finds out what --coordinator and its like say")
    if any(given) and asked.process >= asked.processes:
        parser.error(f"--process: needs a number from 0 to {asked.processes - 1}")


def _check_target(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    if asked.other and asked.target not in ("contrast", "any_of"):
        parser.error(f"--other belongs to the targets contrast and any_of, not to {asked.target}")
    if asked.gamma is not None and asked.target != "contrast":
        parser.error(f"--gamma belongs to the target contrast, not to {asked.target}")
    if asked.target == "any_of" and asked.class_name is None:
        parser.error("--target any_of: needs --class and, for further ones, --other")


def _check_rows(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    several = len(asked.images) > 1
    if asked.top is not None and asked.class_name is not None:
        parser.error("--top: not allowed with --class")
    if asked.top is not None and several:
        parser.error("--top is for one picture")
    if asked.overlay is not None and (several or asked.top is not None):
        parser.error("--overlay is for one picture and one class")


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"needs HOST:PORT, not {text}")
    return text


def _add_out(command: argparse.ArgumentParser, name: str) -> None:
    out = {"type": Path, "default": Path(name), "metavar": "FILE"}
    command.add_argument("--out", **out, help=f"where to write the PNG ({name})")


def _weights(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _chunk_size(text: str) -> ChunkSize:
    return "auto" if text == "auto" else _at_least(1)(text)


def _one_of(methods: Sequence[str]) -> Callable[[str], str]:
    def known(text: str) -> str:
        if text not in methods:
            near = difflib.get_close_matches(text, methods, n=3) or methods
            raise argparse.ArgumentTypeError(f"no method {text!r} here; nearest: {', '.join(near)}")
        return text

    return known


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if not least <= value < 2**31:
            raise argparse.ArgumentTypeError(f"needs a whole number from {least} on, not {text}")
        return value

    return whole
