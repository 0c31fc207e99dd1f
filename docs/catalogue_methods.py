"""The pages of the methods, one each, from class facts, docstrings, settings, recipes and published numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalogue_numbers import numbers
from markup import code, facts, items, linked, listed, page, plain, prose, source, table

from debias_zoo.listing import details, rows
from debias_zoo.method import Method
from debias_zoo.registry import entries, load_dataset, load_method

UP = "../../"
"""From a page to the documentation's root."""


def of_ours(what: str) -> list[dict[str, Any]]:
    """The listing of what comes with the zoo, no plugins."""
    return [row for row in rows(what) if row["origin"] == "debias-zoo"]


def file_of(kind: str, name: str) -> str:
    """The file of the repository that defines a method or a data set."""
    module = entries(kind)[name].target.partition(":")[0].split(".")
    return f"{'/'.join(module[1:] if len(module) > 2 else module)}.py"


def method_pages() -> Iterator[tuple[str, str]]:
    """Name and Markdown of each method's page."""
    known = [row["name"] for row in of_ours("datasets")]
    for row in of_ours("methods"):
        yield row["name"], _method_page(row["name"], known)


def _method_page(name: str, datasets: Sequence[str]) -> str:
    found, cls = details(name), load_method(name)
    file = file_of("method", name)
    return page(
        f"# {name}",
        _citation(found, cls),
        _facts(found, cls),
        f"```console\n$ debias-zoo run --methods {_beside(name)} --dataset {_usual_dataset(found)}\n```",
        f"## What it does\n\n{prose(found['doc'])}",
        _settings(found, cls),
        _recipes(name, found["recipes"]),
        numbers("Published numbers and ours", name, datasets, "dataset", UP),
        _contract(name, cls),
        f"## Source\n\n{source(file, 2)}",
    )


def _beside(name: str) -> str:
    """The method, and the baseline that it is compared with."""
    return name if name == "erm" else f"erm,{name}"


def _usual_dataset(found: Mapping[str, Any]) -> str:
    """One that the method can be tried on: of a recipe of its own, or the one with conflicting images."""
    bundled = [recipe["dataset"] for recipe in found["recipes"] if not load_dataset(recipe["dataset"])().card.folder]
    refused = load_method(found["name"]).needs_conflicting
    return next((name for name in bundled if not (refused and name == "cmnist")), "cmnist-lff:conflict=0.05")


def _citation(found: Mapping[str, Any], cls: type[Method]) -> str:
    paper = cls.paper
    where = [f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"] if paper.arxiv else []
    where += [f"[code]({paper.code})"] if paper.code else []
    return (
        f"{plain(paper.authors)}. *{plain(paper.title)}.* {plain(paper.venue)} {paper.year}. {', '.join(where)}".strip()
    )


def _facts(found: Mapping[str, Any], cls: type[Method]) -> str:
    yes = {
        "is built for one kind of bias, and reads no labels of it": cls.knows_bias_kind,
        "reads dense bias labels (a map) where the data offer them": cls.reads_bias_map,
        "refuses data on which no training image of some class is bias-conflicting": cls.needs_conflicting,
    }
    taught = [
        f"the frozen network of a trial of [{who}]({who}.md), as its {role}" for role, who in cls.teachers.items()
    ]
    known = [words for words, holds in yes.items() if holds] + [f"is handed {words}" for words in taught]
    return facts(
        [
            ("Supervision", found["supervision"]),
            *[("Also", words) for words in known],
            ("Version", str(found["version"])),
            ("Smallest batch", str(cls.min_batch)),
        ]
    )


def _settings(found: Mapping[str, Any], cls: type[Method]) -> str:
    lines = []
    for row in found["settings"]:
        about = str(row["about"]).removesuffix(f" (default: {row['source']})")
        lines.append(
            [code(row["name"]), code(row["default"]), linked(about), linked(row["source"]), _range(row["search"])]
        )
    text = table(["Setting", "Default", "What it is", "Source of the default", "Searched"], lines)
    text = text or "It has no settings of its own.\n"
    if cls.training_search:
        ranges = [[code(key), _range(value)] for key, value in cls.training_search.items()]
        text += f"\nTraining settings that `debias-zoo tune` searches:\n\n{table(['Setting', 'Searched'], ranges)}"
    how = f"\nGiven as `--set {found['name']}.NAME=VALUE`." if lines else ""
    return f"## Settings\n\n{text}{how}"


def _range(search: Sequence[Any] | None) -> str:
    if search is None:
        return "–"
    if len(search) == 3 and search[2] in ("log", "linear"):
        return f"{search[0]:g} to {search[1]:g}, {search[2]}"
    return f"one of {listed(search)}"


def _recipes(name: str, recipes: Sequence[Mapping[str, Any]]) -> str:
    if not recipes:
        none = "None: it is trained with what the data set gives all methods, and `--protocol paper` refuses it."
        return f"## Recipes\n\n{none}"
    return "## Recipes\n\n" + "\n\n".join(_recipe(name, recipe) for recipe in recipes)


def _recipe(name: str, recipe: Mapping[str, Any]) -> str:
    dataset = recipe["dataset"]
    known = [("Settings from", linked(recipe["source"]))]
    if "backbone" in recipe:
        options = "".join(f", {key} {value}" for key, value in recipe.get("backbone_options", {}).items())
        weights = ", from pretrained weights" if recipe.get("pretrained") else ""
        known.append(("Backbone", f"{code(recipe['backbone'])}{options}{weights}"))
    if "normalize" in recipe:
        known.append(("Pixels normalised as", code(recipe["normalize"])))
    if recipe.get("settings"):
        known.append(("Training", _training(recipe["settings"])))
    known += [(f"Stage {code(stage)}", _training(own)) for stage, own in recipe.get("stages", {}).items()]
    if recipe.get("config"):
        known.append(("The method", _training(recipe["config"])))
    if "tuned_on" in recipe:
        known.append(("Chosen on", f"{code(recipe['tuned_on'])}, never on the test"))
    text = f"### {recipe['protocol']} on {dataset}\n\n{facts(known)}"
    if recipe.get("deviations"):
        text += f"\nDiffers from its source:\n\n{items(map(plain, recipe['deviations']))}"
    return f"{text}\n```console\n$ {recipe_command(name, recipe)}\n```"


def recipe_command(name: str, recipe: Mapping[str, Any]) -> str:
    """The command line that runs a recipe, with the parameters of the data that papers use."""
    dataset = recipe["dataset"]
    params = load_dataset(dataset)().card.paper_params if recipe["protocol"] == "paper" else {}
    pieces = ",".join(f"{key}={json.dumps(value)}" for key, value in params.items())
    data = f"{dataset}:{pieces}" if pieces else dataset
    root = " --data-root data" if load_dataset(dataset)().card.folder else ""
    return f"debias-zoo run --methods {name} --dataset {data} --protocol {recipe['protocol']}{root}"


def _training(settings: Mapping[str, Any]) -> str:
    """``lr 0.01, ...`` of what is set."""
    known = [(key, value) for key, value in settings.items() if value is not None]
    return ", ".join(f"{key} {code(value)}" for key, value in known)


def _contract(name: str, cls: type[Method]) -> str:
    text = f"`debias-zoo check {name}` runs [every check of the contract]({UP}contract.md#the-checks)."
    if cls.is_baseline:
        text += " It says that it is plain training on what its network sees, so one of them asks that it is."
    if cls.expected_failed:
        gaps = [f"`{check}`: {plain(reason)}" for check, reason in cls.expected_failed.items()]
        return f"## The contract\n\n{text} Known not to hold:\n\n{items(gaps)}"
    return f"## The contract\n\n{text} All hold; the tests run them."
