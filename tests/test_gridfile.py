"""Grids in YAML files, several backbones, and what a dry run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from commands import invoke
from made_results import make_result
from pages import DOCS, blocks

from debias_zoo.cli import cli
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid, parse_set
from debias_zoo.gridfile import GridFile, read_grid

GRID = """
methods: [erm, gray]
datasets:
  - {name: cmnist, variance: [0.02, 0.05]}
seeds: [0, 3]
protocol: quick
backbones: [lnl_convnet, mlp]
set: {erm.train.lr: 0.02}
device: cpu
"""


BOMB = "b0: &b0 [1]\n" + "".join(f"b{k}: &b{k} [{', '.join(10 * [f'*b{k - 1}'])}]\n" for k in range(1, 9))
"""A few hundred characters that stand for a hundred million values."""


def written(folder: Path, text: str) -> Path:
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def test_a_file_says_what_options_say(tmp_path: Path) -> None:
    options = read_grid(written(tmp_path, GRID))
    assert options["methods"] == "erm,gray"
    assert options["seed_list"] == "0,3"
    assert options["sets"] == ["erm.train.lr=0.02"]
    assert options["backbones"] == ("lnl_convnet", "mlp")


def test_a_file_may_say_all_that_run_is_told(tmp_path: Path) -> None:
    more = [
        "slurm: {partition: gpu, time: 240, exclusive: true}",
        "recipes: [a.yaml]",
        "stack_seeds: 2",
        "compile: 'on'",
    ]
    text = "\n".join([GRID, *more, "threads: 2"])
    options = read_grid(written(tmp_path, text))
    assert isinstance(cli, click.Group)
    parameters = {str(parameter.name) for parameter in cli.commands["run"].params}
    assert set(options) == parameters - {"grid", "dry_run", "as_json", "plugin"}
    assert options["slurm"] == ("partition=gpu", "time=240", "exclusive=true")
    assert options["recipes"] == (Path("a.yaml"),)
    assert (options["stack"], options["compiling"], options["threads"]) == (2, "on", "2")


def test_the_page_on_grids_names_every_key_and_its_file_is_one(tmp_path: Path) -> None:
    page = (DOCS / "grids.md").read_text()
    (text,) = [block.text for block in blocks(page) if block.language == "yaml"]
    options = read_grid(written(tmp_path, text))
    request = Request(options["methods"].split(","), options["datasets"], sets=[parse_set(t) for t in options["sets"]])
    assert len(build_grid(request).trials) == 3 * 4
    assert {key for key in GridFile.model_fields if f"`{key}`" not in page} == set()


def test_a_dry_run_lists_every_trial_and_trains_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("run", str(written(tmp_path, GRID)), "--dry-run")
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if "  cmnist/" in line]
    assert len(lines) == 2 * 2 * 2 * 2
    assert len({line.split("  ")[-2] for line in lines}) == 16, "every trial's name tells it apart"
    assert "16 trials: erm, gray" in done.output
    assert "expected to take about" in done.output
    assert sum("seed 0" in line for line in lines[:8]) == 8, "one seed of everything comes first"
    assert not (tmp_path / "runs").exists()
    rows = json.loads(invoke("run", str(written(tmp_path, GRID)), "--dry-run", "--json").stdout)
    assert {row["path"] for row in rows} == {line.split()[-1] for line in lines}
    assert all(row["seconds"] > 0 and not row["finished"] for row in rows)
    refused = invoke("run", str(written(tmp_path, GRID)), "--json")
    assert (refused.exit_code, "--json goes with --dry-run" in refused.output) == (2, True)


def test_a_dry_run_lists_what_is_finished_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = build_grid(Request(["erm"], ["cmnist"], protocol="quick", precision="fp32")).trials.values()
    folder = tmp_path / "runs" / trial.folder
    folder.mkdir(parents=True)
    result = make_result("erm", 0).model_copy(update={"trial": trial, "identity": trial.identity})
    (folder / "result.json").write_text(result.model_dump_json())
    monkeypatch.chdir(tmp_path)
    command = ["run", "--methods", "erm", "--dataset", "cmnist", "--protocol", "quick", "--precision", "fp32"]
    done = invoke(*command, "--device", "cpu", "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.output.split() == ["finished", "erm", "on", "cmnist,", "seed", "0", trial.folder]


def test_a_dry_run_changes_nothing_and_says_what_it_cannot_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["run", "--methods", "dedier", "--dataset", "cmnist", "--protocol", "quick", "--precision", "fp32"]
    trials = build_grid(Request(["dedier"], ["cmnist"], protocol="quick")).trials.values()
    (folder,) = [tmp_path / "runs" / trial.folder for trial in trials if trial.method == "dedier"]
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    done = invoke(*command, "--device", "cpu", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "cannot be read" in done.output
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    assert ", without 1 that cannot be timed yet; " in done.output
    assert [line.split()[:2] for line in done.output.splitlines() if "  cmnist/dedier/" in line] == [
        ["unknown", "dedier"]
    ]


def test_an_option_beside_the_file_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("run", str(written(tmp_path, GRID)), "--dry-run", "--seeds", "1", "--methods", "erm")
    assert done.exit_code == 0, done.output
    assert "4 trials: erm" in done.output
    assert "seed 0\n" in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: erm\ndatasets: cmnist\nsede: 3\n", "unknown key of {path}: 'sede'; did you mean 'seeds'"),
        ("methods: erm\n", "{path}: datasets: Field required"),
        ("- erm\n", "grid {path} must hold KEY: value; it holds list"),
        ("methods: [erm\n", "grid {path} is no YAML of plain values: while parsing"),
        ("methods: !!python/object/apply:os.system ['true']\ndatasets: cmnist\n", "plain values: could not"),
        ("methods: erm\ndatasets: cmnist\nmethods: gray\n", "plain values: 'methods' is there twice"),
        ("methods: " + 3000 * "[" + "\n", "plain values: maximum recursion depth"),
        (BOMB, "1000000 values"),
        ("methods: erm\ndatasets: cmnist\nset: {erm.q: 2026-01-01}\n", "set: erm.q: 2026-01-01 is no number"),
        ("methods: erm\ndatasets: cmnist\nseeds: -2\n", "{path}: seeds"),
        ("methods: erm\ndatasets: cmnist\nseeds: [-2]\n", "{path}: seeds"),
        ("methods: erm\ndatasets: cmnist\nseeds: 0\n", "{path}: seeds"),
        ("methods: erm\ndatasets: cmnist\nseeds: many\n", "{path}: seeds"),
        ("methods: erm\ndatasets: cmnist\nstack_seeds: 0\n", "{path}: stack_seeds"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ZooError) as found:
        read_grid(path)
    assert message.format(path=path) in str(found.value)


def test_a_data_set_of_a_file_may_hold_commas(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"there is no .*a,b"):
        build_grid(Request(["erm"], [{"name": "folder", "path": str(tmp_path / "a,b"), "metadata": "m.csv"}]))
    with pytest.raises(ZooError, match="'cmnist' of the grid: variance has no value"):
        build_grid(Request(["erm"], [{"name": "cmnist", "variance": []}]))
    with pytest.raises(ZooError, match="must have a name; it has: variance"):
        build_grid(Request(["erm"], [{"variance": 0.02}]))


def test_every_backbone_is_a_trial_of_its_own() -> None:
    grid = build_grid(Request(["erm"], ["cmnist"], protocol="quick", backbones=["lnl_convnet", "resnet20"]))
    trials: list[Any] = list(grid.trials.values())
    assert [trial.backbone for trial in trials] == ["lnl_convnet", "resnet20"]
    assert trials[1].options == ("--backbone resnet20",)


def test_without_methods_or_data_it_says_what_is_missing() -> None:
    done = invoke("run", "--methods", "erm")
    assert done.exit_code == 2
    assert "--methods A,B --dataset NAME, or a grid file with both" in done.output
