"""``debias-zoo tune``: search a method's settings. As in ``cli.py``, it imports what it needs."""

from __future__ import annotations

from typing import Any

import click

from .cli_names import NamesOf
from .cli_shared import mendable, training_options


@click.command()
@click.option(
    "--method",
    "methods",
    type=NamesOf("method"),
    required=True,
    help="Names, separated by commas; each gets the same budget.",
)
@click.option(
    "--dataset", type=NamesOf("dataset", several=False), required=True, help="NAME[:KEY=VALUE,...]; one data set."
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many settings a method tries, its own recipe's the first; those of earlier calls count.",
)
@click.option(
    "--select",
    required=True,
    help="The criterion, on a validation split: val, val-unbiased, val-worst-group or ac, as in report.",
)
@click.option(
    "--search",
    "searches",
    multiple=True,
    metavar="METHOD.KEY=JSON",
    help='A range beside those that the method declares: [low, high, "log"], [low, high, "linear"] or choices. '
    "KEY as in run --set; repeatable.",
)
@click.option(
    "--set", "sets", multiple=True, metavar="METHOD.KEY=JSON", help="A setting that stays fixed, as in run; repeatable."
)
@click.option("--search-seed", type=click.IntRange(0), default=0, show_default=True, help="Of the sampler.")
@click.option(
    "--backbone",
    type=NamesOf("backbone", several=False),
    help="A timm model instead of the recipe's; `debias-zoo list backbones`.",
)
@training_options
@mendable
def tune(**options: Any) -> None:
    """Search a method's settings on validation labels; what is finished is not done again.

    Every trial is an ordinary one in --out. The study lies in OUT/tune, and so does the recipe file with the chosen
    settings, which `run --recipe FILE` takes. Needs the extra `tune` (Optuna).
    """
    from .tune_driver import drive_tune

    raise SystemExit(drive_tune(**options))
