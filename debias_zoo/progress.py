"""What a run shows while it goes on: one live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol

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
    """A line a trial with stage, loss and accuracy; where there is room, a bar and the remaining time too."""

    def __init__(self, console: Console, trials: list[Trial]) -> None:
        names = {trial.identity: _short_name(trial, trials) for trial in trials}
        self.progress = Progress(*_columns(console.width, max(map(len, names.values()))), console=console, expand=True)
        self.tasks: dict[str, TaskID] = {
            identity: self.progress.add_task(name, total=None, start=False, state="waiting")
            for identity, name in names.items()
        }

    def __enter__(self) -> LiveView:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def show(self, event: Event) -> None:
        task = self.tasks[event.trial.identity]
        if event.kind == "started":
            self.progress.start_task(task)
            self.progress.update(task, state="starting")
        elif event.kind == "progress":
            content = event.content
            state = summary(content)
            self.progress.update(task, completed=content["done"], total=content["total"], state=state)
        elif event.kind == "warning":
            self.progress.console.print(f"warning: {event.content['text']}", markup=False, highlight=False)
        elif event.kind == "done":
            total = self.progress.tasks[task].total or 1
            self.progress.update(task, completed=total, total=total, state="done")
        else:
            self.progress.stop_task(task)
            self.progress.update(task, state="failed")
            text = f"{self.progress.tasks[task].description}: failed: {event.content['error']}"
            self.progress.console.print(text, markup=False, highlight=False)


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
        self.names = {trial.identity: full_name(trial, trials) for trial in trials}
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


def full_name(trial: Trial, trials: Sequence[Trial]) -> str:
    """Method, data set and seed, with the parameters of the data and the backbone in which the trials differ."""
    return " ".join([trial.label, *_varied(trial, trials)])


def _short_name(trial: Trial, trials: Sequence[Trial]) -> str:
    """A short name; what all trials share is left out."""
    name = trial.method
    if len({other.dataset for other in trials}) > 1:
        name += f" {trial.dataset}"
    if len({other.seed for other in trials}) > 1:
        name += f" #{trial.seed}"
    return " ".join([name, *_varied(trial, trials)])


def _varied(trial: Trial, trials: Sequence[Trial]) -> list[str]:
    keys = [key for key in trial.params if len({str(other.params.get(key)) for other in trials}) > 1]
    backbones = {other.backbone for other in trials if other.method == trial.method}
    return [*[f"{key}={trial.params[key]}" for key in keys], *([trial.backbone] if len(backbones) > 1 else [])]
