"""Names on the command line: which are known, how a shell completes them, and the files that add some.

Nothing here imports torch: names are read from entry points and from source.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from . import plugin_files
from .registry import entries, name_files

if TYPE_CHECKING:
    TextType = click.ParamType[str]
else:  # older versions of click have no parameter for it
    TextType = click.ParamType


def known(*kinds: str) -> list[tuple[str, str]]:
    """(name, what it is) of all that can be used of these kinds."""
    there = [found for kind in kinds for found in entries(kind).values() if not found.error]
    return [(found.name, textwrap.shorten(found.facts.get("about", ""), 60, placeholder=" ...")) for found in there]


class NamesOf(TextType):
    """Text with names in it, which a shell can complete; what uses them says which are unknown.

    Args:
        kinds: whose names.
        several: whether they are separated by commas.
        files: whether a file may stand there as well.
    """

    name = "text"

    def __init__(self, *kinds: str, several: bool = True, files: bool = False) -> None:
        self.kinds, self.several, self.files = kinds, several, files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if self.several else ("", "", incomplete)
        taken = before.split(",")
        items = [
            CompletionItem(f"{before}{comma}{name}", help=about)
            for name, about in known(*self.kinds)
            if name.startswith(last) and name not in taken
        ]
        return [*items, CompletionItem(incomplete, type="file")] if self.files else items


class Format(TextType):
    """The name of a report's format. sheets: one that single tables can be written in."""

    name = "format"

    def __init__(self, sheets: bool = False) -> None:
        self.sheets = sheets

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = list(self._names())
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(names)}.", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]

    def _names(self) -> Iterator[str]:
        for name, found in entries("format").items():
            if not self.sheets or found.facts.get("of_sheets", True):
                yield name


def take_plugins(command: click.Command) -> None:
    """Let a command and all below it take ``--plugin FILE``, before its name or after it."""
    command.params.append(
        click.Option(
            ["--plugin"],
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE.py",
            expose_value=False,
            is_eager=True,  # names are looked up while other options are read
            callback=_name_files,
            help=f"Take methods, data sets, ... from this file too; repeatable.  [env: {plugin_files.VARIABLE}]",
        )
    )
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            take_plugins(inner)


def _name_files(context: click.Context, parameter: click.Parameter, paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing and not context.resilient_parsing:
        raise click.BadParameter(f"there is no file {missing[0]}", context, parameter)
    take_files(context, paths)


def take_files(context: click.Context, paths: Sequence[Path]) -> None:
    """Take plugins from these files too as long as the command runs."""
    before = os.environ.get(plugin_files.VARIABLE)

    def restore() -> None:
        os.environ.pop(plugin_files.VARIABLE, None)
        if before is not None:
            os.environ[plugin_files.VARIABLE] = before
        entries.cache_clear()

    if paths:
        if not context.resilient_parsing:  # completion closes its contexts before it looks for names
            context.call_on_close(restore)
        name_files(paths)
