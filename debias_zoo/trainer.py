"""The one training loop: stages, sampling, evaluation, checkpoints and the stop at NaN.

Everything random in a trial is seeded from (seed, stage, epoch, step), so a resumed run needs no random state and
continues bit for bit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .augment import augmented
from .course import Course, Step, alone
from .dataset import Split
from .engine import Augmentation, Engine, predict_split, quiet
from .errors import DivergedError, ZooError
from .method import Clock, Method, Repeats, Stage, Task, Weights
from .plans import StagePlan, shares_first
from .protocol import Augment
from .seeds import seed_for


@dataclass
class Progress:
    """Where a run stands: everything besides weights that a checkpoint must hold.

    ``steps`` counts all steps that were made, ``forwards`` and ``backwards`` the backbones' passes in them; ``done``
    those planned by the size of the split, for the progress bar; ``sums`` are the logged numbers added up over the
    epoch so far, float64 scalars on the device, added in the same order whether or not the run was interrupted.
    """

    stage: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    forwards: int = 0
    backwards: int = 0
    done: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    curves: list[dict[str, Any]] = field(default_factory=list)
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0


@dataclass(frozen=True)
class Fit:
    """What training leaves behind.

    Attributes:
        predictions: for each evaluated split, ``class`` uint8/int16 (E, N) and ``log_odds`` float16 (E, N) of every
            evaluated epoch E.
        curves: one dict an epoch. steps: that were made. passes: of a backbone, forward and backward, in all steps.
        selectable: how many of the last epochs a selection rule may choose from.
        notes: things a reader of the numbers should know.
    """

    method: Method
    predictions: dict[str, dict[str, Tensor]]
    curves: list[dict[str, Any]]
    seconds: dict[str, float]
    steps: int
    passes: tuple[int, int]
    selectable: int
    notes: list[str]


class UnfitCheckpointError(ZooError):
    """A checkpoint that was written by another version of the method, or on another device."""


class Trainer:
    """Trains one method on one training split.

    Args:
        engine: the method, on its device. plans: its stages.
        train: the training split; the firewall is applied here by ``method.sees_bias``.
        evals: splits predicted after every epoch. seed: of the trial.
        save: called with a checkpoint's state; None: never. report: called about once a second.
    """

    checkpoint_seconds = float(os.environ.get("DEBIAS_ZOO_CHECKPOINT_SECONDS", "60"))
    epoch_seconds = 1.0
    """A checkpoint is due after so many seconds within an epoch, and at the end of an epoch after so many."""
    report_seconds = 1.0

    def __init__(
        self,
        engine: Engine,
        plans: list[StagePlan],
        train: Split,
        evals: Mapping[str, Split],
        seed: int,
        save: Callable[[dict[str, Any]], None] | None = None,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.engine, self.method, self.plans, self.seed = engine, engine.method, plans, seed
        shown = train if self.method.reads_bias_map else replace(train, bias_map=None)
        self.train = engine.split(shown, self.method.sees_bias)
        self.evals = {name: engine.split(split, False) for name, split in evals.items()}
        self._val = evals.get(validation_split(evals) if self.method.needs_val_bias else "val")
        self.save, self.report = save, report
        self.share: Callable[[dict[str, Any]], None] | None = None
        """Called with the state at the end of the first stage, if that is one to be shared."""
        self.progress = Progress()
        self._saved = time.monotonic()
        self.predictions: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in evals}
        self.notes: list[str] = []
        self.initial = {k: v.detach().clone() for k, v in self.method.state_dict().items() if self._is_reset(k)}
        self._steps_of = [self._steps(plan) for plan in plans]
        self.total = sum(epochs * steps for epochs, steps in self._steps_of)

    def _is_reset(self, key: str) -> bool:
        return any(key.startswith(f"{name}.") for plan in self.plans for name in plan.stage.reset)

    def _steps(self, plan: StagePlan) -> tuple[int, int]:
        """Epochs, and steps an epoch, by the training split's size; samplers may change the latter in their stage."""
        size = plan.settings.batch_size or 1
        return plan.epochs, self._step_count(len(self.train), size)

    def _step_count(self, images: int, size: int) -> int:
        full, rest = divmod(images, size)
        count = full + (rest >= self.method.min_batch)
        if count == 0:
            raise ZooError(
                f"{self.method.name} needs batches of at least {self.method.min_batch}; an epoch has {images}"
            )
        return count

    def fit(self, state: Mapping[str, Any] | None = None) -> Fit:
        """Train from the start, or from a checkpoint's ``state``."""
        return alone(self.course(state))

    def course(self, state: Mapping[str, Any] | None = None) -> Course[Fit]:
        """The same, for whoever makes the steps."""
        first = self._stage_of(state) if state is not None else 0
        for k in range(first, len(self.plans)):
            yield from self._run_stage(k, state if k == first else None)
        return self._finish()

    def _run_stage(self, k: int, state: Mapping[str, Any] | None) -> Course[None]:
        plan = self.plans[k]
        self.engine.build_optimizers(plan.settings, keep_state=not plan.stage.fresh_optimizers)
        if state is not None:
            self._load(state)
        else:
            self._reset(plan.stage)
            self._seed("before stage", plan.stage.name)
            with quiet(self.method), self.engine.autocast():
                self.method.start_stage(plan.stage, self.train)
            self.progress.stage, self.progress.epoch, self.progress.step = k, 0, 0
            self._save()
        while self.progress.epoch < plan.epochs:
            yield from self._run_epoch(plan)
        if k == 0 and self.share is not None and shares_first(self.plans):
            self.share(self.state_dict())

    def _reset(self, stage: Stage) -> None:
        own = self.method.state_dict()
        for name in stage.reset:
            hit = [key for key in self.initial if key.startswith(f"{name}.")]
            if not hit:
                raise ZooError(f"{self.method.name}: stage {stage.name!r} resets {name!r}, which holds no weights")
            with torch.no_grad():
                for key in hit:
                    own[key].copy_(self.initial[key])

    def _order(self, stage: str, epoch: int) -> Tensor:
        """The rows of an epoch, in order, by the method's sampling. int64 on the CPU."""
        random = torch.Generator().manual_seed(seed_for(self.seed, "order", stage, epoch))
        how = self.method.sampling()
        n = len(self.train)
        if how is None:
            return torch.randperm(n, generator=random)
        if isinstance(how, Weights):
            return torch.multinomial(how.w.double().cpu(), how.draws or n, replacement=True, generator=random)
        if isinstance(how, Repeats):
            rows = torch.arange(n).repeat_interleave(how.counts.cpu())
            return rows[torch.randperm(len(rows), generator=random)]
        raise ZooError(f"{self.method.name}.sampling() must give None, Weights or Repeats; got {type(how).__name__}")

    def _run_epoch(self, plan: StagePlan) -> Course[None]:
        at, stage = self.progress, plan.stage.name
        size = plan.settings.batch_size or 1
        order = self._order(stage, at.epoch).to(self.train.device)
        steps = self._step_count(len(order), size)
        if dropped := len(order) - min(steps * size, len(order)):
            self._note(f"stage {stage!r}: the last {dropped} images of an epoch were dropped (min_batch)")
        clock = Clock(stage, at.epoch, plan.epochs, 0, plan.epochs * steps, self.total)
        generator = torch.Generator(self.train.device)
        first_bad = torch.full((), -1, device=self.train.device)
        reported = saved = started = time.monotonic()
        self.method.train()
        chunks = [order[step * size : (step + 1) * size] for step in range(at.step, steps)]
        augment = self._augmentation(plan, stage, at.epoch)
        for step, (rows, pixels) in enumerate(zip(chunks, self.train.pixels(chunks), strict=True), at.step):
            seed = seed_for(self.seed, "step", stage, at.epoch, step)
            batch = self.train.batch(rows, generator.manual_seed(seed), pixels, augment)
            here, moment = (at.stage, at.epoch, step), replace(clock, step=at.epoch * steps + step)
            at.train_seconds += time.monotonic() - started
            made = yield Step(self.engine, batch, moment, seed, here, self._note)
            started = time.monotonic()
            at.train_seconds += made.seconds
            first_bad = self._add_up(made.logged, first_bad, step)
            at.step, at.steps = step + 1, at.steps + 1
            forwards, backwards = self.engine.passes
            at.forwards, at.backwards = at.forwards + forwards, at.backwards + backwards
            now, last = started, step + 1 == steps
            if last or now - reported >= self.report_seconds:
                reported = now
                self._stop_if_bad(first_bad, plan)
                self._tell(plan, steps)
            if not last and self.save is not None and now - saved >= self.checkpoint_seconds:
                saved = now
                self._stop_if_bad(first_bad, plan)  # a checkpoint with NaN in it could not be told from a good one
                self._save(always=True)
        at.train_seconds += time.monotonic() - started
        self._end_epoch(plan, replace(clock, step=(at.epoch + 1) * steps - 1), steps)

    def _augmentation(self, plan: StagePlan, stage: str, epoch: int) -> Augmentation | None:
        how = plan.settings.augment
        if how is None or how == Augment():
            return None
        key = seed_for(self.seed, "augment", stage, epoch)
        return lambda image, bias_map, rows: augmented(how, image, bias_map, rows, key)

    def _add_up(self, logged: Mapping[str, Tensor], first_bad: Tensor, step: int) -> Tensor:
        """Add a step's numbers to the sums; the first step of this process with one that is not finite, or -1."""
        sums = self.progress.sums
        for name, value in logged.items():
            wide = value.to(torch.float32 if value.device.type == "mps" else torch.float64)
            sums[name] = sums[name] + wide if name in sums else wide
            bad = torch.logical_not(torch.isfinite(wide)) & (first_bad < 0)
            first_bad = torch.where(bad, step, first_bad)
        return first_bad

    def _end_epoch(self, plan: StagePlan, clock: Clock, steps: int) -> None:
        at, started = self.progress, time.monotonic()
        self._seed("after epoch", plan.stage.name, at.epoch)
        with quiet(self.method), self.engine.autocast():
            self.method.end_epoch(clock, self.train)
        if at.stage == len(self.plans) - 1 and at.epoch == plan.epochs - 1:
            with quiet(self.method), self.engine.autocast():
                self._call_finish()
        row: dict[str, Any] = {"stage": plan.stage.name, "epoch": at.epoch}
        row.update({name: float(value) / steps for name, value in at.sums.items()})
        for name, split in self.evals.items():
            found = predict_split(self.engine, split)
            if bool(found[1].isnan().any()):
                raise self._diverged("a prediction became NaN", plan, f"after epoch {at.epoch}")
            self.predictions[name].append(found)
            row[f"{name}.accuracy"] = float((found[0] == split.labels.cpu()).double().mean())
        at.curves.append(row)
        at.epoch, at.step, at.sums, at.done = at.epoch + 1, 0, {}, at.done + self._steps_of[at.stage][1]
        at.evaluate_seconds += time.monotonic() - started
        self._save()

    def _seed(self, *moment: str | int) -> None:
        """Seed what a hook may draw from, by the trial's seed and the moment."""
        self.train.generator.manual_seed(seed_for(self.seed, "hook", *moment))

    def _call_finish(self) -> None:
        """``finish`` with the validation split.

        Methods that declare to need its bias labels see them, and get the unbiased validation split where there is one.
        """
        val = self._val
        if val is None and self.method.needs_val_bias:
            raise ZooError(f"{self.method.name} needs a validation split with bias labels")
        view = self.train if val is None else self.engine.split(val, self.method.needs_val_bias)
        view.generator.manual_seed(seed_for(self.seed, "hook", "finish"))
        self.method.finish(self.train, view)

    def _stop_if_bad(self, first_bad: Tensor, plan: StagePlan) -> None:
        step = int(first_bad)
        if step >= 0:
            raise self._diverged("a loss became NaN or infinite", plan, f"epoch {self.progress.epoch}, step {step}")

    def _diverged(self, what: str, plan: StagePlan, when: str) -> DivergedError:
        name, stage = self.method.name, plan.stage.name
        return DivergedError(
            f"{name}: {what} in stage {stage!r}, {when}. Lower the learning rate (--set {name}.{stage}.lr=...) or clip "
            f"gradients (--set {name}.train.clip=1)."
        )

    def _tell(self, plan: StagePlan, steps: int) -> None:
        if self.report is None:
            return
        at = self.progress
        seen = at.curves[-1] if at.curves else {}
        self.report(
            {
                "stage": plan.stage.name,
                "epoch": at.epoch,
                "epochs": plan.epochs,
                "done": at.done + at.step * self._steps_of[at.stage][1] / steps,  # samplers change an epoch's length
                "total": self.total,
                "loss": {name: float(value) / at.step for name, value in at.sums.items() if "." not in name},
                "accuracy": {n.split(".")[0]: v for n, v in seen.items() if n.endswith(".accuracy")},
            }
        )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _finish(self) -> Fit:
        at = self.progress
        predictions = {name: _stack(rows) for name, rows in self.predictions.items()}
        seconds = {"train": at.train_seconds, "evaluate": at.evaluate_seconds}
        passes = (at.forwards, at.backwards)
        return Fit(self.method, predictions, at.curves, seconds, at.steps, passes, self._selectable(), self.notes)

    def _selectable(self) -> int:
        changes = type(self.method).finish is not Method.finish
        return 1 if changes else self.plans[-1].epochs

    def _save(self, always: bool = False) -> None:
        """Write a checkpoint, unless another was written just now: what is lost by that is trained again."""
        now = time.monotonic()
        if self.save is None or not (always or now - self._saved >= min(self.epoch_seconds, self.checkpoint_seconds)):
            return
        self._saved = now
        self.save(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that a run goes on from, and whoever shares its first stage."""
        return {
            "device": self.engine.device.type,
            "engine": self.engine.state_dict(),
            "progress": dict(vars(self.progress)),
            "predictions": {name: _stack(rows) for name, rows in self.predictions.items() if rows},
            "initial": self.initial,
            "notes": list(self.notes),
        }

    def _stage_of(self, state: Mapping[str, Any]) -> int:
        try:
            stage = int(state["progress"]["stage"])
        except (KeyError, TypeError, ValueError) as error:
            raise UnfitCheckpointError(f"the checkpoint does not fit: {type(error).__name__}: {error}") from error
        if not 0 <= stage < len(self.plans):
            raise UnfitCheckpointError(f"the checkpoint does not fit: it is in stage {stage} of {len(self.plans)}")
        return stage

    def _load(self, state: Mapping[str, Any]) -> None:
        try:
            if state["device"] != self.engine.device.type:
                raise ValueError(f"written on {state['device']}")
            self.engine.load_state_dict(state["engine"])
            self.progress = Progress(**state["progress"])
            self.initial = dict(state["initial"])
            self.notes = list(state["notes"])
            for name, found in state["predictions"].items():
                self.predictions[name] = list(zip(found["class"].long().cpu(), found["log_odds"].cpu(), strict=True))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UnfitCheckpointError(f"the checkpoint does not fit: {error}") from error


def _stack(rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Predictions of all epochs: ``class`` uint8 (int16 for more than 256 classes) and ``log_odds`` float16, (E, N)."""
    classes = torch.stack([found for found, _ in rows])
    small = torch.uint8 if int(classes.max()) < 256 else torch.int16
    return {"class": classes.to(small), "log_odds": torch.stack([odds for _, odds in rows])}


def validation_split(names: Container[str]) -> str:
    """The split that ``finish`` is handed with its bias labels: the unbiased validation split, if there is one."""
    return "val_unbiased" if "val_unbiased" in names else "val"


def task_of(train: Split, classes: int, biases: int, parts: tuple[int, ...], bias_map: Any, see_bias: bool) -> Task:
    """The Task of a training split, hidden for methods that do not see bias labels."""
    counts = train.group_counts(classes, biases)
    height, width, channels = train.images.shape[1:]
    task = Task(
        classes,
        biases,
        len(train),
        (channels, height, width),
        parts or (biases,),
        bias_map if train.bias_map is not None else None,
        tuple(tuple(int(n) for n in row) for row in counts) if counts is not None else None,
    )
    return task if see_bias else task.hidden()
