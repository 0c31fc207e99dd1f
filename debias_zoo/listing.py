"""What ``list`` and ``show`` say; listings are read from source, nothing of torch is imported for them."""

from __future__ import annotations

import ast
import shutil
import textwrap
from pathlib import Path
from typing import Any

from .errors import ZooError, unknown
from .registry import Entry, entries

LABELS = "bias labels to train"
KINDS = {"methods": "method", "datasets": "dataset"}


def rows(what: str) -> list[dict[str, Any]]:
    """One object for each method, data set or backbone; each has at least ``name``."""
    if what == "backbones":
        return backbones()
    make = _method_row if what == "methods" else _dataset_row
    return [make(found) for found in entries(KINDS[what]).values()]


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


def _method_row(found: Entry) -> dict[str, Any]:
    if found.error:
        return {"name": found.name, "origin": found.origin, "broken": found.error}
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
    if found.error:
        return {"name": found.name, "origin": found.origin, "broken": found.error}
    return {
        "name": found.name,
        "title": found.facts.get("title", ""),
        "bias": found.facts.get("bias_attribute", ""),
        "about": found.facts.get("about", ""),
        "version": found.facts.get("version"),
        "origin": found.origin,
    }


def backbones() -> list[dict[str, Any]]:
    """The papers' own nets; every other timm model can be named as well."""
    tree = ast.parse((Path(__file__).parent / "nets.py").read_text())
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(d) == "register_model" for d in node.decorator_list):
            about = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            found.append({"name": node.name, "about": about, "origin": "debias-zoo"})
    return found


def text(what: str, found: list[dict[str, Any]]) -> str:
    """A listing for the terminal, as wide as that is."""
    columns = {"methods": ("name", "supervision", "paper"), "datasets": ("name", "bias", "title")}
    keys = columns.get(what, ("name", "about"))
    width = shutil.get_terminal_size((100, 24)).columns
    broken = [row for row in found if "broken" in row]
    whole = [row for row in found if "broken" not in row]
    sizes = [max((len(str(row[key])) for row in whole), default=0) for key in keys]
    lines = []
    for row in whole:
        head = "  ".join(str(row[key]).ljust(size) for key, size in zip(keys[:-1], sizes, strict=False))
        room = max(width - len(head) - 2, 20)
        tail = textwrap.wrap(str(row[keys[-1]]), room) or [""]
        lines.append(f"{head}  {tail[0]}".rstrip())
        lines += [" " * (len(head) + 2) + line for line in tail[1:]]
    lines += [f"{row['name']}  BROKEN ({row['origin']}): {row['broken']}" for row in broken]
    if what == "backbones":
        lines.append("and every timm model with intermediate features, such as resnet18 or convnext_atto")
    return "\n".join(lines)


def details(name: str) -> dict[str, Any]:
    """All about the method, data set or backbone called ``name``."""
    if name in entries("method"):
        return _method_details(name)
    if name in entries("dataset"):
        return _dataset_details(name)
    for row in backbones():
        if row["name"] == name:
            return {"kind": "backbone", **row}
    if found := _timm_details(name):
        return found
    known = [*entries("method"), *entries("dataset"), *(row["name"] for row in backbones())]
    raise unknown("name", name, known, "any timm model can be shown as well")


def _timm_details(name: str) -> dict[str, Any]:
    """A timm model at the image size of its pretrained weights; empty for a name that timm does not know."""
    import torch

    from .backbones import Backbone  # first: it makes timm importable beside any torchvision

    import timm  # isort: skip

    if not timm.is_model(name):
        return {}
    cfg = timm.get_pretrained_cfg(name)
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
    body = [found["doc"], ""] if "doc" in found else [found["about"], ""]
    skipped = {"name", "kind", "doc", "about", "settings", "parameters", "recipes", "training", "classes", "biases"}
    facts = [
        f"{key}: {_plain(value)}" for key, value in found.items() if key not in skipped and value not in ("", None)
    ]
    lines = [*head, *body, *facts]
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
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
