"""What the command line offers of a report: the forms it can take, and what it can show.

A format is a class registered under ``debias_zoo.formats``; ``report --format NAME`` names one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from debias_zoo.errors import ZooError

if TYPE_CHECKING:
    from debias_zoo.store import Run

    from .report import Asked, Report
    from .rows import Table
    from .sheets import Sheet

LAYOUTS = ("methods-by-datasets", "methods-by-settings")

RULE_NAMES = ("last", "val", "val-unbiased", "val-worst-group", "ac", "oracle")
"""Selection rules, in the order of a table; ``selection.py`` says what they are."""


class Format:
    """A form that a report can take. Subclasses state ``name``, that of their entry point, and define the methods.

    Attributes:
        of_sheets: whether a single sheet, such as a ledger or a probe, can be written in it.
        standalone: whether it has the form of a whole document (``--standalone``) besides that of a fragment.
        for_programs: whether it has no place for what is missing, which is then told on the error stream.
    """

    name: ClassVar[str]
    of_sheets: ClassVar[bool] = True
    standalone: ClassVar[bool] = False
    for_programs: ClassVar[bool] = False

    def table(self, table: Table, standalone: bool = False) -> str:
        """The results table as text; ``standalone``: as a whole document."""
        raise TypeError(f"{type(self).__name__} must define table(table, standalone)")

    def sheets(self, sheets: Sequence[Sheet], standalone: bool = False) -> str:
        """Sheets, one below the other, as text; each has titled columns, sections of rows, and notes."""
        raise TypeError(f"{type(self).__name__} must define sheets(sheets, standalone)")

    def report(
        self,
        made: Report,
        runs: Sequence[Run],
        problems: Sequence[str],
        asked: Asked,
        store: Path,
        standalone: bool = False,
    ) -> str:
        """All of a report as text: its sheets where any were asked for, else its table.

        A format that shows more than tables overrides this.

        Args:
            made: what was asked for.
            runs: those it was made of.
            problems: of the store.
            asked: what was asked for, in words of the command line.
            store: where the runs lie.
            standalone: as a whole document.
        """
        return self.sheets(made.sheets, standalone) if made.sheets else self.table(made.table, standalone)


def check_can(form: type[Format], *, sheets: bool = False, standalone: bool = False) -> None:
    """Raise a ZooError where a format has not what is asked of it."""
    if standalone and not form.standalone:
        raise ZooError(f"format {form.name!r} has no standalone form: leave --standalone out")
    if sheets and not form.of_sheets:
        raise ZooError(
            f"format {form.name!r} holds all of a report, not single tables: debias-zoo report RUNS --format "
            f"{form.name}, without others"
        )
