"""One study: settings of one method on one data set, suggested by Optuna and tried as ordinary trials.

A suggestion depends on the search seed, the trial's number and what was finished before its batch, and on nothing else:
a study that was killed goes on with the suggestions that it would have made. Trial 0 is the recipe's own settings.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ZooError
from .grid import Grid, Request, build_grid
from .recipes import Chosen, TunedOn
from .reports.selection import RULES, Epochs, Rule
from .search_space import Dimension
from .seeds import seed_for
from .store import Folder, Run
from .trial import Trial
from .writing import make_folder

if TYPE_CHECKING:
    import optuna

Execute = Callable[[Grid], Mapping[str, str]]
"""Runs what of a grid is not finished; the errors of the trials that failed, by identity."""


@dataclass(frozen=True)
class Search:
    """What a study is asked.

    Attributes:
        request: of the method with the recipe's own settings. own: its trials, one a seed.
        space: what is searched. values: the recipe's own value of each key that has one.
        rule, split: the criterion, and the validation split it reads.
        seed: of the sampler. batch: trials that are suggested together. out: the store.
    """

    request: Request
    own: tuple[Trial, ...]
    space: tuple[Dimension, ...]
    values: Mapping[str, Any]
    rule: Rule
    split: str
    seed: int
    batch: int
    out: Path

    @property
    def method(self) -> str:
        """Registry name."""
        return self.own[0].method

    @property
    def dataset(self) -> str:
        """Registry name."""
        return self.own[0].dataset

    @property
    def tuned_on(self) -> TunedOn:
        """Which labels the criterion reads, as in ``Supervision``."""
        return "val_unbiased" if self.rule.bias else "val"

    @property
    def name(self) -> str:
        """Of the study and its recipe file: it changes with whatever would make it another one."""
        told = [trial.identity for trial in self.own], [repr(one) for one in self.space], self.split, self.seed
        digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=3).hexdigest()
        return f"{self.dataset}-{self.method}-{self.rule.name}-{digest}"

    @property
    def journal(self) -> Path:
        """The file of all studies of this method on this data set."""
        return self.out / "tune" / f"{self.dataset}-{self.method}.journal"

    def grid(self, settings: Mapping[str, Any]) -> Grid:
        """The trials of these settings, one a seed; the recipe's own ones for none. Raises a ZooError if unfit."""
        if not settings:
            return build_grid(self.request)
        chosen = Chosen(self.method, self.dataset, settings, self.tuned_on)
        return build_grid(replace(self.request, chosen=[chosen]))


@dataclass(frozen=True)
class Tried:
    """One trial of a study: its number, what it set (all of the recipe's own for 0), and its score or why it failed.

    ``about`` holds the commit and the date of its first result.
    """

    number: int
    settings: Mapping[str, Any]
    score: float | None
    error: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The one with the largest score, of equal ones the first; None where all failed."""
    finished = [one for one in tried if one.score is not None]
    return max(finished, key=lambda one: (one.score or 0.0, -one.number)) if finished else None


def run_study(search: Search, trials: int, execute: Execute) -> tuple[list[Tried], int]:
    """The first ``trials`` trials of a study, and how many are suggested together in it, as when it was begun.

    Trials that the journal holds finished are not repeated.
    """
    with _held(search.journal):
        study = _open(search)
        batch = int(study.user_attrs["batch"])
        while (first := _finished(study)) < trials:
            start = first - first % batch
            numbers = range(first, min(start + batch, trials))
            _run_batch(search, study, numbers, execute)
        return [_tried(search, study, number) for number in range(trials)], batch


def _open(search: Search) -> optuna.Study:
    import_optuna()
    import optuna
    from optuna.storages.journal import JournalFileBackend

    path = search.journal
    _cut(path)
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        study: optuna.Study = optuna.create_study(
            storage=storage,
            study_name=search.name,
            direction="maximize",
            load_if_exists=True,
            sampler=_sampler(search, 0),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(
            f"the journal {path} is damaged ({type(error).__name__}: {error}). Delete it: the same suggestions are "
            "made again, and what is finished in the store is not run again"
        ) from error
    if "batch" not in study.user_attrs:
        study.set_user_attr("batch", search.batch)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(_own_params(search))
    return study


def _cut(path: Path) -> None:
    """Take away a last line that a killed process wrote only half of."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _own_params(search: Search) -> dict[str, Any]:
    """The recipe's own values that lie in the ranges, as Optuna knows them."""
    told = {dimension.key: dimension.told(search.values.get(dimension.key)) for dimension in search.space}
    return {key: value for key, value in told.items() if value is not None}


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """A sampler for one trial alone, so that what it draws does not depend on who suggested the ones before."""
    seed = seed_for(search.seed, "tune", search.method, number) % 2**32
    sampler: optuna.samplers.BaseSampler = import_optuna().samplers.TPESampler(seed=seed)
    return sampler


def _finished(study: optuna.Study) -> int:
    """How many trials are finished, from the first on without a gap."""
    states = [trial.state.is_finished() for trial in study.get_trials(deepcopy=False)]
    return next((number for number, finished in enumerate(states) if not finished), len(states))


def _run_batch(search: Search, study: optuna.Study, numbers: Sequence[int], execute: Execute) -> None:
    """Suggest all trials of a batch, run them side by side, and tell what came out, in their order."""
    suggested = {number: _suggest(search, study, number) for number in numbers}
    grids: dict[int, Grid] = {}
    unfit: dict[int, str] = {}
    every = Grid()
    for number, settings in suggested.items():
        try:
            grids[number] = search.grid(settings)
        except ZooError as error:  # values that do not go together
            unfit[number] = str(error)
            continue
        for trial in grids[number].trials.values():
            every.add(trial)
    errors = execute(every)
    for number in numbers:  # told in their order: what a kill leaves unfinished are the last ones
        failed = (
            [errors[identity] for identity in grids[number].trials if identity in errors] if number in grids else []
        )
        if number in unfit or failed:
            _fail(study, number, unfit.get(number) or failed[0])
        else:
            _tell(search, study, number, grids[number])


def _suggest(search: Search, study: optuna.Study, number: int) -> dict[str, Any]:
    """The settings of a trial: those it has already where it was asked for before."""
    optuna = import_optuna()
    study.sampler = _sampler(search, number)
    there = study.get_trials(deepcopy=False)
    asked = number < len(there) and there[number].state != optuna.trial.TrialState.WAITING
    trial = optuna.trial.Trial(study, there[number]._trial_id) if asked else study.ask()
    if number == 0:
        own = _own_params(search)
        _ = [dimension.suggest(trial) for dimension in search.space if dimension.key in own]
        return {}
    return {dimension.key: dimension.suggest(trial) for dimension in search.space}


def _fail(study: optuna.Study, number: int, error: str) -> None:
    optuna = import_optuna()
    _note(study, number, {"error": error})
    study.tell(number, state=optuna.trial.TrialState.FAIL)


def _tell(search: Search, study: optuna.Study, number: int, grid: Grid) -> None:
    scores: list[float] = []
    for identity in grid.asked:
        folder = search.out / grid.trials[identity].folder
        result = Folder(folder).result()
        score = Epochs(Run(result, folder)).score(search.rule) if result else None
        if result is None or score is None:
            _fail(study, number, f"{grid.trials[identity].label}: --select {search.rule.name} finds no score in it")
            return
        if not scores:
            _note(study, number, {key: str(result.environment.get(key, "")) for key in ("commit", "date")})
        scores.append(score)
    study.tell(number, statistics.fmean(scores))


def _note(study: optuna.Study, number: int, notes: Mapping[str, str]) -> None:
    optuna = import_optuna()
    trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
    for key, value in notes.items():
        trial.set_user_attr(key, value)


def _tried(search: Search, study: optuna.Study, number: int) -> Tried:
    found = study.get_trials(deepcopy=False)[number]
    if number == 0:  # training settings stay as the recipe has them, stage by stage
        settings = {key: value for key, value in search.values.items() if "." not in key}
    else:
        texts = {one.key: one.kind == "choice" for one in search.space}
        settings = {key: json.loads(value) if texts[key] else value for key, value in found.params.items()}
        settings = {one.key: settings[one.key] for one in search.space if one.key in settings}
    about = {key: value for key, value in found.user_attrs.items() if key in ("commit", "date")}
    return Tried(number, settings, found.value, str(found.user_attrs.get("error", "")), about)


@contextmanager
def _held(journal: Path) -> Iterator[None]:
    """One process alone goes on with the studies in a journal."""
    make_folder(journal.parent)
    with journal.with_suffix(".held").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ZooError(f"another process tunes with {journal}: wait for it, or choose another --out") from error
        yield


def import_optuna() -> Any:
    """The package, told to be quiet; a ZooError where it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise ZooError("the search is Optuna's, which is not installed: pip install 'debias-zoo[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def criterion_rule(name: str) -> Rule:
    """The rule of a criterion; a ZooError for what does not read a validation split."""
    fit = [rule.name for rule in RULES.values() if rule.metric]
    if name not in RULES:
        raise ZooError(f"--select {name}: unknown; the score of a search is one of {', '.join(fit)}")
    if name == "oracle":
        raise ZooError(
            f"--select oracle reads the test split: settings are never chosen on it. Choose one of {', '.join(fit)}"
        )
    if name not in fit:
        raise ZooError(
            f"--select {name} reads no labels, so it gives no score to search by. Choose val, or, where bias labels of "
            f"the validation split may be read, one of {', '.join(fit[1:])}"
        )
    return RULES[name]
