"""``debias_zoo.run`` and ``debias_zoo.read``: a comparison, and finished runs, from Python.

They do what the commands ``run`` and ``report`` do, by the same code; options have the names of the command line's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .arrays import Arrays
from .cli_shared import names
from .dataset import BiasDataset
from .driver import compare
from .errors import ZooError, unknown
from .metrics import ALL_METRICS, METRICS
from .protocol import PROTOCOLS
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

Dataset = str | Mapping[str, Any] | BiasDataset
"""``"name:key=value"``, ``{"name": ..., key: value}``, where a list of values is a sweep, or a data set object."""

_DRAWN = ("accuracy", "unbiased", "worst_group")
_FIRST = ("method", "dataset", "setting", "supervision", "n", "seeds")


def run(
    methods: Names,
    dataset: Dataset | Sequence[Dataset],
    *,
    seeds: int | None = None,
    seed: int | Sequence[int] | None = None,
    protocol: str = "standard",
    backbone: Names = (),
    set: Mapping[str, Any] | None = None,  # noqa: A002  (--set)
    recipe: str | Path | Sequence[str | Path] = (),
    device: str = "auto",
    jobs: int | str = "auto",
    threads: int | str = "auto",
    per_gpu: int | None = None,
    precision: str = "auto",
    out: str | Path = "runs",
    data_root: str | Path | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    skip_corrupt: bool = False,
    track: Names = (),
    executor: str = "local",
    address: str = "",
    slurm: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Runs:
    """Train and compare methods, as ``debias-zoo run`` does: what is finished in ``out`` is not done again.

    Trials run in processes of their own, which import nothing of the program that calls this: it may be called from a
    script without ``if __name__ == "__main__"``, a notebook or standard input. An interrupt loses nothing: the same
    call goes on.

    Args:
        methods: names of registered methods.
        dataset: one data set or several; of arrays in memory what ``from_arrays(...).save(FILE)`` gives.
        seeds: how many: 0 ... N-1; neither this nor ``seed``: seed 0 alone.
        seed: which.
        protocol: ``quick``, ``standard`` or ``paper``.
        backbone: timm models in the place of the recipe's.
        set: settings: ``{"method.key": value}``, ``method.train.key`` or ``method.STAGE.key``.
        recipe: files that ``debias-zoo tune`` wrote.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.
        jobs: trials side by side, or ``auto``.
        threads: of each trial, or ``auto``.
        per_gpu: trials that share a GPU; None: one.
        precision: ``auto``, ``fp32`` or ``bf16``.
        out: the store, a folder.
        data_root: where downloaded data lie; None: ``$DEBIAS_ZOO_DATA``.
        weights: a state dict that the backbone starts from.
        pretrained: whether it starts from timm's pretrained weights.
        skip_corrupt: leave out images that cannot be decoded.
        track: names of trackers.
        executor: ``local``, ``ray``, ``slurm`` or a plugin's.
        address: of a Ray cluster.
        slurm: parameters for Slurm.
        progress: whether to show how it goes; False: nothing is printed.

    Returns:
        The finished trials of what was asked for. Those that failed are told in its ``problems``.

    Raises:
        ZooError: something was asked for that cannot be done, before any training; or no trial finished.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", str(protocol), PROTOCOLS)
    several = [dataset] if isinstance(dataset, str | Mapping | BiasDataset) else dataset
    root = data_root if data_root is not None else os.environ.get("DEBIAS_ZOO_DATA")
    found = compare(
        Console(quiet=not progress),
        methods=",".join(_listed(methods)),
        datasets=[_dataset(one) for one in several],
        seeds=_count(seeds),
        seed_list=None if seed is None else ",".join(map(str, [seed] if isinstance(seed, int) else seed)),
        backbones=_listed(backbone),
        protocol=protocol,
        sets=[f"{key}={_json(key, value)}" for key, value in (set or {}).items()],
        device=device,
        jobs=str(jobs),
        precision=precision,
        out=Path(out),
        root=None if not root else Path(root),
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        skip_corrupt=skip_corrupt,
        track=_listed(track),
        recipes=[Path(path) for path in ([recipe] if isinstance(recipe, str | Path) else recipe)],
        threads=str(threads),
        per_gpu=per_gpu,
        executor=executor,
        address=address,
        slurm=[f"{key}={value}" for key, value in (slurm or {}).items()],
    )
    if not found.runs:
        raise ZooError("no trial finished: " + "; ".join(found.problems))
    return Runs(found.runs, found.problems, found.methods)


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

        return method_bars(self._one(select, metrics, split).table, _listed(metrics))

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
            compare: differences from this method, with tests; ``""``: from the usual one; None: no comparison.
            curve: a metric against this parameter of the data.
            figure: what ``curve``, ``cost`` or ``compare`` asks for is also drawn into this file (.svg, .pdf, .png).

        Raises:
            ZooError: something is not known, or cannot be shown in this format.
        """
        asked = Asked(
            methods=_listed(methods) or self.methods,
            split=split,
            metrics=_listed(metrics) or METRICS,
            rules=_listed(select),
            layout=layout,
            ledger=ledger,
            cost=cost,
            intervals=intervals,
            compare=compare,
            curve=curve,
        )
        if figure is not None and not (curve or cost or compare is not None):
            raise ZooError("a figure is drawn of curve, cost or compare: give one of them; or call figure()")
        made = make_report(self.trials, self.problems, asked)
        if figure is not None:
            from .reports.figures import draw_report

            draw_report(made, asked, Path(figure))
        if format == "html":
            from .reports.page import to_html

            return to_html(list(self.trials), list(self.problems), asked, self._common_folder())
        return render_report(made, format, standalone)

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
        rules = _listed(select)
        if len(rules) != 1:
            raise ZooError(f"select={select!r}: a table is of one rule; report(select=[...]) compares several")
        asked = Asked(methods=self.methods, split=split, metrics=_listed(metrics) or ALL_METRICS, rules=rules)
        return self._report(asked)

    def _common_folder(self) -> Path:
        return Path(os.path.commonpath([run.path.parents[2] for run in self.trials]))


def _listed(given: Names) -> list[str]:
    """Names, whether they were given as a text or as a list."""
    found = [given] if isinstance(given, str) else list(given)
    if wrong := [name for name in found if not isinstance(name, str)]:
        raise ZooError(f"{wrong[0]!r} is no name: give names, as `debias-zoo list` shows them")
    return list(_pieces(found))


def _pieces(found: Sequence[str]) -> Iterator[str]:
    for text in found:
        yield from names(text)


def _dataset(given: Dataset) -> str | Mapping[str, Any]:
    """As the command line or a grid file has it."""
    if not isinstance(given, BiasDataset):
        return given
    if isinstance(given, Arrays) and not given.params.file:
        raise ZooError("arrays in memory do not reach the processes of trials: dataset=arrays.save('mine.npz')")
    return {"name": given.name, **{key: [value] for key, value in given.params.model_dump(mode="json").items()}}


def _count(seeds: int | None) -> int | None:
    if seeds is not None and (not isinstance(seeds, int) or seeds < 1):
        raise ZooError(f"seeds={seeds!r}: how many, from 1; which ones is said by seed=[...]")
    return seeds


def _json(key: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise ZooError(f"set={{{key!r}: {value!r}}}: must be a number, a text, a truth value or a list") from error
