"""Plugins in files that the user names: ``--plugin FILE.py``, or ``$DEBIAS_ZOO_PLUGINS`` with several.

What is named lies in that variable alone, so that processes started from this one know it too; no stored configuration
ever names a file that is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from .errors import ZooError

VARIABLE = "DEBIAS_ZOO_PLUGINS"

_LOADED: dict[Path, tuple[str, ModuleType]] = {}
"""The digest of each file that was run, and its module."""


def named() -> tuple[Path, ...]:
    """The files that are named, absolute, each once."""
    texts = os.environ.get(VARIABLE, "").split(os.pathsep)
    return tuple(dict.fromkeys(_absolute(text) for text in texts if text.strip()))


def name_files(paths: Iterable[str | Path]) -> None:
    """Name files besides those that are named already."""
    found = dict.fromkeys([*named(), *map(_absolute, paths)])
    if found:
        os.environ[VARIABLE] = os.pathsep.join(map(str, found))


def shown(path: Path) -> str:
    """A file's path as the user would write it: relative where it lies below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def load(path: Path) -> ModuleType:
    """The module that a file is, run once as long as it stays the same.

    Raises:
        ZooError: there is no such file, or it raises something.
    """
    path = _absolute(path)
    source = _read(path)
    digest = _digest(source)
    if path in _LOADED and _LOADED[path][0] == digest:
        return _LOADED[path][1]
    name = f"debias_zoo_plugin_{path.stem}_{_digest(str(path).encode())}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ZooError(f"{shown(path)} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic resolves annotations there, and pickle looks there
    try:
        with warnings.catch_warnings():
            if path in _LOADED:  # edited since: it registers its backbones once more
                warnings.filterwarnings("ignore", message="Overwriting .* in registry")
            exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))  # what was digested is what runs
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        del sys.modules[name]
        raise ZooError(f"running {shown(path)} raised {type(error).__name__}: {error}") from error
    _LOADED[path] = digest, module
    return module


def digest_of(path: Path) -> str:
    """Twelve hex digits of the file as it was run, or as it would be run now."""
    load(path)
    return _LOADED[_absolute(path)][0]


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ZooError(f"plugin {shown(path)} cannot be read: {why}") from error


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=6).hexdigest()
