"""Methods x data sets x seeds -> trials, every name and value checked before any work."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .assembly import dataset_of
from .backbones import NORMALIZATIONS
from .dataset import BiasDataset, Card
from .errors import ZooError, unknown
from .feasibility import bias_warnings, check_classes, dry_run
from .gridfile import as_values
from .method import Method, Need, Recipe
from .protocol import TRAIN, Settings, protocol
from .recipes import Chosen, check_chosen, chosen_for
from .registry import code_digest, entries, load_dataset, load_method
from .trial import Supervision, Trial
from .validated import validated
from .weights import PRETRAINED, digest, initial_weights


@dataclass(frozen=True)
class Request:
    """What the user asked for; texts as on the command line.

    Attributes:
        methods: names. datasets: ``name[:key=value,...]``, or mappings as in ``gridfile.py``. seeds: of the trials.
        backbones: several in place of ``backbone``.
        sets: (method, key or stage.key, value). precision: "fp32" or "bf16", decided.
        weights: initial weights of the backbone, as in ``weights.py``. skip_corrupt: leave out damaged images.
        normalize: of ``NORMALIZATIONS``, in the place of the recipe's and the data set's; empty: theirs.
        chosen: settings that tuning chose; they replace those of recipes, and ``sets`` replace them.
    """

    methods: Sequence[str]
    datasets: Sequence[str | Mapping[str, Any]]
    seeds: Sequence[int] = (0,)
    protocol: str = "standard"
    backbone: str | None = None
    backbones: Sequence[str] = ()
    sets: Sequence[tuple[str, str, Any]] = ()
    precision: str = "fp32"
    root: Path | None = None
    weights: str = ""
    skip_corrupt: bool = False
    chosen: Sequence[Chosen] = ()
    normalize: str = ""


@dataclass
class Grid:
    """Trials in the order they should run; ``asked`` are those whose rows the table shows.

    Attributes:
        trials: by identity, teachers before what needs them. warnings: things to say before starting.
    """

    trials: dict[str, Trial] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, trial: Trial, asked: bool = False) -> None:
        """Add a trial after those it needs."""
        for needed in trial.needs.values():
            self.add(needed)
        self.trials.setdefault(trial.identity, trial)
        if asked and trial.identity not in self.asked:
            self.asked.append(trial.identity)


def build_grid(request: Request) -> Grid:
    """All trials of a request. Raises a ZooError for anything that could not run."""
    if not request.methods:
        raise ZooError("no method is named: --methods a,b")
    _check_sets(request)
    if request.normalize and request.normalize not in NORMALIZATIONS:
        raise unknown("normalisation", request.normalize, NORMALIZATIONS)
    datasets = [dataset for text in request.datasets for dataset in parse_datasets(text, request.skip_corrupt)]
    check_chosen(request.chosen, _all_methods(request), [dataset.name for dataset in datasets])
    for dataset in datasets:
        dataset.check(request.root)
        check_classes(dataset, request.root)
    grid = Grid()
    # seeds outermost: a first full row of the table appears early
    each = [replace(request, backbone=name) for name in request.backbones] or [request]
    for seed, dataset, one, name in itertools.product(request.seeds, datasets, each, request.methods):
        grid.add(make_trial(name, dataset, seed, one), asked=True)
    unlike = {trial.model_copy(update={"seed": 0}).identity: trial for trial in grid.trials.values()}
    for trial in unlike.values():
        method = dry_run(trial, request.root)
        check_stages(method, trial.dataset, request)
        grid.warnings += bias_warnings(method, dataset_of(trial), request.root)
    return grid


def parse_datasets(given: str | Mapping[str, Any], skip_corrupt: bool = False) -> list[BiasDataset]:
    """``name[:key=value,...]`` or a mapping of a grid file as data sets; a list of values is a sweep.

    ``skip_corrupt`` sets the parameter of that name where a data set has it and it is not given.
    """
    name, values = _parsed(given) if isinstance(given, str) else as_values(given)
    cls = load_dataset(name)
    known = cls.Params.model_fields
    for key in values:
        if key not in known:
            raise unknown(f"parameter of data set {name!r}:", key, known)
    if skip_corrupt and "skip_corrupt" in known and "skip_corrupt" not in values:
        values = {**values, "skip_corrupt": [True]}
    sweeps = itertools.product(*([(key, value) for value in found] for key, found in values.items()))
    return [cls(validated(cls.Params, dict(sweep), f"data set {name!r}")) for sweep in sweeps]


def _parsed(text: str) -> tuple[str, dict[str, Sequence[Any]]]:
    """Name and values by key of ``name[:key=value,...]``; a piece without ``key=`` continues the list before it."""
    name, _, rest = text.partition(":")
    values: dict[str, list[str]] = {}
    key = ""
    for piece in filter(None, rest.split(",")):
        if "=" in piece:
            key, _, piece = piece.partition("=")
            if key in values:
                raise ZooError(f"--dataset {text!r}: {key!r} is given twice; a sweep is {key}=value,value")
            values[key] = []
        elif not key:
            raise ZooError(f"--dataset {text!r}: {piece!r} belongs to no key; write {name}:key=value,key=value")
        values[key].append(piece)
    if rest == "" and text.endswith(":"):
        raise ZooError(f"--dataset {text!r}: nothing follows the colon")
    return name, {key: tuple(found) for key, found in values.items()}


def make_trial(
    name: str, dataset: BiasDataset, seed: int, request: Request, config: Any = None, cls: type[Method] | None = None
) -> Trial:
    """The trial of one method on one data set with one seed, with settings merged as ``protocol.py`` says.

    ``cls``: of a method that is not registered under its name.
    """
    cls, card, how = cls or load_method(name), dataset.card, protocol(request.protocol)
    recipe = find_recipe(cls, dataset.name, request.protocol)
    base = card.training.get(request.protocol, Settings())
    chosen = chosen_for(request.chosen, name, dataset.name)
    own_config, own_train, own_stages = _sorted_sets(cls, [*chosen.sets, *request.sets])
    merged = {**recipe.config, **(config or {}), **own_config}
    training = next((key for key in merged if key in Settings.model_fields and key not in cls.Config.model_fields), "")
    note = f"{training!r} is one of training: {name}.train.{training}" if training else ""
    checked = validated(cls.Config, merged, f"method {name!r}", note)
    every = own_train.model_copy(update={"epochs": None})
    dealt = {"epochs": None} if own_train.epochs else {}  # a number for all stages is dealt out by their shares
    stages = {stage: every.over(found.model_copy(update=dealt)) for stage, found in recipe.stages.items()}
    for stage, found in own_stages.items():
        stages[stage] = found.over(stages.get(stage, every))
    if every != Settings():
        stages[TRAIN] = every
    backbone = request.backbone or recipe.backbone or card.backbone
    options = {} if request.backbone else recipe.backbone_options
    weights = request.weights or (PRETRAINED if recipe.pretrained and not request.backbone else "")
    needs = {role: _needed(name, role, need, dataset, seed, request) for role, need in cls.needs(checked).items()}
    return Trial(
        method=name,
        method_version=cls.version,
        dataset=dataset.name,
        dataset_version=dataset.version,
        params=dataset.params.model_dump(mode="json"),
        fingerprint=dataset.fingerprint(request.root),
        seed=seed,
        protocol=request.protocol,
        backbone=backbone,
        backbone_options=options,
        weights=weights,
        weights_digest=digest(initial_weights(weights, backbone, card.image_shape, options)) if weights else "",
        normalize=request.normalize or recipe.normalize or card.normalize,
        precision=request.precision,
        config=checked.model_dump(mode="json"),
        settings=Settings(epochs=own_train.epochs).over(recipe.settings).over(base),
        stages=stages,
        method_code=code_digest("method", name),
        dataset_code=code_digest("dataset", dataset.name),
        backbone_code=code_digest("backbone", backbone),
        train_limit=how.train_limit,
        eval_limit=how.eval_limit,
        needs=needs,
        supervision=_supervision(cls, (recipe.tuned_on, chosen.tuned_on), needs.values()),
        source=recipe.source,
        deviations=(
            *recipe.deviations,
            *_unlike_papers(dataset, request),
            *chosen.deviations({**dataset.params.model_dump(mode="json"), **_made_with(request, backbone)}),
            *_changed(cls, request),
            *_unlike_recipe(request, recipe, card),
        ),
        options=(*chosen.options, *_options(cls, request)),
        plugins=_plugins(name, dataset.name, backbone),
    )


def _unlike_papers(dataset: BiasDataset, request: Request) -> list[str]:
    """Parameters of the data in which a run under the papers' protocol differs from the papers."""
    given = dataset.params.model_dump()
    wanted = dataset.card.paper_params if request.protocol == "paper" else {}
    return [f"the data have {k}={given[k]}, the papers' {k}={v}" for k, v in wanted.items() if given[k] != v]


def _made_with(request: Request, backbone: str) -> dict[str, Any]:
    return {"protocol": request.protocol, "backbone": backbone}


def _needed(name: str, role: str, need: Need, dataset: BiasDataset, seed: int, request: Request) -> Trial:
    """The trial whose network method ``name`` is handed."""
    try:
        return make_trial(need.method, dataset, seed, request, dict(need.config))
    except ZooError as error:
        raise ZooError(f"method {name!r} needs a trained {need.method!r} as its {role}: {error}") from error


def _changed(cls: type[Method], request: Request) -> list[str]:
    return [f"set on the command line: {key}={value}" for method, key, value in request.sets if method == cls.name]


def _unlike_recipe(request: Request, recipe: Recipe, card: Card) -> list[str]:
    """What the command line says of the network where the papers' protocol has its own."""
    usual = {
        "backbone": recipe.backbone or card.backbone,
        "normalize": recipe.normalize or card.normalize,
        "weights": PRETRAINED if recipe.pretrained else "",
    }
    given = {"backbone": request.backbone, "normalize": request.normalize, "weights": Path(request.weights).name}
    told = [f"set on the command line: {k}={v}" for k, v in given.items() if v and v != usual[k]]
    return told if request.protocol == "paper" else []


def _options(cls: type[Method], request: Request) -> Iterator[str]:
    """The options of the command line that made the trial another one, as they would be written again."""
    if request.backbone:
        yield f"--backbone {request.backbone}"
    if request.weights:
        yield "--pretrained" if request.weights == PRETRAINED else f"--weights {Path(request.weights).name}"
    if request.normalize:
        yield f"--normalize {request.normalize}"
    for method, key, value in request.sets:
        if method == cls.name:
            yield f"--set {method}.{key}={value if isinstance(value, str) else json.dumps(value)}"


def _plugins(method: str, dataset: str, backbone: str) -> tuple[str, ...]:
    """The names of the files that these come from."""
    kinds = ("method", method), ("dataset", dataset), ("backbone", backbone)
    used = [entries(kind).get(name) for kind, name in kinds]
    return tuple(dict.fromkeys(found.file.name for found in used if found is not None and found.file is not None))


def find_recipe(cls: type[Method], dataset: str, protocol_name: str) -> Recipe:
    """The method's recipe for a protocol on a data set; an empty one where the protocol does not need it.

    ``quick`` takes what ``standard`` says about the method, but for the number of epochs.
    """
    wanted = "standard" if protocol_name == "quick" else protocol_name
    for recipe in cls.recipes:
        if recipe.protocol == wanted and recipe.dataset == dataset:
            if protocol_name != "quick":
                return recipe
            stages = {k: s.model_copy(update={"epochs": None}) for k, s in recipe.stages.items()}
            return recipe.model_copy(
                update={"settings": recipe.settings.model_copy(update={"epochs": None}), "stages": stages}
            )
    if protocol(protocol_name).needs_recipe:
        here = entries("dataset")
        there = sorted({r.dataset for r in cls.recipes if r.protocol == protocol_name and r.dataset in here})
        raise ZooError(
            f"method {cls.name!r} has no recipe for --protocol {protocol_name} on data set {dataset!r}; it has one "
            f"for: {', '.join(there) or 'none'}. --protocol standard runs everywhere"
        )
    return Recipe(protocol="standard", dataset=dataset, source="the method's defaults")


def _supervision(cls: type[Method], tuned_on: Iterable[str | None], teachers: Iterable[Trial]) -> Supervision:
    """What a method reads, together with what its teachers read."""
    inherited = [trial.supervision for trial in teachers]
    tuned = [*tuned_on, *(found.tuned_on for found in inherited)]
    return Supervision(
        train=cls.sees_bias or any(found.train for found in inherited),
        val=cls.needs_val_bias or any(found.val for found in inherited),
        tuned_on="val_unbiased" if "val_unbiased" in tuned else "val" if "val" in tuned else None,
        knows_bias_kind=cls.knows_bias_kind or any(found.knows_bias_kind for found in inherited),
    )


def parse_set(text: str) -> tuple[str, str, Any]:
    """``method.key=JSON`` or ``method.stage.key=JSON`` as (method, key or stage.key, value)."""
    left, equals, right = text.partition("=")
    method, dot, key = left.partition(".")
    if not (equals and dot and method and key):
        raise ZooError(f"--set {text!r}: write METHOD.KEY=VALUE, such as lnl.scale=0.3 or lnl.unlearn.lr=0.01")
    try:
        value = json.loads(right)
    except json.JSONDecodeError:
        value = right  # a bare word
    if value is None and "." in key:
        raise ZooError(f"--set {text!r}: null leaves a setting as it is; give the value that it shall have")
    return method, key, value


def _check_sets(request: Request) -> None:
    known = _all_methods(request)
    given = [(method, key) for method, key, _ in request.sets]
    for method, key in given:
        if method not in known:
            raise ZooError(f"--set {method}.{key}: {method!r} is not among --methods {','.join(request.methods)}")
        if given.count((method, key)) > 1:
            raise ZooError(f"--set {method}.{key} is given twice")


def _all_methods(request: Request) -> list[str]:
    return [*request.methods, *(name for method in request.methods for name in teachers_of(load_method(method)))]


def teachers_of(cls: type[Method]) -> list[str]:
    """The methods whose networks a method may be handed, and those that these need."""
    own = list(cls.teachers.values())
    return [*own, *(name for teacher in own for name in teachers_of(load_method(teacher)))]


def check_stages(method: Method, dataset: str, request: Request) -> None:
    """Stages that ``--set`` or tuning names must be there; a recipe's may be gone by the method's own settings."""
    names = [stage.name for stage in method.stages()]
    for asked, key, _ in (*chosen_for(request.chosen, method.name, dataset).sets, *request.sets):
        stage, dot, _ = key.partition(".")
        if asked == method.name and dot and stage not in (TRAIN, *names):
            raise ZooError(f"{method.name} has no stage {stage!r}; its stages: {', '.join(names)}")


def _sorted_sets(
    cls: type[Method], sets: Iterable[tuple[str, str, Any]]
) -> tuple[dict[str, Any], Settings, dict[str, Settings]]:
    """What tuning and ``--set`` say about a method: its config, settings of every stage, settings by stage."""
    config: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {}
    for method, key, value in sets:
        if method != cls.name:
            continue
        stage, dot, name = key.partition(".")
        if dot:
            settings.setdefault(stage, {})[name] = value
        else:
            config[key] = value
    checked = {
        stage: validated(Settings, values, f"stage {stage!r} of method {cls.name!r}")
        for stage, values in settings.items()
    }
    return config, checked.pop(TRAIN, Settings()), checked
