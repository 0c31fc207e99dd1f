"""Plugins in files: found everywhere, named in errors, part of a trial's identity, never run for a store's sake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from commands import invoke
from plugin_file import SOURCE, write_plugin

from debias_zoo import plugin_files, registry
from debias_zoo.errors import ZooError
from debias_zoo.executor_local import LocalExecutor
from debias_zoo.executors import Setup
from debias_zoo.grid import Request, build_grid
from debias_zoo.runner import run_trial
from debias_zoo.source_facts import defined_in
from debias_zoo.timm_models import create
from debias_zoo.trial import Trial

SMALL = "from debias_zoo.methods.erm import ERM\n\n\nclass M(ERM):\n    name = 'small'\n"
KINDS = {"methods": "milder", "datasets": "halves", "backbones": "two_layers", "formats": "lines"}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plugin(tmp_path_factory.mktemp("plugin") / "several.py")


@pytest.fixture
def named(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin, named in the environment."""
    monkeypatch.setenv(plugin_files.VARIABLE, str(plugin))
    registry.entries.cache_clear()
    yield plugin
    registry.entries.cache_clear()


def run(out: Path, *options: str) -> Result:
    small = ["--dataset", "halves", "--protocol", "quick", "--device", "cpu", "--out", str(out)]
    return invoke("run", "--methods", "milder,erm", *small, *options)


def trial_of(plugin: Path) -> Trial:
    (trial,) = build_grid(Request(["milder"], ["halves"], protocol="quick")).trials.values()
    return trial


# --- found


def test_what_a_file_defines_is_read_without_running_it(tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "x.py", SOURCE + "\nraise SystemExit('it was run')\n")
    assert {(kind, name) for kind, name, _ in defined_in(path)} == {
        *[(what.removesuffix("s"), name) for what, name in KINDS.items()],
        ("method", "mildest"),
    }


@pytest.mark.parametrize(
    ("imports", "base"),
    [
        ("from debias_zoo.methods.lnl import LNL as Parent", "Parent"),
        ("import debias_zoo.method", "debias_zoo.method.Method"),
        ("import debias_zoo.method as zoo", "zoo.Method"),
        ("from debias_zoo import method", "method.Method"),
    ],
)
def test_a_base_is_recognised_however_it_is_imported(imports: str, base: str, tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "x.py", f"{imports}\n\nclass X({base}):\n    name = 'x'\n")
    assert list(defined_in(path)) == [("method", "x", "X")]


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_a_file_is_listed_with_where_it_comes_from(
    what: str, place: str, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, command = ["--plugin", str(plugin)], ["list", what]
    if place == "environment":
        monkeypatch.setenv(plugin_files.VARIABLE, os.pathsep.join(["", str(plugin), str(plugin)]))
        registry.entries.cache_clear()
    given = {"before": [*option, *command], "after": [*command, *option], "environment": command}[place]
    text = invoke(*given).output
    ours, theirs = text.split(f"from {plugin}:\n")
    assert ours.startswith("from debias-zoo:\n")
    assert KINDS[what] in theirs
    rows = json.loads(invoke(*given, "--json").output)
    assert {row["origin"] for row in rows if row["name"] == KINDS[what]} == {str(plugin)}
    monkeypatch.delenv(plugin_files.VARIABLE, raising=False)
    registry.entries.cache_clear()
    assert str(plugin) not in invoke("list", what).output, "it outlived its command"


@pytest.mark.parametrize("name", [name for what, name in KINDS.items() if what != "formats"])
def test_it_is_shown(name: str, plugin: Path) -> None:
    shown = invoke("show", name, "--plugin", str(plugin))
    assert shown.exit_code == 0, shown.output
    assert f"origin: {plugin}" in shown.output


def test_all_that_a_file_defines_is_checked(plugin: Path) -> None:
    ended = invoke("check", str(plugin), "--json")
    assert ended.exit_code == 0, ended.output
    verdicts = json.loads(ended.output)
    assert {row.get("method") or row["dataset"] for row in verdicts} == {"milder", "mildest", "halves"}


# --- run


@pytest.fixture(scope="module")
def finished(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on a data set and a backbone of the file, run in a worker."""
    out = tmp_path_factory.mktemp("store") / "runs"
    ended = run(out, "--plugin", str(plugin))
    assert ended.exit_code == 0, ended.output
    return out


def test_a_worker_finds_it_and_the_result_says_which_code_it_was(finished: Path, plugin: Path) -> None:
    digest = plugin_files.digest_of(plugin)
    trials = {}
    for path in finished.glob("halves/*/*/result.json"):
        trial = Trial.model_validate(json.loads(path.read_text())["trial"])
        trials[trial.method] = (trial.method_code, trial.dataset_code, trial.backbone_code)
        assert trial.command().endswith("--plugin several.py")
        assert str(plugin) not in path.read_text(), "a stored configuration names no file that could be run"
    assert trials == {"milder": (digest, digest, digest), "erm": ("", digest, digest)}


def test_the_same_command_runs_nothing_again(finished: Path, plugin: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    ended = run(finished, "--plugin", str(plugin))
    assert ended.exit_code == 0, ended.output
    assert "trials:" not in ended.output
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before


def test_a_report_needs_no_plugin_and_takes_a_format_from_one(finished: Path, plugin: Path) -> None:
    table = invoke("report", str(finished), "--format", "markdown")
    assert table.exit_code == 0, table.output
    assert "milder" in table.output
    ended = invoke("report", str(finished), "--format", "lines", "--plugin", str(plugin))
    assert ended.exit_code == 0, ended.output
    assert ended.output.splitlines()[0].startswith("erm has 0.")
    ledger = invoke("report", str(finished), "--cost", "--format", "lines", "--plugin", str(plugin))
    assert ledger.output == "What the methods cost\n"
    unknown = invoke("report", str(finished), "--format", "lines")
    assert unknown.exit_code == 2
    assert "'lines' is not one of rich, latex, markdown, csv, html, json" in unknown.output


def test_nothing_is_run_because_a_store_names_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("several.py").write_text("from pathlib import Path\n\nPath('trapped').touch()\n")
    ended = invoke("probe", str(finished))
    assert (ended.exit_code, "unknown dataset 'halves'" in ended.output) == (1, True), ended.output
    assert "name a plugin's file with --plugin" in ended.output
    assert not Path("trapped").exists()


def test_edited_code_is_another_trial(named: Path) -> None:
    before = trial_of(named)
    text = named.read_text()
    try:
        named.write_text(text + "\nEDITED = True\n")
        after = trial_of(named)
    finally:
        named.write_text(text)
    assert before.identity != after.identity
    assert before.model_copy(update={"method_code": "", "dataset_code": "", "backbone_code": ""}).identity == (
        after.model_copy(update={"method_code": "", "dataset_code": "", "backbone_code": ""}).identity
    )


def test_a_trial_whose_code_has_changed_is_not_run(named: Path, tmp_path: Path) -> None:
    trial = trial_of(named)
    stale = trial.model_copy(update={"method_code": "0" * 12})
    with pytest.raises(ZooError, match=r"code of method 'milder' is not that of the trial: .*several.py has changed"):
        run_trial(stale, tmp_path)
    events = list(LocalExecutor(Setup(tmp_path, 1, 1)).run([stale]))
    assert "has changed since: run the command again" in events[-1].content["error"]
    moved = trial.model_copy(update={"method_code": ""})
    with pytest.raises(ZooError, match=r"it came from a package, here it comes from .*several.py"):
        run_trial(moved, tmp_path)


# --- broken, twice, missing


def test_a_broken_file_is_shown_and_stops_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    contents = {
        "syntax.py": "x = (",
        "empty.py": "x = 1\n",
        "raises.py": SMALL + "\nraise OSError('no such library')\n",
    }
    for name, text in contents.items():
        Path(name).write_text(text)
    monkeypatch.setenv(plugin_files.VARIABLE, os.pathsep.join([*contents, "nowhere.py"]))
    registry.entries.cache_clear()
    listed = invoke("list", "trackers")
    assert listed.exit_code == 0
    assert "tensorboard" in listed.output
    assert "syntax.py  BROKEN: SyntaxError: '(' was never closed (syntax.py, line 1)" in listed.output
    assert "empty.py  BROKEN: no plugin in it" in listed.output
    assert "nowhere.py  BROKEN: FileNotFoundError: No such file or directory" in listed.output
    assert "small" in invoke("list", "methods").output
    ended = invoke("run", "--methods", "small", "--dataset", "cmnist")
    assert (ended.exit_code, "running raises.py raised OSError: no such library" in ended.output) == (2, True)
    ended = invoke("show", "nothing")
    assert "syntax.py is broken: SyntaxError" in ended.output
    build_grid(Request(["lnl"], ["cmnist"], protocol="quick"))
    monkeypatch.delenv(plugin_files.VARIABLE)
    registry.entries.cache_clear()


def test_two_of_one_name_are_an_error_that_names_both(plugin: Path, tmp_path: Path) -> None:
    other = write_plugin(tmp_path / "other.py", SMALL.replace("small", "milder"))
    files = ["--plugin", str(plugin), "--plugin", str(other)]
    ended = invoke("run", "--methods", "milder", "--dataset", "cmnist", *files)
    assert ended.exit_code == 2
    assert f"two methods are called 'milder': {plugin}:Milder ({plugin}) and {other}:M ({other})" in ended.output
    listed = invoke("list", "methods", *files)
    assert listed.exit_code == 0
    assert "milder  BROKEN" in listed.output
    assert "mildest" in listed.output


def test_a_file_that_is_not_there_is_an_error() -> None:
    ended = invoke("list", "methods", "--plugin", "nowhere.py")
    assert (ended.exit_code, "there is no file nowhere.py" in ended.output) == (2, True)
    assert "cannot be read: there is no such file" in invoke("check", "nowhere.py").output


def test_a_backbone_must_have_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = "from debias_zoo.nets import register_model\n\n@register_model\ndef resnet18(**options): ...\n"
    path = write_plugin(tmp_path / "net.py", source)
    monkeypatch.setenv(plugin_files.VARIABLE, str(path))
    registry.entries.cache_clear()
    with pytest.raises(ZooError, match="timm has one of that name; rename it"):
        create("resnet18", 2, (3, 8, 8), {})
    monkeypatch.delenv(plugin_files.VARIABLE)
    registry.entries.cache_clear()


# --- completion


def complete(words: str) -> list[str]:
    """What a shell is offered for the last word, by a process that may not import torch."""
    code = (
        "import sys; sys.argv = ['debias-zoo']\n"
        "from debias_zoo.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'pandas', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    last = str(len(words.split(" ")) - 1)
    env = {**os.environ, "_DEBIAS_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": last}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("debias-zoo run --methods lnl", ["lnl", "lnl_adaptive"]),
        ("debias-zoo run --methods erm,lnl,reb", ["erm,lnl,rebias"]),
        ("debias-zoo run --dataset waterb", ["waterbirds"]),
        ("debias-zoo run --backbone simple", ["simple_convnet"]),
        ("debias-zoo run --executor s", ["slurm"]),
        ("debias-zoo report runs --format m", ["markdown"]),
        ("debias-zoo probe runs --format h", []),
        ("debias-zoo show lnl_c", ["lnl_convnet"]),
        ("debias-zoo data get waterb", ["waterbirds"]),
        ("debias-zoo tune --method den", ["denetdm"]),
        ("debias-zoo list f", ["formats"]),
    ],
)
def test_a_shell_completes_names(words: str, offered: list[str]) -> None:
    assert complete(words) == offered


def test_a_shell_completes_names_of_a_file(plugin: Path) -> None:
    assert complete(f"debias-zoo --plugin {plugin} run --methods mild") == ["milder", "mildest"]


@pytest.mark.parametrize("name", ["../../evil", "a/b", ".", "x:y", "a=b", "My Method", "", "a,b"])
def test_a_name_that_cannot_stand_in_a_command_or_a_path_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.py"
    file.write_text(SMALL.replace("'small'", repr(name)))
    listed = invoke("list", "methods", "--plugin", str(file))
    assert f"a method cannot be called {name!r}" in " ".join(listed.output.split())
    started = invoke("run", "--plugin", str(file), "--methods", name or "x", "--dataset", "cmnist", "--out", "runs")
    assert started.exit_code == 2


def test_no_result_leads_out_of_its_store() -> None:
    good = json.loads(build_grid(Request(["erm"], ["cmnist"])).trials.popitem()[1].model_dump_json())
    for field, name in (("method", "../../evil"), ("dataset", "/tmp/x"), ("method", ".."), ("dataset", "")):
        with pytest.raises(ValueError, match="can be no folder of a store"):
            Trial.model_validate(good | {field: name})


def test_an_installed_class_of_another_name_is_shown_as_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[debias_zoo.methods]\nlarge = mine_of_small:M\n")
    (tmp_path / "mine_of_small.py").write_text(SMALL)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.look_again()
    try:
        assert "the class calls itself 'small', not 'large'" in registry.entries("method")["large"].error
    finally:
        monkeypatch.undo()
        registry.look_again()


def test_a_name_must_be_written_as_a_text(tmp_path: Path) -> None:
    file = tmp_path / "computed.py"
    file.write_text(SMALL.replace("'small'", "'sm' + 'all'"))
    checked = invoke("check", str(file))
    assert checked.exit_code == 2
    assert "the name of M is not written as a text" in " ".join(checked.output.split())


EXITS = """
from debias_zoo.methods.erm import ERM


class Exits(ERM):
    name = "exits"

    def %s
        raise SystemExit(0)
"""


@pytest.mark.parametrize("place", ["forward(self, loss, batch, clock):", "__init__(self, *given):"])
def test_a_method_that_ends_the_interpreter_fails(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exits.py").write_text(EXITS % place)
    checked = invoke("check", "exits.py")
    assert checked.exit_code == 1
    assert "SystemExit: 0" in checked.output
    ran = invoke("run", "--plugin", "exits.py", "--methods", "exits", "--dataset", "cmnist", "--protocol", "quick")
    assert ran.exit_code == (1 if "forward" in place else 2), ran.output
    assert "SystemExit: 0" in ran.output
