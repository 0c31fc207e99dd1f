"""``debias-zoo run``: say what will be done, do it, show the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .assembly import dataset_of
from .cli_shared import names
from .data import prepare
from .devices import cores, default_precision, pick_device
from .errors import ZooError
from .estimate import expected_seconds, makespan
from .executors import LocalExecutor
from .grid import Grid, Request, build_grid, parse_set
from .progress import full_name, make_view
from .recipes import read_recipe
from .reports.table import build_table
from .reports.terminal import render_rich
from .store import Folder, check_writable
from .tracking import check_trackers
from .trial import Result, Trial
from .weights import PRETRAINED

FAILED, INTERRUPTED = 1, 130


def drive(
    methods: str,
    datasets: Sequence[str | Mapping[str, Any]],
    seeds: int | None,
    seed_list: str | None,
    backbones: Sequence[str],
    protocol: str,
    sets: Sequence[str],
    device: str,
    jobs: str,
    precision: str,
    out: Path,
    root: Path | None,
    weights: Path | None = None,
    pretrained: bool = False,
    skip_corrupt: bool = False,
    track: Sequence[str] = (),
    dry_run: bool = False,
    recipes: Sequence[Path] = (),
    console: Console | None = None,
) -> int:
    """Run a comparison as the options of ``debias-zoo run`` say; returns the exit code."""
    console = console or Console()
    device = pick_device(device)
    trackers = check_trackers(track)
    request = Request(
        methods=list(dict.fromkeys(names(methods))),
        datasets=datasets,
        seeds=parse_seeds(seeds, seed_list),
        protocol=protocol,
        backbones=list(dict.fromkeys(backbones)),
        sets=[parse_set(text) for text in sets],
        precision=default_precision(device) if precision == "auto" else precision,
        root=root,
        weights=initial(weights, pretrained),
        skip_corrupt=skip_corrupt,
        chosen=[read_recipe(path) for path in recipes],
    )
    grid = build_grid(request)
    slots, threads = share_out(jobs, len(grid.trials), device)
    if not dry_run:
        check_writable(out)
    for warning in dict.fromkeys(grid.warnings):
        say(console, f"warning: {warning}")
    todo = unfinished(grid, out, console)
    _restate(grid, out)
    errors: dict[str, str] = {}
    if todo:
        prepare([dataset_of(trial) for trial in todo], root, console)
        seconds = expected_seconds(todo, out, root, device, threads)
        # of one seed, the longest first: the last worker is not left alone with a long one
        todo.sort(key=lambda trial: (_rank(request, trial), -seconds[trial.identity]))
        if dry_run:
            _list(console, request, grid, todo, seconds)
        _announce(console, request, grid, todo, [seconds[t.identity] for t in todo], slots, threads, device, out)
        if dry_run:
            return 0
        try:
            errors = execute(console, todo, LocalExecutor(slots, threads, out, device, root, trackers))
        except KeyboardInterrupt:
            say(console, "interrupted; what is finished is kept: the same command goes on from there")
            return INTERRUPTED
    _show(console, grid, out, errors)
    return FAILED if errors else 0


def initial(weights: Path | None, pretrained: bool) -> str:
    """What ``--weights`` or ``--pretrained`` stand for, as in ``weights.py``."""
    if weights is not None and pretrained:
        raise ZooError("--weights names a file, --pretrained asks timm: give one of them")
    return PRETRAINED if pretrained else str(weights.resolve()) if weights else ""


def parse_seeds(count: int | None, listed: str | None) -> list[int]:
    """``--seeds N`` as 0 ... N-1, ``--seed a,b`` as named, neither as [0]."""
    if count is not None and listed is not None:
        raise ZooError("--seeds says how many seeds, --seed which: give one of them")
    if listed is None:
        return list(range(count or 1))
    try:
        seeds = [int(piece) for piece in listed.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise ZooError(f"--seed {listed}: seeds are whole numbers from 0, separated by commas")
    return list(dict.fromkeys(seeds))


def share_out(jobs: str, trials: int, device: str) -> tuple[int, int]:
    """Slots, and threads of each.

    The threads depend on the whole grid and not on what is left of it: sums over threads round differently, and a
    resumed run must end with the same numbers.
    """
    here = cores()
    if jobs == "auto":
        slots = min(here, max(trials, 1)) if device == "cpu" else 1
    elif jobs.isdecimal() and int(jobs) > 0:
        slots = int(jobs)
    else:
        raise ZooError(f"--jobs {jobs}: a whole number from 1, or auto")
    return slots, max(1, here // slots)


def _rank(request: Request, trial: Trial) -> tuple[int, int]:
    """Teachers first, then seed by seed."""
    asked = trial.method in request.methods
    return (int(asked), request.seeds.index(trial.seed) if trial.seed in request.seeds else 0)


def unfinished(grid: Grid, out: Path, console: Console) -> list[Trial]:
    """The trials without a result below ``out``; a ZooError where one needs a network that is lost."""

    def warn(text: str) -> None:
        say(console, f"warning: {text}")

    todo = [trial for trial in grid.trials.values() if Folder(out / trial.folder, warn).result() is None]
    for trial in todo:
        for needed in trial.needs.values():
            folder = out / needed.folder
            if needed not in todo and not (folder / "model.safetensors").exists():
                raise ZooError(
                    f"{trial.method} needs the network of {needed.label}, whose result is there without it "
                    f"({folder}/model.safetensors is missing): delete that folder, or choose another --out"
                )
    return todo


def _restate(grid: Grid, out: Path) -> None:
    """Finished trials whose settings turn out to be chosen by labels say so from now on; none unsays it."""
    for trial in grid.trials.values():
        folder = Folder(out / trial.folder)
        result = folder.result()
        rank = (None, "val", "val_unbiased").index
        if result and rank(trial.supervision.tuned_on) > rank(result.trial.supervision.tuned_on):
            folder.restate(result, trial)


def _announce(
    console: Console,
    request: Request,
    grid: Grid,
    todo: list[Trial],
    seconds: list[float],
    slots: int,
    threads: int,
    device: str,
    out: Path,
) -> None:
    done = len(grid.trials) - len(todo)
    known = f" ({done} of {len(grid.trials)} are finished already)" if done else ""
    seeds = ", ".join(str(seed) for seed in request.seeds)
    say(console, f"{len(todo)} trial{'s' * (len(todo) != 1)}{known}: {', '.join(request.methods)}")
    say(console, f"on {', '.join(map(_named, request.datasets))}; seed{'s' * (len(request.seeds) != 1)} {seeds}")
    say(
        console,
        f"protocol {request.protocol}, {request.precision} on {device}, {slots} at a time with {threads} "
        f"thread{'s' * (threads != 1)} each, backbone {', '.join(sorted({t.backbone for t in todo}))}",
    )
    differing = dict.fromkeys((trial.method, trial.deviations) for trial in todo if trial.deviations)
    for method, deviations in differing:
        say(console, f"{method}: differs from its paper: {'; '.join(deviations)}")
    say(console, f"expected to take about {duration(makespan(seconds, slots))}; results go to {out}/")


def _list(console: Console, request: Request, grid: Grid, todo: list[Trial], seconds: dict[str, float]) -> None:
    """The trials in the order they would run, with the seconds each is expected to take; then the finished ones."""
    every = list(grid.trials.values())
    for trial in todo:
        say(console, f"{duration(seconds[trial.identity]):>12}  {full_name(trial, every)}  {trial.folder}")
    for trial in every:
        if trial not in todo:
            say(console, f"{'finished':>12}  {full_name(trial, every)}  {trial.folder}")


def _named(dataset: str | Mapping[str, Any]) -> str:
    return dataset if isinstance(dataset, str) else json.dumps(dict(dataset))


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def execute(console: Console, todo: list[Trial], executor: LocalExecutor, keep: bool = False) -> dict[str, str]:
    """Run the trials; the errors of those that failed, by identity. ``keep`` as in ``LocalExecutor.run``."""
    errors = {}
    with make_view(console, todo) as view:
        for event in executor.run(todo, keep):
            view.show(event)
            if event.kind == "failed":
                errors[event.trial.identity] = event.content["error"]
    return errors


def _show(console: Console, grid: Grid, out: Path, errors: dict[str, str]) -> None:
    results: list[Result] = []
    for identity in grid.asked:
        result = Folder(out / grid.trials[identity].folder).result()
        if result is not None:
            results.append(result)
    every = list(grid.trials.values())
    problems = [f"{full_name(grid.trials[key], every)}: failed: {text}" for key, text in errors.items()]
    if not results:
        say(console, "no trial finished")
        for problem in problems:
            say(console, problem)
        return
    methods = list(dict.fromkeys(grid.trials[identity].method for identity in grid.asked))
    console.print(render_rich(build_table(results, methods=methods, problems=problems)))
    if console.file is sys.stdout:
        say(console, f"for a paper: debias-zoo report {out} --format latex -o table.tex")


def say(console: Console, text: Any) -> None:
    """A line of plain text, not wrapped."""
    console.print(str(text), markup=False, highlight=False, soft_wrap=True)
