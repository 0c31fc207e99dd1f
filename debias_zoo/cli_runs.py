"""``debias-zoo runs``: what lies in a store. As in ``cli.py``, commands import what they need."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cli_shared import mendable

if TYPE_CHECKING:
    from .inventory import Stored

_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="The store.",
)
_TITLES = ("identity", "method", "data set", "seed", "protocol", "state", "test", "MiB", "changed (UTC)")
_DISPENSABLE = ("changed (UTC)", "MiB", "protocol", "test", "data set")
"""Columns that are left out, in this order, where a terminal has no room for them."""

_NAMES = click.argument("names", nargs=-1, required=True, metavar="TRIAL...")


@click.group()
def runs() -> None:
    """Look after what is stored: list, show, where, rm.

    A TRIAL is an identity or its first digits, a folder, METHOD, or DATASET/METHOD.
    """


@runs.command(name="list")
@_OUT
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@mendable
def list_(out: Path, as_json: bool) -> None:
    """Every trial: finished, running, stopped, failed or damaged."""
    from .inventory import stored
    from .plain_text import wrapped

    found = stored(out)
    if as_json:
        click.echo(json.dumps([_record(one) for one in found], indent=1))
        return
    if not found:
        click.echo(f"no trial under {out}")
        return
    left_out = _print_table([_line(one) for one in found])
    states = [one.state for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    size = sum(one.size for one in found) / 2**20
    click.echo(wrapped(f"{len(found)} trial{'s' * (len(found) != 1)} ({counts}), {size:.0f} MiB"))
    if left_out:
        click.echo(wrapped(f"left out for want of width: {', '.join(left_out)}; --json has them"))


@runs.command()
@_NAMES
@_OUT
@mendable
def show(names: tuple[str, ...], out: Path) -> None:
    """All that is known of trials, as JSON: state, command, configuration, metrics, cost, environment."""
    from .inventory import find

    found = [_record(one) | {"trial": _whole(one)} for one in find(out, names)]
    click.echo(json.dumps(found, indent=1))


@runs.command()
@_NAMES
@_OUT
@click.option("--json", "as_json", is_flag=True, help="A list.")
@mendable
def where(names: tuple[str, ...], out: Path, as_json: bool) -> None:
    """The folders of trials, one a line."""
    from .inventory import find

    paths = [str(one.path) for one in find(out, names)]
    click.echo(json.dumps(paths, indent=1) if as_json else "\n".join(paths))


@runs.command()
@click.argument("names", nargs=-1, metavar="TRIAL...")
@_OUT
@click.option("--failed", is_flag=True, help="All that failed or are damaged.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@mendable
def rm(names: tuple[str, ...], out: Path, failed: bool, yes: bool) -> None:
    """Delete trials with all their files; asks first. A trial that a process works on is kept."""
    from .errors import ZooError
    from .inventory import find, remove, stored

    found = find(out, names) if names else []
    if failed:
        found += [one for one in stored(out) if one.state in {"failed", "damaged"} and one not in found]
    if not names and not failed:
        raise ZooError("nothing is named: give trials, or --failed")
    for one in found:
        click.echo(f"{one.state:9} {one.path}")
    if not found:
        click.echo("nothing to delete")
        return
    if not yes and not click.confirm(f"delete these {len(found)}?"):
        click.echo("nothing deleted")
        return
    kept = []
    for one in found:
        try:
            remove(one)
        except ZooError as error:
            kept.append(str(error))
    click.echo(f"deleted {len(found) - len(kept)}")
    if kept:
        raise ZooError("; ".join(kept))


def _print_table(lines: list[list[str]]) -> list[str]:
    """In a terminal without the columns that it has no room for, which are returned; else lines that can be grepped."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .plain_text import sizes_of

    console = Console()
    sizes = dict(zip(_TITLES, sizes_of([list(_TITLES), *lines]), strict=True))
    left_out: list[str] = []
    for title in _DISPENSABLE if console.is_terminal or "COLUMNS" in os.environ else ():
        if sum(size + 3 for size in sizes.values()) <= console.width:
            break
        del sizes[title]
        left_out.append(title)
    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in sizes:
        grid.add_column(title, justify="right" if title in {"seed", "test", "MiB"} else "left")
    for line in lines:
        grid.add_row(*[Text(text) for title, text in zip(_TITLES, line, strict=True) if title in sizes])
    Console(width=max(console.width, 200)).print(grid, soft_wrap=True)
    return left_out


def _line(one: Stored) -> list[str]:
    trial, test = one.trial, _accuracy(one)
    known = [trial.method, trial.dataset, str(trial.seed), trial.protocol] if trial else ["?", "?", "?", "?"]
    number = "" if test is None else f"{100 * test:.2f}"
    return [one.identity, *known, one.state, number, f"{one.size / 2**20:.1f}", one.changed]


def _accuracy(one: Stored) -> float | None:
    """Of the split that tables show."""
    from .reports.table import shown_split

    if one.result is None or not one.result.metrics:
        return None
    return one.result.metrics.get(shown_split(one.result.metrics), {}).get("accuracy")


def _record(one: Stored) -> dict[str, Any]:
    trial = one.trial
    return {
        "identity": one.identity,
        "method": trial.method if trial else None,
        "dataset": trial.dataset if trial else None,
        "seed": trial.seed if trial else None,
        "protocol": trial.protocol if trial else None,
        "state": one.state,
        "reason": one.reason,
        "accuracy": _accuracy(one),
        "bytes": one.size,
        "changed": one.changed,
        "path": str(one.path),
        "command": trial.command() if trial else None,
    }


def _whole(one: Stored) -> Any:
    if one.result is not None:
        return one.result.model_dump(mode="json")
    return None if one.trial is None else one.trial.model_dump(mode="json")
