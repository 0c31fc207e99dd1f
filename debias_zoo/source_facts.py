"""Facts of classes and functions, read from their source with ``ast``: none of it is run, no torch is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent

BASES = {
    (PACKAGE / "method.py", "Method"): "method",
    (PACKAGE / "dataset.py", "BiasDataset"): "dataset",
    (PACKAGE / "tracking.py", "Tracker"): "tracker",
    (PACKAGE / "executors.py", "Executor"): "executor",
    (PACKAGE / "reports" / "formats.py", "Format"): "format",
}
"""The contracts, by the file and the name of the class that states them."""

_DEEPEST = 20
"""Bases of bases that are followed; a class that derives from itself is none."""


def defined_in(path: Path) -> Iterator[tuple[str, str, str]]:
    """(kind, name, attribute) of what a file adds: classes of ``BASES`` with a name of their own, and backbones.

    A class without a name of its own is taken for a base of others.
    """
    body = ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body
    for node in body:
        if isinstance(node, ast.FunctionDef) and any(
            _last_word(one) == "register_model" for one in node.decorator_list
        ):
            yield "backbone", node.name, node.name
        if isinstance(node, ast.ClassDef):
            values = [value for name, value in map(_assignment, node.body) if name == "name"]
            kind = _kind_of(path, node.name)
            if kind and values and isinstance(values[0], ast.Constant):
                yield kind, str(values[0].value), node.name


def _kind_of(path: Path, name: str, depth: int = 0) -> str:
    """Of which contract the class called ``name`` in ``path`` is; empty: of none that can be seen."""
    if (path, name) in BASES or depth > _DEEPEST:
        return BASES.get((path, name), "")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            kinds = (_kind_of_base(ast.unparse(base), path, body, depth) for base in node.bases)
            return next(filter(None, kinds), "")
    return _kind_of_base(name, path, body, depth)


def _kind_of_base(text: str, path: Path, body: list[ast.stmt], depth: int) -> str:
    module, _, name = text.rpartition(".")
    if not module and any(isinstance(node, ast.ClassDef) and node.name == name for node in body):
        return _kind_of(path, name, depth + 1)
    with suppress(ImportError, OSError, ValueError):  # it is not here, or no Python source: not one of ours
        found = (source_of(_module_called(module, body)), name) if module else _imported_from(name, path, body)
        if found is not None and found[0].suffix == ".py":
            return _kind_of(*found, depth + 1)
    return ""


def _module_called(text: str, body: list[ast.stmt]) -> str:
    """The module that ``text``, as in ``zoo`` or ``debias_zoo.method``, stands for in a file."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) and not node.level else ""
            for alias in node.names:
                if (alias.asname or alias.name) == text:
                    return prefix + alias.name
    return text


def _last_word(decorator: ast.expr) -> str:
    return ast.unparse(decorator).rpartition(".")[2]


def source_of(module: str) -> Path:
    """The file of a module, without running it (its parent packages are run); raises a ModuleNotFoundError."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {module}")
    return Path(spec.origin)


def facts_of(path: Path, attribute: str) -> dict[str, Any]:
    """Class attributes of a class in ``path`` that are literals (``paper`` as a dict), with those of bases there.

    Adds ``about``, the first paragraph of the docstring, and ``doc``, all of it; a function has these two alone.
    """
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return _facts(node, path, body)
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return _words(node)
    if (elsewhere := _imported_from(attribute, path, body)) is not None:
        return facts_of(*elsewhere)
    raise AttributeError(f"{path.name} defines no {attribute}")


def _facts(node: ast.ClassDef, path: Path, body: list[ast.stmt]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name):
            with suppress(AttributeError, ImportError):  # such as a base class of the standard library
                facts.update(_facts_of_base(base.id, path, body))
    for statement in node.body:
        name, value = _assignment(statement)
        if name and value is not None:
            try:
                facts[name] = _literal(value)
            except ValueError:
                continue  # not a fact but code, as recipes are
    return facts | _words(node)


def _words(node: ast.ClassDef | ast.FunctionDef) -> dict[str, Any]:
    doc = ast.get_docstring(node)
    return {"about": " ".join(doc.split("\n\n")[0].split()), "doc": doc} if doc else {}


def _facts_of_base(name: str, path: Path, body: list[ast.stmt]) -> dict[str, Any]:
    """The facts of a base class, defined in ``path`` or imported there from a module that defines methods."""
    own = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    if name in own:
        return _facts(own[name], path, body)
    elsewhere = _imported_from(name, path, body)
    if elsewhere is None or elsewhere[0].parent == PACKAGE:  # the contract itself states no facts
        return {}
    return facts_of(*elsewhere)


def _imported_from(name: str, path: Path, body: list[ast.stmt]) -> tuple[Path, str] | None:
    """The file and the name there of what ``path`` imports as ``name``; no module is run but parent packages."""
    for node in body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) != name:
                continue
            if node.level == 0:
                return source_of(node.module or ""), alias.name
            folder = path.parents[node.level - 1]
            module = folder.joinpath(*(node.module or "").split("."))
            file = module.with_suffix(".py") if node.module else folder / "__init__.py"
            return (file if file.is_file() else module / "__init__.py"), alias.name
    return None


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr | None]:
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id, statement.value
    return "", None


def _literal(value: ast.expr) -> Any:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Paper":
        return {keyword.arg: ast.literal_eval(keyword.value) for keyword in value.keywords}
    return ast.literal_eval(value)
