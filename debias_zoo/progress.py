"""What a run shows while it goes on: one live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from .executors import Event
from .trial import Trial

PLAIN_SECONDS = 15.0
"""Plain lines about one trial are at least this far apart."""

ROOMY = 80
"""A live view of fewer columns has neither bars nor remaining times."""

OTHER_LINES = 4
"""Of a console beside those of the trials: the command, the line of all trials, what is printed."""


@runtime_checkable
class View(Protocol):
    """Shows events; a context manager."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Show one event."""
        ...


def make_view(console: Console, trials: Iterable[Trial]) -> View:
    """The live view where the console can be drawn anew, a terminal or a notebook with widgets; else plain lines."""
    widgets = console.is_jupyter and find_spec("ipywidgets") is not None
    live = widgets or (console.is_terminal and not console.is_jupyter)
    return LiveView(console, list(trials)) if live else PlainView(console, list(trials))


def summary(content: dict[str, Any]) -> str:
    """Loss and accuracy of a progress event, short."""
    losses = " ".join(f"{name} {value:.3f}" for name, value in content["loss"].items())
    seen = content["accuracy"]
    shown = [name for name in seen if name.startswith("val")] or list(seen)  # nobody should tune on a test split
    accuracy = " ".join(f"{name} {seen[name]:.3f}" for name in shown)
    return f"{content['stage']} {content['epoch'] + 1}/{content['epochs']}  {losses}  {accuracy}".rstrip()


class LiveView:
    """A line a trial with stage, loss and accuracy, and one for all of them; where there is room, bars and times too.

    Of more trials than the console has lines, only those that run have one.
    """

    def __init__(self, console: Console, trials: list[Trial]) -> None:
        self.names = short_names(trials)
        self.progress = Progress(
            *_columns(console.width, max(map(len, [*self.names.values(), _counted(len(trials), len(trials))]))),
            console=console,
            expand=True,
        )
        self.shares = dict.fromkeys(self.names, 0.0)
        self.ended: set[str] = set()
        self.failed: set[str] = set()
        self.whole = self.progress.add_task("", total=len(trials), visible=len(trials) > 1, state="")
        self.only_running = len(trials) > max(console.height - OTHER_LINES, 1)
        self.tasks: dict[str, TaskID] = {}
        for identity in self.names if not self.only_running else ():
            self._task(identity)

    def __enter__(self) -> LiveView:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def show(self, event: Event) -> None:
        identity = event.trial.identity
        task = self._task(identity)
        if event.kind == "started":
            self.progress.start_task(task)
            self.progress.update(task, state="starting")
        elif event.kind == "progress":
            done, total = event.content["done"], event.content["total"]
            self.shares[identity] = done / max(total, 1)
            self.progress.update(task, completed=done, total=total, state=summary(event.content))
        elif event.kind == "warning":
            self.progress.console.print(f"warning: {event.content['text']}", markup=False, highlight=False)
        elif event.kind == "done":
            self.progress.update(task, completed=1, total=1, state="done")
        else:
            self.progress.stop_task(task)
            self.progress.update(task, state="failed")
            self.failed.add(identity)
            text = f"{self.names[identity]}: failed: {event.content['error']}"
            self.progress.console.print(text, markup=False, highlight=False)
        if event.kind in {"done", "failed"}:
            self.ended.add(identity)
            self.shares[identity] = 1.0
            if self.only_running:
                self.progress.remove_task(self.tasks.pop(identity))
        self._count()

    def _task(self, identity: str) -> TaskID:
        """The line of a trial."""
        if identity not in self.tasks:
            self.tasks[identity] = self.progress.add_task(
                self.names[identity], total=None, start=False, state="waiting"
            )
        return self.tasks[identity]

    def _count(self) -> None:
        """Renew the line of all trials."""
        self.progress.update(
            self.whole,
            description=_counted(len(self.ended), len(self.names)),
            completed=sum(self.shares.values()),
            state=f"{len(self.failed)} failed" if self.failed else "",
        )


def _counted(ended: int, trials: int) -> str:
    return f"{ended} of {trials} trials"


def _columns(width: int, longest: int) -> list[ProgressColumn]:
    """Of the live view, in a console of ``width``: the name is never squeezed below the half of it."""
    name = Column(width=min(longest, width // 2), no_wrap=True, overflow="ellipsis")
    state = Column(ratio=2, no_wrap=True, overflow="ellipsis")
    bar = [BarColumn(bar_width=None, table_column=Column(ratio=1)), TimeRemainingColumn(compact=True)]
    return [
        TextColumn("{task.description}", table_column=name),
        *(bar if width >= ROOMY else []),
        TaskProgressColumn(table_column=Column(width=4, no_wrap=True)),
        TextColumn("{task.fields[state]}", style="dim", table_column=state),
    ]


class PlainView:
    """A line when something happens, and one in a while on how it goes."""

    def __init__(self, console: Console, trials: list[Trial]) -> None:
        self.console = console
        self.names = full_names(trials)
        self.last: dict[str, float] = {}

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, event: Event) -> None:
        name = self.names[event.trial.identity]
        if event.kind == "progress":
            now = time.monotonic()
            if now - self.last.get(event.trial.identity, -PLAIN_SECONDS) < PLAIN_SECONDS:
                return
            self.last[event.trial.identity] = now
            share = event.content["done"] / max(event.content["total"], 1)
            self._line(f"{name}: {share:4.0%}  {summary(event.content)}")
        elif event.kind == "warning":
            self._line(f"warning: {event.content['text']}")
        elif event.kind == "failed":
            self._line(f"{name}: failed: {event.content['error']}")
        else:
            self._line(f"{name}: {event.kind}")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def full_names(trials: Sequence[Trial]) -> dict[str, str]:
    """By identity: method, data set and seed, with the parameters of the data and the backbone in which they differ."""
    varied = _varied(trials)
    return {trial.identity: " ".join([trial.label, *varied(trial)]) for trial in trials}


def short_names(trials: Sequence[Trial]) -> dict[str, str]:
    """By identity: a short name; what all trials share is left out."""
    varied = _varied(trials)
    datasets, seeds = ({getattr(trial, key) for trial in trials} for key in ("dataset", "seed"))

    def name(trial: Trial) -> str:
        of_data = [trial.dataset] if len(datasets) > 1 else []
        of_seed = [f"#{trial.seed}"] if len(seeds) > 1 else []
        return " ".join([trial.method, *of_data, *of_seed, *varied(trial)])

    return {trial.identity: name(trial) for trial in trials}


def _varied(trials: Sequence[Trial]) -> Callable[[Trial], list[str]]:
    """What of a trial's data and backbone tells it from the other trials."""
    values: dict[str, set[str]] = {}
    backbones: dict[str, set[str]] = {}
    for trial in trials:
        backbones.setdefault(trial.method, set()).add(trial.backbone)
        for key in trial.params:
            values.setdefault(key, set())
    for key, found in values.items():
        found |= {str(trial.params.get(key)) for trial in trials}

    def of(trial: Trial) -> list[str]:
        params = [f"{key}={value}" for key, value in trial.params.items() if len(values[key]) > 1]
        return params + [trial.backbone] * (len(backbones[trial.method]) > 1)

    return of
