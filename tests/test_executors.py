from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from commands import RUN
from short_trials import trials

from debias_zoo import executor_polling, executor_ray, executor_slurm, registry, remote, worker
from debias_zoo.cli import cli
from debias_zoo.driver import parse_slurm
from debias_zoo.errors import ZooError
from debias_zoo.executor_local import LocalExecutor
from debias_zoo.executors import Event, Executor, Setup, pick_executor
from debias_zoo.threads import thread_variables
from debias_zoo.trial import Trial

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
    for name, value in thread_variables(1).items():
        monkeypatch.setenv(name, value)
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
