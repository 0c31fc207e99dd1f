"""What is searched: ranges that a method's settings declare, as dimensions of an Optuna study."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import ZooError
from .method import Method
from .plans import plan_stages
from .protocol import TRAIN, Settings
from .trial import Trial
from .validated import validated

if TYPE_CHECKING:
    import optuna

SCALES = ("log", "linear")


@dataclass(frozen=True)
class Dimension:
    """One searched setting.

    Attributes:
        key: as in ``--set METHOD.KEY``. kind: "choice" takes ``choices``, the others take low ... high.
        log: whether the range is searched by its logarithm. choices: JSON texts.
        given: the range as JSON where the user gave it, else None.
    """

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()
    given: str | None = None

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value that the sampler takes for this trial."""
        if self.kind == "choice":
            return json.loads(trial.suggest_categorical(self.key, self.choices))
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def told(self, value: Any) -> Any:
        """The value as Optuna knows it, or None where the range does not hold it."""
        if self.kind == "choice":
            return next((text for text in self.choices if _same(json.loads(text), value)), None)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        return int(value) if self.kind == "int" else float(value)

    def ends(self) -> list[Any]:
        """All choices, or both ends of the range."""
        if self.kind == "choice":
            return [json.loads(text) for text in self.choices]
        return [int(self.low), int(self.high)] if self.kind == "int" else [self.low, self.high]

    def __str__(self) -> str:
        """In words, such as ``0.01 ... 2, log``."""
        if self.kind == "choice":
            return ", ".join(self.choices)
        low, high = self.ends()
        return f"{low:g} ... {high:g}{', log' if self.log else ''}{', whole' if self.kind == 'int' else ''}"


def search_space(cls: type[Method], given: Iterable[tuple[str, str, Any]] = ()) -> list[Dimension]:
    """The dimensions of a method: what its settings declare, replaced and extended by ``given`` (method, key, range).

    Raises a ZooError where there is nothing to tune.
    """
    own = {key: found for method, key, found in given if method == cls.name}
    space = [_dimension(cls, key, found) for key, found in {**_declared(cls), **own}.items()]
    space = [replace(one, given=json.dumps(own[one.key])) if one.key in own else one for one in space]
    if not space:
        fields = ", ".join(cls.Config.model_fields) or "no settings at all"
        raise ZooError(
            f"method {cls.name!r} has nothing to tune: none of its settings declares a search range ({fields}). Give "
            f"one with --search {cls.name}.KEY=RANGE, such as --search '{cls.name}.train.lr=[0.001, 0.1, \"log\"]'"
        )
    return space


def _declared(cls: type[Method]) -> dict[str, Any]:
    """Search ranges by key, as the method's settings and ``training_search`` state them."""
    found: dict[str, Any] = {}
    for name, about in cls.Config.model_fields.items():
        extra = about.json_schema_extra
        if isinstance(extra, dict) and extra.get("search") is not None:
            found[name] = extra["search"]
    return {**found, **cls.training_search}


def _dimension(cls: type[Method], key: str, found: Any) -> Dimension:
    who = f"search range {cls.name}.{key}={json.dumps(found)}"
    annotation = _annotation(cls, key, who)
    if not isinstance(found, list | tuple) or len(found) < 2:
        raise ZooError(f'{who}: give [low, high, "log"], [low, high, "linear"] or a list of two choices or more')
    if len(found) != 3 or found[2] not in SCALES:
        return Dimension(key, "choice", choices=tuple(dict.fromkeys(json.dumps(choice) for choice in found)))
    low, high, scale = found
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)) or not low < high:
        raise ZooError(f"{who}: the ends must be numbers, the lower one first")
    if scale == "log" and low <= 0:
        raise ZooError(f"{who}: a range by the logarithm must start above 0")
    whole = _is_whole(annotation)
    if whole and (int(low) != low or int(high) != high):
        raise ZooError(f"{who}: the ends must be whole numbers")
    return Dimension(key, "int" if whole else "float", float(low), float(high), scale == "log")


def _annotation(cls: type[Method], key: str, who: str) -> Any:
    """The type of a setting; a ZooError where there is none of this name, or where it would change the budget."""
    stage, dot, name = key.partition(".")
    if not dot:
        validated(cls.Config, {} if key in cls.Config.model_fields else {key: None}, f"method {cls.name!r}")
        return cls.Config.model_fields[key].annotation
    if name == "epochs":
        raise ZooError(f"{who}: the number of epochs is the protocol's, the same for every method; it is not tuned")
    validated(Settings, {} if name in Settings.model_fields else {name: None}, f"stage {stage!r} of {cls.name!r}")
    return Settings.model_fields[name].annotation


def _is_whole(annotation: Any) -> bool:
    parts = set(get_args(annotation)) or {annotation}
    return int in parts and float not in parts


def _same(one: Any, other: Any) -> bool:
    """Equal, and not a number taken for a truth value."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def own_values(method: Method, trial: Trial, space: Sequence[Dimension]) -> dict[str, Any]:
    """What the trial's own recipe says about each dimension, where it says one value.

    ``method`` is the trial's, built; its stages may differ in a training setting, which then has no one value.
    """
    plans = plan_stages(method, trial.settings, trial.stages)
    found: dict[str, Any] = {}
    for dimension in space:
        stage, dot, name = dimension.key.partition(".")
        if not dot:
            found[dimension.key] = trial.config[dimension.key]
            continue
        values = [getattr(plan.settings, name) for plan in plans if stage in (TRAIN, plan.stage.name)]
        if values and all(value == values[0] for value in values):
            found[dimension.key] = values[0]
    return found


def check_given(space: Sequence[Dimension], cls: type[Method]) -> None:
    """Raise a ZooError where a range that the user gave holds a value that the setting does not allow."""
    for dimension in (one for one in space if one.given is not None):
        stage, dot, name = dimension.key.partition(".")
        for value in dimension.ends():
            if dot:
                validated(Settings, {name: value}, f"stage {stage!r} of method {cls.name!r}")
            else:
                validated(cls.Config, {dimension.key: value}, f"method {cls.name!r}")


def described(space: Iterable[Dimension]) -> Mapping[str, str]:
    """Key -> range in words."""
    return {dimension.key: str(dimension) for dimension in space}
