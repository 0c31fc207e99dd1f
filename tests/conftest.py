"""What every test runs under."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from checked_types import check_types

check_types()


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is kept beyond the run; the processes of one run share what they make."""
    base = tmp_path_factory.getbasetemp()
    shared = base if os.environ.get("PYTEST_XDIST_WORKER") is None else base.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEBIAS_ZOO_CACHE", str(shared / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """One thread: sums are taken in one order, and tests that run side by side do not wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
