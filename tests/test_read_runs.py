"""Reading a store: which files are taken, in which order, and what is said of those that are not."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest
from made_results import make_trial
from made_store import make_run

from debias_zoo.errors import ZooError
from debias_zoo.store import Folder, NewerError, parse_result, read_runs
from debias_zoo.trial import Result


def changed(path: Path, **fields: Any) -> None:
    """Write other fields into a result."""
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **fields}))


def without(path: Path, *names: str) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in data.items() if name not in names}))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    teacher = make_trial("erm", 3, config={"width": 2})
    made = make_run(tmp_path, "dedier", 1, needs={"teacher": teacher}, options=("--set dedier.x=1",))
    (run,), problems = read_runs(tmp_path)
    assert (run, problems) == (made, [])
    assert run.result.trial.needs["teacher"].seed == 3
    assert isinstance(run.result.metrics["test"]["accuracy"], float)


def test_runs_stand_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for dataset in ("b", "a-c", "a"):
        for method in ("lnl", "erm"):
            make_run(tmp_path, method, 0, dataset=dataset)
    found = [(run.result.trial.dataset, run.result.trial.method) for run in read_runs(tmp_path)[0]]
    assert found == [(dataset, method) for dataset in ("a", "a-c", "b") for method in ("erm", "lnl")]
    assert [run.path for run in read_runs(tmp_path)[0]] == sorted(run.path for run in read_runs(tmp_path)[0])


def test_schema_1_is_read_and_a_later_one_refused(tmp_path: Path) -> None:
    old = make_run(tmp_path, "erm").path / "result.json"
    changed(old, schema_version=1)
    without(old, "groups", "selectable")
    later = make_run(tmp_path, "lnl").path / "result.json"
    changed(later, schema_version=99)
    further = make_run(tmp_path, "gray").path / "result.json"
    changed(further, schema_version=99, a_field_of_the_future={"x": 1})
    (run,), problems = read_runs(tmp_path)
    assert (run.result.schema_version, run.result.groups, run.result.selectable) == (1, None, None)
    assert len(problems) == 2
    assert all("has schema 99, this version reads up to 2: upgrade debias-zoo" in problem for problem in problems)
    with pytest.raises(NewerError):
        Folder(later.parent).result()
    assert later.exists(), "what a later version wrote is not put aside"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"null", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"schema_version": "99"}', "cannot be read"),
        (b"\xff\xfe{}", "cannot be read"),
        (b'{"schema_version": 3, "x": "\xff"}', "has schema 3"),
    ],
)
def test_what_is_no_result_is_told_and_read_as_none(content: bytes, said: str, tmp_path: Path) -> None:
    path = make_run(tmp_path, "erm").path / "result.json"
    path.write_bytes(content)
    runs, (problem,) = read_runs(tmp_path)
    assert runs == []
    assert problem.startswith("not read: ")
    assert said in problem


@pytest.mark.parametrize(
    "change",
    [
        lambda trial: {**trial, "seed": 7},
        lambda trial: {**trial, "method_version": 2},
        lambda trial: {**trial, "config": {"scale": 0.1}},
        lambda trial: {**trial, "params": {**trial["params"], "variance": 0.03}},
        lambda trial: {**trial, "settings": {**trial["settings"], "lr": 0.011}},
    ],
)
def test_a_result_that_does_not_belong_to_its_configuration_is_not_read(change: Any, tmp_path: Path) -> None:
    path = make_run(tmp_path, "erm").path / "result.json"
    trial = json.loads(path.read_text())["trial"]
    changed(path, trial=change(trial))
    runs, (problem,) = read_runs(tmp_path)
    assert runs == []
    assert "does not belong to its configuration" in problem


def test_unknown_fields_are_damage(tmp_path: Path) -> None:
    path = make_run(tmp_path, "erm").path / "result.json"
    changed(path, surprise=1)
    assert "cannot be read (ValidationError: surprise: Extra inputs are not permitted)" in read_runs(tmp_path)[1][0]


def test_numbers_keep_every_bit(tmp_path: Path) -> None:
    values = {"accuracy": 0.1 + 0.2, "unbiased": 5e-324, "gap": -0.0, "worst_n": 2.0**53 + 2, "ece": None}
    made = make_run(tmp_path, "erm", result={"metrics": {"test": values}}, config={"huge": 10**30, "third": 1 / 3})
    found = parse_result((made.path / "result.json").read_bytes(), made.path)
    assert found.metrics["test"] == values
    assert str(found.metrics["test"]["gap"]) == "-0.0"
    assert found.trial.config == {"huge": 10**30, "third": 1 / 3}
    assert found == made.result == Result.model_validate(json.loads((made.path / "result.json").read_text()))


def test_unfinished_and_failed_trials_are_told_with_their_reason(tmp_path: Path) -> None:
    make_run(tmp_path, "erm")
    for name, said in (("a", None), ("b", "first line\nlast line\n"), ("c", "")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        if said is not None:
            (folder / "error.txt").write_text(said)
    runs, problems = read_runs(tmp_path)
    assert len(runs) == 1
    assert problems == [
        f"unfinished: {tmp_path / 'a'}",
        f"failed: {tmp_path / 'b'}: last line",
        f"failed: {tmp_path / 'c'}: no reason noted",
    ]


def test_a_folder_that_links_to_itself_is_read_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, "erm")
    os.symlink(tmp_path, run.path / "again")
    assert [found.path for found in read_runs(tmp_path)[0]] == [run.path]


def test_a_store_may_itself_be_a_link_or_one_trial(tmp_path: Path) -> None:
    run = make_run(tmp_path / "store", "erm")
    os.symlink(tmp_path / "store", tmp_path / "link")
    assert len(read_runs(tmp_path / "link")[0]) == 1
    assert [found.path for found in read_runs(run.path)[0]] == [run.path]


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="there is no folder"):
        read_runs(tmp_path / "nowhere")


@pytest.mark.parametrize("before", [True, False])
def test_the_search_for_cycles_goes_on_as_before(before: bool, tmp_path: Path) -> None:
    make_run(tmp_path, "erm")
    enabled = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        read_runs(tmp_path)
        assert gc.isenabled() == before
    finally:
        (gc.enable if enabled else gc.disable)()
