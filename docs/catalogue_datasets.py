"""The pages of the data sets, one each, from their cards, parameters, docstrings and published numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalogue_methods import UP, file_of, of_ours, recipe_command
from catalogue_numbers import numbers
from markup import code, facts, items, linked, listed, page, plain, prose, source, table

from debias_zoo.dataset import BiasDataset, Card
from debias_zoo.errors import ZooError
from debias_zoo.listing import details
from debias_zoo.registry import load_dataset

PROTOCOLS = ("quick", "standard")


def dataset_pages() -> Iterator[tuple[str, str]]:
    """Name and Markdown of each data set's page."""
    methods = [row["name"] for row in of_ours("methods")]
    for row in of_ours("datasets"):
        yield row["name"], _dataset_page(row["name"], methods)


def card_of(name: str) -> Card | None:
    """The card at the default parameters; None where it depends on files that only its user has."""
    try:
        return load_dataset(name)().card
    except ZooError:
        return None


def _dataset_page(name: str, methods: Sequence[str]) -> str:
    found, cls, card = details(name), load_dataset(name), card_of(name)
    file = file_of("dataset", name)
    return page(
        f"# {name}",
        f"{plain(found['title'])}.",
        *([_card(card, cls)] if card else []),
        f"## What it is\n\n{prose(found['doc'])}",
        plain(card.about) if card else "",
        _get(name, card),
        _parameters(name, found),
        *([_groups(card), _training(card)] if card else []),
        _recipes(name, methods),
        numbers("Published numbers and ours", name, methods, "method", UP),
        f"## Source\n\n{source(file, 2)}",
    )


def _card(card: Card, cls: type[BiasDataset]) -> str:
    channels, height, width = card.image_shape
    shape = f"{height} x {width} pixels, {channels} channels; height and width are "
    return facts(
        [
            ("Citation", linked(card.citation)),
            ("Page", f"<{card.url}>" if card.url else "–"),
            ("Licence", linked(card.licence)),
            ("Files from", linked(card.origin)),
            ("Size", card.size or "–"),
            ("Version", str(cls.version)),
            ("Bias", plain(cls.bias_attribute)),
            ("Images", shape + ("those of the parameter `size`" if "size" in cls.Params.model_fields else "fixed")),
            ("Dense bias labels", _map(card.bias_map)),
            ("Evaluated splits", listed(card.eval_splits)),
            ("Test splits", listed(card.test_splits)),
            ("Usual backbone", f"{code(card.backbone)}, pixels normalised as {code(card.normalize)}"),
        ]
    )


def _map(bias_map: tuple[int, int, int, int] | None) -> str:
    if bias_map is None:
        return "none"
    heads, bins, height, width = bias_map
    return f"{heads} maps of {height} x {width}, {bins} bins each"


def _get(name: str, card: Card | None) -> str:
    if card is None:
        return "## Where it comes from\n\nYour own files: [how they are given](../../data.md)."
    if not card.folder:
        return "## Where it comes from\n\nIts files come with the package."
    by_hand = "" if card.sources else "\nIt says what to fetch by hand, and puts nothing anywhere.\n"
    command = f"```console\n$ debias-zoo data get {name} --data-root data\n```\n{by_hand}"
    fetched = [[code(one.file), linked(" ".join(one.urls)), _size(one.size)] for one in card.sources]
    digests = {**{one.file: one.digest for one in card.sources if one.digest}, **card.digests}
    return page(
        "## Where it comes from",
        f"Its files lie in `{card.folder}/` below `--data-root`. {linked(card.get)}",
        command,
        table(["Fetched", "From", "Bytes"], fetched),
        table(["File", "Checksum"], [[code(file), code(digest)] for file, digest in digests.items()]),
    )


def _size(size: int) -> str:
    return f"{size:,}" if size else "–"


def _parameters(name: str, found: Mapping[str, Any]) -> str:
    rows = [[code(row["name"]), code(row["default"]), linked(str(row["about"] or ""))] for row in found["parameters"]]
    if not rows:
        return "## Parameters\n\nNone."
    text = table(["Parameter", "Default", "What it is"], rows)
    return (
        f"## Parameters\n\n{text}\nGiven as `--dataset {name}:NAME=VALUE[,NAME=VALUE...]`; a list of values is a sweep."
    )


def _groups(card: Card) -> str:
    rows = [
        [plain(label), plain(", ".join(card.biases[k] for k in tied)) if tied else "–"]
        for label, tied in zip(card.classes, card.aligned, strict=True)
    ]
    text = "## Classes and the bias\n\n" + table(["Class", "Bias-aligned with"], rows)
    if card.counts:
        counts = [[code(split), *_counted(card, split)] for split in card.counts]
        text += f"\nImages:\n\n{table(['Split', 'All', 'Bias-aligned', 'Bias-conflicting'], counts)}"
    for split, copies in card.copies.items():
        text += f"\n{copies} of the images of `{split}` are in the published training split, too.\n"
    return text


def _counted(card: Card, split: str) -> list[str]:
    counts = card.counts[split]
    total = sum(map(sum, counts))
    if any(len(row) != len(card.biases) for row in counts) or not card.biases:
        return [f"{total:,}", "not labelled", "not labelled"]
    aligned = sum(row[k] for row, tied in zip(counts, card.aligned, strict=True) for k in tied)
    return [f"{total:,}", f"{aligned:,}", f"{total - aligned:,}"]


def _training(card: Card) -> str:
    columns = [name for name in PROTOCOLS if name in card.training]
    known = {name: card.training[name].model_dump(mode="json", exclude_none=True) for name in columns}
    keys = list(dict.fromkeys(key for settings in known.values() for key in settings))
    rows = [[code(key), *[_value(known[name].get(key)) for name in columns]] for key in keys]
    text = table(["", *[f"`{name}`" for name in columns]], rows)
    papers = ""
    if card.paper_params:
        papers = f"\nPapers use {listed(f'{key}={value}' for key, value in card.paper_params.items())}.\n"
    return f"## Training\n\nWhat all methods share, unless a recipe or `--set` says otherwise:\n\n{text}{papers}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {code(item)}" for key, item in value.items() if item not in (None, False))
    return "–" if value is None else code(value)


def _recipes(name: str, methods: Sequence[str]) -> str:
    lines = []
    for method in methods:
        own = [recipe for recipe in details(method)["recipes"] if recipe["dataset"] == name]
        lines += [f"[{method}](../methods/{method}.md): `{recipe_command(method, recipe)}`" for recipe in own]
    return f"## Recipes of methods\n\n{items(lines)}" if lines else ""
