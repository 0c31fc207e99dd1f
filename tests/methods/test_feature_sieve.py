from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from replicas import (
    CLASSES,
    assert_same_gradients,
    clock,
    cross_entropy,
    gradients,
    lnl_net,
    make_batch,
    make_method,
    readout_net,
    weights,
    weights_after,
)
from torch import Tensor, nn
from watching import same

from debias_zoo.engine import Engine
from debias_zoo.method import Clock, Update
from debias_zoo.protocol import Settings

LOWER = ("net.model.stages.0", "net.model.stages.1")
FORGETTING, OTHER = clock(step=5), clock(step=6)
SETTINGS = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.1, batch_size=8, schedule="constant")


def make_sieve(**config: Any) -> Any:
    return make_method("feature_sieve", **{"tap": 1, **config})


def make_engine(method: Any, settings: Settings = SETTINGS) -> Engine:
    engine = Engine(method)
    engine.build_optimizers(settings)
    return engine


def uniform_loss(logits: Tensor) -> Tensor:
    """Mean over images of -1/C sum_c log p_c, one image at a time."""
    losses = []
    for z in logits:
        p = torch.exp(z) / torch.exp(z).sum()
        losses.append(-sum(torch.log(value) for value in p) / len(p))
    return sum(losses) / len(losses)  # type: ignore[return-value, arg-type]


def aux_logits(w: dict[str, Tensor], image: Tensor, detach: bool = False) -> Tensor:
    _, z = lnl_net(w, image)
    return readout_net(w, z.detach() if detach else z, "aux.", depth=2)


@pytest.mark.parametrize("now", [FORGETTING, OTHER], ids=["forgetting", "other"])
def test_identify_trains_the_auxiliary_net_on_a_constant_map(now: Clock) -> None:
    method, batch = make_sieve(aux_width=5), make_batch()
    w = weights(method)
    replica = cross_entropy(aux_logits(w, batch.image, detach=True), batch.label)
    assert_same_gradients(method, method("identify", batch, now)["loss"], replica, w, ("aux.",))


def test_forget_pulls_the_auxiliary_net_towards_uniform_through_the_lower_layers() -> None:
    method, batch = make_sieve(), make_batch()
    w = weights(method)
    method("identify", batch, FORGETTING)
    assert_same_gradients(
        method, method("forget", batch, FORGETTING)["loss"], uniform_loss(aux_logits(w, batch.image)), w, LOWER
    )


@pytest.mark.parametrize("now", [FORGETTING, OTHER], ids=["forgetting", "other"])
def test_main_is_cross_entropy(now: Clock) -> None:
    method, batch = make_sieve(), make_batch()
    w = weights(method)
    method("identify", batch, now)
    replica = cross_entropy(lnl_net(w, batch.image)[0], batch.label)
    assert_same_gradients(method, method("main", batch, now)["loss"], replica, w, ("net.",))


@pytest.mark.parametrize(
    ("loss", "reached"), [("identify", ("aux.",)), ("forget", (*LOWER, "aux.")), ("main", ("net.",))]
)
def test_gradient_flow(loss: str, reached: tuple[str, ...]) -> None:
    method, batch = make_sieve(), make_batch()
    if loss != "identify":
        method("identify", batch, FORGETTING)
    found = gradients(method, method(loss, batch, FORGETTING)["loss"])
    assert {name for name, grad in found.items() if grad is not None} == {n for n in found if n.startswith(reached)}


def test_each_update_moves_its_own_and_sees_what_the_one_before_moved() -> None:
    method, batch = make_sieve(), make_batch()
    parameters = {name for name, _ in method.named_parameters()}
    engine = make_engine(method)
    losses = {}
    for update, moves in zip(method.updates(FORGETTING), (("aux.",), LOWER, ("net.",)), strict=True):
        w = weights(method)
        found = engine.backward(update, batch, FORGETTING)["loss"].detach()
        logits, _ = lnl_net(w, batch.image)
        losses = {
            "identify": cross_entropy(aux_logits(w, batch.image), batch.label),
            "forget": uniform_loss(aux_logits(w, batch.image)),
            "main": cross_entropy(logits, batch.label),
        }
        torch.testing.assert_close(found, losses[update.loss].detach(), rtol=1e-6, atol=0)
        engine.apply(update)
        moved = {name for name in parameters if not torch.equal(method.state_dict()[name], w[name])}
        assert moved == {name for name in parameters if name.startswith(moves)}


@pytest.mark.parametrize(("now", "lower", "upper"), [(FORGETTING, 2, 1), (OTHER, 1, 1)], ids=["forgetting", "other"])
def test_no_layer_runs_more_often_than_its_weights_move(now: Clock, lower: int, upper: int) -> None:
    method = make_sieve()
    engine = make_engine(method)
    runs = {"0": 0, "3": 0}
    for name in runs:
        stage = method.net.model.stages[int(name)]
        stage.register_forward_hook(lambda *_, name=name: runs.update({name: runs[name] + 1}))
    engine.step(make_batch(), now)
    assert runs == {"0": lower, "3": upper}


@pytest.mark.parametrize(("every", "forgetting"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (5, [0, 5]), (0, [])])
def test_every_so_many_steps_it_forgets(every: int, forgetting: list[int]) -> None:
    method = make_sieve(forget_every=every)
    for step in range(7):
        names = [update.loss for update in method.updates(clock(step=step))]
        usual = ["identify", "main"] if every else ["main"]
        assert names == (["identify", "forget", "main"] if step in forgetting else usual)


def test_forgetting_is_plain_sgd_at_a_rate_of_its_own_whatever_the_protocol() -> None:
    method = make_sieve(forget_lr_scale=4.0, aux_lr_scale=3.0)
    engine = make_engine(method, Settings(optimizer="adam", lr=0.01).over(SETTINGS))
    forget, aux, main = (engine.optimizers[name] for name in ("forget", "aux", "main"))
    assert isinstance(forget, torch.optim.SGD)
    assert isinstance(aux, torch.optim.Adam)
    assert isinstance(main, torch.optim.Adam)
    (group,) = forget.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.0, 0.0)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in (forget, aux, main)]
    assert rates == pytest.approx([0.04, 0.03, 0.01])
    held = {id(p) for p in group["params"]}
    assert held == {id(p) for name, p in method.named_parameters() if name.startswith(LOWER)}


def forget_loss(method: Any) -> Tensor:
    batch = make_batch()
    method("identify", batch, FORGETTING)
    loss: Tensor = method("forget", batch, FORGETTING)["loss"]
    return loss


def test_forgetting_lowers_its_loss_and_has_nothing_to_do_at_log_c() -> None:
    method = make_sieve()
    method.updates = lambda now: [Update("identify", ("aux",))]
    engine = make_engine(method, Settings(lr=0.02).over(SETTINGS))
    for _ in range(10):
        engine.step(make_batch(), FORGETTING)
    first = forget_loss(method)
    with torch.no_grad():
        for name, grad in gradients(method, first).items():
            if name.startswith(LOWER) and grad is not None:
                method.get_parameter(name).sub_(0.01 * grad)
    assert math.log(CLASSES) < forget_loss(method).detach() < first.detach()
    nn.init.zeros_(method.aux[-1].weight)
    nn.init.zeros_(method.aux[-1].bias)
    least = forget_loss(method)
    assert float(least.detach()) == pytest.approx(math.log(CLASSES))
    assert not any(grad.any() for name, grad in gradients(method, least).items() if name.startswith(LOWER))  # type: ignore[union-attr]


def test_without_forgetting_it_is_erm_bit_for_bit() -> None:
    batches = [make_batch(seed=step) for step in range(4)]
    erm, own = (
        weights_after(method, batches) for method in (make_method("erm"), make_method("feature_sieve", forget_every=0))
    )
    assert same(erm, own, "net.")


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_of_the_network_can_be_frozen(frozen: bool) -> None:
    method = make_sieve(backbone="simple_convnet", freeze_norm=frozen)
    before = weights(method)
    after = weights_after(method, [make_batch()])
    moved = {name for name in before if name.endswith("running_mean") and not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in moved} == ({"aux"} if frozen else {"aux", "net"})
    assert not torch.equal(before["net.model.stages.0.1.weight"], after["net.model.stages.0.1.weight"])
    assert not any(module.training for module in method.eval().modules())


def test_the_auxiliary_net_fits_every_tap() -> None:
    pooled = make_sieve(aux_depth=0)
    assert [type(layer) for layer in pooled.aux] == [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    method = make_method("feature_sieve", backbone="mlp", aux_depth=2, aux_width=7)
    widths = [(layer.in_features, layer.out_features) for layer in method.aux if isinstance(layer, nn.Linear)]
    assert widths == [(100, 7), (7, 7), (7, CLASSES)]
    assert [make_sieve(tap=tap).aux[0].layers[0].out_channels for tap in (1, 2)] == [32, 64]
    assert make_method("feature_sieve").tap == 0
    assert make_method("feature_sieve", backbone="resnet18").tap == 1  # after layer1
