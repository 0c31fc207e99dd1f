"""Selection is a question asked of a finished run: which epoch would this rule have reported.

Every epoch's predictions are in the store, so all rules are answered from the same runs. Only epochs of the last stage
are eligible and, where the method's ``finish`` changes what is predicted, only the last of them. Of epochs that score
alike the latest is taken, as the rule `last` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from debias_zoo.errors import ZooError, unknown
from debias_zoo.metrics import goodness, group_metrics
from debias_zoo.store import Predictions, Run
from debias_zoo.trial import Groups, Result, Supervision

Metrics = dict[str, float | None]

AC = "mean of bias-aligned and bias-conflicting accuracy"


@dataclass(frozen=True)
class Rule:
    """How an epoch is chosen.

    Attributes:
        name: on the command line. about: in words, for captions. reads: which labels it reads.
        metric: what is best in the chosen epoch, on the validation split; "ac" for ``AC``; "" for the last epoch.
        unbiased: whether the split without bias, ``val_unbiased``, is taken where there is one.
        bias: whether it reads bias labels of the validation split.
    """

    name: str
    about: str
    reads: str
    metric: str = ""
    unbiased: bool = True
    bias: bool = False


RULES = {
    rule.name: rule
    for rule in (
        Rule("last", "last epoch", "no labels"),
        Rule("val", "best validation accuracy", "validation labels", "accuracy", unbiased=False),
        Rule("val-unbiased", "best unbiased validation accuracy", "validation bias labels", "unbiased", bias=True),
        Rule(
            "val-worst-group",
            "best worst-group validation accuracy",
            "validation bias labels",
            "worst_group",
            bias=True,
        ),
        Rule("ac", f"best validation align-conflict score ({AC})", "validation bias labels", "ac", bias=True),
        Rule("oracle", "best on the test split itself, a bound and no rule that can be followed", "test labels"),
    )
}
"""Rules by name, in the order of a table."""

DEFAULT = "last"


def read_split(rule: Rule, splits: Iterable[str]) -> str | None:
    """Which of these splits a rule reads that chooses by validation labels; None where it is not there."""
    preferred = ("val_unbiased", "val") if rule.unbiased else ("val",)
    there = set(splits)
    return next((name for name in preferred if name in there), None)


def known_rules(names: Iterable[str]) -> list[Rule]:
    """The rules of these names, each once; raises a ZooError for an unknown one."""
    asked = list(dict.fromkeys(names))
    for name in asked:
        if name not in RULES:
            raise unknown("selection rule", name, RULES)
    return [RULES[name] for name in asked]


class Epochs:
    """The eligible epochs of a run, with every metric of each: computed once, when it is asked for.

    Attributes:
        predictions: by split, in every epoch.

    Raises:
        ZooError: where the run's predictions are missing, or its result is too old to say how to read them.
    """

    def __init__(self, run: Run) -> None:
        if run.result.groups is None or run.result.selectable is None:
            raise ZooError(
                f"{run.path}: written by a version that noted neither groups nor eligible epochs (schema "
                f"{run.result.schema_version}): only its last epoch can be shown"
            )
        self.run = run
        self.groups: Groups = run.result.groups
        self.predictions = run.predictions()
        self._known: dict[tuple[str, int], Metrics] = {}
        self.count = next(len(found.classes) for found in self.predictions.values())
        self.eligible = range(self.count - max(1, run.result.selectable), self.count)

    @property
    def splits(self) -> list[str]:
        """Names of the splits that were predicted."""
        return list(self.predictions)

    def metrics(self, split: str, epoch: int) -> Metrics:
        """All metrics of one split after one epoch, counted from 0 over all stages."""
        key = (split, epoch)
        if key not in self._known:
            self._known[key] = measure(self.predictions[split], self.groups, epoch)
        return self._known[key]

    def all_metrics(self, epoch: int) -> dict[str, Metrics]:
        """Of every split."""
        return {split: self.metrics(split, epoch) for split in self.splits}

    def chosen(self, rule: Rule, split: str, metric: str) -> int | None:
        """The epoch that ``rule`` takes, or None where it cannot be asked: no such split, no such labels.

        ``split`` and ``metric`` are what is shown: the oracle is the best of them.
        """
        if split not in self.predictions:
            return None
        if rule.name == DEFAULT:
            return self.eligible[-1]
        if rule.name == "oracle":
            return self._best(split, metric)
        validation = read_split(rule, self.predictions)
        return None if validation is None else self._best(validation, rule.metric)

    def score(self, rule: Rule) -> float | None:
        """What ``rule`` made largest on the validation split, at its epoch; None where it cannot be asked."""
        validation = read_split(rule, self.predictions) if rule.metric else None
        epoch = None if validation is None else self._best(validation, rule.metric)
        return None if validation is None or epoch is None else criterion(self.metrics(validation, epoch), rule.metric)

    def _best(self, split: str, metric: str) -> int | None:
        scores = {epoch: criterion(self.metrics(split, epoch), metric) for epoch in self.eligible}
        known = {epoch: score for epoch, score in scores.items() if score is not None}
        return max(known, key=lambda epoch: (known[epoch], epoch)) if known else None


EpochsOf = Callable[[str], Epochs]
"""The eligible epochs of a run, by identity; raises a ZooError where they cannot be known."""

_HELD = 256
"""Runs whose predictions are held at a time."""


def epochs_of(runs: Iterable[Run]) -> EpochsOf:
    """What reads the predictions of these runs, each once however often it is asked for while they are held."""
    by_identity = {run.result.identity: run for run in runs}
    return lru_cache(maxsize=_HELD)(lambda identity: Epochs(by_identity[identity]))


def measure(predictions: Predictions, groups: Groups, epoch: int) -> Metrics:
    """All metrics of one epoch of one split."""
    return group_metrics(
        predictions.classes[epoch],
        predictions.labels,
        predictions.biases,
        groups,
        predictions.log_odds[epoch],
    )


def criterion(metrics: Mapping[str, float | None], metric: str) -> float | None:
    """A number that is larger in a better epoch."""
    if metric == "ac":
        parts = metrics["aligned"], metrics["conflicting"]
        return None if parts[0] is None or parts[1] is None else (parts[0] + parts[1]) / 2
    value = metrics[metric]
    return None if value is None else goodness(metric, value)


def select(epochs: Epochs, rule: Rule, split: str, metric: str) -> Result | None:
    """The result as it would stand had ``rule`` chosen the epoch; None where it cannot be asked.

    Its supervision says so where the rule reads bias labels of the validation split, or labels of the test.
    """
    epoch = epochs.chosen(rule, split, metric)
    if epoch is None:
        return None
    result = epochs.run.result
    return chosen_by(rule, result, epochs.all_metrics(epoch))


def chosen_by(rule: Rule, result: Result, metrics: dict[str, Metrics]) -> Result:
    """The result with the numbers of the epoch that ``rule`` chose, and with the labels that it read."""
    trial = result.trial.model_copy(update={"supervision": read_by(rule, result.trial.supervision)})
    return result.model_copy(update={"trial": trial, "metrics": metrics})


def read_by(rule: Rule, supervision: Supervision) -> Supervision:
    """What was read in all, where ``rule`` chooses the epoch of a run with this supervision."""
    if rule.name == "oracle":
        return supervision.model_copy(update={"test": True})
    return supervision.model_copy(update={"val": True}) if rule.bias else supervision
