"""What the commands share: how errors are shown, and where data lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .errors import ZooError


def mendable(command: Callable[..., None]) -> Callable[..., None]:
    """Print a ZooError as one line and exit with 2, without a traceback."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ZooError as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(2) from error

    return guarded


data_root = click.option(
    "--data-root",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="DEBIAS_ZOO_DATA",
    help="Where downloaded data lie.  [env: DEBIAS_ZOO_DATA]",
)

_TRAINING = (
    click.option(
        "--seeds", type=click.IntRange(1), help="How many seeds: 0 ... N-1. Neither this nor --seed: seed 0 alone."
    ),
    click.option("--seed", "seed_list", help="Which seeds, separated by commas."),
    click.option(
        "--protocol",
        type=click.Choice(["quick", "standard", "paper"]),
        default="standard",
        show_default=True,
        help="The budget: a look, an equal one for all methods, or each paper's own.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:i] or mps."),
    click.option("--jobs", default="auto", show_default=True, help="Trials side by side, or auto."),
    click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True),
    click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True),
    data_root,
    click.option(
        "--weights",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A state dict, or a trial's model.safetensors, that the backbone starts from; all but its classifier.",
    ),
    click.option("--pretrained", is_flag=True, help="The backbone starts from timm's pretrained weights."),
    click.option("--skip-corrupt", is_flag=True, help="Leave out images that cannot be decoded, instead of stopping."),
)


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command takes that trains: seeds, budget, machine, folders and initial weights."""
    for option in reversed(_TRAINING):
        command = option(command)
    return command


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name for name in (piece.strip() for piece in text.split(",")) if name]
