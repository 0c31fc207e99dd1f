"""``debias-zoo check``: the contracts' checks on what is registered or on a file's plugins, with a readable verdict."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from . import plugin_files
from .data import one_dataset, verify
from .dataset import BiasDataset
from .errors import ZooError, unknown
from .method import Method
from .plain_text import wrapped
from .registry import broken_files, entries, load_method, names
from .source_facts import defined_in
from .testing import check_method

Row = dict[str, Any]

_INDENT = " " * 11


def check_named(text: str, root: Path | None = None) -> list[Row]:
    """Verdicts on what ``text`` names: a method, a data set ``name[:key=value,...]``, or all that a file defines.

    Args:
        text: a registered name, or the path of a Python file, which is run.
        root: where downloaded data lie, or None.

    Raises:
        ZooError: there is no such name or file, the file defines nothing that can be checked, or data are missing.
    """
    if text.endswith(".py"):
        return [row for found in from_file(Path(text)) for row in _verdicts(found, root)]
    name = text.partition(":")[0]
    found: list[type[Method] | BiasDataset] = []
    if name in entries("method") and name == text:
        found.append(load_method(name))
    if name in entries("dataset"):
        found.append(one_dataset(text))
    if not found:
        known = [*names("method"), *names("dataset")]
        raise unknown("method or data set", name, known, "; ".join(["or name a FILE.py", *broken_files()]))
    return [row for one in found for row in _verdicts(one, root)]


def from_file(path: Path) -> Iterator[type[Method] | BiasDataset]:
    """The methods, and the data sets with their default parameters, that a file defines."""
    module = plugin_files.load(path)
    kinds = (Method, BiasDataset)
    own = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    found = [cls for cls in own if issubclass(cls, kinds) and hasattr(cls, "name")]
    if not found:
        wanted = " or ".join(f"{kind.__module__}.{kind.__name__}" for kind in kinds)
        raise ZooError(f"{plugin_files.shown(path)} defines nothing to check: no subclass of {wanted} with a name")
    readable = {attribute for _, _, attribute in defined_in(path)}
    for cls in found:
        if cls.__name__ not in readable:
            raise ZooError(
                f"{plugin_files.shown(path)}: the name of {cls.__name__} is not written as a text, and cannot be read "
                f"without running the file: name = {cls.name!r}"
            )
        yield cls if issubclass(cls, Method) else cls()


def _verdicts(found: type[Method] | BiasDataset, root: Path | None) -> list[Row]:
    if isinstance(found, BiasDataset):
        return verify(found, root, Console(stderr=True))
    return [
        {"method": found.name, "check": one.name, "status": one.status, "reason": one.reason, "advice": one.advice}
        for one in check_method(found)
    ]


def verdict_text(name: str, verdicts: list[Row]) -> str:
    """A line for each check; for one that failed, why, what that means and the usual causes; and how it went in all."""
    marks = {"passed": "ok", "failed": "FAILED", "expected": "known gap"}
    whose = [verdict.get("method") or verdict.get("dataset") for verdict in verdicts]
    several = len(set(whose)) > 1
    lines, told = [], dict[tuple[Any, str], str]()
    for verdict, owner in zip(verdicts, whose, strict=True):
        who = f"{owner}: " if several else ""
        lines.append(f"{marks.get(verdict['status'], verdict['status']):>9}  {who}{verdict['check']}")
        first = told.setdefault((owner, str(verdict["reason"])), str(verdict["check"]))
        alike = bool(verdict["reason"]) and first != verdict["check"]
        texts = (f"as {first}",) if alike else (verdict["reason"], verdict["advice"])
        lines += [wrapped(textwrap.indent(str(text), _INDENT)) for text in texts if text]
    good = sum(verdict["status"] in {"passed", "expected"} for verdict in verdicts)
    return "\n".join([*lines, f"{name}: {good} of {len(verdicts)} checks hold"])
