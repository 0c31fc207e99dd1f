from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCHVISION = """
import torch

@torch.library.register_fake("torchvision::lost_operator")
def lost(x):
    return x
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


def test_timm_is_imported_where_torchvisions_operators_are_missing(tmp_path: Path) -> None:
    for name, source in (("torchvision", TORCHVISION), ("timm", "imported = True\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
    assert "lost_operator does not exist" in run("import torchvision", tmp_path).stderr
    guarded = run(
        "from debias_zoo.torchvision_guard import import_timm as go; go(); import timm; print(timm.imported)", tmp_path
    )
    assert guarded.stdout == "True\n", guarded.stderr


def test_other_failures_of_torchvision_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('something else')\n")
    ended = run("from debias_zoo.torchvision_guard import import_timm as go; go()", tmp_path)
    assert "RuntimeError: something else" in ended.stderr
