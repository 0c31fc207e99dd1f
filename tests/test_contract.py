"""Every built-in method keeps the contract; a class for each, so that workers share them out."""

from __future__ import annotations

from typing import Any

import pytest

from debias_zoo.registry import entries, load_method
from debias_zoo.testing import Check, check_method, method_checks


def contract(name: str) -> type:
    """The tests of one method."""
    cls = load_method(name)

    class Contract:
        @pytest.mark.parametrize("check", method_checks(cls), ids=str)
        def test_check(self, check: Check) -> None:
            verdict = check.verdict()
            assert verdict.ok, str(verdict)

        @pytest.mark.slow
        def test_all_checks_on_a_residual_network(self) -> None:
            verdicts = check_method(cls, backbone="resnet18", size=32)
            assert all(verdict.ok for verdict in verdicts), [verdict for verdict in verdicts if not verdict.ok]

    return Contract


def _classes() -> dict[str, Any]:
    return {f"Test_{name}": contract(name) for name in entries("method")}


globals().update(_classes())
