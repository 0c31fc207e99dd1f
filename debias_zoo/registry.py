"""Names of methods, data sets, trackers and executors, found through entry points: built-in ones come in by the same
door as plugins.

Facts for listings are read from the source with ``ast``, so that ``list`` and ``show`` import no torch. In a checkout
the entry points are read from its ``pyproject.toml``: a new line there counts without installing again.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import ZooError, unknown

if TYPE_CHECKING:
    from .dataset import BiasDataset
    from .executors import Executor
    from .method import Method
    from .tracking import Tracker

GROUPS = {
    "method": "debias_zoo.methods",
    "dataset": "debias_zoo.datasets",
    "tracker": "debias_zoo.trackers",
    "executor": "debias_zoo.executors",
}
_BASE_FACTS: dict[str, dict[str, Any]] = {
    "method": {"version": 1, "sees_bias": False, "needs_val_bias": False, "knows_bias_kind": False, "min_batch": 2},
    "dataset": {"version": 1},
    "tracker": {},
    "executor": {},
}


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        target: ``module:Class``. origin: the distribution it comes from.
        facts: class attributes that are literals. error: why it cannot be used, or empty.
    """

    kind: str
    name: str
    target: str
    origin: str
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@lru_cache(maxsize=4)
def entries(kind: str) -> dict[str, Entry]:
    """All registered names of a kind, one of ``GROUPS``, in the order of their declaration."""
    found: dict[str, Entry] = {}
    for point, origin in _points(GROUPS[kind]):
        if point.name in found and found[point.name].target != point.value:
            other = found[point.name]
            both = f"{other.target} ({other.origin}) and {point.value} ({origin})"
            error = f"two {kind}s are called {point.name!r}: {both}; uninstall one of them"
            found[point.name] = Entry(kind, point.name, "", f"{other.origin}, {origin}", {}, error)
            continue
        found[point.name] = _entry(kind, point, origin)
    return found


def load_method(name: str) -> type[Method]:
    """The class of a method; raises a ZooError with near names, or with what went wrong at its import."""
    return cast("type[Method]", _load("method", name))


def load_dataset(name: str) -> type[BiasDataset]:
    """The class of a data set."""
    return cast("type[BiasDataset]", _load("dataset", name))


def load_tracker(name: str) -> type[Tracker]:
    """The class of a tracker."""
    return cast("type[Tracker]", _load("tracker", name))


def load_executor(name: str) -> type[Executor]:
    """The class of an executor."""
    return cast("type[Executor]", _load("executor", name))


def entry(kind: str, name: str) -> Entry:
    """The entry called ``name``, or a ZooError that says what there is."""
    known = entries(kind)
    if name not in known:
        origins = sorted({found.origin for found in known.values()} | {"entry points of installed packages"})
        raise unknown(kind, name, known, f"plugins were looked for in {', '.join(origins)} ({GROUPS[kind]})")
    return known[name]


def _load(kind: str, name: str) -> Any:
    found = entry(kind, name)
    if not found.target:
        raise ZooError(found.error)
    module, _, attribute = found.target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except ZooError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ZooError(
            f"{kind} {name!r} of {found.origin} cannot be used: importing {found.target} raised "
            f"{type(error).__name__}: {error}. Mend or uninstall it; the others are not touched"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, _base(kind))):
        raise ZooError(
            f"{kind} {name!r} ({found.target}) is no subclass of {_base(kind).__module__}.{_base(kind).__name__}"
        )
    if getattr(cls, "name", None) != name:
        raise ZooError(f"{kind} {name!r} ({found.target}) calls itself {getattr(cls, 'name', None)!r}: make them agree")
    return cls


def _base(kind: str) -> type:
    """The class that a kind's classes derive from."""
    if kind == "dataset":
        from .dataset import BiasDataset

        return BiasDataset
    if kind == "tracker":
        from .tracking import Tracker

        return Tracker
    if kind == "executor":
        from .executors import Executor

        return Executor
    from .method import Method

    return Method


def _points(group: str) -> list[tuple[EntryPoint, str]]:
    checkout = _checkout_points(group)
    points = [(point, "debias-zoo") for point in checkout]
    for point in entry_points(group=group):
        origin = point.dist.name if point.dist is not None else "unknown"
        if not (checkout and origin == "debias-zoo"):
            points.append((point, origin))
    return points


def _checkout_points(group: str) -> list[EntryPoint]:
    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text()).get("project", {})
    if project.get("name") != "debias-zoo":
        return []
    table = project.get("entry-points", {}).get(group, {})
    return [EntryPoint(name, value, group) for name, value in table.items()]


def _entry(kind: str, point: EntryPoint, origin: str) -> Entry:
    module, _, attribute = point.value.partition(":")
    try:
        facts = {**_BASE_FACTS[kind], **class_facts(_source(module), attribute)}
    except (Exception, SystemExit) as error:  # whatever is wrong with a plugin, the others are listed
        return Entry(kind, point.name, point.value, origin, {}, f"{type(error).__name__}: {error}")
    return Entry(kind, point.name, point.value, origin, facts)


def _source(module: str) -> Path:
    """The file of a module, without running it (its parent packages are run)."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {module}")
    return Path(spec.origin)


def class_facts(path: Path, attribute: str) -> dict[str, Any]:
    """Class attributes of a class in ``path`` that are literals (``paper`` as a dict), with those of bases there.

    Adds ``about``, the first paragraph of the docstring, and ``doc``, all of it.
    """
    body = ast.parse(path.read_text()).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    if attribute in classes:
        return _facts(classes[attribute], path, body)
    if (elsewhere := _imported_from(attribute, path, body)) is not None:
        return class_facts(*elsewhere)
    raise AttributeError(f"{path.name} defines no class {attribute}")


def _facts(node: ast.ClassDef, path: Path, body: list[ast.stmt]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name):
            with suppress(AttributeError, ImportError):  # such as a base class of the standard library
                facts.update(class_facts_of_base(base.id, path, body))
    for statement in node.body:
        name, value = _assignment(statement)
        if name and value is not None:
            try:
                facts[name] = _literal(value)
            except ValueError:
                continue  # not a fact but code, as recipes are
    if doc := ast.get_docstring(node):
        facts["about"] = " ".join(doc.split("\n\n")[0].split())
        facts["doc"] = doc
    return facts


def class_facts_of_base(name: str, path: Path, body: list[ast.stmt]) -> dict[str, Any]:
    """The facts of a base class, defined in ``path`` or imported there from a module that defines methods."""
    own = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    if name in own:
        return _facts(own[name], path, body)
    elsewhere = _imported_from(name, path, body)
    if elsewhere is None or elsewhere[0].parent == Path(__file__).parent:  # the contract itself states no facts
        return {}
    return class_facts(*elsewhere)


def _imported_from(name: str, path: Path, body: list[ast.stmt]) -> tuple[Path, str] | None:
    """The file and the name there of what ``path`` imports as ``name``; no module is run but parent packages."""
    for node in body:
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) != name:
                continue
            if node.level == 0:
                return _source(node.module or ""), alias.name
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
