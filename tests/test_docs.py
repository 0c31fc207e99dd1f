"""The documentation says what the code does: its code runs, its commands are commands, its links lead somewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from _pytest.mark import ParameterSet
from click.testing import CliRunner
from pages import DOCS, ROOT, SHEETS, WRITTEN, anchors, blocks, commands, links, name_of, parse, python, sessions

from debias_zoo.cli import cli
from debias_zoo.testing import check_method

BY_THEMSELVES = ("README.md", "api.md", "plugins.md")
"""Pages whose code has a test of its own below."""

WITH_CODE = [page for page in WRITTEN if python(page.read_text()) and page.name not in BY_THEMSELVES]
RESULTS = DOCS / "results" / "cmnist-standard"


def play(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run the page's Python in ``folder``; a block that begins with a file name's docstring is that file, too."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    names: dict[str, object] = {}
    for number, block in enumerate(python(page.read_text())):
        named = re.match(r'"""(\w+)\.py"""', block)
        if named:
            (folder / f"{named[1]}.py").write_text(block)
        module = named[1] if named else f"block_{number}"
        names |= {"__name__": module}
        monkeypatch.setitem(sys.modules, module, type(sys)(module))  # pydantic resolves annotations there
        exec(compile(block, f"{page.name}:{module}.py", "exec", dont_inherit=True), names)
        vars(sys.modules[module]).update(names)
    return names


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_runs_in_the_order_of_its_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = play(page, tmp_path, monkeypatch)
    if page.name == "data.md":
        assert (tmp_path / "mine.npz").is_file()
        (mark,) = names["test_mine"].pytestmark  # type: ignore[attr-defined]
        for check in mark.args[1]:
            names["test_mine"](check)  # type: ignore[operator]


def test_the_csv_of_the_page_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from debias_zoo.grid import parse_datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEBIAS_ZOO_CACHE", str(tmp_path / "cache"))
    page = (DOCS / "data.md").read_text()
    (written,) = [block.text for block in blocks(page) if block.text.startswith("file,split,label,bias\n")]
    (tmp_path / "images.csv").write_text(written)
    for number, line in enumerate(written.splitlines()[1:]):
        file = tmp_path / "images" / line.partition(",")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (number, 0, 0)).save(file)
    (run,) = [words for words in commands(page) if "folder:path=images,metadata=images.csv,size=64" in words]
    (dataset,) = parse_datasets(run[run.index("--dataset") + 1])
    assert dataset.card.classes == ("camel", "cow")
    assert dataset.card.test_splits == ("test", "night")
    assert [len(dataset.load(None, split)) for split in ("train", "val", "test", "night")] == [2, 1, 1, 1]


def test_pages_with_code_are_found() -> None:
    assert {"method.md", "data.md", "protocol.md"} <= {page.name for page in WITH_CODE}


@pytest.mark.parametrize("page", [*WRITTEN, *SHEETS], ids=name_of)
def test_every_command_can_be_parsed(page: Path) -> None:
    for words in commands(page.read_text()):
        parse(words)


def test_commands_are_found_and_wrong_ones_refused() -> None:
    page = "So: `debias-zoo run\n--methods a --dataset b`\n\n    debias-zoo report runs/ --ledgr\n\n"
    page += "```console\n$ debias-zoo lst  # all\nnothing\n"
    page += "$ debias-zoo run \\\n    --sed 1 && debias-zoo data status\n```\n"
    found = commands(page)
    assert sorted(found) == [
        ["data", "status"],
        ["lst"],
        ["report", "runs/", "--ledgr"],
        ["run", "--methods", "a", "--dataset", "b"],
        ["run", "--sed", "1"],
    ]
    parse(["run", "--methods", "a", "--dataset", "b"])
    parse(["data", "status"])
    for words in (["report", "runs/", "--ledgr"], ["run", "--sed", "1"]):
        with pytest.raises(click.UsageError, match=words[-1] if words[-1] != "1" else "--sed"):
            parse(words)
    with pytest.raises(AssertionError, match="no command 'lst'"):
        parse(["lst"])
    assert [pair[1] for pair in sessions(page)] == ["nothing\n", ""]


CHEAP = ("list ", "show ", "data status", "report ", "runs list")
DEAR = ("--format html", "--intervals")
"""Options of commands that take ten seconds."""


def cheap() -> list[ParameterSet]:
    """Commands of all pages that train nothing, with what they print; figures need more runs than lie here."""
    found = [session for page in WRITTEN for session in sessions(page.read_text())]
    written = [(command.removeprefix("debias-zoo "), printed) for command, printed in found]
    told = [pair for pair in written if pair[0].startswith(CHEAP) and "--plugin" not in pair[0]]
    asked = [" ".join(words) for words in commands((DOCS / "table.md").read_text())]
    told += [(words, "") for words in asked if words.startswith("report runs/") and "--figure" not in words]
    known = dict(sorted(told, key=lambda pair: pair[1]))  # of several mentions one that says what is printed
    slow = {command: [pytest.mark.slow] for command in known if any(option in command for option in DEAR)}
    return [pytest.param(command, known[command], marks=slow.get(command, []), id=command) for command in sorted(known)]


@pytest.mark.parametrize(("command", "printed"), cheap())
def test_cheap_commands_work(command: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(RESULTS)
    ended = CliRunner().invoke(cli, re.sub(r"\s+#.*$", "", command).split())
    assert ended.exit_code == 0, ended.output
    if printed:
        assert_printed(ended.output, printed)


def assert_printed(output: str, printed: str) -> None:
    """Lines of ``printed`` are those of the output, in order; "..." stands for any lines."""
    place = 0
    lines = [line.rstrip() for line in output.splitlines()]
    for part in re.split(r"^\.\.\.\n", printed, flags=re.M):
        wanted = [line.rstrip() for line in part.splitlines()]
        starts = [k for k in range(place, len(lines)) if lines[k : k + len(wanted)] == wanted]
        assert starts, f"{part!r} is not in:\n{output}"
        place = starts[0] + len(wanted)


@pytest.mark.slow
def test_the_method_page_prints_what_the_check_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "method.md"
    play(page, tmp_path, monkeypatch)
    checked = [pair for pair in sessions(page.read_text()) if pair[0].startswith("debias-zoo check")]
    assert len(checked) == 2
    for command, printed in checked:
        ended = CliRunner().invoke(cli, command.split()[1:])
        assert ended.exit_code == 0, ended.output
        assert_printed(ended.output, printed)
    hider = tmp_path / "hider.py"
    hider.write_text(hider.read_text().replace('    moves_buffers = {"read": ("net.",)}\n', ""))
    ended = CliRunner().invoke(cli, ["check", "hider.py"])
    assert ended.exit_code == 1
    failed = re.search(r"^   FAILED.*\n.*\n", ended.output, re.M)
    assert failed is not None
    assert failed[0] in page.read_text()


@pytest.mark.slow
def test_the_first_table_looks_as_the_quick_start_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, printed = next(pair for pair in sessions((DOCS / "start.md").read_text()) if "quick" in pair[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    ended = CliRunner().invoke(cli, command.split()[1:])
    assert ended.exit_code == 0, ended.output
    assert shape(ended.output) == shape(printed)


def shape(output: str) -> list[str]:
    """What does not depend on the machine: the titles of the table, its methods, its caption and what follows."""
    lines = output[output.index("        Accu-") :].splitlines()
    ruler = next(k for k, line in enumerate(lines) if line.startswith("─"))
    caption = next(k for k, line in enumerate(lines) if line.startswith("Results on"))
    methods = [line.split()[0] for line in lines[ruler + 1 : caption] if line.strip()]
    text = " ".join(" ".join(lines[caption:]).split())
    return [*" ".join(lines[:ruler]).split(), *methods, re.sub(r"bf16|fp32", "PRECISION", text)]


def test_the_page_on_tables_defines_every_metric_and_rule() -> None:
    from debias_zoo.metrics import DEFINITIONS
    from debias_zoo.reports.formats import RULE_NAMES
    from debias_zoo.reports.selection import RULES

    page = (DOCS / "table.md").read_text()
    for metric, words in DEFINITIONS.items():
        escaped = words.replace("|", r"\|")
        assert f"| `{metric}` | {escaped} |" in page
    for rule in RULES.values():
        assert f"| `{rule.name}` | {rule.about} | {rule.reads} |" in page
    assert tuple(RULES) == RULE_NAMES


def test_every_table_of_results_stands_with_its_command() -> None:
    readme = (DOCS / "results" / "README.md").read_text()
    folders = [path.parent for path in sorted(DOCS.glob("results/*/table.md"))]
    assert folders
    for folder in folders:
        commands = (folder / "command.txt").read_text().splitlines()
        assert commands
        for command in commands:
            assert command.startswith("debias-zoo run ")
            for sheet in ("table", "selection", "ledger", "cost"):
                assert f"Command: `{command}`" in (folder / f"{sheet}.md").read_text()
        assert f"[{folder.name}/table.md]({folder.name}/table.md)" in readme


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    from catalogue import FOLDER, pages

    return {(FOLDER / name).resolve(): text for name, text in pages()}


@pytest.mark.parametrize("page", [*WRITTEN, *SHEETS], ids=name_of)
def test_links_lead_somewhere(page: Path, generated: dict[Path, str]) -> None:
    for target in links(page.read_text()):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path in generated or path.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in anchors(generated.get(path) or path.read_text()), f"{name_of(page)} links to {target}"


@pytest.mark.slow
def test_the_readme_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    labels, biases = np.arange(200) % 2, (np.arange(200) // 2) % 2
    images = random.integers(0, 256, (200, 16, 16, 3)).astype(np.uint8)
    names: dict[str, Any] = {"images": images, "labels": labels, "biases": biases}
    names |= {f"{name}2": value for name, value in names.items()}
    exec(compile(python((ROOT / "README.md").read_text())[0], "README.md", "exec"), names)
    assert list(names["runs"].table()["method"]) == ["erm", "gray"]
    assert 0 <= names["fitted"].metrics["test"]["worst_group"] <= 1


def test_the_method_of_the_readme_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imports = "import torch.nn.functional as F\nfrom torch import Tensor\n\nfrom debias_zoo.method import *\n"
    (tmp_path / "of_readme.py").write_text(f"{imports}\n\n{python((ROOT / 'README.md').read_text())[1]}")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("of_readme")
    failed = [str(verdict) for verdict in check_method(module.MyMethod) if not verdict.ok]
    assert not failed


@pytest.mark.slow
def test_the_page_on_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in python((DOCS / "api.md").read_text()):
        exec(compile(block, "api.md", "exec"), names)
    assert list(names["table"]["method"]) == ["erm", "gray"]
    assert (tmp_path / "methods.pdf").stat().st_size > 1000
    assert "Seconds" in names["costs"]
    assert names["probabilities"].shape == (5, 2)
    assert names["mine"].model.name == "smoothed"
    assert len(names["model"].classes) == 10


@pytest.mark.slow
def test_the_page_on_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine, proof = python((DOCS / "plugins.md").read_text())
    Path("mine.py").write_text(mine)
    (tmp_path / "test_mine.py").write_text(f"from mine import F, Milder\n\n{proof}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_mine.py"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "21 passed" in ended.stdout
    run = ["run", "--plugin", "mine.py", "--methods", "milder", "--backbone", "two_layers", "--dataset", "cmnist"]
    told = CliRunner().invoke(cli, [*run, "--protocol", "quick", "--device", "cpu"])
    assert told.exit_code == 0, told.output
    shown = CliRunner().invoke(cli, ["report", "runs", "--plugin", "mine.py", "--format", "lines"])
    assert shown.output.startswith("milder 0."), shown.output
