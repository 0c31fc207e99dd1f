"""A store of three trials, and one of them exported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from exported_models import train

from debias_zoo import export


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "runs"
    train(out, ["lnl", "gray", "dedier"])
    return out


@pytest.fixture(scope="session")
def model(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LNL, exported."""
    return export("lnl", tmp_path_factory.mktemp("model") / "lnl", out=store)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))
