"""``check_method``: our methods keep the contract, and known gaps are visible."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from planted_groups import GroupDROWrongFactor
from slips import Sound

from debias_zoo.errors import ZooError
from debias_zoo.registry import load_method
from debias_zoo.testing import CHECKS, check_method, method_checks


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_says_what_failing_means(name: str) -> None:
    about = " ".join(next(check for check in method_checks(Sound) if check.name == name).about.split())
    assert "Failing means" in about
    assert "Usual cause" in about


def test_a_known_gap_is_visible_and_not_a_failure() -> None:
    verdicts = {v.name: v for v in check_method(GroupDROWrongFactor, expected_failed={"groups": "a known gap"})}
    assert verdicts["groups"].status == "expected"
    assert verdicts["groups"].reason == "a known gap"
    assert all(verdict.ok for verdict in verdicts.values())


def test_the_class_can_name_its_gap_and_a_closed_gap_is_reported() -> None:
    class Closed(Sound):
        expected_failed = {"learns": "it did not, once"}

    check = next(check for check in method_checks(Closed) if check.name == "learns")
    verdict = check.verdict()
    assert verdict.status == "unexpectedly passed"
    assert not verdict.ok
    assert "it did not, once" in verdict.reason


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"resumes": "hard"}, "cannot be expected to fail"),
        ({"lerns": "typing"}, "did you mean 'learns'"),
        ({"learns": ""}, "say why"),
        (dict.fromkeys(["learns", "bf16", "groups"], "many"), "at most 2"),
    ],
)
def test_excuses_are_limited(expected: dict[str, str], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        method_checks(Sound, expected_failed=expected)


def test_checking_leaves_global_randomness_alone() -> None:
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    before = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    check_method(Sound)
    assert (torch.rand(1), np.random.rand(), random.random()) == before


def test_a_check_takes_a_configuration_and_a_backbone() -> None:
    lnl = load_method("lnl")
    verdicts = [
        check.verdict()
        for check in method_checks(lnl, {"pretrain_share": 0.0}, backbone="mlp")
        if check.name in {"finite_loss", "resumes", "any_device", "config"}
    ]
    assert [verdict.reason for verdict in verdicts if not verdict.ok] == []


def test_a_config_that_cannot_be_made_is_a_failure_and_not_a_crash() -> None:
    verdicts = check_method(Sound, {"no_such_key": 1})
    assert {verdict.status for verdict in verdicts} == {"failed"}
    assert "no_such_key" in verdicts[0].reason
