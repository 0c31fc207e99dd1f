"""One trial from its configuration to its files: load, train, evaluate, store."""

from __future__ import annotations

import datetime
import platform
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import __version__
from .assembly import build_method, check_code, dataset_of
from .common_stage import CommonStage
from .course import Course, alone
from .dataset import Card, Split
from .devices import processor
from .engine import Engine, Layout
from .errors import ZooError
from .layouts import pick_layout
from .method import Method, Task
from .metrics import group_metrics
from .plans import plan_stages
from .registry import load_method
from .shared import shared_split
from .store import Folder
from .tracking import Tracked, Tracking
from .trainer import Fit, Trainer, UnfitCheckpointError, task_of
from .trial import SCHEMA, Groups, Result, Trial

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class How:
    """Where and how trials run; nothing of it is part of what a trial is.

    Attributes:
        out: the store. device: as for torch. root: where downloaded data lie. track: names of trackers.
        compiling: one of ``layouts.MODES``. stacked: whether several trials are trained as one program.
    """

    out: Path
    device: str = "cpu"
    root: Path | None = None
    track: Sequence[str] = ()
    compiling: str = "off"
    stacked: bool = False


@dataclass(frozen=True)
class Told:
    """Who is told what of a trial: how it goes about once a second, and what was put aside."""

    report: Report | None = None
    warn: Callable[[str], None] = lambda text: None


def run_trial(
    trial: Trial,
    out: Path,
    *,
    device: str = "cpu",
    root: Path | None = None,
    report: Report | None = None,
    warn: Callable[[str], None] = lambda text: None,
    track: Sequence[str] = (),
    compiling: str = "off",
) -> Result:
    """Run a trial, resume it, or only read its result; ``report`` is told how it goes about once a second.

    The trackers called ``track`` are told each epoch, as in ``tracking.py``; ``compiling`` as in ``layouts.py``.

    Raises:
        ZooError: what went wrong, also written to ``error.txt``.
    """
    return alone(trial_course(trial, How(out, device, root, track, compiling), Told(report, warn)))


def trial_course(trial: Trial, how: How, told: Told) -> Course[Result]:
    """``run_trial`` for whoever makes the steps."""
    folder = Folder(how.out / trial.folder, told.warn)
    with folder.locked(lambda: told.warn(f"{trial.label}: another process works on it; waiting")):
        if (result := folder.result()) is not None:
            return result
        folder.start(trial)
        try:
            with Tracking(how.track, Tracked.of(trial, folder.path), told.warn) as tracking:
                return (yield from _train(trial, folder, how, told, tracking))
        except ZooError as error:
            _note_failure(folder, str(error))
            raise
        except (Exception, SystemExit) as error:  # a method may raise anything
            _note_failure(folder, traceback.format_exc())
            raise ZooError(
                f"{trial.label} failed: {type(error).__name__}: {error}; see {folder.path}/error.txt"
            ) from error


def _note_failure(folder: Folder, text: str) -> None:
    with suppress(ZooError):  # the disk may be full: the error itself is reported
        folder.fail(text)


def _train(trial: Trial, folder: Folder, how: How, told: Told, tracking: Tracking) -> Course[Result]:
    check_code(trial)
    _reset_peak(how.device)
    train, evals = load_splits(trial, how.root)

    def save(state: dict[str, Any]) -> None:
        folder.save_checkpoint(state)
        folder.save_curves(state["progress"]["curves"])
        tracking.feed(state["progress"]["curves"])

    def trainer() -> Trainer:
        method = make_method(trial, train, how.out)
        again = partial(make_method, trial, train, how.out)
        layout = pick_layout(how.compiling, trial, method, again, train, how.device)
        return make_trainer(trial, method, train, evals, how.device, save, told.report, layout)

    current = trainer()
    common = CommonStage(trial, current, how.out, how.stacked, told.warn)
    current.share = common.keep
    own = folder.checkpoint(how.device)
    start = own if own is not None else common.state(how.device)
    try:
        fit = yield from current.course(start)
    except UnfitCheckpointError as error:
        (common.folder if own is None else folder).put_aside("checkpoint.pt", str(error))
        current = trainer()
        current.share = common.keep
        fit = yield from current.course()
    folder.save_curves(fit.curves)
    tracking.feed(fit.curves)
    result = _result(trial, fit, train, evals, how.device, current.engine.layout)
    folder.finish(result, _arrays(fit, evals), fit.method.state_dict())
    return result


def make_trainer(
    trial: Trial,
    method: Method,
    train: Split,
    evals: Mapping[str, Split],
    device: str,
    save: Report | None = None,
    report: Report | None = None,
    layout: Layout | None = None,
) -> Trainer:
    """What trains a method as its trial says; arguments as of ``Trainer`` and ``Engine``."""
    engine = Engine(method, device, trial.precision, layout)
    plans = plan_stages(method, trial.settings, trial.stages)
    return Trainer(engine, plans, train, evals, trial.seed, save, report)


def load_splits(trial: Trial, root: Path | None) -> tuple[Split, dict[str, Split]]:
    """The training split and the evaluated ones, cut to the trial's limits."""
    data = dataset_of(trial)
    names = data.card.eval_splits
    evals = {name: shared_split(data, root, name, trial.fingerprint).head(trial.eval_limit) for name in names}
    return load_train(trial, root), evals


def load_train(trial: Trial, root: Path | None) -> Split:
    """The training split, cut to the trial's limit."""
    return shared_split(dataset_of(trial), root, "train", trial.fingerprint).head(trial.train_limit)


def make_method(trial: Trial, train: Split, out: Path) -> Method:
    """The trial's method with its initial weights, its teachers read from their finished trials below ``out``."""
    teachers = {role: trained_method(needed, train, out / needed.folder) for role, needed in trial.needs.items()}
    task = task_for(load_method(trial.method), dataset_of(trial).card, train)
    return build_method(trial, task, teachers)


def trained_method(trial: Trial, train: Split, folder: Path, device: str = "cpu") -> Method:
    """The method of a finished trial as training left it: frozen, in eval mode.

    Args:
        trial: with its whole configuration.
        train: the training split it had, from which the task's sizes are read.
        folder: the trial's, in its place below ``--out``, where its teachers lie too.
        device: where it is put.

    Raises:
        ZooError: the weights are missing, damaged, or of another version of the method.
    """
    from safetensors.torch import load_file

    check_code(trial)
    path = folder / "model.safetensors"
    if not path.exists():
        raise ZooError(f"{trial.label} has no trained network ({path} is missing): run it first, with its own command")
    if (version := load_method(trial.method).version) != trial.method_version:
        raise ZooError(
            f"{trial.label} was trained by version {trial.method_version} of the method, this is version {version}: "
            "run it again"
        )
    untold = trial.model_copy(update={"weights": ""})  # nothing is left of the initial weights: they need not be here
    method = make_method(untold, train, folder.parents[2])
    try:
        method.load_state_dict(load_file(path))
    except Exception as error:  # a damaged file makes safetensors raise its own error, other weights a RuntimeError
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ZooError(f"the weights of {trial.label} do not fit ({path}: {first}): run it again") from error
    return method.to(device).eval().requires_grad_(False)


def task_for(cls: type[Method], card: Card, train: Split) -> Task:
    """The task that a method is built for, hidden from one that does not see bias labels."""
    whole = whole_task(card, train)
    return whole if cls.sees_bias else whole.hidden()


def whole_task(card: Card, train: Split) -> Task:
    """The task with all that bias labels tell."""
    return task_of(train, len(card.classes), len(card.biases), card.bias_parts, card.bias_map, True)


def _result(trial: Trial, fit: Fit, train: Split, evals: Mapping[str, Split], device: str, layout: Layout) -> Result:
    groups = groups_of(dataset_of(trial).card, train)
    return Result(
        schema_version=SCHEMA,
        identity=trial.identity,
        trial=trial,
        groups=groups,
        selectable=fit.selectable,
        metrics=measure(fit, evals, groups),
        seconds={**fit.seconds, "total": sum(fit.seconds.values())},
        cost=_cost(fit, device),
        environment={**environment(device), "layout": layout.name},
        notes=fit.notes,
    )


def measure(fit: Fit, evals: Mapping[str, Split], groups: Groups) -> dict[str, dict[str, float | None]]:
    """All metrics of the last epoch, by split, as fractions."""
    metrics = {}
    for name, split in evals.items():
        last = {key: values[-1].numpy() for key, values in fit.predictions[name].items()}
        metrics[name] = group_metrics(last["class"], split.labels, split.biases, groups, last["log_odds"])
    return metrics


def groups_of(card: Card, train: Split) -> Groups:
    """What the group metrics of a data set's splits must know."""
    counts = train.group_counts(len(card.classes), len(card.biases))
    return Groups(
        classes=card.classes,
        biases=card.biases,
        aligned=card.aligned,
        train=None if counts is None else tuple(tuple(row) for row in counts.tolist()),
    )


def _cost(fit: Fit, device: str) -> dict[str, float]:
    deployed = fit.method.deployed()
    net = sum(p.numel() for p in deployed.parameters()) if deployed is not None else 0
    total = sum(p.numel() for p in fit.method.parameters())
    return {
        "parameters": float(total),
        "extra_parameters": float(total - net),
        "steps": float(fit.steps),
        "forward_passes": fit.passes[0] / max(fit.steps, 1),
        "backward_passes": fit.passes[1] / max(fit.steps, 1),
        "peak_bytes": _peak(device),
    }


def _reset_peak(device: str) -> None:
    """Start to measure the peak anew: a worker's earlier trials do not count."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(torch.device(device))
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _peak(device: str) -> float:
    """Largest memory in bytes: of the device, or of this process."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(torch.device(device)))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def environment(device: str) -> dict[str, Any]:
    """What the numbers were made with and on."""
    return {
        "debias_zoo": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@lru_cache(maxsize=1)
def _commit() -> str:
    """The checkout's commit, with ``+`` where files differ from it; empty outside a checkout."""
    home = Path(__file__).resolve().parent.parent
    if not (home / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(home), "describe", "--always", "--dirty=+", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _arrays(fit: Fit, evals: Mapping[str, Split]) -> dict[str, Any]:
    """Predictions of every epoch, with labels and bias labels: any metric can be computed from them later."""
    arrays: dict[str, Any] = {}
    for name, split in evals.items():
        found: dict[str, Tensor] = fit.predictions[name]
        arrays[f"{name}.class"] = found["class"].numpy()
        arrays[f"{name}.log_odds"] = found["log_odds"].numpy()
        arrays[f"{name}.label"] = split.labels.astype(np.int16)
        if split.biases is not None:
            arrays[f"{name}.bias"] = split.biases.astype(np.int16)
    return arrays
