"""How a run's progress is shown, in a terminal and in a log."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from debias_zoo.executors import Event
from debias_zoo.grid import Request, build_grid
from debias_zoo.progress import LiveView, PlainView


@pytest.mark.parametrize("terminal", [True, False])
def test_views_show_every_event(terminal: bool) -> None:
    (trial,) = build_grid(Request(["erm"], ["cmnist"], protocol="quick")).trials.values()
    console = Console(force_terminal=terminal, width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    state = {
        "stage": "main",
        "epoch": 0,
        "epochs": 2,
        "done": 5,
        "total": 10,
        "loss": {"main": 0.5},
        "accuracy": {"val": 0.25},
    }
    with LiveView(console, [trial]) if terminal else PlainView(console, [trial]) as view:
        view.show(Event(trial, "started"))
        view.show(Event(trial, "progress", state))
        view.show(Event(trial, "progress", {**state, "done": 6}))
        view.show(Event(trial, "warning", {"text": "mind [this]"}))
        view.show(Event(trial, "done"))
        view.show(Event(trial, "failed", {"error": "it [broke]"}))
    said = console.export_text()
    console.file.close()
    assert "mind [this]" in said
    assert "it [broke]" in said
    if not terminal:
        assert "erm on cmnist, seed 0:  50%  main 1/2  main 0.500  val 0.250" in said


def test_of_many_trials_only_those_that_run_have_a_line() -> None:
    trials = list(build_grid(Request(["erm"], ["cmnist"], seeds=list(range(50)), protocol="quick")).trials.values())
    console = Console(force_terminal=True, width=100, height=24, file=io.StringIO())
    state = {"stage": "main", "epoch": 0, "epochs": 2, "done": 5, "total": 10, "loss": {}, "accuracy": {}}

    def lines() -> list[str]:
        shown = Console(width=100, file=io.StringIO())
        shown.print(view.progress.make_tasks_table(view.progress.tasks))
        assert isinstance(shown.file, io.StringIO)
        return [line.split("  ")[0].strip() for line in shown.file.getvalue().splitlines()]

    with LiveView(console, trials) as view:
        for trial in trials[:3]:
            view.show(Event(trial, "started"))
        view.show(Event(trials[0], "progress", state))
        view.show(Event(trials[1], "done"))
        view.show(Event(trials[2], "failed", {"error": "it broke"}))
        view.show(Event(trials[3], "started"))
        assert lines() == ["2 of 50 trials", "erm #0", "erm #3"]
        assert view.progress.tasks[0].completed == 2.5
        assert view.progress.tasks[0].fields["state"] == "1 failed"
    assert isinstance(console.file, io.StringIO)
    assert "erm #2: failed: it broke" in console.file.getvalue()
