"""Names of methods, data sets, backbones, executors, trackers and formats.

They come in through entry points, built-in ones by the same door as plugins, and from files that the user names
(``plugin_files.py``). Facts for listings are read from the source with ``ast``, so that ``list`` and ``show`` import no
torch. In a checkout the entry points are read from its ``pyproject.toml``: a new line there counts without installing
again.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import plugin_files
from .errors import ZooError, unknown
from .source_facts import BASES, PACKAGE, defined_in, facts_of, source_of

if TYPE_CHECKING:
    from .dataset import BiasDataset
    from .executors import Executor
    from .method import Method
    from .reports.formats import Format
    from .tracking import Tracker

OURS = "debias-zoo"
"""The distribution of the built-in ones."""

GROUPS = {
    "method": "debias_zoo.methods",
    "dataset": "debias_zoo.datasets",
    "backbone": "debias_zoo.backbones",
    "executor": "debias_zoo.executors",
    "tracker": "debias_zoo.trackers",
    "format": "debias_zoo.formats",
}
"""The entry point group of each kind."""

_BASE_FACTS: dict[str, dict[str, Any]] = {
    "method": {"version": 1, "sees_bias": False, "needs_val_bias": False, "knows_bias_kind": False, "min_batch": 2},
    "dataset": {"version": 1},
    "format": {"of_sheets": True},
}


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names stand in commands and are folders of the store."""


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        target: ``module:attribute``, or ``FILE:attribute``; empty where two claim the name, or of a broken file.
        origin: the distribution it comes from, or the file's path. file: of a plugin in a file.
        facts: class attributes that are literals. error: why it cannot be used, or empty.
    """

    kind: str
    name: str
    target: str
    origin: str
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    file: Path | None = None

    @property
    def broken_file(self) -> bool:
        """Whether it stands for a file in which no name can be read."""
        return self.file is not None and not self.target


@lru_cache(maxsize=len(GROUPS))
def entries(kind: str) -> dict[str, Entry]:
    """All registered names of a kind, one of ``GROUPS``, in the order of their declaration."""
    claims: dict[str, list[Entry]] = {}
    for found in [*_installed(kind), *_in_files(kind)]:
        others = claims.setdefault(found.name, [])
        if found.target not in {other.target for other in others}:
            others.append(found)
    return {name: found[0] if len(found) == 1 else _contested(kind, name, found) for name, found in claims.items()}


def name_files(paths: Iterable[Path]) -> None:
    """Take plugins from these files too, here and in processes that start from here."""
    plugin_files.name_files(paths)
    entries.cache_clear()


def look_again() -> None:
    """Forget what is registered: something was installed since, or can no longer be imported."""
    _installed.cache_clear()
    entries.cache_clear()


def load_method(name: str) -> type[Method]:
    """The class of a method; raises a ZooError with near names, or with what went wrong at its import."""
    return cast("type[Method]", _load("method", name))


def load_dataset(name: str) -> type[BiasDataset]:
    """The class of a data set."""
    return cast("type[BiasDataset]", _load("dataset", name))


def load_backbone(name: str) -> Callable[..., Any]:
    """The function that builds a backbone of the zoo or of a plugin."""
    return cast("Callable[..., Any]", _load("backbone", name))


def load_tracker(name: str) -> type[Tracker]:
    """The class of a tracker."""
    return cast("type[Tracker]", _load("tracker", name))


def load_executor(name: str) -> type[Executor]:
    """The class of an executor."""
    return cast("type[Executor]", _load("executor", name))


def load_format(name: str) -> type[Format]:
    """The class of a report's format."""
    return cast("type[Format]", _load("format", name))


def entry(kind: str, name: str) -> Entry:
    """The entry called ``name``, or a ZooError that says what there is."""
    known = entries(kind)
    if name not in known:
        origins = sorted({found.origin for found in known.values()} | {"entry points of installed packages"})
        looked = (
            f"plugins were looked for in {', '.join(origins)} ({GROUPS[kind]}); name a plugin's file with --plugin, or "
            f"in ${plugin_files.VARIABLE}"
        )
        raise unknown(kind, name, names(kind), "; ".join([looked, *broken_files()]))
    return known[name]


def names(kind: str) -> list[str]:
    """The registered names of a kind, without files in which there is none."""
    return [found.name for found in entries(kind).values() if not found.broken_file]


def broken_files() -> list[str]:
    """A sentence for each named file that cannot be read or names no plugin."""
    return [f"{found.origin} is broken: {found.error}" for found in entries("method").values() if found.broken_file]


def code_digest(kind: str, name: str) -> str:
    """Twelve hex digits of the plugin file that ``name`` comes from; empty where it comes from a package."""
    found = entries(kind).get(name)
    return plugin_files.digest_of(found.file) if found is not None and found.file is not None else ""


def _load(kind: str, name: str) -> Any:
    found = entry(kind, name)
    if not found.target:
        raise ZooError(found.error)
    module, _, attribute = found.target.rpartition(":")
    try:
        inside = importlib.import_module(module) if found.file is None else plugin_files.load(found.file)
        loaded = getattr(inside, attribute)
    except ZooError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ZooError(
            f"{kind} {name!r} of {found.origin} cannot be used: importing {found.target} raised "
            f"{type(error).__name__}: {error}. Mend or uninstall it; the others are not touched"
        ) from error
    if kind == "backbone":
        called = getattr(loaded, "__name__", None)
    elif isinstance(loaded, type) and issubclass(loaded, _base(kind)):
        called = getattr(loaded, "name", None)
    else:
        base = _base(kind)
        raise ZooError(f"{kind} {name!r} ({found.target}) is no subclass of {base.__module__}.{base.__name__}")
    if called != name:
        raise ZooError(f"{kind} {name!r} ({found.target}) calls itself {called!r}: make them agree")
    return loaded


def _base(kind: str) -> type:
    """The class that a kind's classes derive from."""
    (path, name) = next(base for base, of in BASES.items() if of == kind)
    module = ".".join([PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts])
    return cast("type", getattr(importlib.import_module(module), name))


def _contested(kind: str, name: str, claims: list[Entry]) -> Entry:
    both = " and ".join(f"{found.target} ({found.origin})" for found in claims)
    error = f"two {kind}s are called {name!r}: {both}; rename one of them, or leave it out"
    return Entry(kind, name, "", ", ".join(found.origin for found in claims), {}, error)


@lru_cache(maxsize=len(GROUPS))
def _installed(kind: str) -> tuple[Entry, ...]:
    """What entry points add to a kind; they are read once, since that takes longer than a small trial."""
    return tuple(_of_points(kind))


def _of_points(kind: str) -> Iterator[Entry]:
    for point, origin in _points(GROUPS[kind]):
        module, _, attribute = point.value.partition(":")
        try:
            facts = _BASE_FACTS.get(kind, {}) | facts_of(source_of(module), attribute)
            _check_name(kind, point.name, facts.get("name", point.name))
        except (Exception, SystemExit) as error:  # whatever is wrong with a plugin, the others are listed
            yield Entry(kind, point.name, point.value, origin, {}, f"{type(error).__name__}: {error}")
        else:
            yield Entry(kind, point.name, point.value, origin, facts)


def _in_files(kind: str) -> Iterator[Entry]:
    """What files add to a kind; of which kind a broken file is cannot be told, so that each kind lists it."""
    for path in plugin_files.named():
        origin = plugin_files.shown(path)
        try:
            defined = list(defined_in(path))
            facts = {attribute: facts_of(path, attribute) for _, _, attribute in defined}
        except (OSError, SyntaxError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            yield Entry(kind, origin, "", origin, {}, f"{type(error).__name__}: {why}", path)
            continue
        if not defined:
            yield Entry(kind, origin, "", origin, {}, "no plugin in it: no class of a contract with a name", path)
        for of, name, attribute in defined:
            if of == kind:
                own = _BASE_FACTS.get(kind, {}) | facts[attribute]
                try:
                    _check_name(kind, name, name)
                except ZooError as error:
                    yield Entry(kind, name, "", origin, own, str(error), path)
                else:
                    yield Entry(kind, name, f"{path}:{attribute}", origin, own, file=path)


def _check_name(kind: str, name: str, called: object) -> None:
    """Raise a ZooError for a name that cannot stand in a command or a path, or that the class does not have."""
    if not NAME.fullmatch(name):
        allowed = "letters, digits, '_', '-' and '.', and begins with a letter or a digit"
        raise ZooError(f"a {kind} cannot be called {name!r}: a name has {allowed}")
    if called != name:
        raise ZooError(f"the class calls itself {called!r}, not {name!r}: make them agree")


def _points(group: str) -> list[tuple[EntryPoint, str]]:
    checkout = _checkout_points(group)
    points = [(point, OURS) for point in checkout]
    for point in entry_points(group=group):
        origin = point.dist.name if point.dist is not None else "unknown"
        if not (checkout and origin == OURS):
            points.append((point, origin))
    return points


def _checkout_points(group: str) -> list[EntryPoint]:
    path = PACKAGE.resolve().parent / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text()).get("project", {})
    if project.get("name") != OURS:
        return []
    table = project.get("entry-points", {}).get(group, {})
    return [EntryPoint(name, value, group) for name, value in table.items()]
