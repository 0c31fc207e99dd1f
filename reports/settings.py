"""The setting of a trial: everything but its seed, flat, so that two settings can be told apart in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from debias_zoo.trial import Trial

Path = tuple[str, ...]
Setting = Mapping[Path, str]
"""Where a value stands in ``Trial``, as in ``("params", "variance")`` -> the value as JSON text."""

_NOT_SETTING = {"method", "dataset", "seed", "source", "deviations", "options", "plugins", "needs", "weights"}
_DATA = {"dataset_version", "dataset_code", "params", "fingerprint", "protocol", "eval_limit", "split"}


def setting_of(trial: Trial, split: str) -> dict[Path, str]:
    """All that two results must share to be averaged; ``split`` is where they were measured.

    Without what a stage leaves to the settings of all stages.
    """
    fields = _flat(trial.model_dump(mode="json", exclude=_NOT_SETTING))
    flat = {path: json.dumps(value) for path, value in fields if path[0] != "stages" or value is not None}
    flat["split",] = json.dumps(split)
    for role, needed in trial.needs.items():
        inner = setting_of(needed, split)
        inner |= {("method",): json.dumps(needed.method), ("dataset",): json.dumps(needed.dataset)}
        flat |= {("needs", role, *path): text for path, text in inner.items()}
    return flat


def text_of(trial: Trial) -> str:
    """Text that trials of different settings never share, quickly; those of one setting may differ in it."""
    return trial.model_dump_json(exclude={"seed", "source", "deviations", "options", "plugins", "weights"})


def key_of(setting: Setting) -> str:
    """Text that two settings share only if they are the same."""
    return json.dumps(sorted((list(path), text) for path, text in setting.items()))


def data_of(setting: Setting) -> dict[Path, str]:
    """The part that says on what was measured, and under which protocol: rows are ranked where they share it."""
    return {path: text for path, text in setting.items() if path[0] in _DATA}


def kind_of(path: Path) -> str:
    """The field of ``Trial`` in which a value stands, be it of the trial itself or of one that it needs."""
    while path[0] == "needs" and len(path) > 2:
        path = path[2:]
    return path[0]


def order_of(setting: Setting) -> list[tuple[Path, int, float, str]]:
    """A sort key in which numbers stand in their order: 0.1 after 0.05."""
    return [(path, *_sortable(setting[path])) for path in sorted(setting)]


def differences(settings: Sequence[Setting]) -> list[Path]:
    """Where these settings are not all the same, in the order of the fields of ``Trial``.

    The data's fingerprint is left out where the others tell the settings apart as well.
    """
    paths = dict.fromkeys(path for setting in settings for path in setting)
    found = [path for path in paths if len({setting.get(path) for setting in settings}) > 1]
    others = [path for path in found if path != ("fingerprint",)]

    def kinds(by: list[Path]) -> int:
        return len({tuple(setting.get(path) for path in by) for setting in settings})

    return others if kinds(others) == kinds(found) else found


def describe(setting: Setting, paths: Iterable[Path], method: str, dataset: str) -> str:
    """``variance=0.03, lnl.scale=0.3``: the values at ``paths``, named as on the command line."""
    named = {path: _name(path, method, dataset) for path in paths}
    there = [f"{name}={_text(path, setting[path])}" for path, name in named.items() if path in setting]
    return ", ".join(there or [f"no {name}" for name in named.values()])


def describe_each(settings: Sequence[tuple[str, str, Setting]]) -> list[str]:
    """For each (method, data set, setting), in what it differs from the others of its method and data set."""
    kinds: dict[tuple[str, str], list[Setting]] = {}
    for method, dataset, setting in settings:
        kinds.setdefault((method, dataset), []).append(setting)
    paths = {kind: differences(found) for kind, found in kinds.items()}
    return [describe(setting, paths[method, dataset], method, dataset) for method, dataset, setting in settings]


def _flat(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The leaves of nested mappings; an empty one is a leaf, but for a whole field of ``Trial``."""
    if isinstance(value, Mapping) and (value or len(path) == 1):
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    else:
        yield path, value


@lru_cache(maxsize=4096)  # thousands of rows share most of their values
def _sortable(text: str) -> tuple[int, float, str]:
    value = json.loads(text)
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, text)


def _name(path: Path, method: str, dataset: str) -> str:
    prefix: dict[str, list[str]] = {
        "params": [],
        "config": [method],
        "settings": [method, "train"],
        "stages": [method],
        "backbone_options": ["backbone"],
        "method_version": [method, "version"],
        "dataset_version": [dataset, "version"],
        "method_code": [method, "code"],
        "dataset_code": [dataset, "code"],
        "backbone_code": ["backbone", "code"],
    }
    return ".".join([*prefix.get(path[0], [path[0]]), *path[1:]])


def _text(path: Path, text: str) -> str:
    if path[-1] == "fingerprint":  # long, and read by no one: six digits tell two of them apart
        return hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
    value = json.loads(text)
    if isinstance(value, str):
        return value or ("none" if path[-1] == "weights_digest" else '""')
    return "none" if value is None else text
