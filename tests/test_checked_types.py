"""The test run does check types and shapes."""

from __future__ import annotations

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from checked_types import PACKAGE, checked_modules
from jaxtyping import TypeCheckError

from debias_zoo.method import Batch
from debias_zoo.methods.losses.gce import generalized_cross_entropy
from debias_zoo.metrics import wilson


def test_a_wrong_shape_or_type_is_an_error() -> None:
    with pytest.raises(TypeCheckError):
        generalized_cross_entropy(torch.zeros(4, 3), torch.zeros(5, dtype=torch.long), 0.7)
    with pytest.raises(TypeCheckError):
        generalized_cross_entropy(torch.zeros(4, 3), torch.zeros(4), 0.7)
    with pytest.raises(BeartypeCallHintViolation):
        wilson("three", 4.0)  # type: ignore[arg-type]
    image, label = torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(TypeCheckError):
        Batch(image, label, label[:3], None, label, torch.Generator())


def test_nearly_all_modules_are_checked() -> None:
    checked = set(checked_modules())
    every = [path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    left_out = {path.stem for path in every} - {name.removeprefix("debias_zoo.") for name in checked}
    for_checkers = {"cli_names", "cli_probe", "cli_runs", "dataset", "registry", "runs", "search_space", "tune"}
    assert left_out == {"api", "fitting", "nets"} | for_checkers
    assert {"debias_zoo.methods.lnl", "debias_zoo.methods.losses.hsic", "debias_zoo.reports.statistics"} <= checked
