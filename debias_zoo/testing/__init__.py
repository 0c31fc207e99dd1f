"""``check_method`` and ``check_dataset``: prove that a method, a data set keeps its contract, promise by promise.

In pytest::

    @pytest.mark.parametrize("check", method_checks(MyMethod), ids=str)
    def test_contract(check):
        verdict = check.verdict()
        assert verdict.ok, str(verdict)

A check that is known to fail is made visible, not silent: ``expected_failed = {"one_group": "why"}``, on the class or
as an argument. At most two a method, and never one of the first seven.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..errors import ZooError, unknown
from ..method import Batch, Clock, Method
from . import disguise, groups, meta, predictions, runs, steps
from .bench import Bench, CheckFailure
from .data import DATA_CHECKS, DataCheck, check_dataset, dataset_checks
from .history import explain
from .verdict import Verdict, advice_of, promise_of

__all__ = [
    "CHECKS",
    "DATA_CHECKS",
    "Check",
    "CheckFailure",
    "DataCheck",
    "Verdict",
    "check_dataset",
    "check_method",
    "dataset_checks",
    "method_checks",
    "small_step",
]

MOST_EXPECTED = 2

_FIRST: tuple[Callable[[Bench], None], ...] = (
    steps.check_finite_loss,
    steps.check_all_in_optimizers,
    steps.check_moves_what_it_names,
    runs.check_supervision,
    runs.check_resumes,
    runs.check_reproducible,
    steps.check_leaves_batch_alone,
)
_OTHERS: tuple[Callable[[Bench], None], ...] = (
    steps.check_everything_trains,
    predictions.check_predict_is_pure,
    meta.check_any_device,
    runs.check_silent,
    runs.check_shared_stage,
    runs.check_smallest_batch,
    runs.check_one_group,
    groups.check_groups,
    disguise.check_not_erm,
    runs.check_bf16,
    runs.check_learns,
    predictions.check_config,
    steps.check_finite_when_certain,
)

CHECKS: Mapping[str, Callable[[Bench], None]] = {
    function.__name__.removeprefix("check_"): function for function in (*_FIRST, *_OTHERS)
}
"""Every check by name, in the order in which they run."""

_NEVER_EXCUSED = frozenset(function.__name__.removeprefix("check_") for function in _FIRST)


@dataclass(frozen=True)
class Check:
    """One promise of the contract, to be checked on one method.

    Attributes:
        name: of the check. bench: the method, and runs of it that several checks share.
        expected: why it is known to fail; empty where it is not.
    """

    name: str
    bench: Bench = field(repr=False)
    expected: str = ""

    @property
    def about(self) -> str:
        """The promise, what failing means, and the usual causes."""
        return promise_of(CHECKS[self.name])

    def run(self) -> None:
        """Raise ``CheckFailure``, with a readable reason, if the promise is not kept."""
        try:
            with _apart():
                CHECKS[self.name](self.bench)
        except CheckFailure as failure:
            if hint := self._hint(failure.__cause__):
                raise CheckFailure(f"{failure}{hint}") from failure
            raise
        except (Exception, SystemExit) as error:  # a method may raise anything
            raise CheckFailure(f"{explain(error)}{self._hint(error)}") from error

    def _hint(self, error: BaseException | None) -> str:
        """What an error is likely to come from, where that is known."""
        cls = self.bench.cls
        blind = not cls.sees_bias and isinstance(error, AttributeError | TypeError) and "bias" in inspect.getsource(cls)
        return " (batch.bias is None, since the class says sees_bias = False; should it be True?)" if blind else ""

    def verdict(self) -> Verdict:
        """Run it, and say how it went."""
        try:
            self.run()
        except CheckFailure as failure:
            if self.expected:
                return Verdict(self.name, "expected", self.expected)
            return Verdict(self.name, "failed", str(failure), advice_of(CHECKS[self.name]))
        if self.expected:
            return Verdict(self.name, "unexpectedly passed", f"it was expected to fail: {self.expected}")
        return Verdict(self.name, "passed")

    def __str__(self) -> str:
        return self.name


def check_method(
    cls: type[Method], config: Any = None, expected_failed: Mapping[str, str] | None = None, **bench: Any
) -> list[Verdict]:
    """The verdicts of all checks; arguments as of ``method_checks``."""
    return [check.verdict() for check in method_checks(cls, config, expected_failed, **bench)]


def method_checks(
    cls: type[Method],
    config: Any = None,
    expected_failed: Mapping[str, str] | None = None,
    *,
    backbone: str = "lnl_convnet",
    size: int = 12,
) -> list[Check]:
    """All checks of a method; they share what is costly.

    Args:
        cls: the method.
        config: its configuration, or a mapping of what differs from the default.
        expected_failed: checks that are known to fail, with reasons, besides those that the class names itself.
        backbone: as on the command line.
        size: height and width of the synthetic images, even.
    """
    expected = {**cls.expected_failed, **(expected_failed or {})}
    _refuse_excuses(cls, expected)
    bench = Bench(cls, config, backbone, size)
    return [Check(name, bench, expected.get(name, "")) for name in CHECKS]


def small_step(cls: type[Method], config: Any = None, rows: Sequence[int] | None = None) -> tuple[Method, Batch, Clock]:
    """A method in float64, a batch as it may see it, and the first moment of training.

    Compare what ``method(loss, batch, clock)`` gives, and its gradients, with a literal replica of the formula.

    Args:
        cls: the method.
        config: its configuration, or a mapping of what differs from the default.
        rows: images of the batch; None: all, so that it has images of every (label, bias) group.
    """
    bench = Bench(cls, config)
    batch = bench.batch(rows)
    method = bench.build().double()
    return method, replace(batch, image=batch.image.double()), bench.moments[0].clock


def _refuse_excuses(cls: type[Method], expected: Mapping[str, str]) -> None:
    for name, reason in expected.items():
        if name not in CHECKS:
            raise unknown("check", name, CHECKS)
        if name in _NEVER_EXCUSED:
            raise ZooError(f"{cls.name}: the check {name!r} cannot be expected to fail; no number could be trusted")
        if not reason:
            raise ZooError(f"{cls.name}: say why the check {name!r} is expected to fail")
    if len(expected) > MOST_EXPECTED:
        raise ZooError(f"{cls.name}: {len(expected)} checks are expected to fail; at most {MOST_EXPECTED} can be")


@contextmanager
def _apart() -> Iterator[None]:
    """On one thread, which is faster on tiny images, and with the global random generators put back afterwards."""
    state = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.random.set_rng_state(state[0])
        np.random.set_state(state[1])
        random.setstate(state[2])
