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


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name for name in (piece.strip() for piece in text.split(",")) if name]
