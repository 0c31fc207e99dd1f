"""`debias-zoo runs`: what a store holds, and taking trials out of it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_results import make_result

from debias_zoo.cli import cli
from debias_zoo.errors import ZooError
from debias_zoo.inventory import find, remove, stored


def invoke(*command: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(command), input=answer)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished trial of erm, a failed and a stopped one of lnl, and a damaged result of gray."""
    for method, seed in (("erm", 0), ("lnl", 0), ("lnl", 1), ("gray", 0)):
        result = make_result(method, seed)
        folder = tmp_path / "runs" / result.trial.folder
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(result.trial.model_dump_json())
        (folder / ".lock").touch()
        if method == "erm":
            (folder / "result.json").write_text(result.model_dump_json())
        if method == "gray":
            (folder / "result.json").write_text(result.model_dump_json()[:-20])
        if (method, seed) == ("lnl", 0):
            (folder / "error.txt").write_text("Traceback\nMemoryError: no room\n")
    return tmp_path / "runs"


def test_every_state_is_told(out: Path) -> None:
    states = {(one.trial.method, one.trial.seed): one.state for one in stored(out) if one.trial}
    assert states == {("erm", 0): "finished", ("gray", 0): "damaged", ("lnl", 0): "failed", ("lnl", 1): "stopped"}
    assert [one.reason for one in find(out, ["lnl"])] == ["MemoryError: no room", ""]


def test_what_another_version_wrote_or_cannot_be_opened_is_not_damaged(out: Path) -> None:
    (one,) = find(out, ["erm"])
    file = one.path / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    (later,) = find(out, ["erm"])
    assert (later.state, "upgrade debias-zoo" in later.reason) == ("newer", True)
    file.unlink()
    file.mkdir()
    assert [found.state for found in find(out, ["erm"])] == ["unreadable"]
    named = invoke("runs", "rm", "--failed", "--out", str(out), answer="n").output
    assert str(one.path) not in named


def test_a_store_may_be_written_while_it_is_listed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*iterdir(path), path / ".result.json.1.part"]))
    assert len(stored(out)) == 4


def test_a_trial_that_a_process_holds_is_running_and_is_kept(out: Path) -> None:
    (one,) = [one for one in stored(out) if one.state == "stopped"]
    with (one.path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert [found.state for found in find(out, [one.identity])] == ["running"]
        with pytest.raises(ZooError, match="a process works on it"):
            remove(one)
    assert one.path.is_dir()
    remove(one)
    assert not one.path.exists()


def test_listing(out: Path) -> None:
    done = invoke("runs", "list", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "4 trials (1 finished, 1 damaged, 1 failed, 1 stopped)" in done.output
    (line,) = [line for line in done.output.splitlines() if " erm " in line]
    assert "50.00" in line
    records = json.loads(invoke("runs", "list", "--out", str(out), "--json").output)
    assert {record["method"]: record["state"] for record in records} == {
        "erm": "finished",
        "gray": "damaged",
        "lnl": "stopped",
    }


def test_trials_are_found_by_whatever_names_them(out: Path) -> None:
    (erm,) = find(out, ["erm"])
    spelled = os.path.relpath(erm.path)
    inside = str(erm.path.relative_to(out)) + "/"
    for name in (erm.identity, erm.identity[:5], "cmnist/erm", str(erm.path), inside, spelled):
        assert find(out, [name]) == [erm]
    assert invoke("runs", "where", "erm", "--out", str(out)).output == f"{erm.path}\n"
    assert json.loads(invoke("runs", "where", "erm", "--out", str(out), "--json").output) == [str(erm.path)]
    with pytest.raises(ZooError, match="is called 'nothing'"):
        find(out, ["nothing"])
    with pytest.raises(ZooError, match="there is no folder"):
        stored(out / "nowhere")


def test_all_about_a_trial(out: Path) -> None:
    (record,) = json.loads(invoke("runs", "show", "erm", "--out", str(out)).output)
    assert record["accuracy"] == 0.5
    assert record["command"].startswith("debias-zoo run --methods erm --dataset cmnist:")
    assert record["trial"]["metrics"]["test"]["accuracy"] == 0.5


def test_deleting_asks_and_deletes_only_what_is_named(out: Path) -> None:
    refused = invoke("runs", "rm", "lnl", "--out", str(out), answer="n\n")
    assert refused.exit_code == 0
    assert "nothing deleted" in refused.output
    assert len(find(out, ["lnl"])) == 2
    done = invoke("runs", "rm", "lnl", "--out", str(out), answer="y\n")
    assert "deleted 2" in done.output
    assert not (out / "cmnist" / "lnl").exists(), "an empty folder goes too"
    assert [one.state for one in stored(out)] == ["finished", "damaged"]
    assert "deleted 1" in invoke("runs", "rm", "--failed", "--yes", "--out", str(out)).output
    assert [one.state for one in stored(out)] == ["finished"]
    assert "nothing is named" in invoke("runs", "rm", "--out", str(out)).output
