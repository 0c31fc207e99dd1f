from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, SMALL, children, gone, invoke, outcome, zoo

from debias_zoo import registry
from debias_zoo.driver import parse_seeds
from debias_zoo.errors import ZooError
from debias_zoo.estimate import makespan
from debias_zoo.grid import Request, build_grid
from debias_zoo.slots import share_out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A quick comparison of two methods in two workers, and what it printed."""
    out = tmp_path_factory.mktemp("finished") / "runs"
    run = zoo("run", "--methods", "erm,lnl", *SMALL, "--out", str(out), "--seeds", "2", "--jobs", "2", cwd=out.parent)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    return out, said


def test_run_says_what_it_will_do_and_ends_with_the_table(finished: tuple[Path, str]) -> None:
    out, said = finished
    assert "4 trials: erm, lnl" in said
    assert "on cmnist; seeds 0, 1" in said
    assert re.search(
        r"protocol quick, (fp32|bf16) on cpu, 2 at a time with \d+ threads? each, backbone lnl_convnet", said
    )
    assert re.search(r"expected to take about \d+ (seconds|minutes)", said)
    assert "lnl on cmnist, seed 1: done" in said
    for column in ("accuracy", "unbiased", "worst", "gap", "seconds"):
        assert column in said.lower()
    assert "bias labels to train" in said.replace("\n", " ")
    assert len(list(out.glob("cmnist/*/*/result.json"))) == 4


def test_the_same_command_again_only_prints_the_table(finished: tuple[Path, str]) -> None:
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = invoke("run", "--methods", "erm,lnl", *SMALL, "--out", str(out), "--seeds", "2", "--jobs", "2")
    assert again.exit_code == 0, again.output
    assert "trials:" not in again.output
    assert "expected" not in again.output
    assert "accuracy" in again.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_one_more_seed_keeps_what_is_there(finished: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = finished
    shutil.copytree(out, tmp_path / "runs")
    more = invoke("run", "--methods", "erm", *SMALL, "--out", str(tmp_path / "runs"), "--seeds", "3")
    assert more.exit_code == 0, more.output
    assert "1 trial (2 of 3 are finished already): erm" in more.output


@pytest.mark.parametrize("form", ["latex", "markdown", "csv", "json"])
def test_report_writes_a_file(form: str, finished: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = finished
    target = tmp_path / "table"
    assert invoke("report", str(out), "--format", form, "-o", str(target)).exit_code == 0
    text = target.read_text()
    assert text == invoke("report", str(out), "--format", form).output
    if form == "json":
        assert [row["method"] for row in json.loads(text)] == ["erm", "lnl"]
        assert all(row["n"] == 2 and 0 <= row["accuracy"] <= 1 for row in json.loads(text))
    if form == "latex":
        assert r"$\pm$" in text


def test_report_says_what_is_missing(tmp_path: Path) -> None:
    assert "there is no folder" in invoke("report", str(tmp_path / "nowhere")).output
    empty = invoke("report", str(tmp_path))
    assert (empty.exit_code, "no finished trial" in empty.output) == (2, True)
    assert "--standalone goes with --format latex" in invoke("report", str(tmp_path), "--standalone").output


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["--methods", "lnn", *SMALL], "error: unknown method 'lnn'; did you mean 'lnl'?"),
        (["--methods", "lnl", "--dataset", "cmnist:variance=0.5"], "error: data set 'cmnist': variance='0.5'"),
        (["--methods", "lnl", *SMALL, "--seed", "a"], "seeds are whole numbers from 0"),
        (["--methods", "lnl", *SMALL, "--seed", "1", "--seeds", "2"], "give one of them"),
        (["--methods", "lnl", *SMALL, "--jobs", "none"], "--jobs none: a whole number from 1, or auto"),
        (["--methods", "lnl", *SMALL[:-1], "cuda:9"], "device 'cuda:9' is not here"),
        (["--methods", "lnl", *SMALL, "--set", "lnl"], "write METHOD.KEY=VALUE"),
        (["--methods", "lnl", *SMALL, "--out", "/dev/null/runs"], "choose another place with --out"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    command: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = invoke("run", *command)
    assert ended.exit_code == 2
    assert message in ended.output
    assert "Traceback" not in ended.output
    assert not list(tmp_path.iterdir()), "something was written before the error"


def test_a_failing_trial_leaves_the_others_alone(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    ended = invoke("run", "--methods", "erm,gray", *SMALL, "--set", "erm.train.lr=1e20", "--out", str(out))
    assert ended.exit_code == 1, ended.output
    assert "failed: erm: a loss became NaN or infinite in stage 'main', epoch 0, step" in ended.output
    assert len(list(out.glob("cmnist/gray/*/result.json"))) == 1
    table = invoke("report", str(out), "--format", "markdown").output
    assert "gray" in table
    assert "failed" in table


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits_and_leaves_no_worker(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    whole, _ = finished
    out = tmp_path / "runs"
    command = ["run", "--methods", "erm,lnl", *SMALL, "--out", str(out), "--seeds", "2", "--jobs", "2"]
    moments = random.Random()
    killed = 0
    for _ in range(3):
        with zoo(*command, cwd=tmp_path) as run:
            assert run.stdout is not None
            while (said := run.stdout.readline()) and "started" not in said:
                pass
            try:
                run.wait(moments.uniform(0, 4))
            except subprocess.TimeoutExpired:
                workers = children(run.pid)
                run.send_signal(signal.SIGKILL)
                run.wait()
                killed += 1
                assert all(_ends(worker) for worker in workers), "a worker outlived its driver"
        if run.returncode == 0:
            break
    assert killed, "it ended before it could be killed"
    last = zoo(*command, cwd=tmp_path)
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert outcome(out) == outcome(whole)


def _ends(pid: int) -> bool:
    """Whether a process ends within twenty seconds."""
    import threading

    tick = threading.Event()
    return any(gone(pid) or tick.wait(0.1) for _ in range(200)) or gone(pid)


def test_a_killed_worker_costs_only_a_resume(finished: tuple[Path, str], tmp_path: Path) -> None:
    whole, _ = finished
    out = tmp_path / "runs"
    run = zoo("run", "--methods", "lnl", *SMALL, "--out", str(out), "--seed", "0", "--jobs", "2", cwd=tmp_path)
    assert run.stdout is not None
    while "started" not in run.stdout.readline():
        assert run.poll() is None
    os.kill(children(run.pid)[0], signal.SIGKILL)
    said = run.stdout.read()
    run.stdout.close()
    assert run.wait(300) == 0, said
    assert "its worker died (signal 9); resuming it" in said
    assert set(outcome(out).items().__iter__().__next__()[1][0]) == {"val", "val_unbiased", "test"}
    (name,) = outcome(out)
    assert outcome(out)[name] == outcome(whole)[name]


@pytest.mark.slow
def test_a_clock_that_goes_back_changes_nothing(finished: tuple[Path, str], tmp_path: Path) -> None:
    whole, _ = finished
    out = tmp_path / "runs"
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n\nnow, back = time.time(), itertools.count(step=3600)\n"
        "time.time = lambda: now - next(back)\ntime.time_ns = lambda: int(1e9 * time.time())\n"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = ["run", "--methods", "lnl", *SMALL, "--out", str(out), "--seed", "0", "--threads", "1"]
    with zoo(*command, cwd=tmp_path, env=env) as run:
        assert run.stdout is not None
        while not list(out.glob("*/*/*/checkpoint.pt")):
            assert run.poll() is None, run.stdout.read()
        run.kill()
    for file in out.rglob("*.*"):
        os.utime(file, (4e9, 4e9))  # what was written before comes from the future
    again = zoo(*command, cwd=tmp_path, env=env)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    (name,) = outcome(out)
    assert outcome(out)[name] == outcome(whole)[name]


@pytest.fixture
def broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An installed package with a method that raises when it is imported, and one of a name that is taken."""
    info = tmp_path / "broken_zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[debias_zoo.methods]\nbroken = broken_zoo:Broken\nlost = lost_zoo:Lost\n")
    (tmp_path / "broken_zoo.py").write_text(
        "class Broken:\n    name = 'broken'\n\nraise ImportError('no such library')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.look_again()
    yield info
    registry.look_again()


def test_a_plugin_that_raises_stops_nothing_else(broken_plugin: Path) -> None:
    listed = invoke("list", "methods")
    assert listed.exit_code == 0
    assert "lnl_adaptive" in listed.output
    assert "lost  BROKEN (broken-zoo): ModuleNotFoundError" in listed.output
    ended = invoke("run", "--methods", "broken", *SMALL)
    assert ended.exit_code == 2
    assert (
        "method 'broken' of broken-zoo cannot be used: importing broken_zoo:Broken raised ImportError" in ended.output
    )
    assert "no such library" in ended.output
    build_grid(Request(["lnl"], ["cmnist"], protocol="quick"))


def test_a_plugin_that_raises_in_training_fails_its_own_trial(broken_plugin: Path, tmp_path: Path) -> None:
    (broken_plugin.parent / "broken_zoo.py").write_text(
        "from debias_zoo.methods.erm import ERM\n\n\nclass Broken(ERM):\n    name = 'broken'\n\n"
        "    def forward(self, loss, batch, clock):\n        raise RuntimeError('wrong formula')\n"
    )
    out = tmp_path / "runs"
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{broken_plugin.parent}"}
    run = zoo("run", "--methods", "broken,gray", *SMALL, "--out", str(out), env=env, cwd=tmp_path)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 1, said
    assert "broken on cmnist, seed 0 failed: RuntimeError: wrong formula" in said
    assert len(list(out.glob("cmnist/gray/*/result.json"))) == 1


@pytest.mark.slow
def test_workers_import_nothing_from_where_the_user_stands(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('imported from where the user stands')")
    code = "import sys; sys.argv[0] = 'debias-zoo'; from debias_zoo.cli import main; main()"
    command = ["run", "--methods", "erm", *SMALL, "--out", str(tmp_path / "runs")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, *command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_two_methods_of_one_name_are_an_error(broken_plugin: Path) -> None:
    (broken_plugin / "entry_points.txt").write_text("[debias_zoo.methods]\nlnl = broken_zoo:Broken\n")
    registry.look_again()
    both = "two methods are called 'lnl': debias_zoo.methods.lnl:LNL (debias-zoo) and broken_zoo:Broken (broken-zoo)"
    ended = invoke("run", "--methods", "lnl", "--dataset", "cmnist")
    assert ended.exit_code == 2
    assert both in ended.output
    ended = invoke("list", "methods")
    assert ended.exit_code == 0, "the others are listed"
    assert "BROKEN" in ended.output


@pytest.mark.parametrize("what", ["methods", "datasets", "backbones"])
def test_listings(what: str) -> None:
    found = json.loads(invoke("list", what, "--json").output)
    assert found
    assert all(row["name"] for row in found)
    assert all(row["name"] in invoke("list", what).output for row in found)


@pytest.mark.parametrize("name", ["lnl", "cmnist", "lnl_convnet", "rebias"])
def test_show(name: str) -> None:
    shown = invoke("show", name)
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(name)
    assert json.loads(invoke("show", name, "--json").output)["name"] == name
    if name == "lnl":
        assert "lambda_entropy = 0.01: weight of the negative entropy" in shown.output
        assert "paper on cmnist: feidfoe/learning-not-to-learn" in shown.output


def test_show_a_timm_model() -> None:
    shown = invoke("show", "resnet18").output
    assert "taps: 64 x 112 x 112, 64 x 56 x 56, 128 x 28 x 28" in shown
    assert "weights: 11176512" in shown


def test_show_unknown() -> None:
    assert "unknown name 'cmnits'; did you mean 'cmnist'?" in invoke("show", "cmnits").output


def test_seeds_and_slots() -> None:
    assert parse_seeds(None, None) == [0]
    assert parse_seeds(3, None) == [0, 1, 2]
    assert parse_seeds(None, "4,1,4") == [4, 1]
    for listed in ("", "-1", "1,,2", "x"):
        with pytest.raises(ZooError, match="seeds are whole numbers"):
            parse_seeds(None, listed)
    slots, threads = share_out("1", 5, "cpu")
    assert slots == 1
    assert threads >= 1
    assert share_out("auto", 1000, "cuda") == (1, share_out("1", 1, "cpu")[1])


def test_makespan() -> None:
    assert makespan([4.0, 3.0, 2.0], 2) - makespan([0.0], 1) == 5.0
    assert makespan([4.0, 3.0, 2.0], 1) - makespan([0.0], 1) == 9.0


def test_an_interrupt_is_answered_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from debias_zoo import cli as module

    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("debias_zoo.driver.drive", interrupted)
    monkeypatch.setattr(sys, "argv", ["debias-zoo", "run", "--methods", "erm", "--dataset", "cmnist"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_runs_no_two_lines_together() -> None:
    said = invoke("--help").output
    assert "\\b" not in said
    assert "  debias-zoo report runs/ --format latex -o table.tex\n" in said
