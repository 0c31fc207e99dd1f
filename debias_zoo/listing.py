"""What ``list`` and ``show`` say; listings are read from source, nothing of torch is imported for them."""

from __future__ import annotations

from typing import Any

from .errors import ZooError, unknown
from .plain_text import in_columns, reflowed, sizes_of, wrapped
from .registry import GROUPS, Entry, broken_files, entries, names

LABELS = "bias labels to train"
KINDS = {f"{kind}s": kind for kind in GROUPS}
"""What can be listed -> its kind."""

_NOTHING: tuple[Any, ...] = ("", None, [], {})

_COLUMNS = {"methods": ("name", "supervision", "paper"), "datasets": ("name", "bias", "title")}


def rows(what: str) -> list[dict[str, Any]]:
    """One object for each of ``KINDS``: at least ``name`` and ``origin``, and ``broken`` where it cannot be used."""
    make = {"methods": _method_row, "datasets": _dataset_row}.get(what, _row)
    found = entries(KINDS[what]).values()
    return [_broken_row(one) if one.error else make(one) for one in found]


def supervision(facts: dict[str, Any]) -> str:
    """In words, which bias labels a method reads, or its teachers."""
    known = entries("method")
    of_teachers = [supervision(known[name].facts) for name in facts.get("teachers", {}).values() if name in known]
    if LABELS in of_teachers:
        return f"{LABELS} (its teacher)"
    if facts.get("sees_bias"):
        return LABELS
    if facts.get("needs_val_bias"):
        return "bias labels to select"
    return "no bias labels, knows the kind of bias" if facts.get("knows_bias_kind") else "no bias labels"


def _broken_row(found: Entry) -> dict[str, Any]:
    return {"name": found.name, "origin": found.origin, "broken": found.error}


def _row(found: Entry) -> dict[str, Any]:
    return {"name": found.name, "about": found.facts.get("about", ""), "origin": found.origin}


def _method_row(found: Entry) -> dict[str, Any]:
    paper = found.facts.get("paper") or {}
    return {
        "name": found.name,
        "supervision": supervision(found.facts),
        "paper": f"{paper.get('authors', '')}, {paper.get('venue', '')} {paper.get('year', '')}".strip(", "),
        "authors": paper.get("authors", ""),
        "venue": paper.get("venue", ""),
        "year": paper.get("year", ""),
        "title": paper.get("title", ""),
        "arxiv": paper.get("arxiv", ""),
        "about": found.facts.get("about", ""),
        "version": found.facts.get("version"),
        "origin": found.origin,
    }


def _dataset_row(found: Entry) -> dict[str, Any]:
    return {
        "name": found.name,
        "title": found.facts.get("title", ""),
        "bias": found.facts.get("bias_attribute", ""),
        "about": found.facts.get("about", ""),
        "version": found.facts.get("version"),
        "origin": found.origin,
    }


def text(what: str, found: list[dict[str, Any]]) -> str:
    """A listing for the terminal, as wide as that is: by where they come from, the broken ones last."""
    keys = _COLUMNS.get(what, ("name", "about"))
    whole = [(row["origin"], [str(row[key]) for key in keys]) for row in found if "broken" not in row]
    sizes = sizes_of([cells for _, cells in whole])
    lines = []
    for origin in dict.fromkeys(origin for origin, _ in whole):
        lines.append(f"from {origin}:")
        lines += [line for of, cells in whole if of == origin for line in in_columns(cells, sizes)]
    for row in found:
        if "broken" in row:
            whose = "" if row["origin"] == row["name"] else f" ({row['origin']})"
            lines.append(wrapped(f"{row['name']}  BROKEN{whose}: {row['broken']}"))
    if what == "backbones":
        lines.append(wrapped("and every timm model with intermediate features, such as resnet18 or convnext_atto"))
    return "\n".join(lines)


def details(name: str) -> dict[str, Any]:
    """All about the method, data set or backbone called ``name``."""
    if name in entries("method"):
        return _method_details(name)
    if name in entries("dataset"):
        return _dataset_details(name)
    if name in entries("backbone"):
        return _backbone_details(entries("backbone")[name])
    if found := _timm_details(name):
        return found
    known = [found for kind in ("method", "dataset", "backbone") for found in names(kind)]
    raise unknown("name", name, known, "; ".join(["any timm model can be shown as well", *broken_files()]))


def _backbone_details(found: Entry) -> dict[str, Any]:
    if found.error:
        raise ZooError(f"backbone {found.name!r} of {found.origin} is broken: {found.error}")
    return {"kind": "backbone", **_row(found), "doc": found.facts.get("doc", "")}


def _timm_details(name: str) -> dict[str, Any]:
    """A timm model at the image size of its pretrained weights; empty for a name that timm does not know."""
    import torch

    from .backbones import Backbone
    from .timm_models import timm

    if not timm().is_model(name):
        return {}
    cfg = timm().get_pretrained_cfg(name)
    shape = (3, *cfg.input_size[1:]) if cfg is not None else (3, 224, 224)
    with torch.device("meta"):
        net = Backbone(name, 0, shape)
        taps = [" x ".join(map(str, net.tap_shape(k))) for k in range(net.taps)]
    return {
        "kind": "backbone",
        "name": name,
        "about": f"A timm model; figures for images of {shape[1]} x {shape[2]} pixels.",
        "origin": "timm",
        "weights": sum(p.numel() for p in net.parameters()),
        "features": net.dim,
        "taps": taps,
        "default_tap": net.default_tap,
    }


def _method_details(name: str) -> dict[str, Any]:
    from .registry import load_method

    cls = load_method(name)
    facts = entries("method")[name].facts
    settings = [
        {"name": key, "default": field.get_default(call_default_factory=True), "about": field.description}
        | (field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {})
        for key, field in cls.Config.model_fields.items()
    ]
    recipes = [recipe.model_dump(mode="json", exclude_defaults=True) for recipe in cls.recipes]
    row = _method_row(entries("method")[name])
    return {"kind": "method", **row, "doc": facts.get("doc", ""), "settings": settings, "recipes": recipes}


def _dataset_details(name: str) -> dict[str, Any]:
    from .registry import load_dataset

    cls = load_dataset(name)
    parameters = [
        {"name": key, "default": field.default, "about": field.description}
        for key, field in cls.Params.model_fields.items()
    ]
    row = _dataset_row(entries("dataset")[name])
    try:
        card = cls().card.model_dump(mode="json")
    except ZooError as error:  # a card that depends on what the parameters name
        card = {"card": str(error)}
    return {
        "kind": "dataset",
        **card,
        **row,
        "from": card.get("origin", ""),
        "doc": entries("dataset")[name].facts.get("doc", ""),
        "parameters": parameters,
    }


def details_text(found: dict[str, Any]) -> str:
    """``details`` for the terminal."""
    head = [f"{found['name']} ({found['kind']})", ""]
    body = [reflowed(found["doc"] if "doc" in found else found["about"]), ""]
    skipped = {"name", "kind", "doc", "about", "settings", "parameters", "recipes", "training", "classes", "biases"}
    facts = [f"{key}: {_plain(value)}" for key, value in found.items() if key not in skipped and value not in _NOTHING]
    lines = [*facts]
    for what in ("settings", "parameters"):
        if found.get(what):
            lines += ["", f"{what}:"]
            lines += [f"  {row['name']} = {row['default']!r}: {row['about']}" for row in found[what]]
    if found.get("recipes"):
        lines += ["", "recipes:"]
        lines += [f"  {row['protocol']} on {row['dataset']}: {row['source']}" for row in found["recipes"]]
    if found["kind"] == "dataset" and "classes" in found:
        pairs = zip(found["classes"], found["aligned"], strict=True)
        tied = ", ".join(f"{label}: {'/'.join(found['biases'][k] for k in ties)}" for label, ties in pairs)
        lines += ["", f"bias-aligned: {tied}"]
    return "\n".join([*head, *body, wrapped("\n".join(lines), hang=2)])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
