"""``debias-zoo data``: status, get, import, verify, preview. As in ``cli.py``, commands import what they need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .cli_names import NamesOf
from .cli_shared import data_root, mendable

_NAME = click.argument("name", type=NamesOf("dataset", several=False))


@click.group()
def data() -> None:
    """Look after data sets: what is here, how to get it, whether it is right, what it looks like."""


@data.command()
@data_root
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@mendable
def status(root: Path | None, as_json: bool) -> None:
    """Which data sets are bundled, ready, incomplete or missing."""
    from .data import status as states

    rows = states(root)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from .plain_text import in_columns, sizes_of

    cells = [
        [
            row["name"],
            row["state"],
            row["size"],
            row["where"] if row["state"] == "ready" else row["about"] or row["licence"],
        ]
        for row in rows
    ]
    sizes = sizes_of(cells)
    for row_cells in cells:
        click.echo("\n".join(in_columns(row_cells, sizes)))


@data.command()
@_NAME
@data_root
@mendable
def get(name: str, root: Path | None) -> None:
    """Fetch a data set, going on where it broke off; or say what has to be fetched by hand, and where it goes."""
    from .data import fetch, one_dataset

    fetch(one_dataset(name), root, _console())


@data.command(name="import")
@_NAME
@click.argument("origin", type=click.Path(path_type=Path))
@data_root
@mendable
def import_(name: str, origin: Path, root: Path | None) -> None:
    """Put an archive or a folder that you already have into its place, if its layout is the official one."""
    from .data import bring, one_dataset

    bring(one_dataset(name), origin, root, _console())


@data.command()
@_NAME
@data_root
@click.option("--json", "as_json", is_flag=True, help="A list of verdicts.")
@mendable
def verify(name: str, root: Path | None, as_json: bool) -> None:
    """Check a data set: checksums, counts, groups, splits, and that it is the same each time."""
    from rich.console import Console

    from .checking import verdict_text
    from .data import one_dataset
    from .data import verify as verified

    rows = verified(one_dataset(name), root, Console(stderr=True))
    click.echo(json.dumps(rows, indent=1) if as_json else verdict_text(name, rows))
    raise SystemExit(0 if all(row["status"] == "passed" for row in rows) else 1)


@data.command()
@_NAME
@data_root
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: NAME-SPLIT.png]")
@click.option("--split", default="train", show_default=True)
@click.option("--count", type=click.IntRange(1, 20), default=6, show_default=True, help="Images of each kind.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of which images are drawn.")
@mendable
def preview(name: str, root: Path | None, output: Path | None, split: str, count: int, seed: int) -> None:
    """Draw a contact sheet: for each class, bias-aligned images beside conflicting ones."""
    from .data import one_dataset, prepare
    from .preview import preview as drawn

    dataset = one_dataset(name)
    dataset.check(root)
    prepare([dataset], root, _console())
    click.echo(drawn(dataset, root, split, output or Path(f"{dataset.name}-{split}.png"), count, seed))


def _console() -> Any:
    from rich.console import Console

    return Console()
