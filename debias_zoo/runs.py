"""``debias_zoo.read``: finished runs in Python, as tables, figures and reports.

They show what the command ``report`` shows, by the same code; options have the names of the command line's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_shared import names
from .errors import ZooError
from .metrics import ALL_METRICS, METRICS
from .registry import load_format
from .reports.formats import check_can
from .reports.fragment import to_fragment
from .reports.records import COLUMNS, METRIC_COLUMNS, records
from .reports.report import Asked, Report, make_report, render_report
from .reports.terminal import render_rich, to_text
from .store import Run, read_finished
from .trial import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import RenderableType

Names = str | Sequence[str]
"""Names: a list of them, or a text with commas as on the command line."""

_DRAWN = ("accuracy", "unbiased", "worst_group")
_FIRST = ("method", "dataset", "setting", "supervision", "n", "seeds")


def read(folder: str | Path = "runs") -> Runs:
    """All finished runs of a store; what is unfinished, failed or damaged is told in its ``problems``.

    Raises:
        ZooError: there is no such folder, or no finished trial in it.
    """
    return Runs(*read_finished(Path(folder)))


class Runs:
    """Finished trials: a table in a notebook and a terminal, a DataFrame, LaTeX, a figure, reports.

    Attributes:
        trials: each with its ``result``, the ``path`` of its folder, ``predictions()`` and ``curves()``.
        problems: what failed, is unfinished or damaged, a line each.
        methods: in the order in which tables show them; empty: by name.
    """

    def __init__(self, trials: Sequence[Run], problems: Sequence[str] = (), methods: Sequence[str] = ()) -> None:
        self.trials = tuple(trials)
        self.problems = tuple(problems)
        self.methods = tuple(methods)

    @property
    def results(self) -> list[Result]:
        """What each trial's ``result.json`` holds: configuration, metrics by split as fractions, seconds, cost."""
        return [run.result for run in self.trials]

    def table(self, *, select: str = "last", metrics: Names = METRICS, split: str | None = None) -> DataFrame:
        """One row a row of the table: a method on a data set in a setting, over its seeds.

        Columns: ``method``, ``dataset``, ``setting``, ``supervision``, ``n`` and ``seeds``; each metric and its sample
        standard deviation ``METRIC_std``, as fractions, NaN where not defined; the paper's ``published`` number (a
        fraction) with what it is; ``seconds`` a trial; and how the trials were made.

        Args:
            select: which epoch: ``last``, ``val``, ``val-unbiased``, ``val-worst-group``, ``ac`` or ``oracle``.
            metrics: as in ``debias_zoo.metrics.DEFINITIONS``.
            split: what is measured; None: ``test``, or the data set's last test split.

        Raises:
            ZooError: an unknown rule, metric or split.
        """
        from pandas import DataFrame

        made = self._one(select, metrics, split).table
        shown = [name for metric in made.metrics for name in (metric, f"{metric}_std")]
        others = [name for name in COLUMNS if name not in (*_FIRST, *METRIC_COLUMNS)]
        interval = ["worst_group_low", "worst_group_high"]
        numbers = [*shown, *(interval if "worst_group" in made.metrics else []), "published", "seconds"]
        rest = [name for name in others if name not in (*interval, *numbers)]
        frame = DataFrame.from_records(records(made), columns=[*_FIRST, *numbers, *rest])
        frame["seeds"] = frame["seeds"].map(tuple)
        return frame.astype(dict.fromkeys(numbers, float))

    def to_latex(
        self, *, standalone: bool = False, select: str = "last", metrics: Names = METRICS, split: str | None = None
    ) -> str:
        """The table in LaTeX, as ``debias-zoo report --format latex`` writes it; ``standalone``: a whole document.

        Raises:
            ZooError: as ``table``.
        """
        return render_report(self._one(select, metrics, split), "latex", standalone)

    def figure(self, *, select: str = "last", metrics: Names = _DRAWN, split: str | None = None) -> Figure:
        """The metrics of each method as points, mean ± standard deviation over seeds in per cent, a panel a data set.

        A matplotlib figure that is shown in a notebook and has ``savefig``.

        Raises:
            ZooError: as ``table``; or there is nothing to draw.
        """
        from .reports.method_bars import method_bars

        return method_bars(self._one(select, metrics or _DRAWN, split).table, listed(metrics or _DRAWN))

    def report(
        self,
        format: str = "rich",  # noqa: A002  (--format)
        *,
        standalone: bool = False,
        methods: Names = (),
        split: str | None = None,
        metrics: Names = (),
        select: Names = ("last",),
        layout: str = "",
        ledger: bool = False,
        cost: bool = False,
        intervals: bool = False,
        groups: bool = False,
        compare: str | None = None,
        curve: str = "",
        figure: str | Path | None = None,
    ) -> str:
        """What ``debias-zoo report`` writes with the options of the same names, as text.

        Args:
            format: ``rich`` (plain text as in a wide terminal), ``latex``, ``markdown``, ``csv``, ``json`` or ``html``
                (a whole page).
            standalone: LaTeX: a whole document.
            methods: only these, in this order.
            split: as in ``table``.
            metrics: as in ``table``.
            select: one rule, or several, which are compared.
            layout: ``methods-by-datasets`` or ``methods-by-settings``.
            ledger: published numbers beside ours.
            cost: seconds, memory, parameters, passes.
            intervals: bootstrap intervals.
            groups: the accuracy of every group.
            compare: differences from this method, with tests; ``""``: from the usual one; None: no comparison.
            curve: a metric against this parameter of the data.
            figure: what ``curve``, ``cost`` or ``compare`` asks for is also drawn into this file (.svg, .pdf, .png).

        Raises:
            ZooError: something is not known, or cannot be shown in this format.
        """
        asked = Asked(
            methods=listed(methods) or self.methods,
            split=split,
            metrics=listed(metrics) or METRICS,
            rules=listed(select),
            layout=layout,
            ledger=ledger,
            cost=cost,
            intervals=intervals,
            groups=groups,
            compare=compare,
            curve=curve,
        )
        if figure is not None and not (curve or cost or compare is not None):
            raise ZooError("a figure is drawn of curve, cost or compare: give one of them; or call figure()")
        form = load_format(format)
        check_can(form, standalone=standalone)
        made = make_report(self.trials, self.problems, asked)
        if figure is not None:
            from .reports.figures import draw_report

            draw_report(made, asked, Path(figure))
        return form().report(made, self.trials, self.problems, asked, self._common_folder(), standalone)

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        trials = [run.result.trial for run in self.trials]
        known = (", ".join(dict.fromkeys(getattr(trial, key) for trial in trials)) for key in ("method", "dataset"))
        count = f"{len(trials)} finished trial{'s' * (len(trials) != 1)}"
        lost = f", {len(self.problems)} problem{'s' * (len(self.problems) != 1)}" if self.problems else ""
        return f"<Runs: {count} of {' on '.join(known)}{lost}>"

    def __str__(self) -> str:
        return to_text(self._report().table)

    def __rich__(self) -> RenderableType:
        return render_rich(self._report().table)

    def _repr_html_(self) -> str:
        return to_fragment(self._report().table)

    def _report(self, asked: Asked | None = None) -> Report:
        return make_report(self.trials, self.problems, asked or Asked(methods=self.methods))

    def _one(self, select: str, metrics: Names, split: str | None) -> Report:
        """The results table by one selection rule."""
        rules = listed(select)
        if len(rules) != 1:
            raise ZooError(f"select={select!r}: a table is of one rule; report(select=[...]) compares several")
        asked = Asked(methods=self.methods, split=split, metrics=listed(metrics) or ALL_METRICS, rules=rules)
        return self._report(asked)

    def _common_folder(self) -> Path:
        return Path(os.path.commonpath([run.path.parents[2] for run in self.trials]))


def listed(given: Names) -> list[str]:
    """Names, whether they were given as a text or as a list. Raises a ZooError for what is no name."""
    found = [given] if isinstance(given, str) else list(given)
    if wrong := [name for name in found if not isinstance(name, str)]:
        raise ZooError(f"{wrong[0]!r} is no name: give names, as `debias-zoo list` shows them")
    return [name for text in found for name in names(text)]
