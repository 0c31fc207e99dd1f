"""Every mistake known from public code, and every slip we thought of, is caught by the check that is made for it."""

from __future__ import annotations

import pytest
from planted import CORRECT, WRONG
from planted_groups import EnDOverwritten, GroupDROWrongFactor
from slips import SLIPS, Sound

from debias_zoo.method import Method
from debias_zoo.testing import CHECKS, CheckFailure, check_method, method_checks

CAUGHT = [*WRONG, *SLIPS]


def failures(cls: type[Method]) -> dict[str, str]:
    return {verdict.name: verdict.reason for verdict in check_method(cls) if not verdict.ok}


@pytest.mark.parametrize("cls", [*CORRECT, Sound], ids=lambda cls: cls.__name__)
def test_correct_implementations_pass(cls: type[Method]) -> None:
    assert not failures(cls)


@pytest.mark.parametrize(("cls", "name", "words"), CAUGHT, ids=[f"{cls.__name__}-{name}" for cls, name, _ in CAUGHT])
def test_wrong_implementations_are_caught(cls: type[Method], name: str, words: str) -> None:
    check = next(check for check in method_checks(cls) if check.name == name)
    with pytest.raises(CheckFailure) as caught:
        check.run()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_check_catches_something() -> None:
    assert {name for _, name, _ in CAUGHT} == set(CHECKS)


def test_a_correct_and_a_wrong_one_differ_in_that_check_alone() -> None:
    assert set(failures(GroupDROWrongFactor)) == {"groups"}
    assert set(failures(EnDOverwritten)) == {"supervision", "not_erm"}
