"""``debias-zoo new``: files to start from. As in ``cli.py``, commands import what they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .cli_shared import mendable
from .plugin_files import shown

_TO = click.option(
    "--to",
    "home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="The folder to write into.  [default: this one]",
)


@click.group()
def new() -> None:
    """Write a working method, data set or package to start from; nothing is ever overwritten."""


@new.command()
@click.argument("name")
@_TO
@mendable
def method(name: str, home: Path) -> None:
    """A method that passes `check`, and its test.

    They are NAME.py and test_NAME.py; comments lead on from there.
    """
    from .scaffold import first_run, new_method

    written = new_method(name, home)
    file = shown(written[0].absolute())
    _say(written, [f"debias-zoo check {file}", first_run("method", name, file)])


@new.command()
@click.argument("name")
@_TO
@mendable
def dataset(name: str, home: Path) -> None:
    """A data set that passes `check`, and its test.

    They are NAME.py and test_NAME.py, with underscores for hyphens; comments lead on from there.
    """
    from .scaffold import first_run, new_dataset

    written = new_dataset(name, home)
    file = shown(written[0].absolute())
    preview = f"debias-zoo data preview {name} --plugin {file}"
    _say(written, [f"debias-zoo check {file}", preview, first_run("dataset", name, file)])


@new.command()
@click.argument("name")
@_TO
@mendable
def package(name: str, home: Path) -> None:
    """An installable package with a method.

    It is the folder NAME: the method, its tests, pyproject.toml with the entry point, and a CI file.
    """
    from .scaffold import new_package

    written = new_package(name, home)
    inside = shown((home / name).absolute())
    _say(
        written, [f"pip install -e '{inside}[test]'", f"pytest {inside}", f"debias-zoo check {name.replace('-', '_')}"]
    )


def _say(written: Sequence[Path], following: Sequence[str]) -> None:
    for path in written:
        click.echo(f"wrote {shown(path.absolute())}")
    click.echo("next:")
    for line in following:
        click.echo(f"  {line}")
