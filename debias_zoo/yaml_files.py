"""YAML files that users write, read as data alone: a mapping whose keys are texts, each there once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from .errors import ZooError

LARGEST = 1_000_000
"""Bytes of a file, and values in it once its aliases are written out."""


class _Once(yaml.SafeLoader):
    """Refuses a key that is there twice, where YAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                where = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", where)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """What a file holds; ``what`` it is meant to be, for errors.

    Raises:
        ZooError: it cannot be read, is too large, is no YAML of plain values, or no mapping with text keys.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ZooError(f"{what} {path} has more than {LARGEST} bytes: it is none")
        content = yaml.load(path.read_text(encoding="utf-8"), _Once)
        size = _size(content, {})
    except OSError as error:
        raise ZooError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ZooError(f"{what} {path} is no YAML of plain values: {' '.join(str(error).split())}") from error
    if size > LARGEST:
        raise ZooError(f"{what} {path} has more than {LARGEST} values once its aliases are written out: it is none")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ZooError(f"{what} {path} must hold KEY: value; it holds {type(content).__name__}")
    return content


def _size(value: Any, seen: dict[int, int]) -> int:
    """Values in it; what aliases share is counted where it is used. A value that holds itself raises RecursionError."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in seen:
        inside = value.values() if isinstance(value, dict) else value
        seen[id(value)] = 1 + sum(_size(one, seen) for one in inside)
    return seen[id(value)]
