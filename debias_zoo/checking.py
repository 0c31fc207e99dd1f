"""``debias-zoo check``: the contract's checks on a registered method or on a file, with a readable verdict."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from .errors import ZooError
from .method import Method
from .registry import load_method
from .testing import check_method


def check_named(name: str) -> list[dict[str, Any]]:
    """Verdicts of all checks on the method called ``name``, or on those that the file ``name`` defines."""
    classes = from_file(Path(name)) if name.endswith(".py") else [load_method(name)]
    return [
        {"method": cls.name, "check": verdict.name, "status": verdict.status, "reason": verdict.reason}
        for cls in classes
        for verdict in check_method(cls)
    ]


def from_file(path: Path) -> list[type[Method]]:
    """The methods that a file defines; the file is run, as the user asked by naming it."""
    if not path.is_file():
        raise ZooError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"debias_zoo_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ZooError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic resolves annotations there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ZooError(f"running {path} raised {type(error).__name__}: {error}") from error
    classes = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Method)]
    found = [cls for cls in classes if cls.__module__ == spec.name and hasattr(cls, "name")]
    if not found:
        raise ZooError(f"{path} defines no method: a subclass of debias_zoo.method.Method with a name")
    return found


def verdict_text(name: str, verdicts: list[dict[str, Any]]) -> str:
    """A line for each check, and how it went in all."""
    marks = {"passed": "ok", "failed": "FAILED", "expected": "known gap"}
    several = len({verdict.get("method") for verdict in verdicts}) > 1
    lines = []
    for verdict in verdicts:
        who = f"{verdict['method']}: " if several else ""
        lines.append(f"{marks.get(verdict['status'], verdict['status']):>9}  {who}{verdict['check']}")
        if verdict["reason"]:
            lines += ["           " + line for line in str(verdict["reason"]).splitlines()]
    good = sum(verdict["status"] in {"passed", "expected"} for verdict in verdicts)
    return "\n".join([*lines, f"{name}: {good} of {len(verdicts)} checks hold"])
