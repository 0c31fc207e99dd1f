"""``debias-zoo run``: say what will be done, do it, show the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .assembly import dataset_of
from .cli_shared import names
from .data import prepare
from .devices import pick_device, pick_precision, visible_gpus
from .errors import ZooError
from .estimate import expected_seconds, makespan
from .executors import Executor, Setup, pick_executor
from .grid import Grid, Request, build_grid, parse_set
from .interrupts import terminable, until_stopped
from .progress import full_names, make_view
from .recipes import read_recipe
from .reports.table import build_table
from .reports.terminal import render_rich
from .slots import fit_memory, share_out
from .store import Folder, Run
from .tracking import check_trackers
from .trial import Trial
from .weights import PRETRAINED
from .writing import check_writable

FAILED = 1


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        runs: the finished trials of what was asked for. methods: that were asked for, in this order.
        problems: what failed, a line each.
    """

    runs: list[Run]
    methods: list[str]
    problems: list[str]


def drive(console: Console | None = None, **options: Any) -> int:
    """Run a comparison as the options of ``debias-zoo run`` say, and show it; returns the exit code."""
    as_json = options.get("as_json", False)
    if as_json and not options.get("dry_run"):
        raise ZooError("--json goes with --dry-run; results are given by debias-zoo report --format json")
    shown = console or Console(stderr=as_json)

    def run() -> int:
        found = compare(shown, **options)
        if not options.get("dry_run"):
            _show(shown, found, options["out"])
        return FAILED if found.problems else 0

    return until_stopped(run, lambda text: say(shown, text))


def compare(
    console: Console,
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
    normalize: str = "",
    skip_corrupt: bool = False,
    track: Sequence[str] = (),
    dry_run: bool = False,
    as_json: bool = False,
    recipes: Sequence[Path] = (),
    threads: str = "auto",
    per_gpu: int | None = None,
    executor: str = "local",
    address: str = "",
    slurm: Sequence[str] = (),
    compiling: str = "off",
    stack: int = 1,
) -> Comparison:
    """Run what is not finished of a comparison, as the options of ``debias-zoo run`` say; the console is told.

    Raises:
        ZooError: something was asked for that cannot be done; a trial that fails is a problem of the comparison.
    """
    runs_on = pick_executor(
        executor, {"address": address, "per-gpu": per_gpu, "slurm": slurm, "stack-seeds": stack > 1}
    )
    if stack > 1 and compiling != "off":
        raise ZooError("--stack-seeds batches what --compile would compile: give one of them")
    device = device if runs_on.remote and device.startswith("cuda") else pick_device(device)
    trackers = check_trackers(track)
    request = Request(
        methods=list(dict.fromkeys(names(methods))),
        datasets=datasets,
        seeds=parse_seeds(seeds, seed_list),
        protocol=protocol,
        backbones=list(dict.fromkeys(backbones)),
        sets=[parse_set(text) for text in sets],
        precision=pick_precision(device, precision),
        root=root,
        weights=initial(weights, pretrained),
        normalize=normalize,
        skip_corrupt=skip_corrupt,
        chosen=[read_recipe(path) for path in recipes],
    )
    gpus = visible_gpus() if device == "cuda" and not runs_on.remote else ()
    parameters = parse_slurm(slurm)
    grid = build_grid(request)
    programs = -(-len(grid.trials) // stack)
    slots, each = share_out(jobs, programs, device, threads, gpus, per_gpu, runs_on.remote)
    spread = gpus if len(gpus) > 1 else ()
    setup = Setup(
        out, slots, each, device, root, tuple(trackers), spread, per_gpu or 1, address, parameters, compiling, stack
    )
    errors = _run_missing(console, request, grid, setup, runs_on, jobs == "auto", dry_run, as_json)
    return _comparison(grid, out, errors, aside=not dry_run)


def _run_missing(
    console: Console,
    request: Request,
    grid: Grid,
    setup: Setup,
    runs_on: type[Executor],
    choose_slots: bool,
    dry_run: bool,
    as_json: bool,
) -> dict[str, str]:
    """Run what is not finished of the grid, or only list it; the errors of those that failed, by identity."""
    if not dry_run:
        check_writable(setup.out)
    for warning in dict.fromkeys(grid.warnings):
        say(console, f"warning: {warning}")
    todo = unfinished(grid, setup.out, console, aside=not dry_run)
    if not dry_run:
        _restate(grid, setup.out)
    errors: dict[str, str] = {}
    seconds: dict[str, float] = {}
    if todo:
        prepare([dataset_of(trial) for trial in todo], setup.root, console)
        if choose_slots and setup.device == "cpu" and not runs_on.remote:
            setup = replace(setup, slots=fit_memory(setup.slots, todo, setup.root))
        if not runs_on.remote:
            seconds = expected_seconds(todo, setup.out, setup.root, setup.device, setup.threads)
        # of one seed, the longest first: the last worker is not left alone with a long one
        todo.sort(key=lambda trial: (_rank(request, trial), -seconds.get(trial.identity, 0.0)))
        _announce(console, request, grid, todo, seconds, setup, runs_on)
        if not dry_run:
            errors = execute(console, todo, runs_on(setup))
    if dry_run:
        _list(console, grid, todo, seconds, as_json)
    return errors


def _comparison(grid: Grid, out: Path, errors: Mapping[str, str], aside: bool) -> Comparison:
    asked = [grid.trials[identity] for identity in grid.asked]
    found = [(Folder(out / trial.folder).result(aside), out / trial.folder) for trial in asked]
    every = full_names(list(grid.trials.values()))
    return Comparison(
        runs=[Run(result, path) for result, path in found if result is not None],
        methods=list(dict.fromkeys(trial.method for trial in asked)),
        problems=[
            f"failed: {text}" if grid.trials[key].label in text else f"{every[key]}: failed: {text}"
            for key, text in errors.items()
        ],
    )


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
        return list(range(1 if count is None else count))
    try:
        seeds = [int(piece) for piece in listed.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise ZooError(f"--seed {listed}: seeds are whole numbers from 0, separated by commas")
    return list(dict.fromkeys(seeds))


def parse_slurm(given: Sequence[str]) -> Mapping[str, str]:
    """``--slurm KEY=VALUE`` as a mapping."""
    pairs = [text.partition("=") for text in given]
    for text, (key, sign, _) in zip(given, pairs, strict=True):
        if not (sign and key.isidentifier()):
            raise ZooError(f"--slurm {text}: must read KEY=VALUE, such as partition=gpu")
    return {key: value for key, _, value in pairs}


def _rank(request: Request, trial: Trial) -> tuple[int, int]:
    """Teachers first, then seed by seed."""
    asked = trial.method in request.methods
    return (int(asked), request.seeds.index(trial.seed) if trial.seed in request.seeds else 0)


def unfinished(grid: Grid, out: Path, console: Console, aside: bool = True) -> list[Trial]:
    """The trials without a result below ``out``; a ZooError where one needs a network that is lost.

    ``aside``: of damaged results, as in ``Folder.result``.
    """

    def warn(text: str) -> None:
        say(console, f"warning: {text}")

    folders = {key: Folder(out / trial.folder, warn) for key, trial in grid.trials.items()}
    todo = {key: trial for key, trial in grid.trials.items() if folders[key].result(aside) is None}
    for trial in todo.values():
        for needed in trial.needs.values():
            folder = out / needed.folder
            if needed.identity not in todo and not (folder / "model.safetensors").exists():
                raise ZooError(
                    f"{trial.method} needs the network of {needed.label}, whose result is there without it "
                    f"({folder}/model.safetensors is missing): delete that folder, or choose another --out"
                )
    return list(todo.values())


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
    seconds: Mapping[str, float],
    setup: Setup,
    runs_on: type[Executor],
) -> None:
    done = len(grid.trials) - len(todo)
    known = f" ({done} of {len(grid.trials)} are finished already)" if done else ""
    seeds = ", ".join(str(seed) for seed in request.seeds)
    say(console, f"{len(todo)} trial{'s' * (len(todo) != 1)}{known}: {', '.join(request.methods)}")
    say(console, f"on {', '.join(map(_named, request.datasets))}; seed{'s' * (len(request.seeds) != 1)} {seeds}")
    say(
        console,
        f"protocol {request.protocol}, {request.precision} on {setup.device}, {_where(setup, runs_on)} with "
        f"{setup.threads} thread{'s' * (setup.threads != 1)} each, "
        f"backbone {', '.join(sorted({t.backbone for t in todo}))}",
    )
    differing = dict.fromkeys((trial.method, trial.deviations) for trial in todo if trial.deviations)
    for method, deviations in differing:
        say(console, f"{method}: differs from its paper: {'; '.join(deviations)}")
    times = [seconds[trial.identity] for trial in todo if trial.identity in seconds]
    unknown = f", without {len(todo) - len(times)} that cannot be timed yet" if len(times) < len(todo) else ""
    expected = f"expected to take about {duration(makespan(times, setup.slots))}{unknown}; " if times else ""
    say(console, f"{expected}results go to {setup.out}/")


def _where(setup: Setup, runs_on: type[Executor]) -> str:
    return f"up to {setup.slots} at a time by {runs_on.name}" if runs_on.remote else f"{setup.slots} at a time"


def _list(console: Console, grid: Grid, todo: list[Trial], seconds: Mapping[str, float], as_json: bool) -> None:
    """The trials in the order they would run, with the seconds each is expected to take; then the finished ones."""
    missing = {trial.identity for trial in todo}
    order = [*todo, *(trial for key, trial in grid.trials.items() if key not in missing)]
    if as_json:
        rows = [_row(trial, trial.identity in missing, seconds.get(trial.identity)) for trial in order]
        print(json.dumps(rows, indent=1))
        return
    names = full_names(list(grid.trials.values()))
    for trial in order:
        expected = seconds.get(trial.identity)
        known = "unknown" if expected is None else duration(expected)
        time = known if trial.identity in missing else "finished"
        say(console, f"{time:>12}  {names[trial.identity]}  {trial.folder}")


def _row(trial: Trial, missing: bool, seconds: float | None) -> dict[str, Any]:
    told = trial.model_dump(mode="json", include={"method", "dataset", "params", "seed", "protocol", "backbone"})
    state = {"identity": trial.identity, "finished": not missing, "seconds": seconds}
    return {**told, **state, "path": trial.folder, "command": trial.command()}


def _named(dataset: str | Mapping[str, Any]) -> str:
    return dataset if isinstance(dataset, str) else json.dumps(dict(dataset))


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def execute(console: Console, todo: list[Trial], executor: Executor, keep: bool = False) -> dict[str, str]:
    """Run the trials; the errors of those that failed, by identity. ``keep`` as in ``Executor.run``."""
    errors = {}
    with terminable(), make_view(console, todo) as view:  # again: making the executor may have replaced the handler
        for event in executor.run(todo, keep):
            view.show(event)
            if event.kind == "failed":
                errors[event.trial.identity] = event.content["error"]
    return errors


def _show(console: Console, found: Comparison, out: Path) -> None:
    if not found.runs:
        say(console, "no trial finished")
        for problem in found.problems:
            say(console, problem)
        return
    results = [run.result for run in found.runs]
    console.print(render_rich(build_table(results, methods=found.methods, problems=found.problems)))
    if console.file is sys.stdout:
        say(console, f"for a paper: debias-zoo report {out} --format latex -o table.tex")


def say(console: Console, text: Any) -> None:
    """A line of plain text, not wrapped."""
    console.print(str(text), markup=False, highlight=False, soft_wrap=True)
