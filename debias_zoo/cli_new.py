"""``debias-zoo new``: files to start from. As in ``cli.py``, commands import what they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .cli_shared import mendable
from .plugin_files import shown

_TO = click.option(
    "--to",
    "folder",
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
def method(name: str, folder: Path) -> None:
    """NAME.py with a method that passes `check` as it is, and test_NAME.py; comments lead on."""
    from .scaffold import new_method

    written = new_method(name, folder)
    file = shown(written[0].absolute())
    _say(written, [f"debias-zoo check {file}", _run(file, f"erm,{name}", "cmnist")])


@new.command()
@click.argument("name")
@_TO
@mendable
def dataset(name: str, folder: Path) -> None:
    """NAME.py with a data set that passes `check` as it is, and test_NAME.py; comments lead on."""
    from .scaffold import new_dataset

    written = new_dataset(name, folder)
    file = shown(written[0].absolute())
    preview = f"debias-zoo data preview {name} --plugin {file}"
    _say(written, [f"debias-zoo check {file}", preview, _run(file, "erm", name)])


@new.command()
@click.argument("name")
@_TO
@mendable
def package(name: str, folder: Path) -> None:
    """A folder NAME with an installable package: a method, its tests, pyproject.toml, entry point and CI file."""
    from .scaffold import new_package

    written = new_package(name, folder)
    home = shown((folder / name).absolute())
    _say(written, [f"pip install -e '{home}[test]'", f"pytest {home}", f"debias-zoo check {name.replace('-', '_')}"])


def _run(file: str, methods: str, dataset: str) -> str:
    return f"debias-zoo run --plugin {file} --methods {methods} --dataset {dataset} --protocol quick"


def _say(written: Sequence[Path], following: Sequence[str]) -> None:
    for path in written:
        click.echo(f"wrote {shown(path.absolute())}")
    click.echo("next:")
    for line in following:
        click.echo(f"  {line}")
