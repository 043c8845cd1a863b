"""The lines of a figure, made from facts (`report`)."""

from typing import Any

from jaxcam.cli.words import by, method, number, percent, probability, target

Facts = dict[str, Any]


def title(facts: Facts) -> str:
    """Say what the network sees."""
    words = f"{name(facts)}, probability {probability(facts['probability'])}"
    return words if name(facts).startswith("Class ") else f"Class {words}"


def name(facts: Facts) -> str:
    """Give the first of a class's synonyms, as ImageNet divides them; or its number."""
    unnamed = facts["label"] in (f"class {facts['class']}", str(facts["class"]))
    return f"Class {facts['class']}" if unnamed else facts["label"].split(",")[0]


def rows_title(facts: Facts) -> str:
    """Say what the rows are."""
    rows = facts["explanations"]
    if facts["options"]["top"]:
        return f"{rows[0]['picture']}: the {len(rows)} most probable classes"
    return f"{len(rows)} pictures"


def rows_caption(facts: Facts) -> str:
    """Say how they were explained. One engine is chosen for all: they are rows of one program."""
    first = facts["explanations"][0]
    kind = "exact" if first["exact"] else "approximate"
    words = _caption(facts, f"{kind} derivatives ({first['engine']})", first)
    return f"{words}; each map on a scale of its own"


def row_lines(facts: Facts, row: Facts) -> list[str]:
    """Say beside a row how sure the network is, what else the class is called, and the rest."""
    error = percent(row["diagnostics"]["relative_standard_error"])
    synonyms = ",".join(row["label"].split(",")[1:]).strip()
    return [
        f"probability {probability(row['probability'])}",
        *([synonyms] if synonyms else []),
        *([] if facts["options"]["top"] else [_picture(row)]),
        *([f"standard error at most {error} of the map's largest value"] if error else []),
    ]


NONE = {"queries", "coalitions", "absent"}
"""Engines, as reports name them, that differentiate nothing."""


def explain_caption(facts: Facts) -> str:
    """Say how it was explained."""
    kind = "exact" if facts["exact"] else "approximate"
    derivatives = f"{kind} derivatives ({facts['engine']})"
    return _caption(facts, "no derivative" if facts["engine"] in NONE else derivatives, facts)


def compare_caption(facts: Facts) -> str:
    """Say how it was explained, twice."""
    exact, approximate = facts["maps"]["exact"], facts["maps"]["approximate"]
    engines = f"derivatives exact ({exact['engine']}) and approximate ({approximate['engine']})"
    return _caption(facts, engines, exact)


def explain_notes(facts: Facts) -> tuple[str, ...]:
    """Give the lines below picture, overlay, map and standard error."""
    error = percent(facts["diagnostics"]["relative_standard_error"])
    share = f"at most {error} of the largest value" if error else ""
    return _picture(facts), _found(facts), f"{by(facts['shape'])} positions", share


def compare_notes(facts: Facts) -> tuple[str, ...]:
    """Give the lines below picture, exact, approximate and difference."""
    maps, apart = facts["maps"], facts["difference"]
    share, alike = percent(apart["relative_l1"]), number(apart["correlation"], 4)
    last = f"L1 {share or 'undefined'} of exact\ncorrelation {alike or 'undefined'}"
    return _picture(facts), _found(maps["exact"]), _found(maps["approximate"]), last


def removal_caption(facts: Facts) -> str:
    """Say what the second row is about."""
    true = facts["removal"]["true"]
    passes = f"{true['passes']:,} forward passes"
    return f"Activations removed, one at a time: {passes}, and Taylor's series of them; no noise"


def removal_notes(facts: Facts) -> tuple[str, ...]:
    """Give the lines below true removal, third order, first order and difference."""
    true, orders = facts["removal"]["true"], facts["removal"]["orders"]
    off = {name: percent(order["difference"]["relative_l2"]) for name, order in orders.items()}
    last = f"L2 from the true removal:\nthird {off['third']}, first {off['first']}"
    return _found(true), _found(orders["third"]), _found(orders["first"]), last


def _caption(facts: Facts, derivatives: str, map_facts: Facts) -> str:
    options = facts["options"]
    fused = f" ({options['fuse']} of the maps)" if "layers" in map_facts else ""
    words = [f"{method(facts['method'])} at {facts['layer']}{fused}", derivatives]
    if target(options):
        words.insert(1, target(options))
    if options["signed"]:
        words.append("warm speaks for it, cold against it")
    if map_facts["engine"] == "coalitions":
        words.append(f"{map_facts['samples']} permutations, walked both ways")
    elif map_facts["samples"]:
        words.append(f"{map_facts['samples']} samples, noise {options['noise']:g}")
    elif map_facts["nodes"]:
        words.append(f"a path of {map_facts['nodes']} gradients")
    elif "noise" in options:
        words.append("proved independent of the noise")
    elif "nodes" in options:
        words.append("proved to need one gradient")
    return "; ".join(words)


def _picture(facts: Facts) -> str:
    """Name the picture, and say so where what is shown is not all of it."""
    left, top, right, bottom = facts["seen"]
    width, height = facts["size"]
    part = max(0, min(right, width) - max(left, 0)) * max(0, min(bottom, height) - max(top, 0))
    share = part / (width * height)
    cut = f"\n{percent(share)} of it: what the network sees" if share < 0.999 else ""
    return _short(facts["picture"]) + cut


def _short(name: str) -> str:
    return name if len(name) < 33 else f"{name[:30]}..."


def _found(facts: Facts) -> str:
    where = facts["localisation"]
    if where is None:
        return ""
    peak = "inside" if where["maximum_in_box"] else "outside"
    share = percent(where["energy_in_boxes"]) or "nothing"
    return (
        f"{where['found']} of {where['boxes']} boxes found, peak {peak}\n{share} of the sum inside"
    )
