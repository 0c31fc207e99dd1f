from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from debias_zoo import devices, executor_polling, executor_ray, executor_slurm, registry, remote, shared, slots, worker
from debias_zoo.cli import cli
from debias_zoo.driver import parse_slurm
from debias_zoo.errors import ZooError
from debias_zoo.executor_local import LocalExecutor
from debias_zoo.executors import Event, Executor, Setup, pick_executor
from debias_zoo.grid import Request, build_grid
from debias_zoo.slots import fit_memory, share_out
from debias_zoo.trial import Trial
from tests.test_cli import SMALL, children, gone, outcome, zoo

RUN = ["run", "--methods", "erm", *SMALL]


def trials(methods: str, seeds: int = 1) -> list[Trial]:
    """Quick trials of a second or two."""
    sets = [(method, "train.epochs", 1) for method in methods.split(",") if method != "dedier"]
    found = build_grid(Request(methods.split(","), ["cmnist"], list(range(seeds)), protocol="quick", sets=sets))
    return [trial.model_copy(update={"train_limit": 256, "eval_limit": 50}) for trial in found.trials.values()]


# --- what all executors share


class Scripted(Executor):
    """Does what a script says instead of training: for each trial a list of the ends of its attempts."""

    name = "scripted"

    def __init__(self, setup: Setup, script: dict[str, list[str]]) -> None:
        super().__init__(setup)
        self.script = script
        self.begun: list[str] = []
        self.most = 0
        self.closed = 0
        self._running: deque[Trial] = deque()

    def free(self) -> bool:
        return len(self._running) < self.setup.slots

    def begin(self, trial: Trial) -> None:
        self.begun.append(trial.identity)
        self._running.append(trial)
        self.most = max(self.most, len(self._running))

    def wait(self) -> Event:
        trial = self._running.popleft()
        kind = self.script.get(trial.identity, ["done"]).pop(0)
        return Event(trial, kind, {"error": "it broke"} if kind != "done" else {})

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def family() -> tuple[Trial, Trial, Trial]:
    """A trial, a teacher and its student."""
    alone, teacher = trials("erm", 2)
    student = alone.model_copy(update={"seed": 7, "needs": {"teacher": teacher}})
    return alone, teacher, student


def test_teachers_first_and_no_more_than_there_are_slots(family: tuple[Trial, Trial, Trial], tmp_path: Path) -> None:
    alone, teacher, student = family
    executor = Scripted(Setup(tmp_path, 2, 1), {})
    events = list(executor.run([student, alone, teacher]))
    assert [event.kind for event in events] == ["done"] * 3
    assert executor.begun == [alone.identity, teacher.identity, student.identity]
    assert (executor.most, executor.closed) == (2, 1)


def test_a_student_of_a_teacher_that_is_not_in_the_run_starts(
    family: tuple[Trial, Trial, Trial], tmp_path: Path
) -> None:
    _, _, student = family
    assert [event.kind for event in Scripted(Setup(tmp_path, 1, 1), {}).run([student])] == ["done"]


class Stacking(Scripted):
    """Takes several at once."""

    def begin_stack(self, trials: Sequence[Trial]) -> None:
        self.begun.append("+".join(str(trial.seed) for trial in trials))
        self._running.extend(trials)


def test_seeds_are_stacked_and_who_dies_in_a_stack_is_begun_again_alone(tmp_path: Path) -> None:
    seeds = trials("erm", 5)
    other = trials("gray")
    executor = Stacking(Setup(tmp_path, 4, 1, stack=3), {seeds[1].identity: ["died", "done"]})
    events = list(executor.run([seeds[0], *other, *seeds[1:]]))
    assert executor.begun == ["0+1+2", other[0].identity, "3+4", seeds[1].identity]
    assert [event.kind for event in events].count("done") == 6
    assert [event.trial.seed for event in events if event.kind == "warning"] == [1]


def test_other_settings_and_other_precision_are_no_stack() -> None:
    one, two = trials("erm", 2)
    assert one.but_seed() == two.but_seed()
    assert one.identity != two.identity
    assert one.but_seed() != two.model_copy(update={"precision": "bf16"}).but_seed()
    assert one.but_seed() != two.model_copy(update={"train_limit": 7}).but_seed()
    student = one.model_copy(update={"needs": {"teacher": one}})
    assert student.but_seed() == two.model_copy(update={"needs": {"teacher": two}}).but_seed() != one.but_seed()


def test_stacks_are_for_executors_that_take_them_and_are_not_compiled() -> None:
    assert pick_executor("local", {"stack-seeds": True}) is LocalExecutor
    with pytest.raises(ZooError, match="slurm does not read --stack-seeds"):
        pick_executor("slurm", {"stack-seeds": True})
    refused = CliRunner().invoke(cli, [*RUN, "--stack-seeds", "2", "--compile", "on"])
    assert refused.exit_code == 2
    assert "give one of them" in refused.output


def test_a_failed_teacher_takes_its_students_along(family: tuple[Trial, Trial, Trial], tmp_path: Path) -> None:
    alone, teacher, student = family
    executor = Scripted(Setup(tmp_path, 1, 1), {teacher.identity: ["failed"]})
    ends = {event.trial.identity: event for event in executor.run([teacher, student, alone])}
    assert [ends[t.identity].kind for t in family] == ["done", "failed", "failed"]
    assert ends[student.identity].content["error"] == f"{student.label}: what it needs failed: {teacher.label}"
    assert student.identity not in executor.begun


def test_who_dies_is_resumed_once_and_then_failed_with_the_reason_on_disk(
    family: tuple[Trial, Trial, Trial], tmp_path: Path
) -> None:
    alone, teacher, _ = family
    folder = tmp_path / alone.folder
    folder.mkdir(parents=True)
    script = {alone.identity: ["died", "died", "done"], teacher.identity: ["died", "done"]}
    executor = Scripted(Setup(tmp_path, 1, 1), script)
    events = list(executor.run([alone, teacher]))
    assert [(event.trial.seed, event.kind) for event in events] == [
        (0, "warning"),
        (0, "failed"),
        (1, "warning"),
        (1, "done"),
    ]
    assert events[0].content["text"] == f"{alone.label}: it broke; resuming it"
    assert events[1].content["error"] == f"{alone.label}: it broke; it was begun twice"
    assert (folder / "error.txt").read_text() == f"{alone.label}: it broke; it was begun twice\n"


def test_it_is_closed_when_nobody_listens_any_more(family: tuple[Trial, Trial, Trial], tmp_path: Path) -> None:
    executor = Scripted(Setup(tmp_path, 1, 1), {})
    going = executor.run(list(family))
    next(going)
    going.close()  # type: ignore[attr-defined]
    assert executor.closed == 1


# --- faults, each in a worker of its own


PLUGIN = """
import os, signal
import torch
from debias_zoo.methods.erm import ERM

def raises(error):
    raise error

class Exits(ERM):
    name = 'exits'

    def forward(self, loss, batch, clock):
        os._exit(7)

class Crashes(ERM):
    name = 'crashes'

    def forward(self, loss, batch, clock):
        os.kill(os.getpid(), signal.SIGSEGV)

class NoMemory(ERM):
    name = 'no_memory'

    def forward(self, loss, batch, clock):
        raise MemoryError('no room for a list')

class NoDeviceMemory(ERM):
    name = 'no_device_memory'

    def forward(self, loss, batch, clock):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')
"""
FAULTS = {"exits": "Exits", "crashes": "Crashes", "no_memory": "NoMemory", "no_device_memory": "NoDeviceMemory"}


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package of methods that fail, here and in workers."""
    site = tmp_path / "site"
    info = site / "faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    lines = [f"{name} = faulty_methods:{cls}" for name, cls in FAULTS.items()]
    (info / "entry_points.txt").write_text("\n".join(["[debias_zoo.methods]", *lines]) + "\n")
    (site / "faulty_methods.py").write_text(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(str(site))
    registry.look_again()
    yield
    registry.look_again()


@pytest.mark.slow
def test_faults_cost_only_their_own_trials(faulty: None, tmp_path: Path) -> None:
    todo = trials(",".join([*FAULTS, "erm"]))
    events = list(LocalExecutor(Setup(tmp_path, 1, 1)).run(todo))
    ends = {event.trial.method: event for event in events if event.kind in {"done", "failed"}}
    warned = [(event.trial.method, event.content["text"]) for event in events if event.kind == "warning"]
    assert ends.pop("erm").kind == "done"
    assert {name: event.kind for name, event in ends.items()} == dict.fromkeys(FAULTS, "failed")
    errors = {name: event.content["error"] for name, event in ends.items()}
    assert errors["exits"] == "exits on cmnist, seed 0: its worker died (exit code 7); it was begun twice"
    assert errors["crashes"].startswith("crashes on cmnist, seed 0: its worker died (signal 11)")
    assert "MemoryError: no room for a list" in errors["no_memory"]
    assert "CUDA out of memory. Tried to allocate 20.00 GiB" in errors["no_device_memory"]
    assert [name for name, text in warned if text.endswith("; resuming it")] == ["exits", "crashes"]
    reasons = {path.parent.parent.name: path.read_text() for path in tmp_path.rglob("error.txt")}
    assert set(reasons) == set(FAULTS)
    assert "exit code 7" in reasons["exits"]
    assert "signal 11" in reasons["crashes"]
    assert "MemoryError" in reasons["no_memory"]
    assert "OutOfMemoryError" in reasons["no_device_memory"]


# --- SIGTERM


@pytest.mark.slow
def test_terminated_it_says_how_to_go_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = [*RUN, "--seeds", "2", "--threads", "1", "--jobs", "1"]
    run = zoo(*command, "--out", "stopped", cwd=tmp_path)
    assert run.stdout is not None
    while not list((tmp_path / "stopped").rglob("checkpoint.pt")):
        assert run.poll() is None
    workers = children(run.pid)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 143, said
    assert "terminated; what is finished is kept: the same command goes on from there" in said
    assert workers
    assert all(gone(worker) for worker in workers)
    assert list((tmp_path / "stopped").rglob("checkpoint.pt"))
    for out in ("stopped", "whole"):
        run = zoo(*command, "--out", out, cwd=tmp_path)
        said, _ = run.communicate(timeout=120)
        assert run.returncode == 0, said
    assert len(outcome(tmp_path / "whole")) == 2
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


# --- slots, GPUs, memory


def test_slots_of_gpus_and_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 16)
    monkeypatch.setattr(slots, "total_memory", lambda: 64 * 2**30)
    assert share_out("auto", 100, "cpu") == (16, 1)
    assert share_out("auto", 3, "cpu") == (3, 5)
    assert share_out("2", 100, "cpu", threads="4") == (2, 4)
    assert share_out("auto", 100, "cuda", gpus=("0", "1", "2")) == (3, 5)
    assert share_out("auto", 100, "cuda", gpus=("0", "1"), per_gpu=4) == (8, 2)
    assert share_out("3", 100, "cuda", gpus=("0", "1"), per_gpu=4) == (3, 5)
    assert share_out("20", 100, "cuda", gpus=("0",), per_gpu=4) == (4, 4)
    assert share_out("auto", 100, "cpu", remote=True) == (100, 1)
    assert share_out("8", 100, "cuda", threads="6", remote=True) == (8, 6)
    monkeypatch.setattr(slots, "total_memory", lambda: 4 * slots.WORKER_BYTES)
    assert share_out("auto", 100, "cpu") == (4, 4), "more workers than memory holds"
    with pytest.raises(ZooError, match="--per-gpu 2 shares a GPU, the device is cpu"):
        share_out("auto", 1, "cpu", per_gpu=2)
    for threads in ("0", "x", "-1"):
        with pytest.raises(ZooError, match="--threads"):
            share_out("auto", 1, "cpu", threads=threads)


def test_little_free_memory_makes_fewer_slots_and_leaves_the_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(shared, "LEAST_BYTES", 2**40)  # each worker holds its own images
    (trial,) = trials("erm")
    images = (256 + 50 + 50 + 50) * 28 * 28 * 3
    a_worker = slots.WORKER_BYTES + 2 * images
    for free, expected in ((None, 8), (100 * a_worker, 8), (3 * a_worker, 3), (3 * a_worker - 1, 2), (0, 1)):
        monkeypatch.setattr(slots, "free_memory", lambda free=free: free)
        assert fit_memory(8, [trial], None) == expected
    broken = trial.model_copy(update={"params": {"no": "such"}})
    monkeypatch.setattr(slots, "free_memory", lambda: 4 * slots.WORKER_BYTES)
    assert fit_memory(8, [broken], None) == 4


def test_free_memory_is_read_where_the_system_says_it(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 99999 kB\nMemAvailable:    2048 kB\n")
    assert slots.free_memory(tmp_path / "meminfo") == 2 * 2**20
    (tmp_path / "meminfo").write_text("MemTotal: 99999 kB\n")
    assert slots.free_memory(tmp_path / "meminfo") is None
    assert slots.free_memory(tmp_path / "nothing") is None
    assert 0 < (slots.free_memory() or 1) <= slots.total_memory()


def test_gpus_are_named_as_the_system_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.visible_gpus() == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8a, 7")
    assert devices.visible_gpus() == ("5", "GPU-8a")
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 0)
    assert devices.visible_gpus() == ()


class Fake(subprocess.Popen[str]):
    """A worker process that does not run."""

    started: list[dict[str, str]] = []

    def __init__(self, command: Any, **options: Any) -> None:
        self.started.append(options["env"])
        read, write = os.pipe()
        self.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        self.stdout = os.fdopen(read)
        self.write = write

    def kill(self) -> None:
        os.close(self.write)

    def wait(self) -> int:
        return 0


def test_each_slot_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Fake, "started", [])
    monkeypatch.setattr(subprocess, "Popen", Fake)
    setup = Setup(tmp_path, 4, 2, "cuda", gpus=("3", "5"), per_gpu=2)
    executor = LocalExecutor(setup)
    for trial in trials("erm", 4):
        assert executor.free()
        executor.begin(trial)
    assert not executor.free()
    executor.close()
    assert [env["CUDA_VISIBLE_DEVICES"] for env in Fake.started] == ["3", "5", "3", "5"]
    assert {env["OMP_NUM_THREADS"] for env in Fake.started} == {"2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    executor = LocalExecutor(replace(setup, gpus=()))
    executor.begin(trials("erm")[0])
    executor.close()
    assert Fake.started[-1]["CUDA_VISIBLE_DEVICES"] == "as it was"


# --- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "rai"], "unknown executor 'rai'; did you mean 'ray'? Known: local, ray, slurm"),
        (["--address", "head:6379"], "--executor local does not read --address"),
        (["--executor", "ray", "--slurm", "time=5"], "--executor ray does not read --slurm"),
        (["--executor", "slurm", "--slurm", "time"], "--slurm time: must read KEY=VALUE"),
        (["--executor", "ray"], "--executor ray needs the package ray: pip install 'debias-zoo[ray]'"),
        (["--executor", "slurm"], "--executor slurm needs the package submitit: pip install 'debias-zoo[slurm]'"),
        (["--per-gpu", "2"], "--per-gpu 2 shares a GPU"),
        (["--executor", "slurm", "--per-gpu", "2", "--device", "cuda"], "--executor slurm does not read --per-gpu"),
        (["--threads", "many"], "--threads many: a whole number from 1 to 1024, or auto"),
        (["--threads", "99999999"], "--threads 99999999: a whole number from 1 to 1024, or auto"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "needs the package" in message:
        for module in (executor_ray, executor_slurm):
            monkeypatch.setattr(module, "find_spec", lambda name: None)
    else:
        for cls in (executor_ray.RayExecutor, executor_slurm.SlurmExecutor):
            monkeypatch.setattr(cls, "check", lambda: None)
    ended = CliRunner().invoke(cli, [*RUN, *options, "--out", str(tmp_path / "runs")])
    assert ended.exit_code == 2, ended.output
    assert message in " ".join(ended.output.split())
    assert not (tmp_path / "runs").exists()


def test_parameters_for_slurm_are_read() -> None:
    assert parse_slurm(["partition=gpu", "comment=a=b"]) == {"partition": "gpu", "comment": "a=b"}
    assert {text: executor_slurm._value(text) for text in ("8", "1.5", "true", "gpu", "[1]")} == {
        "8": 8,
        "1.5": 1.5,
        "true": True,
        "gpu": "gpu",
        "[1]": "[1]",
    }


def test_executors_are_found_by_name() -> None:
    assert pick_executor("local", {"address": "", "slurm": ()}) is LocalExecutor
    assert list(registry.entries("executor")) == ["local", "ray", "slurm"]


def test_programs_that_hold_several_trials_take_them_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr("debias_zoo.runner.trial_course", lambda trial, how, told: taken.append(trial.identity))
    monkeypatch.setattr("debias_zoo.stacking.together", lambda courses, ended, warn: None)
    several = [*trials("erm"), *trials("gray"), *trials("rebias")]
    for given in (several, several[::-1]):
        worker.perform(Setup(Path("out"), 1, 1).job(*given), lambda event, **content: None)
    assert taken == 2 * sorted(trial.identity for trial in several)


# --- trials heard of through files


def test_a_job_whose_news_cannot_be_written_is_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("debias_zoo.worker.perform", lambda job, send: send("done"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    for events in ("/dev/full", str(tmp_path / "gone" / "x.jsonl")):
        job = {"threads": 1, "cwd": os.getcwd(), "events": events}
        assert json.loads(remote.run_job(json.dumps(job))) == {"event": "done"}


class Mailed(executor_polling.PollingExecutor):
    """Runs nothing; the test writes what a trial would."""

    name = "mailed"
    seconds = 0.01
    over: dict[str, Any] | None = None

    def submit(self, trial: Trial, text: str) -> Any:
        self.job = text
        return trial.identity

    def ended(self, handle: Any) -> dict[str, Any] | None:
        return self.over

    def cancel(self, handle: Any) -> None:
        self.cancelled = handle


def test_events_come_through_files_and_what_had_ended_did_not_die(tmp_path: Path) -> None:
    (trial,) = trials("erm")
    executor = Mailed(Setup(tmp_path, 1, 3))
    executor.begin(trial)
    assert not executor.free()
    (mail,) = tmp_path.glob(".events-*/*.jsonl")
    mail.write_text('{"event": "started"}\n{"event": "progress", "done": 1}\n{"event": "do')
    assert executor.wait() == Event(trial, "started")
    assert executor.wait() == Event(trial, "progress", {"done": 1})
    with mail.open("a") as file:
        file.write('ne"}\n')
    executor.over = {"event": "died", "error": "the node is gone"}
    assert executor.wait() == Event(trial, "done")
    assert executor.free()
    executor.begin(trial)
    executor.over = {"event": "died", "error": "the node is gone"}
    assert executor.wait() == Event(trial, "died", {"error": "the node is gone"})
    executor.over = None
    executor.begin(trial)
    executor.close()
    assert executor.cancelled == trial.identity
    assert not list(tmp_path.glob(".events-*"))
    assert '"threads": 3' in executor.job
