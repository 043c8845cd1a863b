"""The tables that a person reads, made from facts (`report`)."""

from typing import Any

from rich.console import Console
from rich.table import Table

from jaxcam.cli.words import by, method, number, percent, probability, target

Facts = dict[str, Any]
Rows = list[tuple[str, ...]]

FEW = 6
"""Of the things in a checkpoint that are no part of the network, so many are named."""


def print_explain(facts: Facts, *, verbose: bool = False) -> None:
    """Print an explanation."""
    if "explanations" not in facts:
        _print([*_heading(facts, facts), *_findings(facts, verbose)])
        _print_end(facts, facts)
        return
    rows = facts["explanations"]
    _print([*_setting(facts, rows[0]), *_decided(rows[0], verbose), _seconds(rows[0]["seconds"])])
    head = ("picture", "class", "probability", "samples", "standard error")
    _print([head, *map(_row, rows)], head=True)
    _print_end(facts, *rows)


def print_compare(facts: Facts, *, verbose: bool = False) -> None:
    """Print two explanations beside each other, and then how they differ."""
    exact, approximate = facts["maps"]["exact"], facts["maps"]["approximate"]
    pairs = zip(_findings(exact, verbose), _findings(approximate, verbose), strict=True)
    _print(_heading(facts, facts))
    _print([("", "exact", "approximate"), *((*one, other[1]) for one, other in pairs)])
    _print(_difference(facts["difference"]))
    if facts["removal"] is not None:
        _print(_removal(facts["removal"]))
    _print_end(facts, exact, approximate)


def print_layers(facts: Facts, **_: bool) -> None:
    """Print the layers of a network."""
    head, every = ("layer", "output", "dtype"), facts["layers"]
    rows = [(layer["name"], by(layer["shape"]), layer["dtype"]) for layer in every]
    if "engine" in every[0]:
        head = (*head, "engine", "cost in network passes")
        rows = [(*row, *_taken(layer)) for row, layer in zip(rows, every, strict=True)]
    _print([head, *rows], head=True)


def _taken(layer: Facts) -> tuple[str, str]:
    if layer["engine"] is None:
        return "none", layer["words"].split(": ", 1)[-1].split("; got")[0]
    return layer["engine"], f"{layer['passes']:,.0f}" if layer["passes"] >= 10 else number(
        layer["passes"], 2
    )


def print_sweep(facts: Facts, *, verbose: bool = False) -> None:
    """Print how a sweep ended."""
    kind = "exact" if facts["exact"] else "approximate"
    failed = f", {facts['failed']} without a map" if facts["failed"] else ""
    several = facts["processes"] > 1
    _print([
        ("images", f"{facts['images']}{failed}"),
        ("done before", f"{facts['found']}" if facts["found"] else ""),
        *_weights(facts["weights"]),
        ("method", f"{method(facts['method'])} at {facts['layer']}"),
        ("target", target(facts["options"])),
        ("engine", f"{facts['engine']}, {kind}" if facts["engine"] else ""),
        ("proof", _proof(facts["proof"] or "", verbose)),
        ("processes", f"{facts['processes']}" if several else ""),
        ("seconds", f"{facts['seconds']:.1f}"),
    ])  # fmt: skip
    for name in ("maps", "table"):
        print(f"{facts[name]} written")


def print_methods(facts: Facts, **_: bool) -> None:
    """Print the catalogue."""
    head = ("method", "at", "cost", "options", "source")
    rows = [
        (row["name"], row["at"], row["cost"], _words(row["options"]), row["source"])
        for row in facts["methods"]
    ]
    _print([head, *rows], head=True)


def _words(options: Facts) -> str:
    return ", ".join(name.replace("_", "-") for name in options)


PRINT = {
    "methods": print_methods,
    "explain": print_explain,
    "compare": print_compare,
    "layers": print_layers,
    "sweep": print_sweep,
}


def _heading(facts: Facts, about: Facts) -> Rows:
    truth = about["truth"]
    right = "" if truth is None else " (right)" if truth == about["class"] else f" (it is {truth})"
    return [
        ("picture", about["picture"]),
        ("class", about["label"] + right),
        ("probability", probability(about["probability"])),
        *_setting(facts, about),
    ]


def _setting(facts: Facts, about: Facts) -> Rows:
    return [
        ("model", facts["model"]),
        *_weights(facts["weights"]),
        ("method", method(facts["method"])),
        ("target", target(facts["options"])),
        ("layer", f"{facts['layer']}, a map of {by(about['shape'])}"),
    ]


def _weights(facts: Facts | None) -> Rows:
    if facts is None:
        return []
    return [
        ("weights", facts["place"]),
        ("part of them", facts["part"]),
        ("not used", _few(facts["beside"])),
        ("prepared by", facts["preprocessing_from"]),
    ]


def _few(names: list[str]) -> str:
    """The first of them, where there may be hundreds."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{', '.join(names[:FEW])}{more}"


def _decided(facts: Facts, verbose: bool) -> Rows:
    return [
        ("engine", f"{facts['engine']}, {'exact' if facts['exact'] else 'approximate'}"),
        ("proof", _proof(facts["proof"], verbose)),
    ]


def _proof(words: str, verbose: bool) -> str:
    """Give the first clause: behind it stand the operations, one by one."""
    first, _, rest = words.partition(";")
    return words if verbose or not rest else f"{first} (--verbose: the rest)"


def _row(facts: Facts) -> tuple[str, ...]:
    error = percent(facts["diagnostics"]["relative_standard_error"])
    return (
        facts["picture"],
        facts["label"],
        probability(facts["probability"]),
        number(facts["samples"] or None),
        error,
    )


def _findings(facts: Facts, verbose: bool) -> Rows:
    d, where, seconds = facts["diagnostics"], facts["localisation"] or {}, facts["seconds"]
    effective = number(d["effective_samples"])
    kept, error = percent(d["top_class_kept"]), percent(d["relative_standard_error"])
    return [
        *_decided(facts, verbose),
        ("effective samples", effective and f"{effective} of {facts['samples']}"),
        ("top class kept", kept and f"by {kept} of the samples"),
        ("smallest r", number(d.get("smallest_r"))),
        ("weight from |1 / r| > 1", percent(d.get("share_large"))),
        ("weight that was bounded", percent(d.get("share_guarded"))),
        ("weight from D2 < 0", percent(d.get("share_concave"))),
        ("standard error", error and f"at most {error} of the largest value"),
        ("score from the baseline", number(d["total"])),
        ("of it in the map", percent(d["completeness"])),
        *_localisation(where),
        ("correlation with removal", number(facts.get("correlation_with_removal"), 4)),
        _seconds(seconds),
    ]


def _seconds(seconds: Facts) -> tuple[str, str]:
    return "seconds", f"{seconds['first']:.1f} with compilation, then {seconds['rest']:.1f}"


def _localisation(where: Facts) -> Rows:
    return [
        ("boxes found", f"{where['found']} of {where['boxes']}" if where else ""),
        ("sum in boxes", percent(where.get("energy_in_boxes"))),
        ("maximum in a box", ("yes" if where["maximum_in_box"] else "no") if where else ""),
    ]


def _removal(facts: Facts) -> Rows:
    """Put the true removal, and the series to third and to first order, beside each other."""
    true, orders = facts["true"], (facts["orders"]["third"], facts["orders"]["first"])
    apart = [order["difference"] for order in orders]
    seconds = [sum(order["seconds"].values()) for order in orders]
    where = zip(
        *(_localisation(order["localisation"] or {}) for order in (true, *orders)), strict=True
    )
    return [
        ("", "true removal", "Taylor-CAM, order 3", "HiResCAM, order 1"),
        ("taken by", f"{true['passes']:,} passes", *(order["engine"] for order in orders)),
        ("L2 from the true map", "", *(percent(one["relative_l2"]) for one in apart)),
        ("correlation with it", "", *(number(one["correlation"], 4) for one in apart)),
        *((same[0][0], *(value for _, value in same)) for same in where),
        ("seconds, all in all", *(f"{took:.1f}" for took in (true["seconds"], *seconds))),
    ]


def _difference(facts: Facts) -> Rows:
    moved = number(facts["maximum_moved"])
    l1, l2 = percent(facts["relative_l1"]), percent(facts["relative_l2"])
    return [
        ("relative difference", l1 and f"{l1} in L1, {l2} in L2"),
        ("correlation", number(facts["correlation"], 4)),
        ("maximum moved by", f"{moved} position{'' if moved == '1' else 's'}"),
    ]


def _print(rows: Rows, *, head: bool = False) -> None:
    """Print the rows that have something to say; the names stand out, or the first row does."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for column, _ in enumerate(rows[0]):
        table.add_column(overflow="fold", no_wrap=head and not column)
    for index, (name, *values) in enumerate(rows):
        if any(values):
            table.add_row(name, *values, style="bold" if not index and (head or not name) else "")
    # What is printed is data: no markup in it, and no guesses at what to colour.
    console = Console(markup=False, highlight=False, emoji=False)
    with console.capture() as held:
        console.print(table)
    print(*(line.rstrip() for line in held.get().splitlines()), "", sep="\n")


def _print_end(facts: Facts, *several: Facts) -> None:
    for note in dict.fromkeys(note for facts in several for note in facts["notes"]):
        print(f"note: {note}")
    if facts.get("note"):
        print(f"note: {facts['note']}")
    print(f"{facts['output']} written")
    if facts.get("overlay"):
        print(f"{facts['overlay']} written")
