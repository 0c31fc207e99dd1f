"""Write a page for each method and data set, their indexes, and the drawings, from what code and results say.

python docs/catalogue.py            writes docs/catalogue/, which no commit holds; ``make docs`` does so by itself
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import house_drawing
import reading
from catalogue_datasets import card_of, dataset_pages
from catalogue_methods import method_pages, of_ours
from house import house
from markup import page, plain, table

from debias_zoo.listing import details
from debias_zoo.testing import CHECKS

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "catalogue"

ORDER = ("no bias labels", "no bias labels, knows the kind of bias", "bias labels to select", "bias labels to train")
"""Of the sections of the methods' index: what a method reads."""


def pages() -> Iterator[tuple[str, str]]:
    """Path below ``docs/catalogue`` and text of every page."""
    yield "methods.md", methods_index()
    yield "datasets.md", datasets_index()
    yield "checks.md", checks()
    yield "files.md", files()
    yield "house.svg", house_drawing.drawing()
    yield "reading.svg", reading.drawing()
    yield "reading.md", reading.notes()
    for name, text in method_pages():
        yield f"methods/{name}.md", text
    for name, text in dataset_pages():
        yield f"datasets/{name}.md", text


def methods_index() -> str:
    """All methods, by the bias labels that they read."""
    rows = of_ours("methods")
    parts = ["# Methods", METHODS]
    for level in ORDER:
        chosen = [row for row in rows if row["supervision"].removesuffix(" (its teacher)") == level]
        lines = [
            [
                f"[{row['name']}](methods/{row['name']}.md)",
                plain(row["about"]),
                f"{plain(row['venue'])} {row['year']}",
                _recipes(row["name"]),
            ]
            for row in chosen
        ]
        if lines:
            parts += [f"## {level[0].upper()}{level[1:]}", table(["Method", "What it does", "Paper", "Recipes"], lines)]
    return page(*parts, _toctree("methods", [row["name"] for row in rows]))


METHODS = (
    "By the bias labels that they read. A method that says it reads none is handed none. *Recipes* are settings for "
    "one data set, with their source; `paper` ones can be run with `--protocol paper`."
)


def _recipes(name: str) -> str:
    recipes = details(name)["recipes"]
    return "; ".join(
        f"{protocol}: {', '.join(found)}"
        for protocol in ("paper", "standard")
        if (found := [recipe["dataset"] for recipe in recipes if recipe["protocol"] == protocol])
    )


def datasets_index() -> str:
    """All data sets, by how they come here."""
    parts = ["# Data sets", DATASETS]
    sections: dict[str, list[list[str]]] = {title: [] for title in ("Bundled", "Fetched", "By hand", "Your own")}
    for row in of_ours("datasets"):
        link = f"[{row['name']}](datasets/{row['name']}.md)"
        sections[_way(row["name"])].append([link, plain(row["title"]), plain(row["bias"])])
    for title, lines in sections.items():
        parts += [f"## {title}", WAYS[title], table(["Data set", "What it is", "Bias"], lines)] if lines else []
    return page(*parts, _toctree("datasets", [row["name"] for row in of_ours("datasets")]))


DATASETS = "Each page has the data card, parameters, groups, how to get it, and published numbers beside ours."

WAYS = {
    "Bundled": "They come with the package.",
    "Fetched": "`debias-zoo data get NAME --data-root data` fetches them, or what of them may be fetched.",
    "By hand": "A form or a licence stands before the files: `debias-zoo data get NAME` says what to put where.",
    "Your own": "See [your data](../data.md).",
}


def _way(name: str) -> str:
    card = card_of(name)
    if card is None:
        return "Your own"
    if not card.folder:
        return "Bundled"
    return "Fetched" if card.sources else "By hand"


def checks() -> str:
    """Every check of a method's contract, as its docstring says it; a part of the page on the contract."""
    rows = []
    for name, function in CHECKS.items():
        rows.append([f"`{name}`", plain(" ".join((function.__doc__ or "").split()))])
    return table(["Check", "What it asks, and what failing means"], rows)


def files() -> str:
    """Every file of the core by its part, with what it says of itself; a part of the page on the house."""
    found = house()
    rows = [[part, f"`{name}.py`", plain(found.about[name])] for part, names in found.files.items() for name in names]
    return table(["Part", "File", "What it holds"], rows)


def _toctree(folder: str, names: list[str]) -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(f"{folder}/{name}" for name in names) + "\n```"


def write(folder: Path = FOLDER) -> None:
    """Every page whose text has changed; a page that is none any more goes."""
    made = dict(pages())
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in made:
            path.unlink()


if __name__ == "__main__":
    write()
