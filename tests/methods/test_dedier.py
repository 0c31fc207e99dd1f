from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from replicas import (
    CLASSES,
    SIDE,
    LabelView,
    assert_same_gradients,
    gradients,
    lnl_net,
    make_batch,
    make_method,
    make_task,
    readout_net,
    weights,
    weights_after,
)
from torch import Tensor, nn
from watching import same

from debias_zoo.backbones import BackboneFactory
from debias_zoo.errors import ZooError
from debias_zoo.method import Batch, Clock, Need, View
from debias_zoo.methods.dedier import DeDiER, GroupDRODeDiER
from debias_zoo.methods.erm import ERM
from debias_zoo.plans import plan_stages
from debias_zoo.testing.bench import Bench, differences

STUDENT, READING = Clock("main", 0, 5, 0, 10, 10), Clock("main", 1, 5, 2, 10, 10)


def make_student(cls: type[DeDiER] = DeDiER, backbone: str = "lnl_convnet", **config: Any) -> Any:
    """In float64, with a teacher of other weights."""
    teacher = make_method("erm", backbone=backbone, seed=5).eval().requires_grad_(False)
    factory = BackboneFactory(backbone, CLASSES, (3, SIDE, SIDE), "cifar", 0, teachers={"teacher": teacher})
    torch.manual_seed(0)
    return cls(factory, make_task(sees_bias=False), cls.Config(**config)).double().train()


class Images(LabelView):
    """Forty-five images in batches of nine."""

    def batches(self, size: int, every: int = 1) -> Iterator[Batch]:
        for k in range(5):
            yield replace(make_batch(9, seed=k), index=torch.arange(9 * k, 9 * k + 9))


IMAGES = Images(torch.arange(45) % CLASSES, None)


def softmax(z: Tensor) -> Tensor:
    return torch.exp(z) / torch.exp(z).sum()


def slow_loss(student: Tensor, teacher: Tensor, batch: Batch, weight: Tensor, kappa: float, t: float) -> Tensor:
    """mean_i w_i [kappa T^2 KL(softmax(t/T) || softmax(s/T)) + (1 - kappa) CE], one image at a time."""
    losses = []
    for own, theirs, label, i in zip(student, teacher, batch.label, batch.index, strict=True):
        p, q = softmax(theirs / t), softmax(own / t)
        divergence = t**2 * (p * (torch.log(p) - torch.log(q))).sum()
        losses.append(weight[i] * (kappa * divergence - (1 - kappa) * torch.log(softmax(own)[label])))
    return sum(losses) / len(losses)  # type: ignore[return-value]


def slow_weight(logits: Tensor, label: Tensor, alpha: float, beta: float) -> float:
    """Of one image: exp(beta (p_(1) - p_(2))^alpha) if it is misread."""
    p = sorted(softmax(logits).tolist(), reverse=True)
    return math.exp(beta * (p[0] - p[1]) ** alpha) if int(logits.argmax()) != int(label) else 1.0


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_the_student_is_taught_on_weights(kappa: float) -> None:
    method, batch = make_student(kappa=kappa, temperature=2.5), make_batch()
    method.weight.copy_(torch.linspace(1.0, 20.0, 45))
    w = weights(method)
    taught, _ = lnl_net(w, batch.image, training=False, prefix="teacher.net.")
    replica = slow_loss(lnl_net(w, batch.image)[0], taught.detach(), batch, method.weight, kappa, 2.5)
    loss = method("main", batch, STUDENT)["loss"]
    assert_same_gradients(method.net, loss, replica, {k.removeprefix("net."): v for k, v in w.items()}, ("model.",))


def test_the_readout_learns_the_label_from_a_constant_map() -> None:
    method, batch = make_student(tap=1), make_batch()
    w = weights(method)
    _, z = lnl_net(w, batch.image, training=False)
    replica = -sum(
        torch.log(softmax(logits)[y])
        for logits, y in zip(readout_net(w, z.detach(), "readout.", depth=1), batch.label, strict=True)
    ) / len(batch.label)
    loss = method("readout", batch, READING)["loss"]
    own = {k.removeprefix("readout."): v for k, v in w.items()}
    assert_same_gradients(method.readout, loss, replica, own, ("",))  # type: ignore[arg-type]


@pytest.mark.parametrize(("loss", "reached"), [("main", "net."), ("readout", "readout.")])
def test_gradient_flow(loss: str, reached: str) -> None:
    method = make_student().requires_grad_(True)
    found = gradients(method, method(loss, make_batch(), STUDENT)["loss"])
    assert {name for name, grad in found.items() if grad is not None} == {n for n in found if n.startswith(reached)}


@pytest.mark.parametrize(("epoch", "moved"), [(0, "net."), (1, "readout.")])
def test_each_kind_of_epoch_moves_one_part_with_its_statistics(epoch: int, moved: str) -> None:
    method = make_student()
    before = weights(method)
    method.updates = lambda now: DeDiER.updates(method, replace(now, epoch=epoch))
    after = weights_after(method, [make_batch()])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(moved)}


def test_the_teacher_stays_in_eval_mode_and_is_no_part_of_the_optimizers() -> None:
    method = make_student()
    assert method.training
    assert not any(module.training for module in method.teacher.modules())
    held = {id(p) for optim in method.optimizers().values() for p in optim.parameters}
    assert not held & {id(p) for p in [*method.teacher.parameters(), *method.untrained.parameters()]}


@pytest.mark.parametrize(
    ("refresh", "epochs", "readouts"),
    [(1, 1, []), (1, 2, []), (1, 3, [1]), (1, 4, [1]), (1, 5, [1, 3]), (2, 6, [2]), (2, 7, [2, 5]), (5, 5, [])],
)
def test_readouts_follow_every_refresh_epochs_but_are_never_last(
    refresh: int, epochs: int, readouts: list[int]
) -> None:
    method, none = make_student(backbone="mlp", refresh=refresh), make_student(backbone="mlp", beta=0.0)
    clocks = [Clock("main", epoch, epochs, epoch, epochs, epochs) for epoch in range(epochs)]
    found = [(now.epoch, update.loss) for now in clocks for update in method.updates(now)]
    assert found == [(epoch, "readout" if epoch in readouts else "main") for epoch in range(epochs)]
    assert {update.loss for now in clocks for update in none.updates(now)} == {"main"}


@pytest.mark.parametrize(
    ("alpha", "beta", "published"),
    [
        (0.05, 4.0, (35, 48, 53, 55)),
        (0.1, 3.5, (16, 26, 32, 33)),
        (0.2, 3.0, (6.6, 13.6, 18.9, 20.1)),
        (6.0, 3.0, (1.00, 1.05, 4.9, 20.1)),
    ],
)
def test_golden_weights(alpha: float, beta: float, published: tuple[float, ...]) -> None:
    method = make_student(backbone="mlp", alpha=alpha, beta=beta)
    margins = torch.tensor([0.1, 0.5, 0.9, 1.0 - 1e-12], dtype=torch.float64)
    logits = torch.stack([(1 + margins) / 2, (1 - margins) / 2], 1).log()
    misread, read = (method.weights(logits, torch.full((4,), label)) for label in (1, 0))
    for found, expected in zip(misread.tolist(), published, strict=True):
        assert found == pytest.approx(expected, abs=0.5 if beta > 3 else 0.05 if expected > 2 else 0.005)
    assert read.tolist() == [1.0] * 4
    assert method.weights(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1])).tolist() == [1.0]


def assert_weights_are_of_this_readout(method: Any, favoured: int) -> None:
    """After an epoch of a readout that favours a class, the weights are what this readout says, of all images."""
    with torch.no_grad():
        method.readout[-1].bias.copy_(2.0 * nn.functional.one_hot(torch.tensor(favoured), CLASSES))
    method.eval()
    w, expected = weights(method), []
    for batch in IMAGES.batches(9):
        _, z = lnl_net(w, batch.image, training=False)
        logits = readout_net(w, z, "readout.", depth=1, training=False)
        expected += [slow_weight(z, y, 0.5, 2.0) for z, y in zip(logits, batch.label, strict=True)]
    assert min(expected) == 1.0 < max(expected)
    with torch.no_grad():
        method.end_epoch(READING, IMAGES)
    torch.testing.assert_close(method.weight, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_all_weights_are_taken_anew_after_a_readout_and_it_starts_over() -> None:
    method = make_student(tap=1, alpha=0.5, beta=2.0)
    initial = weights(method.readout)
    method.end_epoch(STUDENT, IMAGES)
    assert method.weight.tolist() == [1.0] * 45
    for favoured in (0, 1, 2):
        assert_weights_are_of_this_readout(method, favoured)
        assert all(torch.equal(value, initial[name]) for name, value in method.readout.state_dict().items())


class Sticky(DeDiER):
    """The authors' code: only misread images are written to, and never set back to 1."""

    def end_epoch(self, clock: Clock, train: View) -> None:
        before = self.weight.clone()
        super().end_epoch(clock, train)
        self.weight.copy_(torch.where(self.weight > 1.0, self.weight, before))


def test_weights_that_stick_are_caught() -> None:
    method = make_student(Sticky, tap=1, alpha=0.5, beta=2.0)
    assert_weights_are_of_this_readout(method, 0)
    with pytest.raises(AssertionError, match="not close"):
        assert_weights_are_of_this_readout(method, 1)


def test_without_distillation_and_weights_it_is_erm_bit_for_bit() -> None:
    erm = Bench(ERM, None, "mlp").fit(epochs=3)
    own = Bench(DeDiER, {"kappa": 0.0, "beta": 0.0}, "mlp").fit(epochs=3)
    assert same(erm.fit.method.state_dict(), own.fit.method.state_dict(), "net.")
    assert not differences(erm.fit.predictions["val"], own.fit.predictions["val"])


def test_a_run_resumes_exactly_after_the_weights_are_taken() -> None:
    bench = Bench(DeDiER, {"alpha": 0.1}, "mlp")
    whole = bench.fit(epochs=6, keep=True)
    assert (whole.fit.method.get_buffer("weight") > 1.0).any()
    for epoch in (2, 3, 4):
        resumed = bench.fit(epochs=6, build_seed=7, start=whole.checkpoints[0, epoch, 1])
        assert differences(whole.outcome(), resumed.outcome()) == [], epoch


def test_a_tap_without_pixels_gets_a_linear_readout() -> None:
    layers = list(make_student(backbone="mlp").readout)
    assert [type(layer) for layer in layers] == [nn.Linear]
    assert make_student(backbone="resnet18").tap == 1  # after layer1
    with pytest.raises(ZooError, match=r"taps 0 \.\.\. 2; got 3"):
        make_student(backbone="mlp", tap=3)


def test_teachers() -> None:
    config = DeDiER.Config()
    assert DeDiER.needs(config) == {"teacher": Need("erm")}
    assert GroupDRODeDiER.needs(config) == {"teacher": Need("group_dro")}
    assert make_student(GroupDRODeDiER, "mlp").weight.shape == (45,)


def test_recipes_train_the_student_as_long_as_the_authors() -> None:
    for recipe, epochs in zip(GroupDRODeDiER.recipes, (300, 60), strict=True):
        method = make_student(GroupDRODeDiER, "mlp", **recipe.config)
        (plan,) = plan_stages(method, recipe.settings, recipe.stages)
        clocks = [Clock("main", epoch, plan.epochs, 0, 1, 1) for epoch in range(plan.epochs)]
        assert sum(method.updates(now)[0].loss == "main" for now in clocks) == epochs
