"""``debias-zoo new``: what it writes passes the checks and its own tests as it is, and nothing is overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from commands import invoke


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("what", "name", "file"), [("method", "my_method", "my_method.py"), ("dataset", "my-data", "my_data.py")]
)
def test_a_new_file_is_found_and_passes_check(what: str, name: str, file: str) -> None:
    written = invoke("new", what, name)
    assert written.exit_code == 0, written.output
    assert written.output.startswith(f"wrote {file}\nwrote test_{file}\nnext:\n  debias-zoo check {file}\n")
    checked = invoke("check", file, "--json")
    assert checked.exit_code == 0, checked.output
    assert {row["status"] for row in json.loads(checked.output)} == {"passed"}
    told = written.output.splitlines()[-1].split()[1:]
    assert invoke(*told, "--out", "runs", "--dry-run").exit_code == 0, told
    assert name in invoke("list", f"{what}s", "--plugin", file).output.split(f"from {file}:")[1]


def test_a_new_package_is_whole() -> None:
    written = invoke("new", "package", "my-zoo")
    assert written.exit_code == 0, written.output
    home = Path("my-zoo")
    assert {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()} == {
        ".github/workflows/tests.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/my_zoo/__init__.py",
        "src/my_zoo/method.py",
        "tests/test_entry_point.py",
        "tests/test_my_zoo.py",
    }
    project = tomllib.loads((home / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"debias_zoo.methods": {"my_zoo": "my_zoo.method:MyZoo"}}
    assert invoke("list", "methods", "--plugin", "my-zoo/src/my_zoo/method.py").output.count("my_zoo") == 2


def test_nothing_is_left_to_fill_in_and_linters_agree() -> None:
    for what, name in (("method", "my_method"), ("dataset", "my-data"), ("package", "my-zoo")):
        invoke("new", what, name)
    for path in Path().rglob("*"):
        if path.is_file():
            assert "$" not in path.read_text().replace("$ ", ""), path
    for place, files in (
        (Path(), ["my_method.py", "test_my_method.py", "my_data.py", "test_my_data.py"]),
        (Path("my-zoo"), ["."]),
    ):
        for command in (["check", "--select", "E,F,I,W,B,UP"], ["format", "--check"]):
            ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", *files]
            ended = subprocess.run(ruff, cwd=place, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
def test_the_written_tests_pass_and_can_fail() -> None:
    for what, name in (("method", "my_method"), ("dataset", "my-data")):
        invoke("new", what, name)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    path = Path("my_method.py")
    path.write_text(path.read_text().replace("means.sum() / (sizes > 0).sum()", "means.sum() / count"))
    ended = subprocess.run([*command, "-k", "formula"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout
    path = Path("my_method.py")
    path.write_text(path.read_text().replace('{"loss": mixed', '{"loss": losses.mean()'))
    checked = invoke("check", "my_method.py")
    assert checked.exit_code == 1
    said = " ".join(checked.output.split())
    assert "FAILED not_erm" in said
    assert "Failing means that what is reported under the method's name is ERM. Usual causes:" in said


@pytest.mark.parametrize("what", ["method", "dataset", "package"])
def test_nothing_is_overwritten(what: str) -> None:
    assert invoke("new", what, "mine").exit_code == 0
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    again = invoke("new", what, "mine")
    assert again.exit_code == 2
    assert "is there already: nothing was written" in again.output
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_test_that_is_there_keeps_its_method_from_being_written() -> None:
    Path("test_mine.py").write_text("mine")
    assert "test_mine.py is there already" in invoke("new", "method", "mine").output
    assert [path.name for path in Path().iterdir()] == ["test_mine.py"]


@pytest.mark.parametrize(
    ("what", "name", "words"),
    [
        ("method", "MyMethod", "method 'MyMethod': a name has small letters, digits and single underscores, such as "
         "my_method; did you mean 'my_method'?"),
        ("method", "my-method", "did you mean 'my_method'?"),
        ("method", "2fast", "a name has small letters"),
        ("method", "../x", "a name has small letters"),
        ("method", "lambda", "Python reads it as a keyword"),
        ("method", "test_it", "pytest takes such files for tests"),
        ("method", "lnl", "a method called 'lnl' is there already, from debias-zoo; choose another name"),
        ("method", "random", "a Python module called 'random' already, which the new one would hide"),
        ("method", "torch", "a Python module called 'torch' already"),
        ("method", "batch", "its class would be called 'Batch', as one that it needs"),
        ("dataset", "cmnist", "a dataset called 'cmnist' is there already"),
        ("dataset", "My Data", "did you mean 'my-data'?"),
        ("package", "debias-zoo", "a Python module called 'debias_zoo' already"),
        ("package", "erm", "a method called 'erm' is there already"),
    ],
)  # fmt: skip
def test_bad_names_are_one_line(what: str, name: str, words: str) -> None:
    ended = invoke("new", what, name)
    assert ended.exit_code == 2
    assert ended.output.startswith("error: ")
    assert ended.output.count("\n") == 1
    assert words in ended.output
    assert not list(Path().iterdir())


def test_another_folder() -> None:
    assert invoke("new", "method", "mine", "--to", "deep/er").exit_code == 0
    assert Path("deep/er/mine.py").is_file()
    assert "choose another place with --to" in invoke("new", "method", "mine", "--to", "/proc/nowhere").output
