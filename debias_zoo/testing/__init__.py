"""``check_method``: proves that a method keeps the contract, with a named check for every promise.

In pytest::

    @pytest.mark.parametrize("check", method_checks(MyMethod), ids=str)
    def test_contract(check):
        check.run()

A check that is known to fail is made visible, not silent: ``expected_failed = {"one_group": "why"}``, on the class or
as an argument. At most two a method, and never one of the first seven.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from ..errors import ZooError, unknown
from ..method import Method
from . import disguise, groups, meta, predictions, runs, steps
from .bench import Bench, CheckFailure
from .history import explain

__all__ = ["CHECKS", "Check", "CheckFailure", "Verdict", "check_method", "method_checks"]

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
        name: of the check. about: the promise, what failing means and the usual cause.
    """

    name: str
    bench: Bench = field(repr=False)

    @property
    def about(self) -> str:
        return inspect.cleandoc(CHECKS[self.name].__doc__ or "")

    def run(self) -> None:
        """Raise ``CheckFailure``, with a readable reason, if the promise is not kept."""
        try:
            with _global_randomness_kept():
                CHECKS[self.name](self.bench)
        except CheckFailure:
            raise
        except Exception as error:
            raise CheckFailure(explain(error)) from error

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Verdict:
    """What a check found: ``reason`` says why it failed, or why that was expected."""

    name: str
    status: Literal["passed", "failed", "expected", "unexpectedly passed"]
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is to be done."""
        return self.status in ("passed", "expected")


def method_checks(
    cls: type[Method], config: Any = None, *, backbone: str = "lnl_convnet", size: int = 12
) -> Iterator[Check]:
    """All checks of a method; they share what is costly.

    Args:
        cls: the method. config: its configuration, or a mapping of what differs from the default.
        backbone: as on the command line. size: height and width of the synthetic images, even.
    """
    bench = Bench(cls, config, backbone, size)
    for name in CHECKS:
        yield Check(name, bench)


def check_method(
    cls: type[Method],
    config: Any = None,
    expected_failed: Mapping[str, str] | None = None,
    *,
    backbone: str = "lnl_convnet",
    size: int = 12,
) -> list[Verdict]:
    """Run every check; see ``method_checks``. ``expected_failed``: besides those the class names itself."""
    expected = {**cls.expected_failed, **(expected_failed or {})}
    _refuse_excuses(cls, expected)
    return [_verdict(check, expected) for check in method_checks(cls, config, backbone=backbone, size=size)]


def _verdict(check: Check, expected: Mapping[str, str]) -> Verdict:
    try:
        check.run()
    except CheckFailure as failure:
        if check.name in expected:
            return Verdict(check.name, "expected", expected[check.name])
        return Verdict(check.name, "failed", str(failure))
    return Verdict(check.name, "unexpectedly passed" if check.name in expected else "passed")


def _refuse_excuses(cls: type[Method], expected: Mapping[str, str]) -> None:
    for name in expected:
        if name not in CHECKS:
            raise unknown("check", name, CHECKS)
        if name in _NEVER_EXCUSED:
            raise ZooError(f"{cls.name}: the check {name!r} cannot be expected to fail; without it no number can be trusted")
    if len(expected) > MOST_EXPECTED:
        raise ZooError(f"{cls.name}: {len(expected)} checks are expected to fail; at most {MOST_EXPECTED} can be")


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    state = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.random.set_rng_state(state[0])
        np.random.set_state(state[1])
        random.setstate(state[2])
