"""Slurm's executor on submitit's stand-ins for a cluster: processes on this machine, and this process."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from commands import SMALL, outcome, zoo
from short_trials import trials

from debias_zoo.errors import ZooError
from debias_zoo.executors import Setup
from debias_zoo.threads import thread_variables

pytest.importorskip("submitit")


# submitit leaves its log files open
@pytest.mark.filterwarnings("ignore:.*DEBUG:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file.*DEBUG:ResourceWarning")
def test_in_this_process_it_trains_and_the_job_holds_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from debias_zoo import executor_slurm

    monkeypatch.setattr(executor_slurm.SlurmExecutor, "seconds", 0.01)
    before = dict(os.environ)
    executor = executor_slurm.SlurmExecutor(Setup(tmp_path, 2, 1, slurm={"cluster": "debug", "partition": "gpu"}))
    submitted: list[Any] = []
    submit = executor._jobs.submit
    monkeypatch.setattr(executor._jobs, "submit", lambda *given: submitted.append(given) or submit(*given))
    (trial,) = trials("erm")
    kinds = [event.kind for event in executor.run([trial])]
    assert (kinds[0], kinds[-1]) == ("started", "done")
    assert set(kinds[1:-1]) == {"progress"}
    ((function, text),) = submitted
    assert (function.__module__, function.__name__) == ("debias_zoo.remote", "run_job")
    assert json.loads(text)["trials"] == [trial.model_dump(mode="json")]
    assert len(list(tmp_path.rglob("result.json"))) == 1
    assert not list(tmp_path.glob(".events*"))
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    assert changed <= set(thread_variables(1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cluster": "moon"}, "cluster=moon: slurm, local or debug"),
        ({"cluster": "debug", "partitoin": "gpu"}, "Unknown argument 'partitoin' for executor 'slurm'"),
        ({"cluster": "debug", "mem_gb": "much"}, "mem_gb"),
        ({"partition": "gpu"}, "srun"),
    ],
)
def test_what_slurm_cannot_have_is_refused(
    given: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from debias_zoo.executor_slurm import SlurmExecutor

    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without Slurm
    with pytest.raises(ZooError, match="--executor slurm --slurm") as raised:
        SlurmExecutor(Setup(tmp_path, 1, 1, slurm=given))
    assert message in str(raised.value)
    assert not list(tmp_path.glob(".events*"))


@pytest.mark.slow
def test_a_killed_job_is_resumed_with_the_same_bits(tmp_path: Path) -> None:
    command = ["run", "--methods", "erm", *SMALL, "--seeds", "2", "--threads", "1", "--jobs", "1"]
    run = zoo(*command, "--executor", "slurm", "--slurm", "cluster=local", "--out", "jobs", cwd=tmp_path)
    tick = threading.Event()
    while not (found := list((tmp_path / "jobs").rglob("checkpoint.pt"))):
        assert run.poll() is None
        tick.wait(0.02)
    held = f"{found[0].parent}/.lock"
    (worker,) = [pid for pid in Path("/proc").iterdir() if pid.name.isdecimal() and held in open_files(pid)]
    os.kill(int(worker.name), signal.SIGKILL)
    said, _ = run.communicate(timeout=200)
    assert run.returncode == 0, said
    assert "ended without a result" in said
    assert said.count("resuming it") == 1
    whole = zoo(*command, "--out", "whole", cwd=tmp_path)
    said, _ = whole.communicate(timeout=200)
    assert whole.returncode == 0, said
    assert len(outcome(tmp_path / "whole")) == 2
    assert outcome(tmp_path / "jobs") == outcome(tmp_path / "whole")


def open_files(process: Path) -> set[str]:
    """What a process has open, as far as it may be known."""
    found = set()
    try:
        for descriptor in (process / "fd").iterdir():
            found.add(os.readlink(descriptor))
    except OSError:
        pass
    return found
