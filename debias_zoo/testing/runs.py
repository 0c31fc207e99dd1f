"""Checks of whole runs: supervision, resuming, repeating, small batches, single groups, precision, learning."""

from __future__ import annotations

import io
import random
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine import Engine, quiet
from ..method import Batch, Clock, Method, Update
from ..plans import StagePlan, shares_first
from ..protocol import Settings
from .bench import SETTINGS, At, Bench, CheckFailure, differences, flatten, from_bytes, listing
from .history import explain

SHORT = 2
"""Epochs of a stage where a check needs several runs."""

RESUMED_EPOCHS = 3
LEARNING = Settings(optimizer="adam", lr=3e-3).over(SETTINGS)
LEARNING_EPOCHS = (25, 50)
"""The second for methods that spend half of their epochs on another network."""


def check_supervision(bench: Bench) -> None:
    """A method that says it sees no bias labels trains the same without them; one that sees them reads them.

    Failing means that the supervision printed in every table is wrong. Usual causes: ``sees_bias`` left at False or
    True by copying, a bias-aware loss that was computed and then thrown away.
    """
    if bench.cls.sees_bias:
        mixed = np.random.default_rng(0).permutation(len(bench.train))
        columns = {name: getattr(bench.train, name)[mixed] for name in ("biases", "bias_map")}
        other = replace(bench.train, **columns)
    else:
        other = replace(bench.train, biases=None, bias_map=None)
    differ = differences(bench.fit(epochs=SHORT).outcome(), bench.fit(other, epochs=SHORT).outcome())
    if bench.cls.sees_bias and not differ:
        raise CheckFailure("sees_bias is True, but with other bias labels every number stays the same")
    if differ and not bench.cls.sees_bias:
        raise CheckFailure(f"sees_bias is False, but without bias labels these differ: {listing(differ)}")


def check_resumes(bench: Bench) -> None:
    """A run continued from its checkpoint, in an object of another seed, ends bit for bit as if never interrupted.

    At the start of every stage and in the middle of an epoch. Failing means that a killed run gives other numbers.
    Usual causes: state in a plain attribute instead of a buffer, a buffer whose shape changes while training.
    """
    whole = bench.fit(epochs=RESUMED_EPOCHS, keep=_starts_and_middles)  # all of a large network would fill the memory
    for at, saved in whole.checkpoints.items():
        fresh = bench.build(seed=1)
        try:
            fresh.load_state_dict(from_bytes(saved)["engine"]["method"])
        except Exception as error:
            raise CheckFailure(f"a checkpoint cannot be loaded into a fresh object: {explain(error)}") from error
        resumed = bench.fit(epochs=RESUMED_EPOCHS, build_seed=1, start=saved)
        if differ := differences(whole.outcome(), resumed.outcome()):
            where = "stage {}, epoch {}, step {}".format(*at)
            loose = _loose_tensors(whole.fit.method)
            hint = f"{listing(loose)}: make it a buffer" if loose else "is all state in buffers?"
            raise CheckFailure(f"resumed at {where}, the end differs in {listing(differ)}; {hint}")


def check_shared_stage(bench: Bench) -> None:
    """A first stage that is ``shared_as`` something ends with the same bits under other values of all settings.

    Failing means that a trial goes on from what it would never have come to itself. Usual cause: a weight or a rate of
    the configuration that counts in the first stage too; say ``shared_as`` of no such stage.
    """
    stages = bench.build().stages()
    if not shares_first([StagePlan(stage, SHORT, SETTINGS) for stage in stages]):
        return
    other = bench.otherwise()
    ends = [_end_of_first(of) for of in (bench, other)]
    if differ := differences(*ends):
        changed = [name for name, value in bench.config if getattr(other.config, name) != value]
        what = f"stage {stages[0].name!r} ends with other {listing(differ)}"
        raise CheckFailure(f"with another {listing(changed)}, {what}")


def _end_of_first(bench: Bench) -> dict[str, Any]:
    kept = bench.fit(epochs=SHORT, keep=lambda at: at == (0, SHORT, 0)).checkpoints
    state = from_bytes(kept[0, SHORT, 0])
    return flatten({"method": state["engine"]["method"], "predictions": state["predictions"]})


def check_silent(bench: Bench) -> None:
    """Training prints nothing and writes no file: a method is its mathematics, and curves are logged by the trainer.

    Failing means a log that nobody can read, and files that no folder of results holds. Usual cause: a line left from
    looking for a fault; return what is to be seen beside the loss instead.
    """
    said, written = io.StringIO(), list[str]()

    def watched(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if set(mode) & set("wax+"):
            written.append(str(file))
        return open_really(file, mode, *given, **named)

    open_really = io.open
    with redirect_stdout(said), redirect_stderr(said), patch("builtins.open", watched), patch("io.open", watched):
        bench.fit(epochs=SHORT)
    if text := said.getvalue().strip():
        raise CheckFailure(f"training printed: {text.splitlines()[0][:80]}")
    if written:
        raise CheckFailure(f"training wrote {listing(sorted(set(written)))}")


def _starts_and_middles(at: At) -> bool:
    """Before each stage's first step, and within an epoch, half way through the stage."""
    _, epoch, step = at
    return (epoch, step) == (0, 0) or (epoch, step) == (RESUMED_EPOCHS // 2, 1)


def _loose_tensors(method: Method) -> list[str]:
    """Tensors in plain attributes, which no checkpoint holds."""
    found = []
    for path, module in method.named_modules():
        names = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
        found += [f"{path}.{name}" if path else name for name in names]
    return found


class _DrawEngine(Engine):
    """Says which updates draw from a global random generator."""

    def __init__(self, method: Method) -> None:
        super().__init__(method)
        for module in method.modules():
            for chance in ("p", "drop_prob"):
                if "Drop" in type(module).__name__ and hasattr(module, chance):
                    setattr(module, chance, 0.0)  # these may draw: the trainer seeds them

    def backward(self, update: Update, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        before = global_randomness()
        numbers = super().backward(update, batch, clock)
        if changed := changed_randomness(before):
            raise CheckFailure(f"update {update.loss!r} draws from {changed}'s global generator; use batch.generator")
        return numbers


def check_reproducible(bench: Bench) -> None:
    """The same seed gives the same run, whatever happened before in the process, and global generators stay untouched.

    Failing means that a result cannot be repeated, or that methods influence each other. Usual cause: ``torch.rand``,
    ``np.random`` or ``random`` where ``batch.generator`` was meant.
    """
    outcomes = []
    for seed in (1, 2):
        seed_globally(seed)
        before = global_randomness()
        outcomes.append(bench.fit(epochs=SHORT).outcome())
        if changed := changed_randomness(before):
            raise CheckFailure(f"building or training moved {changed}'s global generator")
    if differ := differences(*outcomes):
        raise CheckFailure(f"two runs of one seed differ in {listing(differ)}")
    bench.fit(epochs=1, engine=_DrawEngine)


def global_randomness() -> dict[str, object]:
    """The state of every global random generator."""
    return {"torch": torch.random.get_rng_state(), "numpy": np.random.get_state(), "random": random.getstate()}


def seed_globally(seed: int) -> None:
    """Seed every global random generator."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def changed_randomness(before: dict[str, object]) -> str:
    """The global random generators that have moved since ``before``, in words."""
    now = global_randomness()
    return " and ".join(name for name in before if repr(_plain(before[name])) != repr(_plain(now[name])))


def _plain(state: object) -> object:
    if isinstance(state, Tensor):
        return state.numpy().tobytes()
    if isinstance(state, tuple):
        return [part.tobytes() if isinstance(part, np.ndarray) else part for part in state]
    return state


def check_smallest_batch(bench: Bench) -> None:
    """Trains on exactly ``min_batch`` images and predicts on one; a smaller last batch is dropped, and reported.

    Failing means a crash or NaN at the end of an epoch of some data set. Usual causes: batch norm or an estimator that
    needs more images than ``min_batch`` says, a ``squeeze`` without a dimension.
    """
    least, usual = bench.cls.min_batch, bench.batch_size
    train = replace(bench.train, bias_map=None)
    for size, count in ((least, 4 * least), (usual, 2 * usual + least)):
        bench.fit(train.head(count), epochs=1, batch_size=size)
    ran = bench.fit(train.head(2 * usual + least - 1), epochs=1)
    whole = ran.fit.method.sampling() is None
    if least > 1 and whole and not any("dropped" in note for note in ran.fit.notes):
        raise CheckFailure(f"a last batch of {least - 1} images was dropped, and no note says so")
    with quiet(ran.fit.method):
        ran.fit.method.predict(bench.view().image(slice(0, 1)))


def check_one_group(bench: Bench) -> None:
    """Survives batches of a single group: loss and weights stay finite, and so does the next ordinary batch.

    Failing means that NaN comes up by chance, late. Usual causes: a mean over a group or a pair that the batch does
    not hold (0 / 0), a variance of equal labels.
    """
    for moment in bench.moments:
        engine = moment.engine()
        for group, rows in bench.groups():
            wanted = rows.repeat(-(-bench.batch_size // len(rows)))[: bench.batch_size]
            _step(engine, bench.batch(wanted), moment.clock, f"{moment}, batch of group {group} alone")
        _step(engine, bench.batch(), moment.clock, f"{moment}, after batches of one group")


def _step(engine: Engine, batch: Batch, clock: Clock, where: str) -> dict[str, Tensor]:
    logged = engine.step(batch, clock)
    if bad := [name for name, value in logged.items() if not bool(torch.isfinite(value))]:
        raise CheckFailure(f"{where}: {listing(bad)} is not finite")
    state = engine.method.state_dict()
    if bad := [n for n, value in state.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]:
        raise CheckFailure(f"{where}: {listing(bad)} is not finite after the step")
    return logged


def check_bf16(bench: Bench) -> None:
    """A step under bfloat16 autocast stays finite, with a loss in float32 near that of full precision.

    Failing means NaN or noise on processors that have bfloat16. Usual causes: a loss taken on logits without
    ``.float()``, a kernel or a projection computed in bfloat16, tensors of two dtypes in one product.
    """
    for moment in bench.moments:
        plain, half = moment.engine(), moment.engine(precision="bf16")
        batches = bench.batch(), bench.batch()
        for update in plain.method.updates(moment.clock):
            losses = []
            for engine, batch in zip((plain, half), batches, strict=True):
                torch.manual_seed(0)  # the same dropout in both
                losses.append(engine.backward(update, batch, moment.clock)["loss"].detach())
                engine.method.zero_grad()
            where = f"update {update.loss!r}, {moment}"
            if losses[1].dtype != torch.float32:
                raise CheckFailure(f"{where}: the loss is {losses[1].dtype}; take it on logits.float()")
            if not abs(float(losses[1] - losses[0])) <= 0.05 + 0.05 * abs(float(losses[0])):
                raise CheckFailure(f"{where}: the loss is {float(losses[1])}, in full precision {float(losses[0])}")
        _step(half, bench.batch(), moment.clock, f"{moment}, in bf16")


def check_learns(bench: Bench) -> None:
    """The predicting network's loss on forty images, whose bias says nothing, halves by training on them.

    Failing means that the method does not learn the label even where nothing stands against it. Usual causes: a sign,
    a projection that removes everything, a loss that fights itself, gradients that do not reach the network.
    """
    before = _loss(bench, bench.build(split=bench.even))
    after: list[float] = []
    for epochs in LEARNING_EPOCHS:
        ran = bench.fit(bench.even, epochs=epochs, settings=LEARNING, batch_size=20)
        after.append(_loss(bench, ran.fit.method))
        if after[-1] < 0.5 * before:
            return
    found = "".join(f", {loss:.3f} after {epochs} epochs" for loss, epochs in zip(after, LEARNING_EPOCHS, strict=True))
    raise CheckFailure(f"cross-entropy of the predictions on forty images: {before:.3f} before{found}")


def _loss(bench: Bench, method: Method) -> float:
    view = bench.view(bench.even)
    with quiet(method):
        return float(F.cross_entropy(method.predict(view.image(slice(None))).float(), view.labels))
