"""``debias-zoo explain``. As in ``cli.py``, the command imports what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .cli_names import NamesOf
from .cli_shared import data_root, mendable, names
from .errors import ZooError


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A PNG file.  [default: RUNS/DATASET-heat.png]",
)
@click.option("--methods", type=NamesOf("method"), help="Only these, in this order.")
@click.option(
    "--dataset",
    "text",
    type=NamesOf("dataset", several=False),
    help="NAME[:KEY=VALUE,...], where RUNS holds several.",
)
@click.option("--seed", type=click.IntRange(0), help="Of the runs shown.  [default: the smallest that all have]")
@click.option("--images", type=click.IntRange(1, 50), default=8, show_default=True, help="Rows of the sheet.")
@click.option(
    "--class",
    "of",
    type=click.Choice(["predicted", "label"]),
    default="predicted",
    show_default=True,
    help="The class that the heat speaks for.",
)
@data_root
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:i] or mps.")
@mendable
def explain(runs: Path, output: Path | None, text: str | None, root: Path | None, **options: Any) -> None:
    """Draw where methods look: Grad-CAM on the same bias-conflicting test images.

    Where the data set knows which pixels are the object, the share of the heat on it is measured, over all seeds.
    """
    from .data import one_dataset
    from .devices import pick_device
    from .explain import explain as explained
    from .explain import of_one_dataset
    from .plain_text import wrapped
    from .reports.render_sheets import render_sheets
    from .store import read_finished

    if output is not None and output.suffix.lower() != ".png":
        raise ZooError(f"the sheet is a PNG: call it {output.with_suffix('.png')}, not {output}")
    found, _ = read_finished(runs)
    device = pick_device(options.pop("device"))
    methods = names(options.pop("methods") or "")
    name = text.partition(":")[0] if text else None
    chosen = of_one_dataset(found, one_dataset(text) if text and ":" in text else None, name)
    _prepare(chosen, root)
    file = output or runs / (f"{chosen[0].result.trial.dataset}-heat.png")
    result = explained(
        chosen,
        file,
        methods=methods or None,
        root=root,
        device=device,
        say=lambda line: click.echo(line, err=True),
        **options,
    )
    if result.shares is not None:
        click.echo(render_sheets([result.shares], "rich"))
    for problem in result.problems:
        click.echo(wrapped(problem), err=True)
    click.echo(wrapped(f"seed {result.seed}, in {result.file}"))


def _prepare(runs: list[Any], root: Path | None) -> None:
    from rich.console import Console

    from .assembly import dataset_of
    from .data import prepare

    dataset = dataset_of(runs[0].result.trial)
    dataset.check(root)
    prepare([dataset], root, Console(stderr=True))
