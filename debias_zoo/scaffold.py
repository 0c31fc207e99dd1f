"""``debias-zoo new``: working files to start from, written from the templates beside this module."""

from __future__ import annotations

import ast
import datetime
import keyword
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from . import __version__
from .errors import ZooError
from .plugin_files import shown
from .registry import entries

LONGEST = 60
"""Letters of a name, which is also that of files."""

PATTERNS = {
    "method": (r"[a-z][a-z0-9]*(_[a-z0-9]+)*", "small letters, digits and single underscores, such as my_method"),
    "dataset": (r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", "small letters, digits and single hyphens, such as my-data"),
    "package": (r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", "small letters, digits and single hyphens, such as my-method"),
}
"""For each thing that can be written, what its name must look like, as a pattern and in words."""


def new_method(name: str, folder: Path) -> list[Path]:
    """Write ``NAME.py`` with a method, and its test, into ``folder``; returns the files.

    Raises:
        ZooError: the name cannot be one, is taken, or a file is there already: then nothing is written.
    """
    words = _words("method", name)
    _check_free("method", name)
    _check_hides_nothing(words["module"])
    source = _filled("method.py", words)
    _check_class(words["class_name"], source)
    test = _filled("test_method.py", words | {"source": words["module"]})
    return _written(folder, {f"{words['module']}.py": source, f"test_{words['module']}.py": test})


def first_run(what: str, name: str, file: str) -> str:
    """The command that tries a new method or data set, which ``file`` defines, beside those that are there."""
    return _filled(f"run_{what}", {"name": name, "file": file}).strip()


def new_dataset(name: str, folder: Path) -> list[Path]:
    """Write a data set, and its test, into ``folder``; returns the files. Raises as ``new_method`` does."""
    words = _words("dataset", name)
    _check_free("dataset", name)
    _check_hides_nothing(words["module"])
    source = _filled("dataset.py", words)
    _check_class(words["class_name"], source)
    test = _filled("test_dataset.py", words | {"source": words["module"]})
    return _written(folder, {f"{words['module']}.py": source, f"test_{words['module']}.py": test})


def new_package(name: str, folder: Path) -> list[Path]:
    """Write an installable package with a method into ``folder/NAME``; returns the files. Raises as ``new_method``."""
    words = _words("package", name)
    words |= {"project": name.replace("_", "-"), "name": words["module"]}
    _check_free("method", words["name"])
    _check_hides_nothing(words["module"])
    method = _filled("method.py", words)
    _check_class(words["class_name"], method)
    inside = f"src/{words['module']}"
    home = folder / name
    if home.exists():
        raise ZooError(f"{shown(home.absolute())} is there already: nothing was written; choose another name or --to")
    return _written(
        home,
        {
            "pyproject.toml": _filled("pyproject.toml", words),
            "README.md": _filled("package_readme.md", words),
            ".gitignore": _filled("gitignore", words),
            ".github/workflows/tests.yml": _filled("package_tests.yml", words),
            f"{inside}/__init__.py": _filled("package_init.py", words),
            f"{inside}/method.py": method,
            f"tests/test_{words['module']}.py": _filled(
                "test_method.py", words | {"source": f"{words['module']}.method"}
            ),
            "tests/test_entry_point.py": _filled("test_entry_point.py", words),
        },
    )


def _words(what: str, name: str) -> dict[str, str]:
    """What templates are filled with."""
    pattern, allowed = PATTERNS[what]
    if not re.fullmatch(pattern, name):
        guess = re.sub(r"[^a-z0-9]+", "_" if what == "method" else "-", _snake(name)).strip("_-")
        hint = f"; did you mean {guess!r}?" if re.fullmatch(pattern, guess) else ""
        raise ZooError(f"{what} {name!r}: a name has {allowed}{hint}")
    if len(name) > LONGEST:
        raise ZooError(f"{what} {name[:20] + '...'!r}: a name has at most {LONGEST} letters")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module.startswith("test_"):
        why = "pytest takes such files for tests" if module.startswith("test_") else "Python reads it as a keyword"
        raise ZooError(f"{what} {name!r}: {why}; choose another name")
    class_name = "".join(word.capitalize() for word in module.split("_"))
    year = str(datetime.datetime.now(datetime.UTC).year)
    return {"name": name, "module": module, "class_name": class_name, "year": year, "version": __version__}


def _snake(name: str) -> str:
    """MyMethod, My Method -> my_method."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _check_free(kind: str, name: str) -> None:
    if name in entries(kind):
        taken = entries(kind)[name]
        raise ZooError(f"a {kind} called {name!r} is there already, from {taken.origin}; choose another name")


def _check_hides_nothing(module: str) -> None:
    if module in sys.stdlib_module_names or find_spec(module) is not None:
        raise ZooError(
            f"there is a Python module called {module!r} already, which the new one would hide; choose another name"
        )


def _check_class(class_name: str, source: str) -> None:
    taken = {
        alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    if class_name in taken:
        raise ZooError(f"its class would be called {class_name!r}, as one that it needs; choose another name")


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (files(__package__) / "templates" / f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(words)


def _written(folder: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write all, or nothing where one of them is there."""
    paths = [folder / name for name in contents]
    if there := [path for path in paths if path.exists()]:
        raise ZooError(
            f"{shown(there[0].absolute())} is there already: nothing was written; choose another name or --to"
        )
    try:
        for path, text in zip(paths, contents.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # never over what came in between
                file.write(text)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}; choose another place with --to") from error
    return paths
