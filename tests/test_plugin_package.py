"""A package from outside, installed beside the wheel into a fresh environment: list, check, run, resume, report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--dataset", "cmnist", "--protocol", "quick", "--device", "cpu", "--jobs", "1"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh environment: the built wheel, a package that ``new`` wrote, and what they need.

    Nothing is downloaded: the needed libraries are those of this environment, behind a path file.
    """
    home = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    python = home / "venv" / "bin" / "python"
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    below = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (Path(site.stdout.strip()) / "borrowed.pth").write_text("\n".join(below) + "\n")
    wheel = home / "wheels"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheel), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    zoo = next(wheel.glob("debias_zoo-*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*pip, "--ignore-installed", str(zoo)], check=True)
    work = home / "work"
    work.mkdir()
    env = environment()
    subprocess.run([str(python.parent / "debias-zoo"), "new", "package", "far-zoo"], cwd=work, env=env, check=True)
    subprocess.run([*pip, "--no-build-isolation", str(work / "far-zoo")], check=True, env=env)
    return python.parent


def environment() -> dict[str, str]:
    """Without the checkout on the path, and with a checkpoint after every step."""
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return {**kept, "DEBIAS_ZOO_CHECKPOINT_SECONDS": "0"}


def zoo(tools: Path, *command: str, cwd: Path) -> str:
    ended = subprocess.run(
        [str(tools / "debias-zoo"), *command], cwd=cwd, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_it_is_the_wheel_that_runs(tools: Path, tmp_path: Path) -> None:
    code = "import debias_zoo; print(debias_zoo.__file__)"
    found = subprocess.run(
        [str(tools / "python"), "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(tools.parent)


def test_it_is_listed_shown_and_checked(tools: Path, tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(zoo(tools, "list", "methods", "--json", cwd=tmp_path))}
    assert (rows["far_zoo"]["origin"], rows["lnl"]["origin"]) == ("far-zoo", "debias-zoo")
    assert "from far-zoo:\nfar_zoo" in zoo(tools, "list", "methods", cwd=tmp_path)
    assert "balance = 0.5" in zoo(tools, "show", "far_zoo", cwd=tmp_path)
    assert "far_zoo: 20 of 20 checks hold" in zoo(tools, "check", "far_zoo", cwd=tmp_path)


def test_it_runs_is_resumed_and_tabulated(tools: Path, tmp_path: Path) -> None:
    command = ["run", "--methods", "far_zoo,erm", *SMALL]
    whole = zoo(tools, *command, "--out", "whole", cwd=tmp_path)
    assert "far_zoo on cmnist, seed 0: done" in whole
    _killed_after_a_checkpoint(tools, [*command, "--out", "killed"], tmp_path)
    zoo(tools, *command, "--out", "killed", cwd=tmp_path)
    (one,), (two,) = (list((tmp_path / out).glob("cmnist/far_zoo/*/")) for out in ("whole", "killed"))
    assert one.name == two.name
    for file in ("model.safetensors", "curves.jsonl"):
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    table = zoo(tools, "report", "killed", "--format", "csv", cwd=tmp_path)
    assert "far_zoo" in table
    again = zoo(tools, *command, "--out", "killed", cwd=tmp_path)
    assert "trial" not in again.split("\n")[0], "nothing is run again"


def _killed_after_a_checkpoint(tools: Path, command: list[str], cwd: Path) -> None:
    run = subprocess.Popen([str(tools / "debias-zoo"), *command], cwd=cwd, env=environment(), stdout=subprocess.DEVNULL)
    while run.poll() is None and not list((cwd / "killed").glob("cmnist/far_zoo/*/checkpoint.pt")):
        try:
            run.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    assert run.poll() is None, "it ended before it could be killed"
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not list((cwd / "killed").glob("cmnist/far_zoo/*/result.json"))
