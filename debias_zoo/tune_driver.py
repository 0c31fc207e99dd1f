"""``debias-zoo tune``: refuse what cannot be searched, search each method alike, show and write what was chosen."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .assembly import dataset_of
from .cli_shared import names
from .data import prepare
from .dataset import BiasDataset
from .devices import pick_device, pick_precision
from .driver import FAILED, duration, execute, initial, parse_seeds, say, unfinished
from .errors import ZooError
from .estimate import expected_seconds, makespan
from .executor_local import LocalExecutor
from .executors import Setup
from .feasibility import dry_run, labels_of, training_counts
from .grid import Grid, Request, build_grid, parse_datasets, parse_set
from .interrupts import until_stopped
from .metrics import group_metrics
from .recipes import RecipeFile
from .registry import load_method
from .reports.selection import Rule, criterion, read_split
from .search_space import check_given, described, own_values, search_space
from .slots import share_out
from .trial import Groups, Trial
from .tune import Search, Tried, best_of, criterion_rule, import_optuna, run_study
from .weights import PRETRAINED
from .writing import check_writable

Given = Sequence[tuple[str, str, Any]]


def drive_tune(
    methods: str,
    dataset: str,
    trials: int,
    select: str,
    searches: Sequence[str],
    search_seed: int,
    seeds: int | None,
    seed_list: str | None,
    backbone: str | None,
    protocol: str,
    device: str,
    jobs: str,
    precision: str,
    out: Path,
    root: Path | None,
    weights: Path | None = None,
    pretrained: bool = False,
    skip_corrupt: bool = False,
    sets: Sequence[str] = (),
    console: Console | None = None,
) -> int:
    """Search as the options of ``debias-zoo tune`` say; returns the exit code: 1 where a method has no result."""
    console = console or Console()
    rule, asked = criterion_rule(select), list(dict.fromkeys(names(methods)))
    import_optuna()
    device = pick_device(device)
    request = Request(
        methods=asked,
        datasets=[dataset],
        seeds=parse_seeds(seeds, seed_list),
        protocol=protocol,
        backbone=backbone,
        precision=pick_precision(device, precision),
        root=root,
        weights=initial(weights, pretrained),
        skip_corrupt=skip_corrupt,
        sets=[parse_set(text) for text in sets],
    )
    grid = build_grid(request)
    slots, threads = share_out(jobs, trials * len(request.seeds), device)
    batch = max(1, slots // len(request.seeds))
    found = [_search(name, request, grid, rule, _given(searches, asked), search_seed, batch, out) for name in asked]
    check_writable(out)
    for warning in dict.fromkeys(grid.warnings):
        say(console, f"warning: {warning}")
    prepare([dataset_of(trial) for trial in grid.trials.values()], root, console)
    executor = LocalExecutor(Setup(out, slots, threads, device, root))

    def search() -> int:
        done = [_searched(console, one, trials, executor) for one in found]
        return 0 if all(done) else FAILED

    try:
        return until_stopped(search, lambda text: say(console, text))
    finally:
        executor.close()


def _given(searches: Sequence[str], methods: Sequence[str]) -> Given:
    """``--search METHOD.KEY=JSON`` as (method, key, range)."""
    try:
        given = [parse_set(text) for text in searches]
    except ZooError as error:
        raise ZooError(str(error).replace("--set", "--search", 1)) from error
    for method, key, _ in given:
        if method not in methods:
            raise ZooError(f"--search {method}.{key}: {method!r} is not among --method {','.join(methods)}")
    return given


def _search(
    name: str, request: Request, grid: Grid, rule: Rule, given: Given, seed: int, batch: int, out: Path
) -> Search:
    """The search of one method; a ZooError where there is nothing to search, or nothing to score it by."""
    own = tuple(trial for trial in (grid.trials[key] for key in grid.asked) if trial.method == name)
    if len({str(trial.params) for trial in own}) > 1:
        raise ZooError(f"--dataset {request.datasets[0]} is a sweep; settings are searched on one data set")
    split = _scored_split(own[0], rule, request)
    space = tuple(search_space(load_method(name), given))
    check_given(space, load_method(name))
    fixed = [one for one in request.sets if one[0] == name]
    for _, key, _ in fixed:
        if key.rpartition(".")[2] == "epochs":
            raise ZooError(f"--set {name}.{key}: the number of epochs is the protocol's, the same for every method")
        if key in {one.key for one in space}:
            raise ZooError(f"{name}.{key} is searched and set: leave out --set {name}.{key}, or search others")
    alone = Request(**{**vars(request), "methods": [name], "sets": fixed})
    values = own_values(dry_run(own[0], request.root), own[0], space)
    return Search(alone, own, space, values, rule, split, seed, batch, out)


def _scored_split(trial: Trial, rule: Rule, request: Request) -> str:
    """The split whose labels the rule reads; a ZooError where it, or what the rule needs of it, is not there."""
    (dataset,) = parse_datasets(request.datasets[0], request.skip_corrupt)
    who = f"--select {rule.name} on data set {dataset.name!r}"
    split = read_split(rule, dataset.card.eval_splits)
    if split is None:
        wanted = "val or val_unbiased" if rule.unbiased else "val"
        there = ", ".join(dataset.card.eval_splits)
        raise ZooError(
            f"{who}: it has no split {wanted} with these parameters, only {there}, and settings are never chosen on a "
            "test split: let it hold out validation images (for the bundled data sets val=6000)"
        )
    if _flawless(dataset, split, rule, trial.eval_limit, request.root) is None:
        missing = "no bias labels, or no image of a group that the rule needs" if rule.bias else "no labels"
        raise ZooError(f"{who}: its split {split!r} has {missing}. Without bias labels take --select val")
    return split


def _flawless(dataset: BiasDataset, split: str, rule: Rule, limit: int | None, root: Path | None) -> float | None:
    """What the criterion would be if every image were predicted right; None where it is not defined."""
    labels, biases = (None if part is None else part[:limit] for part in labels_of(dataset, root, split))
    assert labels is not None
    card, counts = dataset.card, training_counts(dataset, root)
    train = None if counts is None else tuple(tuple(row) for row in counts.tolist())
    groups = Groups(classes=card.classes, biases=card.biases, aligned=card.aligned, train=train)
    return criterion(group_metrics(labels, labels, biases, groups, np.zeros(len(labels))), rule.metric)


def _searched(console: Console, search: Search, trials: int, executor: LocalExecutor) -> bool:
    """Search one method; its table, and its recipe file where a trial finished."""
    seeds = ", ".join(str(trial.seed) for trial in search.own)
    say(console, f"tune {search.method} on {search.request.datasets[0]}: {trials} trials, seed {seeds} of each")
    say(console, f"criterion: {search.rule.about} ({search.split}); reads {search.rule.reads}")
    for key, text in described(search.space).items():
        say(console, f"  {key}: {text}; the recipe's own: {search.values.get(key, 'not one value')}")
    setup = executor.setup
    known = expected_seconds(search.own, setup.out, setup.root, setup.device, setup.threads)
    if known:  # all of them, or none: they differ in the seed alone
        expected = duration(makespan(list(known.values()) * trials, setup.slots))
        say(console, f"from the first trial on about {expected}, as long as its settings leave the cost as it is")

    def run(grid: Grid) -> Mapping[str, str]:
        todo = unfinished(grid, search.out, console)
        return execute(console, todo, executor, keep=True) if todo else {}

    tried, batch = run_study(search, trials, run)
    best = best_of(tried)
    console.print(_table(search, tried, best))
    for one in tried:
        if one.error:
            say(console, f"trial {one.number} failed: {one.error}")
    if best is None:
        say(console, f"no trial of {search.method} finished: there is nothing to choose")
        return False
    path = search.out / "tune" / f"{search.name}.yaml"
    _recipe(search, tried, best, batch).write(path)
    dataset = shlex.quote(str(search.request.datasets[0]))
    say(console, f"trial {best.number} is best; to use it:")
    say(console, f"debias-zoo run --methods {search.method} --dataset {dataset} --recipe {shlex.quote(str(path))}")
    return True


def _table(search: Search, tried: Sequence[Tried], best: Tried | None) -> Table:
    """One row a trial: number, score in per cent, settings; the chosen one marked."""
    keys = [one.key for one in search.space]
    table = Table(title=f"{search.method} on {search.dataset}: {search.rule.about} ({search.split}), in per cent")
    for name in ("trial", "score", *keys, ""):
        table.add_column(name, justify="right" if name in ("trial", "score") else "left")
    for one in tried:
        score = "failed" if one.score is None else f"{100 * one.score:.2f}"
        own = search.values if one.number == 0 else {}
        cells = [_short(one.settings.get(key, own.get(key, "own"))) for key in keys]
        notes = [*(["own settings"] if one.number == 0 else []), *(["best"] if one is best else [])]
        style = "bold" if one is best else ""
        table.add_row(str(one.number), score, *cells, ", ".join(notes), style=style)
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _recipe(search: Search, tried: Sequence[Tried], best: Tried, batch: int) -> RecipeFile:
    first = search.own[0]
    assert best.score is not None
    return RecipeFile(
        method=search.method,
        dataset=search.dataset,
        params=first.params,
        protocol=first.protocol,
        backbone=first.backbone,
        seeds=tuple(trial.seed for trial in search.own),
        settings={key: value for _, key, value in search.request.sets} | dict(best.settings),
        searched=dict(described(search.space)),
        criterion=search.rule.name,
        split=search.split,
        score=best.score,
        own_score=tried[0].score,
        trial=best.number,
        trials=len(tried),
        failed=sum(one.score is None for one in tried),
        tuned_on=search.tuned_on,
        command=_command(search, len(tried), batch),
        commit=best.about.get("commit", ""),
        date=best.about.get("date", ""),
    )


def _command(search: Search, trials: int, batch: int) -> str:
    """The command line that searches the same again; ``batch`` trials are suggested together."""
    request = search.request
    words = ["debias-zoo", "tune", "--method", search.method, "--dataset", str(request.datasets[0])]
    words += ["--trials", str(trials), "--select", search.rule.name, "--search-seed", str(search.seed)]
    for one in search.space:
        if one.given is not None:
            words += ["--search", f"{search.method}.{one.key}={one.given}"]
    for name, key, value in request.sets:
        words += ["--set", f"{name}.{key}={json.dumps(value)}"]
    words += ["--seed", ",".join(str(seed) for seed in request.seeds), "--protocol", request.protocol]
    words += ["--precision", request.precision, "--jobs", str(batch * len(request.seeds))]
    words += ["--backbone", request.backbone] if request.backbone else []
    if request.weights:
        words += ["--pretrained"] if request.weights == PRETRAINED else ["--weights", Path(request.weights).name]
    words += ["--skip-corrupt"] if request.skip_corrupt else []
    return shlex.join(words)
